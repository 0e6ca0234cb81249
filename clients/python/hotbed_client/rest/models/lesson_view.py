from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="LessonView")


@_attrs_define
class LessonView:
    """What replayed weeks would have been like under the odds that were chosen."""

    claims: int
    hits: int
    hits_before: int
    """ The same under odds of `1 - target_hit_rate`. """
    idle_hours: float
    weeks: float
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        claims = self.claims

        hits = self.hits

        hits_before = self.hits_before

        idle_hours = self.idle_hours

        weeks = self.weeks

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "claims": claims,
                "hits": hits,
                "hits_before": hits_before,
                "idle_hours": idle_hours,
                "weeks": weeks,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        claims = d.pop("claims")

        hits = d.pop("hits")

        hits_before = d.pop("hits_before")

        idle_hours = d.pop("idle_hours")

        weeks = d.pop("weeks")

        lesson_view = cls(
            claims=claims,
            hits=hits,
            hits_before=hits_before,
            idle_hours=idle_hours,
            weeks=weeks,
        )

        lesson_view.additional_properties = d
        return lesson_view

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
