from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.order_view import OrderView
    from ..models.pool_terms import PoolTerms


T = TypeVar("T", bound="PoolView")


@_attrs_define
class PoolView:
    creating: int
    explain: list[str]
    """ Each term in words. """
    reason: str
    """ What the pool is doing, or what holds it back. """
    repo: str
    reserved: int
    starting: int
    target: int
    """ What the pool works towards: what is wanted, less what the budget has no room for. """
    terms: PoolTerms
    """ What a target is made of. """
    warm: int
    why: str
    """ Why the target is what it is, in a line. """
    order: None | OrderView | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.order_view import OrderView

        creating = self.creating

        explain = self.explain

        reason = self.reason

        repo = self.repo

        reserved = self.reserved

        starting = self.starting

        target = self.target

        terms = self.terms.to_dict()

        warm = self.warm

        why = self.why

        order: dict[str, Any] | None | Unset
        if isinstance(self.order, Unset):
            order = UNSET
        elif isinstance(self.order, OrderView):
            order = self.order.to_dict()
        else:
            order = self.order

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "creating": creating,
                "explain": explain,
                "reason": reason,
                "repo": repo,
                "reserved": reserved,
                "starting": starting,
                "target": target,
                "terms": terms,
                "warm": warm,
                "why": why,
            }
        )
        if order is not UNSET:
            field_dict["order"] = order

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.order_view import OrderView
        from ..models.pool_terms import PoolTerms

        d = dict(src_dict)
        creating = d.pop("creating")

        explain = cast(list[str], d.pop("explain"))

        reason = d.pop("reason")

        repo = d.pop("repo")

        reserved = d.pop("reserved")

        starting = d.pop("starting")

        target = d.pop("target")

        terms = PoolTerms.from_dict(d.pop("terms"))

        warm = d.pop("warm")

        why = d.pop("why")

        def _parse_order(data: object) -> None | OrderView | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                order_type_0 = OrderView.from_dict(data)

                return order_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | OrderView | Unset, data)

        order = _parse_order(d.pop("order", UNSET))

        pool_view = cls(
            creating=creating,
            explain=explain,
            reason=reason,
            repo=repo,
            reserved=reserved,
            starting=starting,
            target=target,
            terms=terms,
            warm=warm,
            why=why,
            order=order,
        )

        pool_view.additional_properties = d
        return pool_view

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
