from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.create_session_env import CreateSessionEnv
    from ..models.user import User


T = TypeVar("T", bound="CreateSession")


@_attrs_define
class CreateSession:
    base: None | str | Unset = UNSET
    """ The branch to start from; the repo's own when not given. """
    branch: None | str | Unset = UNSET
    """ The branch to work on: taken up where it exists upstream, else made from `base`. """
    env: CreateSessionEnv | Unset = UNSET
    """ Environment of what runs in the session. Stored as it is: not for secrets. """
    idle_seconds: int | None | Unset = UNSET
    """ Ends after this many seconds without use; 0 means never; the repo's when not given. """
    parent: None | str | Unset = UNSET
    """ Follow this ended session: start from its last snapshot, on its branch. """
    repo: None | str | Unset = UNSET
    """ `owner/name`, as configured. May be left out when `snapshot` or `parent` says it. """
    snapshot: None | str | Unset = UNSET
    """ Start from this snapshot. """
    timeout_seconds: int | None | Unset = UNSET
    """ Time limit in seconds; the repo's when not given. """
    user: None | Unset | User = UNSET
    user_token: None | str | Unset = UNSET
    """ A token of the user's at GitHub, to push and open with: kept in memory for as long as the session lives,
    never
    stored, never shown, never in the sandbox. """
    warmup: None | str | Unset = UNSET
    """ The warm-up that announced this session. """

    def to_dict(self) -> dict[str, Any]:
        from ..models.user import User

        base: None | str | Unset
        if isinstance(self.base, Unset):
            base = UNSET
        else:
            base = self.base

        branch: None | str | Unset
        if isinstance(self.branch, Unset):
            branch = UNSET
        else:
            branch = self.branch

        env: dict[str, Any] | Unset = UNSET
        if not isinstance(self.env, Unset):
            env = self.env.to_dict()

        idle_seconds: int | None | Unset
        if isinstance(self.idle_seconds, Unset):
            idle_seconds = UNSET
        else:
            idle_seconds = self.idle_seconds

        parent: None | str | Unset
        if isinstance(self.parent, Unset):
            parent = UNSET
        else:
            parent = self.parent

        repo: None | str | Unset
        if isinstance(self.repo, Unset):
            repo = UNSET
        else:
            repo = self.repo

        snapshot: None | str | Unset
        if isinstance(self.snapshot, Unset):
            snapshot = UNSET
        else:
            snapshot = self.snapshot

        timeout_seconds: int | None | Unset
        if isinstance(self.timeout_seconds, Unset):
            timeout_seconds = UNSET
        else:
            timeout_seconds = self.timeout_seconds

        user: dict[str, Any] | None | Unset
        if isinstance(self.user, Unset):
            user = UNSET
        elif isinstance(self.user, User):
            user = self.user.to_dict()
        else:
            user = self.user

        user_token: None | str | Unset
        if isinstance(self.user_token, Unset):
            user_token = UNSET
        else:
            user_token = self.user_token

        warmup: None | str | Unset
        if isinstance(self.warmup, Unset):
            warmup = UNSET
        else:
            warmup = self.warmup

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if base is not UNSET:
            field_dict["base"] = base
        if branch is not UNSET:
            field_dict["branch"] = branch
        if env is not UNSET:
            field_dict["env"] = env
        if idle_seconds is not UNSET:
            field_dict["idle_seconds"] = idle_seconds
        if parent is not UNSET:
            field_dict["parent"] = parent
        if repo is not UNSET:
            field_dict["repo"] = repo
        if snapshot is not UNSET:
            field_dict["snapshot"] = snapshot
        if timeout_seconds is not UNSET:
            field_dict["timeout_seconds"] = timeout_seconds
        if user is not UNSET:
            field_dict["user"] = user
        if user_token is not UNSET:
            field_dict["user_token"] = user_token
        if warmup is not UNSET:
            field_dict["warmup"] = warmup

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.create_session_env import CreateSessionEnv
        from ..models.user import User

        d = dict(src_dict)

        def _parse_base(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        base = _parse_base(d.pop("base", UNSET))

        def _parse_branch(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        branch = _parse_branch(d.pop("branch", UNSET))

        _env = d.pop("env", UNSET)
        env: CreateSessionEnv | Unset
        if isinstance(_env, Unset):
            env = UNSET
        else:
            env = CreateSessionEnv.from_dict(_env)

        def _parse_idle_seconds(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        idle_seconds = _parse_idle_seconds(d.pop("idle_seconds", UNSET))

        def _parse_parent(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        parent = _parse_parent(d.pop("parent", UNSET))

        def _parse_repo(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        repo = _parse_repo(d.pop("repo", UNSET))

        def _parse_snapshot(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        snapshot = _parse_snapshot(d.pop("snapshot", UNSET))

        def _parse_timeout_seconds(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        timeout_seconds = _parse_timeout_seconds(d.pop("timeout_seconds", UNSET))

        def _parse_user(data: object) -> None | Unset | User:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                user_type_0 = User.from_dict(data)

                return user_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | Unset | User, data)

        user = _parse_user(d.pop("user", UNSET))

        def _parse_user_token(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        user_token = _parse_user_token(d.pop("user_token", UNSET))

        def _parse_warmup(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        warmup = _parse_warmup(d.pop("warmup", UNSET))

        create_session = cls(
            base=base,
            branch=branch,
            env=env,
            idle_seconds=idle_seconds,
            parent=parent,
            repo=repo,
            snapshot=snapshot,
            timeout_seconds=timeout_seconds,
            user=user,
            user_token=user_token,
            warmup=warmup,
        )

        return create_session
