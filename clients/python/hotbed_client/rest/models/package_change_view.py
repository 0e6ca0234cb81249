from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="PackageChangeView")


@_attrs_define
class PackageChangeView:
    after: list[str]
    """ The versions that are there; none for one that is gone. """
    before: list[str]
    """ The versions that were there; none for a new package. """
    kind: str
    """ `dpkg`, `apk`, `pip` or `npm`. """
    name: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        after = self.after

        before = self.before

        kind = self.kind

        name = self.name

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "after": after,
                "before": before,
                "kind": kind,
                "name": name,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        after = cast(list[str], d.pop("after"))

        before = cast(list[str], d.pop("before"))

        kind = d.pop("kind")

        name = d.pop("name")

        package_change_view = cls(
            after=after,
            before=before,
            kind=kind,
            name=name,
        )

        package_change_view.additional_properties = d
        return package_change_view

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
