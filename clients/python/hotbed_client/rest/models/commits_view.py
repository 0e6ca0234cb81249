from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.commit_view import CommitView


T = TypeVar("T", bound="CommitsView")


@_attrs_define
class CommitsView:
    newest: list[CommitView]
    """ The newest of them, newest first. """
    count: int | None | Unset = UNSET
    """ Absent where the mirror does not know both commits, or they are unrelated. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        newest = []
        for newest_item_data in self.newest:
            newest_item = newest_item_data.to_dict()
            newest.append(newest_item)

        count: int | None | Unset
        if isinstance(self.count, Unset):
            count = UNSET
        else:
            count = self.count

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "newest": newest,
            }
        )
        if count is not UNSET:
            field_dict["count"] = count

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.commit_view import CommitView

        d = dict(src_dict)
        newest = []
        _newest = d.pop("newest")
        for newest_item_data in _newest:
            newest_item = CommitView.from_dict(newest_item_data)

            newest.append(newest_item)

        def _parse_count(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        count = _parse_count(d.pop("count", UNSET))

        commits_view = cls(
            newest=newest,
            count=count,
        )

        commits_view.additional_properties = d
        return commits_view

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
