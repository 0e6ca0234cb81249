"""A session, its commands and its log: what is followed goes on where it was when a connection breaks."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from .rest import models
from .rest.api.exec_ import get_exec, signal_exec, start_exec
from .rest.api.sessions import end_session, fork_session, get_session, get_sync
from .rest.api.snapshots import take_snapshot
from .problem import Problem
from .unbroken import sent
from .values import one

if TYPE_CHECKING:
    from .hotbed import Hotbed

# How long to wait before the gate is asked about again, in seconds.
_AGAIN = 0.2


@dataclass(frozen=True)
class Output:
    """Bytes of a command's output."""

    stream: Literal["stdout", "stderr"]
    #: Of the first byte, over both streams.
    offset: int
    data: bytes


@dataclass(frozen=True)
class Finished:
    """A command that has ended, and what it printed."""

    id: str
    exit: models.ExitView
    stdout: str
    stderr: str


class Session:
    def __init__(self, hotbed: Hotbed, view: models.SessionView) -> None:
        self._hotbed = hotbed
        #: What the server said last.
        self.view = view

    @property
    def id(self) -> str:
        return self.view.id

    def read(self) -> models.SessionView:
        """Asks how it stands."""
        self.view = one(get_session.sync(self.id, client=self._hotbed.api), models.SessionView)
        return self.view

    def gate_open(self) -> models.SyncView:
        """Waits until git sync has ended and writes pass. Where it has failed: a ``Problem`` of kind ``conflict``."""
        while True:
            answer = get_sync.sync(self.id, client=self._hotbed.api, wait_seconds=60)
            sync = one(answer, models.SyncView)
            if sync.gate == "open":
                return sync
            if sync.phase == "failed":
                raise Problem(409, "conflict", f"the sync of {self.id} has failed: {sync.error or ''}")
            if self.read().state == "ended":
                raise Problem(410, "gone", f"the session {self.id} has ended")
            time.sleep(_AGAIN)

    def events(self, after: int = 0, *, tail: bool = False) -> Iterator[models.EventView]:
        """The log, from any point; ends with the session, or with ``tail`` after what is there now."""

        def ask() -> dict[str, str]:
            return {"after": str(after), "tail": json.dumps(tail)}

        for lines in self._hotbed.stream(f"/v1/sessions/{self.id}/events", ask, tail=tail):
            for _, data in sent(lines):
                event = models.EventView.from_dict(json.loads(data))
                after = event.seq
                yield event
                if event.kind == "ended":
                    return

    def exec(self, cmd: str | list[str], **options: Any) -> Finished:
        """Runs a command, waits for its end, and answers what it printed. Options are those of ``StartExec``."""
        view = self._start(cmd, wait=True, **options)
        if not isinstance(view.exit_, models.ExitView):
            raise Problem(503, "unavailable", f"{view.id} has not ended")
        return Finished(view.id, view.exit_, view.stdout or "", view.stderr or "")

    def start(self, cmd: str | list[str], **options: Any) -> Exec:
        """Starts a command, to be followed. Options are those of ``StartExec``."""
        return self.command(self._start(cmd, **options).id)

    def _start(self, cmd: str | list[str], **options: Any) -> models.ExecView:
        body = models.StartExec.from_dict({"cmd": cmd, **options})
        return one(start_exec.sync(self.id, client=self._hotbed.api, body=body), models.ExecView)

    def command(self, id: str) -> Exec:
        """A command that was started before."""
        return Exec(self._hotbed, self.id, id)

    def read_file(self, path: str) -> bytes:
        return self._hotbed.request("GET", self._file(path)).content

    def write_file(self, path: str, content: bytes | str, mode: str | None = None) -> None:
        """Writes a file whole; in the workspace this waits for the gate. ``mode`` as in ``644``."""
        data = content.encode() if isinstance(content, str) else content
        params = {} if mode is None else {"mode": mode}
        self._hotbed.request("PUT", self._file(path), content=data, params=params)

    def remove_file(self, path: str) -> None:
        self._hotbed.request("DELETE", self._file(path))

    def _file(self, path: str) -> str:
        return f"/v1/sessions/{self.id}/files/{quote(path)}"

    def snapshot(self) -> models.SnapshotView:
        return one(take_snapshot.sync(self.id, client=self._hotbed.api), models.SnapshotView)

    def fork(self, body: models.Fork | None = None) -> Session:
        answer = fork_session.sync(self.id, client=self._hotbed.api, body=body or models.Fork())
        return Session(self._hotbed, one(answer, models.SessionView))

    def end(self, *, discard: bool = False) -> models.SessionView:
        """Ends it, and waits until what it held is captured."""
        answer = end_session.sync(self.id, client=self._hotbed.api, wait=True, discard=discard)
        self.view = one(answer, models.SessionView)
        return self.view


class Exec:
    """A command that runs, or did."""

    def __init__(self, hotbed: Hotbed, session: str, id: str) -> None:
        self._hotbed = hotbed
        self.session = session
        self.id = id
        #: How it ended, once that has been seen.
        self.exit: models.ExitView | None = None

    def read(self) -> models.ExecView:
        return one(get_exec.sync(self.session, self.id, client=self._hotbed.api), models.ExecView)

    def output(self, from_: int = 0) -> Generator[Output, None, models.ExitView]:
        """What it prints, from any offset. Its end is the generator's value, and in ``exit``."""

        def ask() -> dict[str, str]:
            return {"from": str(from_), "follow": "true"}

        path = f"/v1/sessions/{self.session}/exec/{self.id}/output"
        for lines in self._hotbed.stream(path, ask):
            for text in lines:
                line = models.OutputLine.from_dict(json.loads(text))
                if isinstance(line.exit_, models.ExitView):
                    self.exit = line.exit_
                    return line.exit_
                data = bytes.fromhex(line.hex_) if line.hex_ else (line.text or "").encode()
                offset = line.offset if isinstance(line.offset, int) else from_
                from_ = offset + len(data)
                yield Output("stderr" if line.stream == "stderr" else "stdout", offset, data)
        raise Problem(503, "unavailable", f"the output of {self.id} has no end")

    def input(self, data: bytes | str, *, eof: bool = False) -> None:
        """Bytes for its stdin, where it was started with ``stdin``."""
        content = data.encode() if isinstance(data, str) else data
        path = f"/v1/sessions/{self.session}/exec/{self.id}/input"
        self._hotbed.request("POST", path, content=content, params={"eof": json.dumps(eof)})

    def signal(self, signal: str) -> None:
        body = models.SendSignal(signal=signal)
        signal_exec.sync(self.session, self.id, client=self._hotbed.api, body=body)
