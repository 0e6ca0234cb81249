"""A client's day, told on one line at its end. The test ``clients`` runs it behind a proxy that breaks what is followed,
loses an answer and is busy, and holds what is told here against what the server has done."""

import json
import os
import threading

import httpx

from hotbed_client import Hotbed, Problem, makes_something, models


def refused(kind, call):
    """The problem that a call must end in."""
    try:
        call()
    except Problem as problem:
        assert problem.kind == kind, problem
        return problem
    raise AssertionError(f"expected a problem of kind {kind}")


address, key = os.environ["HOTBED_ADDRESS"], os.environ["HOTBED_KEY"]

# What is repeated without harm is what the description says.
for path, takes_key in json.loads(os.environ["HOTBED_POSTS"]).items():
    assert makes_something("POST", path) == takes_key, path

# Who is busy is asked again, but not for ever, and not for longer than one has patience.
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
for seconds, times in (0, 6), (3600, 1):
    asked = []

    def answer(request):
        asked.append(request.headers["traceparent"])
        problem = {"type": "urn:hotbed:problem:exhausted", "detail": "too often"}
        return httpx.Response(429, headers={"Retry-After": str(seconds)}, json=problem)

    with Hotbed(address, key, traceparent=lambda: TRACE, transport=httpx.MockTransport(answer)) as busy:
        problem = refused("exhausted", lambda: busy.session("ses_1"))
    assert (problem.status, problem.retry_after, asked) == (429, seconds, [TRACE] * times), problem

with Hotbed(address, key) as hotbed:
    # Bad input is a problem with a kind.
    user = models.User(login="ada")
    nowhere = models.CreateSession(repo="acme/none", user=user)
    problem = refused("not_found", lambda: hotbed.create_session(nowhere))
    assert problem.status == 404 and "acme/none" in problem.detail, problem
    with Hotbed(address, "hbk_0") as stranger:
        assert refused("unauthorized", lambda: stranger.warm_up("acme/api", "tab")).status == 401

    # The first keystroke, and the session.
    warmup = hotbed.warm_up("acme/api", "tab")
    assert hotbed.warm_up("acme/api", "tab").id == warmup.id
    body = models.CreateSession(repo="acme/api", user=user, warmup=warmup.id)
    session = hotbed.create_session(body)
    events = []

    def follow():
        for event in session.events():
            assert event.seq == len(events) + 1, "no event is left out or told twice"
            events.append(event.kind)

    happened = []

    def hear():
        for event in hotbed.events(session=session.id):
            happened.append(event.kind)
            if event.kind == "session_ended":
                return

    followed = [threading.Thread(target=follow), threading.Thread(target=hear)]
    for thread in followed:
        thread.start()
    assert session.gate_open().phase == "synced"

    # A command that is waited for; its first answer is lost.
    greeted = session.exec("echo hello")
    assert (greeted.stdout, greeted.exit.code) == ("ok\n", 0), greeted

    # A command that is followed across broken connections.
    run = session.start(["make", "story"], env={"CI": "1"})
    whole = b"".join(piece.data for piece in run.output())
    assert run.exit.code == 3, run.exit
    assert len(whole.splitlines()) == 200 and b"line 199 of" in whole
    assert b"".join(piece.data for piece in run.output(5000)) == whole[5000:]
    assert run.read().output_bytes == len(whole)

    session.write_file("docs/a note.md", "What was found.\n", "644")
    assert session.read_file("docs/a note.md") == b"What was found.\n"
    session.remove_file("docs/a note.md")
    refused("not_found", lambda: session.read_file("docs/a note.md"))

    assert session.snapshot().state == "ready"
    assert [other.id for other in hotbed.sessions(repo="acme/api")] == [session.id]

    assert session.end().state == "ended"
    for thread in followed:
        thread.join()
    assert happened == ["session_started", "session_ready", "session_ended"], happened
    # All that is remembered; what came behind an older number is not.
    gaps = []
    happenings = [event.seq for event in hotbed.events(1, tail=True, lost=gaps.append)]
    assert [gap.after for gap in gaps] == [1], gaps
    builds = {event.kind for event in hotbed.events(kinds=["build_ended"], repo="acme/api", tail=True)}
    assert builds == {"build_ended"}, builds
    refused("gone", lambda: session.exec("true"))

print("told: " + json.dumps({"session": session.id, "events": events, "happenings": happenings, "execs": 2}))
