from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.file_change_view import FileChangeView
    from ..models.tally_view import TallyView


T = TypeVar("T", bound="FilesView")


@_attrs_define
class FilesView:
    added: TallyView
    changed: TallyView
    largest: list[FileChangeView]
    """ The largest of them, largest first. """
    removed: TallyView
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        added = self.added.to_dict()

        changed = self.changed.to_dict()

        largest = []
        for largest_item_data in self.largest:
            largest_item = largest_item_data.to_dict()
            largest.append(largest_item)

        removed = self.removed.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "added": added,
                "changed": changed,
                "largest": largest,
                "removed": removed,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.file_change_view import FileChangeView
        from ..models.tally_view import TallyView

        d = dict(src_dict)
        added = TallyView.from_dict(d.pop("added"))

        changed = TallyView.from_dict(d.pop("changed"))

        largest = []
        _largest = d.pop("largest")
        for largest_item_data in _largest:
            largest_item = FileChangeView.from_dict(largest_item_data)

            largest.append(largest_item)

        removed = TallyView.from_dict(d.pop("removed"))

        files_view = cls(
            added=added,
            changed=changed,
            largest=largest,
            removed=removed,
        )

        files_view.additional_properties = d
        return files_view

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
