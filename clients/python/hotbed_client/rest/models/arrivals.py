from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.minute_view import MinuteView


T = TypeVar("T", bound="Arrivals")


@_attrs_define
class Arrivals:
    """The claims of a repo as they are kept."""

    lead_milliseconds: list[int]
    """ How long the latest members took to become ready, the latest last. """
    minutes: list[MinuteView]
    """ The minutes in which somebody came, in order. """
    repo: str
    watched_since: datetime.datetime | None | Unset = UNSET
    """ Since when they are counted. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        lead_milliseconds = self.lead_milliseconds

        minutes = []
        for minutes_item_data in self.minutes:
            minutes_item = minutes_item_data.to_dict()
            minutes.append(minutes_item)

        repo = self.repo

        watched_since: None | str | Unset
        if isinstance(self.watched_since, Unset):
            watched_since = UNSET
        elif isinstance(self.watched_since, datetime.datetime):
            watched_since = self.watched_since.isoformat()
        else:
            watched_since = self.watched_since

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "lead_milliseconds": lead_milliseconds,
                "minutes": minutes,
                "repo": repo,
            }
        )
        if watched_since is not UNSET:
            field_dict["watched_since"] = watched_since

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.minute_view import MinuteView

        d = dict(src_dict)
        lead_milliseconds = cast(list[int], d.pop("lead_milliseconds"))

        minutes = []
        _minutes = d.pop("minutes")
        for minutes_item_data in _minutes:
            minutes_item = MinuteView.from_dict(minutes_item_data)

            minutes.append(minutes_item)

        repo = d.pop("repo")

        def _parse_watched_since(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                watched_since_type_0 = datetime.datetime.fromisoformat(data)

                return watched_since_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        watched_since = _parse_watched_since(d.pop("watched_since", UNSET))

        arrivals = cls(
            lead_milliseconds=lead_milliseconds,
            minutes=minutes,
            repo=repo,
            watched_since=watched_since,
        )

        arrivals.additional_properties = d
        return arrivals

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
