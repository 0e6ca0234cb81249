from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.prompting_view_by_repo import PromptingViewByRepo


T = TypeVar("T", bound="PromptingView")


@_attrs_define
class PromptingView:
    by_repo: PromptingViewByRepo
    people: int
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        by_repo = self.by_repo.to_dict()

        people = self.people

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "by_repo": by_repo,
                "people": people,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.prompting_view_by_repo import PromptingViewByRepo

        d = dict(src_dict)
        by_repo = PromptingViewByRepo.from_dict(d.pop("by_repo"))

        people = d.pop("people")

        prompting_view = cls(
            by_repo=by_repo,
            people=people,
        )

        prompting_view.additional_properties = d
        return prompting_view

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
