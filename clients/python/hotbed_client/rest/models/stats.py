from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.outcomes_view import OutcomesView
    from ..models.prompting_view import PromptingView
    from ..models.stats_live_by_repo import StatsLiveByRepo
    from ..models.stats_pull_requests_by_state import StatsPullRequestsByState
    from ..models.stats_sessions_by_launch import StatsSessionsByLaunch
    from ..models.stats_sessions_by_state import StatsSessionsByState
    from ..models.stats_snapshots_by_state import StatsSnapshotsByState


T = TypeVar("T", bound="Stats")


@_attrs_define
class Stats:
    live_by_repo: StatsLiveByRepo
    """ Live sessions, by repo. """
    outcomes: OutcomesView
    people: int
    prompting: PromptingView
    pull_requests_by_state: StatsPullRequestsByState
    sessions: int
    sessions_by_launch: StatsSessionsByLaunch
    sessions_by_state: StatsSessionsByState
    snapshots_by_state: StatsSnapshotsByState
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        live_by_repo = self.live_by_repo.to_dict()

        outcomes = self.outcomes.to_dict()

        people = self.people

        prompting = self.prompting.to_dict()

        pull_requests_by_state = self.pull_requests_by_state.to_dict()

        sessions = self.sessions

        sessions_by_launch = self.sessions_by_launch.to_dict()

        sessions_by_state = self.sessions_by_state.to_dict()

        snapshots_by_state = self.snapshots_by_state.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "live_by_repo": live_by_repo,
                "outcomes": outcomes,
                "people": people,
                "prompting": prompting,
                "pull_requests_by_state": pull_requests_by_state,
                "sessions": sessions,
                "sessions_by_launch": sessions_by_launch,
                "sessions_by_state": sessions_by_state,
                "snapshots_by_state": snapshots_by_state,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.outcomes_view import OutcomesView
        from ..models.prompting_view import PromptingView
        from ..models.stats_live_by_repo import StatsLiveByRepo
        from ..models.stats_pull_requests_by_state import StatsPullRequestsByState
        from ..models.stats_sessions_by_launch import StatsSessionsByLaunch
        from ..models.stats_sessions_by_state import StatsSessionsByState
        from ..models.stats_snapshots_by_state import StatsSnapshotsByState

        d = dict(src_dict)
        live_by_repo = StatsLiveByRepo.from_dict(d.pop("live_by_repo"))

        outcomes = OutcomesView.from_dict(d.pop("outcomes"))

        people = d.pop("people")

        prompting = PromptingView.from_dict(d.pop("prompting"))

        pull_requests_by_state = StatsPullRequestsByState.from_dict(
            d.pop("pull_requests_by_state")
        )

        sessions = d.pop("sessions")

        sessions_by_launch = StatsSessionsByLaunch.from_dict(
            d.pop("sessions_by_launch")
        )

        sessions_by_state = StatsSessionsByState.from_dict(d.pop("sessions_by_state"))

        snapshots_by_state = StatsSnapshotsByState.from_dict(
            d.pop("snapshots_by_state")
        )

        stats = cls(
            live_by_repo=live_by_repo,
            outcomes=outcomes,
            people=people,
            prompting=prompting,
            pull_requests_by_state=pull_requests_by_state,
            sessions=sessions,
            sessions_by_launch=sessions_by_launch,
            sessions_by_state=sessions_by_state,
            snapshots_by_state=snapshots_by_state,
        )

        stats.additional_properties = d
        return stats

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
