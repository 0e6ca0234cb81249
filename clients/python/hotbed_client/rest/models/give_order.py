from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..models.order_word import OrderWord
from ..types import UNSET, Unset

T = TypeVar("T", bound="GiveOrder")


@_attrs_define
class GiveOrder:
    order: OrderWord
    by: None | str | Unset = UNSET
    """ Who orders it; `api` when not given. """
    for_seconds: int | None | Unset = UNSET
    """ For `set`: how long; at most 30 days. """
    max_: int | None | Unset = UNSET
    """ For `set`: the most, in place of the policy's. """
    min_: int | None | Unset = UNSET
    """ For `set`: the least, in place of the policy's. """
    why: None | str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        order = self.order.value

        by: None | str | Unset
        if isinstance(self.by, Unset):
            by = UNSET
        else:
            by = self.by

        for_seconds: int | None | Unset
        if isinstance(self.for_seconds, Unset):
            for_seconds = UNSET
        else:
            for_seconds = self.for_seconds

        max_: int | None | Unset
        if isinstance(self.max_, Unset):
            max_ = UNSET
        else:
            max_ = self.max_

        min_: int | None | Unset
        if isinstance(self.min_, Unset):
            min_ = UNSET
        else:
            min_ = self.min_

        why: None | str | Unset
        if isinstance(self.why, Unset):
            why = UNSET
        else:
            why = self.why

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "order": order,
            }
        )
        if by is not UNSET:
            field_dict["by"] = by
        if for_seconds is not UNSET:
            field_dict["for_seconds"] = for_seconds
        if max_ is not UNSET:
            field_dict["max"] = max_
        if min_ is not UNSET:
            field_dict["min"] = min_
        if why is not UNSET:
            field_dict["why"] = why

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        order = OrderWord(d.pop("order"))

        def _parse_by(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        by = _parse_by(d.pop("by", UNSET))

        def _parse_for_seconds(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        for_seconds = _parse_for_seconds(d.pop("for_seconds", UNSET))

        def _parse_max_(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        max_ = _parse_max_(d.pop("max", UNSET))

        def _parse_min_(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        min_ = _parse_min_(d.pop("min", UNSET))

        def _parse_why(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        why = _parse_why(d.pop("why", UNSET))

        give_order = cls(
            order=order,
            by=by,
            for_seconds=for_seconds,
            max_=max_,
            min_=min_,
            why=why,
        )

        return give_order
