from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.lesson_view import LessonView


T = TypeVar("T", bound="ExpectedView")


@_attrs_define
class ExpectedView:
    """The members that expected claims ask for."""

    bunches_share: float
    """ The part of occasions on which several claims come together, and how many then do. """
    bunches_size: float
    claims: int
    """ Claims that were seen, and in how many minutes. """
    claims_per_lead_time: float
    """ Claims to be expected within one lead time, in the mean. """
    claims_per_minute: float
    kept: int
    """ What was expected in the last minutes, at its highest. """
    lead_samples: int
    lead_seconds: float
    """ From the decision to make a member until it is ready: the 95th percentile of so many starts. None: it is
    assumed. """
    members: int
    minutes: float
    odds: float
    """ More claims than `members` in one lead time are expected with at most these odds. """
    source: str
    """ What the forecast rests on: `recent` minutes, or the same hour of earlier weeks (`season`). """
    target_hit_rate: float
    lesson: LessonView | None | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.lesson_view import LessonView

        bunches_share = self.bunches_share

        bunches_size = self.bunches_size

        claims = self.claims

        claims_per_lead_time = self.claims_per_lead_time

        claims_per_minute = self.claims_per_minute

        kept = self.kept

        lead_samples = self.lead_samples

        lead_seconds = self.lead_seconds

        members = self.members

        minutes = self.minutes

        odds = self.odds

        source = self.source

        target_hit_rate = self.target_hit_rate

        lesson: dict[str, Any] | None | Unset
        if isinstance(self.lesson, Unset):
            lesson = UNSET
        elif isinstance(self.lesson, LessonView):
            lesson = self.lesson.to_dict()
        else:
            lesson = self.lesson

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "bunches_share": bunches_share,
                "bunches_size": bunches_size,
                "claims": claims,
                "claims_per_lead_time": claims_per_lead_time,
                "claims_per_minute": claims_per_minute,
                "kept": kept,
                "lead_samples": lead_samples,
                "lead_seconds": lead_seconds,
                "members": members,
                "minutes": minutes,
                "odds": odds,
                "source": source,
                "target_hit_rate": target_hit_rate,
            }
        )
        if lesson is not UNSET:
            field_dict["lesson"] = lesson

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.lesson_view import LessonView

        d = dict(src_dict)
        bunches_share = d.pop("bunches_share")

        bunches_size = d.pop("bunches_size")

        claims = d.pop("claims")

        claims_per_lead_time = d.pop("claims_per_lead_time")

        claims_per_minute = d.pop("claims_per_minute")

        kept = d.pop("kept")

        lead_samples = d.pop("lead_samples")

        lead_seconds = d.pop("lead_seconds")

        members = d.pop("members")

        minutes = d.pop("minutes")

        odds = d.pop("odds")

        source = d.pop("source")

        target_hit_rate = d.pop("target_hit_rate")

        def _parse_lesson(data: object) -> LessonView | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                lesson_type_0 = LessonView.from_dict(data)

                return lesson_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(LessonView | None | Unset, data)

        lesson = _parse_lesson(d.pop("lesson", UNSET))

        expected_view = cls(
            bunches_share=bunches_share,
            bunches_size=bunches_size,
            claims=claims,
            claims_per_lead_time=claims_per_lead_time,
            claims_per_minute=claims_per_minute,
            kept=kept,
            lead_samples=lead_samples,
            lead_seconds=lead_seconds,
            members=members,
            minutes=minutes,
            odds=odds,
            source=source,
            target_hit_rate=target_hit_rate,
            lesson=lesson,
        )

        expected_view.additional_properties = d
        return expected_view

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
