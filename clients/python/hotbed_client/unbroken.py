"""Streams that go on where they were: one connection after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx

from .problem import Problem

# How long to wait before a broken stream is taken up again, in seconds.
_AGAIN = 0.2
# How often in a row a stream may break without anything having come.
_BREAKS = 20
# A connection that has stood for so long, in seconds, did nothing wrong: there was nothing to say, and something on the
# way hung up.
_STOOD = 5.0
# Where nothing comes for so long the connection may be gone without a word; events are kept alive each 15 seconds.
_TIMEOUT = httpx.Timeout(30.0, read=60.0)


def unbroken(
    http: httpx.Client, path: str, ask: Callable[[], dict[str, str]], *, tail: bool = False
) -> Iterator[Iterator[str]]:
    """The lines of one answer after the other. It gives up where each breaks at once without having brought anything, or
    when the server refuses. ``ask`` says from where on; with ``tail`` all is there with the first that did not break."""
    breaks = 0
    while True:
        asked = ask()
        since: float | None = None
        broken: list[Exception] = []
        try:
            with http.stream("GET", path, params=asked, timeout=_TIMEOUT) as response:
                since = time.monotonic()
                yield _until_it_breaks(response, broken)
        except httpx.TransportError as e:
            # The server is away, perhaps to come back.
            broken.append(e)
        if tail and not broken:
            return
        stood = since is not None and time.monotonic() - since > _STOOD
        breaks = 0 if stood or ask() != asked else breaks + 1
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


def sent(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Name and data of each server-sent event; comments, which keep the connection alive, are left out."""
    event, data = "message", list[str]()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif line == "":
            if data:
                yield event, "\n".join(data)
            event, data = "message", []
