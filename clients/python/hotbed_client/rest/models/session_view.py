from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.sync_view import SyncView
    from ..models.user import User


T = TypeVar("T", bound="SessionView")


@_attrs_define
class SessionView:
    base: str
    branch: str
    co_authors: list[str]
    """ The logins of who else has prompted, named in each commit. """
    committer: str
    """ The login of who commits now: who prompted last. """
    created_at: datetime.datetime
    expires_at: datetime.datetime
    id: str
    launch: str
    """ `warm`, `warmup`, `restore` or `cold`. """
    repo: str
    state: str
    """ `waiting`, `active`, `paused`, `ending` or `ended`. """
    sync: SyncView
    user: User
    """ The person a session works for. """
    end: None | str | Unset = UNSET
    """ Why it ended. """
    ended_at: datetime.datetime | None | Unset = UNSET
    image: None | str | Unset = UNSET
    parent: None | str | Unset = UNSET
    sandbox: None | str | Unset = UNSET
    snapshot: None | str | Unset = UNSET
    started_at: datetime.datetime | None | Unset = UNSET
    trouble: None | str | Unset = UNSET
    """ What is wrong with it, in words. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        base = self.base

        branch = self.branch

        co_authors = self.co_authors

        committer = self.committer

        created_at = self.created_at.isoformat()

        expires_at = self.expires_at.isoformat()

        id = self.id

        launch = self.launch

        repo = self.repo

        state = self.state

        sync = self.sync.to_dict()

        user = self.user.to_dict()

        end: None | str | Unset
        if isinstance(self.end, Unset):
            end = UNSET
        else:
            end = self.end

        ended_at: None | str | Unset
        if isinstance(self.ended_at, Unset):
            ended_at = UNSET
        elif isinstance(self.ended_at, datetime.datetime):
            ended_at = self.ended_at.isoformat()
        else:
            ended_at = self.ended_at

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

        sandbox: None | str | Unset
        if isinstance(self.sandbox, Unset):
            sandbox = UNSET
        else:
            sandbox = self.sandbox

        snapshot: None | str | Unset
        if isinstance(self.snapshot, Unset):
            snapshot = UNSET
        else:
            snapshot = self.snapshot

        started_at: None | str | Unset
        if isinstance(self.started_at, Unset):
            started_at = UNSET
        elif isinstance(self.started_at, datetime.datetime):
            started_at = self.started_at.isoformat()
        else:
            started_at = self.started_at

        trouble: None | str | Unset
        if isinstance(self.trouble, Unset):
            trouble = UNSET
        else:
            trouble = self.trouble

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "base": base,
                "branch": branch,
                "co_authors": co_authors,
                "committer": committer,
                "created_at": created_at,
                "expires_at": expires_at,
                "id": id,
                "launch": launch,
                "repo": repo,
                "state": state,
                "sync": sync,
                "user": user,
            }
        )
        if end is not UNSET:
            field_dict["end"] = end
        if ended_at is not UNSET:
            field_dict["ended_at"] = ended_at
        if image is not UNSET:
            field_dict["image"] = image
        if parent is not UNSET:
            field_dict["parent"] = parent
        if sandbox is not UNSET:
            field_dict["sandbox"] = sandbox
        if snapshot is not UNSET:
            field_dict["snapshot"] = snapshot
        if started_at is not UNSET:
            field_dict["started_at"] = started_at
        if trouble is not UNSET:
            field_dict["trouble"] = trouble

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.sync_view import SyncView
        from ..models.user import User

        d = dict(src_dict)
        base = d.pop("base")

        branch = d.pop("branch")

        co_authors = cast(list[str], d.pop("co_authors"))

        committer = d.pop("committer")

        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))

        expires_at = datetime.datetime.fromisoformat(d.pop("expires_at"))

        id = d.pop("id")

        launch = d.pop("launch")

        repo = d.pop("repo")

        state = d.pop("state")

        sync = SyncView.from_dict(d.pop("sync"))

        user = User.from_dict(d.pop("user"))

        def _parse_end(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        end = _parse_end(d.pop("end", UNSET))

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

        def _parse_sandbox(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        sandbox = _parse_sandbox(d.pop("sandbox", UNSET))

        def _parse_snapshot(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        snapshot = _parse_snapshot(d.pop("snapshot", UNSET))

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

        def _parse_trouble(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        trouble = _parse_trouble(d.pop("trouble", UNSET))

        session_view = cls(
            base=base,
            branch=branch,
            co_authors=co_authors,
            committer=committer,
            created_at=created_at,
            expires_at=expires_at,
            id=id,
            launch=launch,
            repo=repo,
            state=state,
            sync=sync,
            user=user,
            end=end,
            ended_at=ended_at,
            image=image,
            parent=parent,
            sandbox=sandbox,
            snapshot=snapshot,
            started_at=started_at,
            trouble=trouble,
        )

        session_view.additional_properties = d
        return session_view

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
