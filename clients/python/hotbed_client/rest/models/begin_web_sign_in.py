from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="BeginWebSignIn")


@_attrs_define
class BeginWebSignIn:
    redirect_uri: str
    """ Where GitHub sends the browser back to; one of the App's callback URLs. """
    repo: None | str | Unset = UNSET
    """ The one repo that the token is to reach; all that user and App reach when not given. """

    def to_dict(self) -> dict[str, Any]:
        redirect_uri = self.redirect_uri

        repo: None | str | Unset
        if isinstance(self.repo, Unset):
            repo = UNSET
        else:
            repo = self.repo

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "redirect_uri": redirect_uri,
            }
        )
        if repo is not UNSET:
            field_dict["repo"] = repo

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        redirect_uri = d.pop("redirect_uri")

        def _parse_repo(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        repo = _parse_repo(d.pop("repo", UNSET))

        begin_web_sign_in = cls(
            redirect_uri=redirect_uri,
            repo=repo,
        )

        return begin_web_sign_in
