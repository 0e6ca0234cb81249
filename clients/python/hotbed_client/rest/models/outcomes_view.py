from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.outcome_view import OutcomeView
    from ..models.outcomes_view_by_repo import OutcomesViewByRepo
    from ..models.outcomes_view_by_user import OutcomesViewByUser


T = TypeVar("T", bound="OutcomesView")


@_attrs_define
class OutcomesView:
    by_repo: OutcomesViewByRepo
    by_user: OutcomesViewByUser
    days: int
    total: OutcomeView
    """ What came of the sessions of somebody, or of some repo. Each pull request counts once. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        by_repo = self.by_repo.to_dict()

        by_user = self.by_user.to_dict()

        days = self.days

        total = self.total.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "by_repo": by_repo,
                "by_user": by_user,
                "days": days,
                "total": total,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.outcome_view import OutcomeView
        from ..models.outcomes_view_by_repo import OutcomesViewByRepo
        from ..models.outcomes_view_by_user import OutcomesViewByUser

        d = dict(src_dict)
        by_repo = OutcomesViewByRepo.from_dict(d.pop("by_repo"))

        by_user = OutcomesViewByUser.from_dict(d.pop("by_user"))

        days = d.pop("days")

        total = OutcomeView.from_dict(d.pop("total"))

        outcomes_view = cls(
            by_repo=by_repo,
            by_user=by_user,
            days=days,
            total=total,
        )

        outcomes_view.additional_properties = d
        return outcomes_view

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
