from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="DeviceSignInView")


@_attrs_define
class DeviceSignInView:
    """A sign-in by device that has begun."""

    ends_at: datetime.datetime
    id: str
    interval_seconds: int
    """ How often to ask. """
    user_code: str
    """ What the user types in. """
    verification_uri: str
    """ Where. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        ends_at = self.ends_at.isoformat()

        id = self.id

        interval_seconds = self.interval_seconds

        user_code = self.user_code

        verification_uri = self.verification_uri

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "ends_at": ends_at,
                "id": id,
                "interval_seconds": interval_seconds,
                "user_code": user_code,
                "verification_uri": verification_uri,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        ends_at = datetime.datetime.fromisoformat(d.pop("ends_at"))

        id = d.pop("id")

        interval_seconds = d.pop("interval_seconds")

        user_code = d.pop("user_code")

        verification_uri = d.pop("verification_uri")

        device_sign_in_view = cls(
            ends_at=ends_at,
            id=id,
            interval_seconds=interval_seconds,
            user_code=user_code,
            verification_uri=verification_uri,
        )

        device_sign_in_view.additional_properties = d
        return device_sign_in_view

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
