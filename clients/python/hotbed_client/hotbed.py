"""Hotbed, as a client sees it. ``api`` is what the generated calls take; the rest is what is asked for most."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

import httpx

from .rest import AuthenticatedClient, models
from .rest.api.sessions import create_session, get_session, list_sessions
from .rest.api.warmups import announce_warmup, withdraw_warmup
from .problem import Problem
from .session import Session
from .transport import Patience, Patient
from .unbroken import sent, unbroken
from .values import one

# An answer may take as long as the command that is waited for.
_TIMEOUT = httpx.Timeout(30.0, read=900.0)


class Hotbed:
    """A server and an API key. Use it as a context manager, or ``close`` it."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience: Patience = Patience(),
        traceparent: Callable[[], str | None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``traceparent`` says of which trace a request is, as W3C writes it: Hotbed's spans, and those in the sandbox,
        become part of it."""
        inner = transport or httpx.HTTPTransport(retries=1)
        #: For every call of ``hotbed_client.rest``. A refusal is raised as a :class:`Problem`.
        self.api = AuthenticatedClient(
            base_url=url.rstrip("/"),
            token=key,
            timeout=_TIMEOUT,
            httpx_args={"transport": Patient(inner, patience, traceparent)},
        )

    def __enter__(self) -> Hotbed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.api.get_httpx_client().close()

    def create_session(self, body: models.CreateSession) -> Session:
        return Session(self, one(create_session.sync(client=self.api, body=body), models.SessionView))

    def session(self, id: str) -> Session:
        """A session that there is already."""
        return Session(self, one(get_session.sync(id, client=self.api), models.SessionView))

    def sessions(self, **query: str) -> Iterator[Session]:
        """Every page of sessions, newest first. Queries are ``repo``, ``state`` and ``user``."""
        while True:
            page = one(list_sessions.sync(client=self.api, **query), models.ListSessionView)  # type: ignore[arg-type]
            for view in page.items:
                yield Session(self, view)
            if not isinstance(page.next_, str):
                return
            query["after"] = page.next_

    def warm_up(self, repo: str, client: str, branch: str | None = None) -> models.WarmupView:
        """Announces a session at the first keystroke, and again at every further one: the same client and repo have one
        warm-up."""
        body = models.Announce(repo=repo, client=client, branch=branch)
        return one(announce_warmup.sync(client=self.api, body=body), models.WarmupView)

    def withdraw_warm_up(self, id: str) -> models.WarmupView:
        return one(withdraw_warmup.sync(id, client=self.api), models.WarmupView)

    def events(
        self,
        after: int = 0,
        *,
        repo: str | None = None,
        session: str | None = None,
        kinds: list[str] | None = None,
        tail: bool = False,
        lost: Callable[[models.LostView], None] | None = None,
    ) -> Iterator[models.HappeningView]:
        """What happens in the whole installation, as it happens, without end: from what is still remembered, or from
        ``after``; with ``tail`` what is there now. ``lost`` is told when what came behind one number and before another is
        no longer remembered: what one knows may be old then."""
        given = {"repo": repo, "session": session, "kind": ",".join(kinds) if kinds else None}
        only = {name: value for name, value in given.items() if value is not None}

        def ask() -> dict[str, str]:
            return {**only, "after": str(after), "tail": json.dumps(tail)}

        for lines in self.stream("/v1/events", ask, tail=tail):
            for event, data in sent(lines):
                if event == "lost":
                    gap = models.LostView.from_dict(json.loads(data))
                    after = gap.next_ - 1
                    if lost is not None:
                        lost(gap)
                else:
                    happening = models.HappeningView.from_dict(json.loads(data))
                    after = happening.seq
                    yield happening

    def stream(self, path: str, ask: Callable[[], dict[str, str]], *, tail: bool = False) -> Iterator[Iterator[str]]:
        """The lines of a stream, taken up again where it breaks: ``ask`` says from where on."""
        return unbroken(self.api.get_httpx_client(), path, ask, tail=tail)

    def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """A request whose body is bytes."""
        return self.api.get_httpx_client().request(method, path, content=content, params=params)
