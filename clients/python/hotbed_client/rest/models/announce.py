from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="Announce")


@_attrs_define
class Announce:
    client: str
    """ Whoever types: a tab, a chat, a draft. With the repo it is the key of the warm-up. """
    repo: str
    branch: None | str | Unset = UNSET
    """ The branch that the session will start from; the repo's own when not given. """

    def to_dict(self) -> dict[str, Any]:
        client = self.client

        repo = self.repo

        branch: None | str | Unset
        if isinstance(self.branch, Unset):
            branch = UNSET
        else:
            branch = self.branch

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "client": client,
                "repo": repo,
            }
        )
        if branch is not UNSET:
            field_dict["branch"] = branch

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        client = d.pop("client")

        repo = d.pop("repo")

        def _parse_branch(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        branch = _parse_branch(d.pop("branch", UNSET))

        announce = cls(
            client=client,
            repo=repo,
            branch=branch,
        )

        return announce
