from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.expected_view import ExpectedView
    from ..models.floor_view import FloorView


T = TypeVar("T", bound="PoolTerms")


@_attrs_define
class PoolTerms:
    """What a target is made of."""

    floor: FloorView
    """ The least that is kept whatever the traffic is. """
    kept: int
    """ Members above what is wanted are kept up to this many: they were wanted a few minutes ago. """
    max_: int
    wanted: int
    """ All of it together. """
    warmups: int
    """ For warm-ups that are live, beside the larger of the two above. """
    expected: ExpectedView | None | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.expected_view import ExpectedView

        floor = self.floor.to_dict()

        kept = self.kept

        max_ = self.max_

        wanted = self.wanted

        warmups = self.warmups

        expected: dict[str, Any] | None | Unset
        if isinstance(self.expected, Unset):
            expected = UNSET
        elif isinstance(self.expected, ExpectedView):
            expected = self.expected.to_dict()
        else:
            expected = self.expected

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "floor": floor,
                "kept": kept,
                "max": max_,
                "wanted": wanted,
                "warmups": warmups,
            }
        )
        if expected is not UNSET:
            field_dict["expected"] = expected

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.expected_view import ExpectedView
        from ..models.floor_view import FloorView

        d = dict(src_dict)
        floor = FloorView.from_dict(d.pop("floor"))

        kept = d.pop("kept")

        max_ = d.pop("max")

        wanted = d.pop("wanted")

        warmups = d.pop("warmups")

        def _parse_expected(data: object) -> ExpectedView | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                expected_type_0 = ExpectedView.from_dict(data)

                return expected_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(ExpectedView | None | Unset, data)

        expected = _parse_expected(d.pop("expected", UNSET))

        pool_terms = cls(
            floor=floor,
            kept=kept,
            max_=max_,
            wanted=wanted,
            warmups=warmups,
            expected=expected,
        )

        pool_terms.additional_properties = d
        return pool_terms

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
