from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="BeginDeviceSignIn")


@_attrs_define
class BeginDeviceSignIn:
    repo: None | str | Unset = UNSET
    """ The one repo that the token is to reach; all that user and App reach when not given. """

    def to_dict(self) -> dict[str, Any]:
        repo: None | str | Unset
        if isinstance(self.repo, Unset):
            repo = UNSET
        else:
            repo = self.repo

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if repo is not UNSET:
            field_dict["repo"] = repo

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)

        def _parse_repo(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        repo = _parse_repo(d.pop("repo", UNSET))

        begin_device_sign_in = cls(
            repo=repo,
        )

        return begin_device_sign_in
