"""How requests are sent: with an ``Idempotency-Key`` where something is made, and again when that helps."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from .problem import Problem, seconds_to_wait

# The POSTs that make something and take an `Idempotency-Key`; a test holds it against the API's description.
_MAKES = re.compile(
    r"/v1/(sessions|sessions/[^/]+/(exec|fork|snapshots|pull-requests)|repos/[^/]+/[^/]+/builds)"
)


@dataclass(frozen=True)
class Patience:
    """How often a request is sent again, and how long all of that may take, in seconds."""

    retries: int = 5
    seconds: float = 60.0


def makes_something(method: str, path: str) -> bool:
    return method == "POST" and _MAKES.fullmatch(path) is not None


class Patient(httpx.BaseTransport):
    """Sends a request until there is an answer worth having; one that refuses is raised as a :class:`Problem`."""

    def __init__(
        self,
        inner: httpx.BaseTransport,
        patience: Patience,
        traceparent: Callable[[], str | None] | None = None,
    ) -> None:
        self._inner = inner
        self._patience = patience
        self._traceparent = traceparent

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        made = makes_something(request.method, request.url.path)
        if made and "Idempotency-Key" not in request.headers:
            request.headers["Idempotency-Key"] = str(uuid.uuid4())
        trace = self._traceparent() if self._traceparent else None
        if trace is not None:
            request.headers["traceparent"] = trace
        # A body that is read from a file can't be sent again.
        again = isinstance(request.stream, httpx.ByteStream)
        until = time.monotonic() + self._patience.seconds
        attempt = 0
        while True:

            def may_repeat(seconds: float, attempt: int = attempt) -> bool:
                left = until - time.monotonic()
                return again and attempt < self._patience.retries and seconds < left

            try:
                response = self._inner.handle_request(request)
            except httpx.TransportError:
                seconds = 0.1 * 2.0**attempt
                # Sent twice, these do what they do once.
                if not (made or request.method == "GET") or not may_repeat(seconds):
                    raise
            else:
                if response.status_code < 400:
                    return response
                response.read()
                wait = seconds_to_wait(response)
                if response.status_code not in (429, 503) or wait is None or not may_repeat(wait):
                    raise Problem.of(response)
                seconds = wait
            time.sleep(seconds)
            attempt += 1

    def close(self) -> None:
        self._inner.close()
