from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.package_change_view import PackageChangeView


T = TypeVar("T", bound="PackagesView")


@_attrs_define
class PackagesView:
    changes: list[PackageChangeView]
    known: list[str]
    """ The kinds that either image tells of, among `dpkg`, `apk`, `pip` and `npm`. Packages of other kinds are not
    known
    as such: they are among the files. """
    more: bool
    """ There are more changes than are listed. """
    unread: list[str]
    """ Lists of packages that were too long to be read. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        changes = []
        for changes_item_data in self.changes:
            changes_item = changes_item_data.to_dict()
            changes.append(changes_item)

        known = self.known

        more = self.more

        unread = self.unread

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "changes": changes,
                "known": known,
                "more": more,
                "unread": unread,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.package_change_view import PackageChangeView

        d = dict(src_dict)
        changes = []
        _changes = d.pop("changes")
        for changes_item_data in _changes:
            changes_item = PackageChangeView.from_dict(changes_item_data)

            changes.append(changes_item)

        known = cast(list[str], d.pop("known"))

        more = d.pop("more")

        unread = cast(list[str], d.pop("unread"))

        packages_view = cls(
            changes=changes,
            known=known,
            more=more,
            unread=unread,
        )

        packages_view.additional_properties = d
        return packages_view

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
