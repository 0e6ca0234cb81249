"""What Hotbed says when it refuses: ``application/problem+json``, as an exception."""

from __future__ import annotations

import json

import httpx


class Problem(Exception):
    """A request that was refused, or failed."""

    def __init__(self, status: int, kind: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {kind}: {detail}")
        self.status = status
        #: What to branch on: ``invalid``, ``unauthorized``, ``denied``, ``not_found``, ``conflict``, ``gone``,
        #: ``locked``, ``exhausted``, ``unavailable``, ``timeout``, ``permanent``; a newer server may have more.
        self.kind = kind
        #: What was wrong: the field, its value, what was expected.
        self.detail = detail
        #: Seconds after which it may go well.
        self.retry_after = retry_after

    @classmethod
    def of(cls, response: httpx.Response) -> Problem:
        """The problem in an answer that has been read."""
        try:
            body = json.loads(response.content)
        except ValueError:
            # Not Hotbed's: something between here and there has answered.
            body = {}
        if not isinstance(body, dict):
            body = {}
        kind = str(body.get("type", "unknown")).rsplit(":", 1)[-1]
        detail = str(body.get("detail") or response.text[:500])
        return cls(response.status_code, kind, detail, seconds_to_wait(response))


def seconds_to_wait(response: httpx.Response) -> float | None:
    try:
        return float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
