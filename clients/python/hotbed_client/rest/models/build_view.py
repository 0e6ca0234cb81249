from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.phase_view import PhaseView


T = TypeVar("T", bound="BuildView")


@_attrs_define
class BuildView:
    created_at: datetime.datetime
    deadline: datetime.datetime
    """ When its present state must have been left; it is given up then. """
    id: str
    phases: list[PhaseView]
    repo: str
    state: str
    """ `queued`, `running`, `succeeded`, `unchanged`, `failed` or `superseded`. """
    trigger: str
    """ `schedule`, `push`, `api` or `missing`: what asked for it. """
    warnings: list[str]
    """ Steps that failed without failing the build. """
    base_digest: None | str | Unset = UNSET
    by: None | str | Unset = UNSET
    """ Who asked, in the caller's own words. """
    commit: None | str | Unset = UNSET
    decision: None | str | Unset = UNSET
    """ What was decided: a full build and why, a build on another image, nothing. """
    elapsed_seconds: float | None | Unset = UNSET
    """ Seconds from its start until its end, or until now. """
    ended_at: datetime.datetime | None | Unset = UNSET
    error: None | str | Unset = UNSET
    fingerprint: None | str | Unset = UNSET
    image: None | str | Unset = UNSET
    """ What it made, or found unchanged. """
    parent: None | str | Unset = UNSET
    """ The image that it was built on; absent for a full build. """
    phase: None | str | Unset = UNSET
    """ The phase it is in or ended in. """
    phase_seconds: float | None | Unset = UNSET
    """ Seconds in that phase, while it runs. """
    size: int | None | Unset = UNSET
    """ Bytes of the image, all layers. """
    started_at: datetime.datetime | None | Unset = UNSET
    superseded_by: None | str | Unset = UNSET
    """ The newer request that took its place. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        created_at = self.created_at.isoformat()

        deadline = self.deadline.isoformat()

        id = self.id

        phases = []
        for phases_item_data in self.phases:
            phases_item = phases_item_data.to_dict()
            phases.append(phases_item)

        repo = self.repo

        state = self.state

        trigger = self.trigger

        warnings = self.warnings

        base_digest: None | str | Unset
        if isinstance(self.base_digest, Unset):
            base_digest = UNSET
        else:
            base_digest = self.base_digest

        by: None | str | Unset
        if isinstance(self.by, Unset):
            by = UNSET
        else:
            by = self.by

        commit: None | str | Unset
        if isinstance(self.commit, Unset):
            commit = UNSET
        else:
            commit = self.commit

        decision: None | str | Unset
        if isinstance(self.decision, Unset):
            decision = UNSET
        else:
            decision = self.decision

        elapsed_seconds: float | None | Unset
        if isinstance(self.elapsed_seconds, Unset):
            elapsed_seconds = UNSET
        else:
            elapsed_seconds = self.elapsed_seconds

        ended_at: None | str | Unset
        if isinstance(self.ended_at, Unset):
            ended_at = UNSET
        elif isinstance(self.ended_at, datetime.datetime):
            ended_at = self.ended_at.isoformat()
        else:
            ended_at = self.ended_at

        error: None | str | Unset
        if isinstance(self.error, Unset):
            error = UNSET
        else:
            error = self.error

        fingerprint: None | str | Unset
        if isinstance(self.fingerprint, Unset):
            fingerprint = UNSET
        else:
            fingerprint = self.fingerprint

        image: None | str | Unset
        if isinstance(self.image, Unset):
            image = UNSET
        else:
            image = self.image

        parent: None | str | Unset
        if isinstance(self.parent, Unset):
            parent = UNSET
        else:
            parent = self.parent

        phase: None | str | Unset
        if isinstance(self.phase, Unset):
            phase = UNSET
        else:
            phase = self.phase

        phase_seconds: float | None | Unset
        if isinstance(self.phase_seconds, Unset):
            phase_seconds = UNSET
        else:
            phase_seconds = self.phase_seconds

        size: int | None | Unset
        if isinstance(self.size, Unset):
            size = UNSET
        else:
            size = self.size

        started_at: None | str | Unset
        if isinstance(self.started_at, Unset):
            started_at = UNSET
        elif isinstance(self.started_at, datetime.datetime):
            started_at = self.started_at.isoformat()
        else:
            started_at = self.started_at

        superseded_by: None | str | Unset
        if isinstance(self.superseded_by, Unset):
            superseded_by = UNSET
        else:
            superseded_by = self.superseded_by

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "created_at": created_at,
                "deadline": deadline,
                "id": id,
                "phases": phases,
                "repo": repo,
                "state": state,
                "trigger": trigger,
                "warnings": warnings,
            }
        )
        if base_digest is not UNSET:
            field_dict["base_digest"] = base_digest
        if by is not UNSET:
            field_dict["by"] = by
        if commit is not UNSET:
            field_dict["commit"] = commit
        if decision is not UNSET:
            field_dict["decision"] = decision
        if elapsed_seconds is not UNSET:
            field_dict["elapsed_seconds"] = elapsed_seconds
        if ended_at is not UNSET:
            field_dict["ended_at"] = ended_at
        if error is not UNSET:
            field_dict["error"] = error
        if fingerprint is not UNSET:
            field_dict["fingerprint"] = fingerprint
        if image is not UNSET:
            field_dict["image"] = image
        if parent is not UNSET:
            field_dict["parent"] = parent
        if phase is not UNSET:
            field_dict["phase"] = phase
        if phase_seconds is not UNSET:
            field_dict["phase_seconds"] = phase_seconds
        if size is not UNSET:
            field_dict["size"] = size
        if started_at is not UNSET:
            field_dict["started_at"] = started_at
        if superseded_by is not UNSET:
            field_dict["superseded_by"] = superseded_by

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.phase_view import PhaseView

        d = dict(src_dict)
        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))

        deadline = datetime.datetime.fromisoformat(d.pop("deadline"))

        id = d.pop("id")

        phases = []
        _phases = d.pop("phases")
        for phases_item_data in _phases:
            phases_item = PhaseView.from_dict(phases_item_data)

            phases.append(phases_item)

        repo = d.pop("repo")

        state = d.pop("state")

        trigger = d.pop("trigger")

        warnings = cast(list[str], d.pop("warnings"))

        def _parse_base_digest(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        base_digest = _parse_base_digest(d.pop("base_digest", UNSET))

        def _parse_by(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        by = _parse_by(d.pop("by", UNSET))

        def _parse_commit(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        commit = _parse_commit(d.pop("commit", UNSET))

        def _parse_decision(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        decision = _parse_decision(d.pop("decision", UNSET))

        def _parse_elapsed_seconds(data: object) -> float | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(float | None | Unset, data)

        elapsed_seconds = _parse_elapsed_seconds(d.pop("elapsed_seconds", UNSET))

        def _parse_ended_at(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                ended_at_type_0 = datetime.datetime.fromisoformat(data)

                return ended_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        ended_at = _parse_ended_at(d.pop("ended_at", UNSET))

        def _parse_error(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        error = _parse_error(d.pop("error", UNSET))

        def _parse_fingerprint(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        fingerprint = _parse_fingerprint(d.pop("fingerprint", UNSET))

        def _parse_image(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        image = _parse_image(d.pop("image", UNSET))

        def _parse_parent(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        parent = _parse_parent(d.pop("parent", UNSET))

        def _parse_phase(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        phase = _parse_phase(d.pop("phase", UNSET))

        def _parse_phase_seconds(data: object) -> float | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(float | None | Unset, data)

        phase_seconds = _parse_phase_seconds(d.pop("phase_seconds", UNSET))

        def _parse_size(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        size = _parse_size(d.pop("size", UNSET))

        def _parse_started_at(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                started_at_type_0 = datetime.datetime.fromisoformat(data)

                return started_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        started_at = _parse_started_at(d.pop("started_at", UNSET))

        def _parse_superseded_by(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        superseded_by = _parse_superseded_by(d.pop("superseded_by", UNSET))

        build_view = cls(
            created_at=created_at,
            deadline=deadline,
            id=id,
            phases=phases,
            repo=repo,
            state=state,
            trigger=trigger,
            warnings=warnings,
            base_digest=base_digest,
            by=by,
            commit=commit,
            decision=decision,
            elapsed_seconds=elapsed_seconds,
            ended_at=ended_at,
            error=error,
            fingerprint=fingerprint,
            image=image,
            parent=parent,
            phase=phase,
            phase_seconds=phase_seconds,
            size=size,
            started_at=started_at,
            superseded_by=superseded_by,
        )

        build_view.additional_properties = d
        return build_view

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
