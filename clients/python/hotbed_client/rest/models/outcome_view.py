from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="OutcomeView")


@_attrs_define
class OutcomeView:
    """What came of the sessions of somebody, or of some repo. Each pull request counts once."""

    closed: int
    merged: int
    open_: int
    pull_requests: int
    sessions: int
    """ Sessions that were started. """
    with_merged: int
    """ Of those, the ones that led to a merged pull request: the first measure of all this. """
    with_pull_request: int
    """ Of those, the ones with a pull request. """
    approval_rate: float | None | Unset = UNSET
    """ Of the pull requests that have ended, the share that somebody had approved. """
    revisions: float | None | Unset = UNSET
    """ How often the commits of one changed after it was opened, on average. """
    seconds_to_merge: float | None | Unset = UNSET
    """ From there to the merge, the median. """
    seconds_to_pull_request: float | None | Unset = UNSET
    """ From the beginning of a session to its pull request, the median. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        closed = self.closed

        merged = self.merged

        open_ = self.open_

        pull_requests = self.pull_requests

        sessions = self.sessions

        with_merged = self.with_merged

        with_pull_request = self.with_pull_request

        approval_rate: float | None | Unset
        if isinstance(self.approval_rate, Unset):
            approval_rate = UNSET
        else:
            approval_rate = self.approval_rate

        revisions: float | None | Unset
        if isinstance(self.revisions, Unset):
            revisions = UNSET
        else:
            revisions = self.revisions

        seconds_to_merge: float | None | Unset
        if isinstance(self.seconds_to_merge, Unset):
            seconds_to_merge = UNSET
        else:
            seconds_to_merge = self.seconds_to_merge

        seconds_to_pull_request: float | None | Unset
        if isinstance(self.seconds_to_pull_request, Unset):
            seconds_to_pull_request = UNSET
        else:
            seconds_to_pull_request = self.seconds_to_pull_request

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "closed": closed,
                "merged": merged,
                "open": open_,
                "pull_requests": pull_requests,
                "sessions": sessions,
                "with_merged": with_merged,
                "with_pull_request": with_pull_request,
            }
        )
        if approval_rate is not UNSET:
            field_dict["approval_rate"] = approval_rate
        if revisions is not UNSET:
            field_dict["revisions"] = revisions
        if seconds_to_merge is not UNSET:
            field_dict["seconds_to_merge"] = seconds_to_merge
        if seconds_to_pull_request is not UNSET:
            field_dict["seconds_to_pull_request"] = seconds_to_pull_request

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        closed = d.pop("closed")

        merged = d.pop("merged")

        open_ = d.pop("open")

        pull_requests = d.pop("pull_requests")

        sessions = d.pop("sessions")

        with_merged = d.pop("with_merged")

        with_pull_request = d.pop("with_pull_request")

        def _parse_approval_rate(data: object) -> float | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(float | None | Unset, data)

        approval_rate = _parse_approval_rate(d.pop("approval_rate", UNSET))

        def _parse_revisions(data: object) -> float | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(float | None | Unset, data)

        revisions = _parse_revisions(d.pop("revisions", UNSET))

        def _parse_seconds_to_merge(data: object) -> float | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(float | None | Unset, data)

        seconds_to_merge = _parse_seconds_to_merge(d.pop("seconds_to_merge", UNSET))

        def _parse_seconds_to_pull_request(data: object) -> float | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(float | None | Unset, data)

        seconds_to_pull_request = _parse_seconds_to_pull_request(
            d.pop("seconds_to_pull_request", UNSET)
        )

        outcome_view = cls(
            closed=closed,
            merged=merged,
            open_=open_,
            pull_requests=pull_requests,
            sessions=sessions,
            with_merged=with_merged,
            with_pull_request=with_pull_request,
            approval_rate=approval_rate,
            revisions=revisions,
            seconds_to_merge=seconds_to_merge,
            seconds_to_pull_request=seconds_to_pull_request,
        )

        outcome_view.additional_properties = d
        return outcome_view

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
