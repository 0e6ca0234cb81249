"""A client's day, told on one line at its end. The test ``clients`` runs it behind a proxy that breaks what is followed,
loses an answer and is busy, and holds what is told here against what the server has done."""

import json
import os
import threading

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

    followed = threading.Thread(target=follow)
    followed.start()
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
    followed.join()
    refused("gone", lambda: session.exec("true"))

print("told: " + json.dumps({"session": session.id, "events": events, "execs": 2}))
