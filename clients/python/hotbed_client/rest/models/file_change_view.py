from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="FileChangeView")


@_attrs_define
class FileChangeView:
    change: str
    """ `added`, `changed` or `removed`. """
    path: str
    size_after: int | None | Unset = UNSET
    size_before: int | None | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        change = self.change

        path = self.path

        size_after: int | None | Unset
        if isinstance(self.size_after, Unset):
            size_after = UNSET
        else:
            size_after = self.size_after

        size_before: int | None | Unset
        if isinstance(self.size_before, Unset):
            size_before = UNSET
        else:
            size_before = self.size_before

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "change": change,
                "path": path,
            }
        )
        if size_after is not UNSET:
            field_dict["size_after"] = size_after
        if size_before is not UNSET:
            field_dict["size_before"] = size_before

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        change = d.pop("change")

        path = d.pop("path")

        def _parse_size_after(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        size_after = _parse_size_after(d.pop("size_after", UNSET))

        def _parse_size_before(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        size_before = _parse_size_before(d.pop("size_before", UNSET))

        file_change_view = cls(
            change=change,
            path=path,
            size_after=size_after,
            size_before=size_before,
        )

        file_change_view.additional_properties = d
        return file_change_view

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
