from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="WarmupView")


@_attrs_define
class WarmupView:
    branch: str
    client: str
    created_at: datetime.datetime
    expires_at: datetime.datetime
    id: str
    repo: str
    reserved: bool
    """ A member is reserved. """
    state: str
    """ `live`, `hit`, `expired` or `withdrawn`. """
    ended_at: datetime.datetime | None | Unset = UNSET
    prepared_at: datetime.datetime | None | Unset = UNSET
    """ When the member that it holds was ready and at the tip of the branch; null while that is being seen to. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        branch = self.branch

        client = self.client

        created_at = self.created_at.isoformat()

        expires_at = self.expires_at.isoformat()

        id = self.id

        repo = self.repo

        reserved = self.reserved

        state = self.state

        ended_at: None | str | Unset
        if isinstance(self.ended_at, Unset):
            ended_at = UNSET
        elif isinstance(self.ended_at, datetime.datetime):
            ended_at = self.ended_at.isoformat()
        else:
            ended_at = self.ended_at

        prepared_at: None | str | Unset
        if isinstance(self.prepared_at, Unset):
            prepared_at = UNSET
        elif isinstance(self.prepared_at, datetime.datetime):
            prepared_at = self.prepared_at.isoformat()
        else:
            prepared_at = self.prepared_at

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "branch": branch,
                "client": client,
                "created_at": created_at,
                "expires_at": expires_at,
                "id": id,
                "repo": repo,
                "reserved": reserved,
                "state": state,
            }
        )
        if ended_at is not UNSET:
            field_dict["ended_at"] = ended_at
        if prepared_at is not UNSET:
            field_dict["prepared_at"] = prepared_at

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        branch = d.pop("branch")

        client = d.pop("client")

        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))

        expires_at = datetime.datetime.fromisoformat(d.pop("expires_at"))

        id = d.pop("id")

        repo = d.pop("repo")

        reserved = d.pop("reserved")

        state = d.pop("state")

        def _parse_ended_at(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                ended_at_type_0 = datetime.datetime.fromisoformat(data)

                return ended_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        ended_at = _parse_ended_at(d.pop("ended_at", UNSET))

        def _parse_prepared_at(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                prepared_at_type_0 = datetime.datetime.fromisoformat(data)

                return prepared_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        prepared_at = _parse_prepared_at(d.pop("prepared_at", UNSET))

        warmup_view = cls(
            branch=branch,
            client=client,
            created_at=created_at,
            expires_at=expires_at,
            id=id,
            repo=repo,
            reserved=reserved,
            state=state,
            ended_at=ended_at,
            prepared_at=prepared_at,
        )

        warmup_view.additional_properties = d
        return warmup_view

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
