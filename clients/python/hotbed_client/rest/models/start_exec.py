from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.start_exec_env import StartExecEnv
    from ..models.terminal import Terminal


T = TypeVar("T", bound="StartExec")


@_attrs_define
class StartExec:
    cmd: list[str] | str
    """ Program and arguments, or one line for `sh -c`. """
    cwd: None | str | Unset = UNSET
    """ Absolute; the workspace when not given. """
    env: StartExecEnv | Unset = UNSET
    stdin: bool | Unset = UNSET
    """ Keep stdin open for `POST …/input`. """
    timeout_seconds: float | None | Unset = UNSET
    tty: None | Terminal | Unset = UNSET
    wait: bool | Unset = UNSET
    """ Answer when it has ended, with its output (at most 1 MiB each), instead of at once. """

    def to_dict(self) -> dict[str, Any]:
        from ..models.terminal import Terminal

        cmd: list[str] | str
        if isinstance(self.cmd, list):
            cmd = self.cmd

        else:
            cmd = self.cmd

        cwd: None | str | Unset
        if isinstance(self.cwd, Unset):
            cwd = UNSET
        else:
            cwd = self.cwd

        env: dict[str, Any] | Unset = UNSET
        if not isinstance(self.env, Unset):
            env = self.env.to_dict()

        stdin = self.stdin

        timeout_seconds: float | None | Unset
        if isinstance(self.timeout_seconds, Unset):
            timeout_seconds = UNSET
        else:
            timeout_seconds = self.timeout_seconds

        tty: dict[str, Any] | None | Unset
        if isinstance(self.tty, Unset):
            tty = UNSET
        elif isinstance(self.tty, Terminal):
            tty = self.tty.to_dict()
        else:
            tty = self.tty

        wait = self.wait

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "cmd": cmd,
            }
        )
        if cwd is not UNSET:
            field_dict["cwd"] = cwd
        if env is not UNSET:
            field_dict["env"] = env
        if stdin is not UNSET:
            field_dict["stdin"] = stdin
        if timeout_seconds is not UNSET:
            field_dict["timeout_seconds"] = timeout_seconds
        if tty is not UNSET:
            field_dict["tty"] = tty
        if wait is not UNSET:
            field_dict["wait"] = wait

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.start_exec_env import StartExecEnv
        from ..models.terminal import Terminal

        d = dict(src_dict)

        def _parse_cmd(data: object) -> list[str] | str:
            try:
                if not isinstance(data, list):
                    raise TypeError()
                componentsschemas_command_type_0 = cast(list[str], data)

                return componentsschemas_command_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[str] | str, data)

        cmd = _parse_cmd(d.pop("cmd"))

        def _parse_cwd(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        cwd = _parse_cwd(d.pop("cwd", UNSET))

        _env = d.pop("env", UNSET)
        env: StartExecEnv | Unset
        if isinstance(_env, Unset):
            env = UNSET
        else:
            env = StartExecEnv.from_dict(_env)

        stdin = d.pop("stdin", UNSET)

        def _parse_timeout_seconds(data: object) -> float | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(float | None | Unset, data)

        timeout_seconds = _parse_timeout_seconds(d.pop("timeout_seconds", UNSET))

        def _parse_tty(data: object) -> None | Terminal | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                tty_type_0 = Terminal.from_dict(data)

                return tty_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | Terminal | Unset, data)

        tty = _parse_tty(d.pop("tty", UNSET))

        wait = d.pop("wait", UNSET)

        start_exec = cls(
            cmd=cmd,
            cwd=cwd,
            env=env,
            stdin=stdin,
            timeout_seconds=timeout_seconds,
            tty=tty,
            wait=wait,
        )

        return start_exec
