from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="CreateKey")


@_attrs_define
class CreateKey:
    name: str
    """ What people call it. """
    role: str
    """ `read-only`, `client`, `operator` or `admin`. """
    expires_seconds: int | None | Unset = UNSET
    """ How long it is good; until it is revoked when not given. """
    repos: list[str] | None | Unset = UNSET
    """ The repos that it may use, `owner/name`; all of them when not given. """

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        role = self.role

        expires_seconds: int | None | Unset
        if isinstance(self.expires_seconds, Unset):
            expires_seconds = UNSET
        else:
            expires_seconds = self.expires_seconds

        repos: list[str] | None | Unset
        if isinstance(self.repos, Unset):
            repos = UNSET
        elif isinstance(self.repos, list):
            repos = self.repos

        else:
            repos = self.repos

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "name": name,
                "role": role,
            }
        )
        if expires_seconds is not UNSET:
            field_dict["expires_seconds"] = expires_seconds
        if repos is not UNSET:
            field_dict["repos"] = repos

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        name = d.pop("name")

        role = d.pop("role")

        def _parse_expires_seconds(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        expires_seconds = _parse_expires_seconds(d.pop("expires_seconds", UNSET))

        def _parse_repos(data: object) -> list[str] | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, list):
                    raise TypeError()
                repos_type_0 = cast(list[str], data)

                return repos_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[str] | None | Unset, data)

        repos = _parse_repos(d.pop("repos", UNSET))

        create_key = cls(
            name=name,
            role=role,
            expires_seconds=expires_seconds,
            repos=repos,
        )

        return create_key
