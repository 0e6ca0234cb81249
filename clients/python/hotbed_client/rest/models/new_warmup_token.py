from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="NewWarmupToken")


@_attrs_define
class NewWarmupToken:
    client: str
    """ Whose warm-ups it is for: what the page will send as `client`. """
    repo: None | str | Unset = UNSET
    """ Of which repo; of any when not given. """
    seconds: int | None | Unset = UNSET
    """ How long it is good, at most a day; an hour when not given. """

    def to_dict(self) -> dict[str, Any]:
        client = self.client

        repo: None | str | Unset
        if isinstance(self.repo, Unset):
            repo = UNSET
        else:
            repo = self.repo

        seconds: int | None | Unset
        if isinstance(self.seconds, Unset):
            seconds = UNSET
        else:
            seconds = self.seconds

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "client": client,
            }
        )
        if repo is not UNSET:
            field_dict["repo"] = repo
        if seconds is not UNSET:
            field_dict["seconds"] = seconds

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        client = d.pop("client")

        def _parse_repo(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        repo = _parse_repo(d.pop("repo", UNSET))

        def _parse_seconds(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        seconds = _parse_seconds(d.pop("seconds", UNSET))

        new_warmup_token = cls(
            client=client,
            repo=repo,
            seconds=seconds,
        )

        return new_warmup_token
