"""Hotbed, as a client sees it. ``api`` is what the generated calls take; the rest is what is asked for most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from .rest import AuthenticatedClient, models
from .rest.api.sessions import create_session, get_session, list_sessions
from .rest.api.warmups import announce_warmup, withdraw_warmup
from .problem import Problem
from .session import Session
from .transport import Patience, Patient
from .values import one

# How long to wait before a broken stream is taken up again, in seconds.
_AGAIN = 0.2
# How often in a row a stream may break without anything having come.
_BREAKS = 20
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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        inner = transport or httpx.HTTPTransport(retries=1)
        #: For every call of ``hotbed_client.rest``. A refusal is raised as a :class:`Problem`.
        self.api = AuthenticatedClient(
            base_url=url.rstrip("/"),
            token=key,
            timeout=_TIMEOUT,
            httpx_args={"transport": Patient(inner, patience)},
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

    def unbroken(self, path: str, ask: Callable[[], dict[str, Any]]) -> Iterator[Iterator[str]]:
        """The lines of one answer after the other, for as long as each that breaks is followed by one that brings
        something. ``ask`` says from where on."""
        breaks = 0
        while True:
            asked = ask()
            broken: list[Exception] = []
            with self.api.get_httpx_client().stream("GET", path, params=asked) as response:
                yield _until_it_breaks(response, broken)
            breaks = 0 if ask() != asked else breaks + 1
            if breaks > _BREAKS:
                raise broken[0] if broken else Problem(503, "unavailable", f"{path} ends without anything new")
            time.sleep(_AGAIN)


def _until_it_breaks(response: httpx.Response, broken: list[Exception]) -> Iterator[str]:
    """Whole lines: what is cut off by a break is asked for again."""
    rest = b""
    try:
        for part in response.iter_bytes():
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                yield line.decode().rstrip("\r")
    except httpx.TransportError as e:
        broken.append(e)
