"""What schemathesis has to know of Hotbed: names and ids of what is there, so that requests get behind the door, and
which answers of a server in trouble are honest ones."""

import atexit
import json
import os
import random

import schemathesis

# What there is, by the kind of its id: {"ses": [...], ...}, and repos by name.
THERE = json.loads(os.environ["HOTBED_THERE"])
KINDS = {
    "builds": "bld",
    "images": "img",
    "sessions": "ses",
    "snapshots": "snp",
    "warmups": "wrm",
    "keys": "key",
}
CHOICE = random.Random(20261122)


def known(path, name):
    """What could stand there in this path, of what there is."""
    if name == "owner":
        return THERE["owner"]
    if name == "name":
        return THERE["name"]
    if name == "exec":
        return THERE["exe"]
    if name == "login":
        return ["ada"]
    if name == "id":
        return THERE.get(KINDS.get(path.split("/")[2], ""), [])
    return []


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Three requests of four are about something that is there."""
    if not path_parameters or CHOICE.random() < 0.25:
        return path_parameters
    path = context.operation.path
    found = {name: known(path, name) for name in path_parameters}
    return {name: CHOICE.choice(found[name]) if found[name] else value for name, value in path_parameters.items()}


# What may be left out, and is where it is of the right kind: most of what a schema allows there leads nowhere.
OPTIONAL = {
    "warmup": str,
    "snapshot": str,
    "parent": str,
    "base": str,
    "branch": str,
    "user_token": str,
    "timeout_seconds": int,
    "idle_seconds": int,
    "expires_seconds": int,
}


@schemathesis.hook
def map_body(context, body):
    """Three bodies of four are about what is there; whatever else is in them, or wrong with them, stays."""
    if not isinstance(body, dict) or CHOICE.random() < 0.25:
        return body
    if isinstance(body.get("repo"), str):
        body["repo"] = f"{THERE['owner'][0]}/{THERE['name'][0]}"
    if isinstance(body.get("role"), str):
        body["role"] = "client"
    if isinstance(body.get("user"), dict) and isinstance(body["user"].get("login"), str):
        body["user"]["login"] = "ada"
    for name, kind in OPTIONAL.items():
        if type(body.get(name)) is kind and (kind is str or body[name] >= 0):
            del body[name]
    return body


# By operation, the statuses that it was answered with: for the test that runs this, to see how far it got.
SEEN = {}


@schemathesis.hook
def after_call(context, case, response):
    SEEN.setdefault(case.operation.definition.raw["operationId"], set()).add(response.status_code)


@atexit.register
def tell():
    with open(os.environ["HOTBED_SEEN"], "w", encoding="utf-8") as file:
        json.dump({name: sorted(statuses) for name, statuses in SEEN.items()}, file)


@schemathesis.check
def honest_answers(context, response, case):
    """No answer is a server's error, but one that passes by itself and says when."""
    if response.status_code < 500:
        return
    said = response.text[:400]
    assert response.status_code in (503, 504), f"{response.status_code}: {said}"
    kind = response.json()["type"].rsplit(":", 1)[-1]
    assert kind in ("exhausted", "unavailable", "timeout"), f"{response.status_code}: {said}"
    assert int(response.headers["Retry-After"][0]) > 0, "no Retry-After"
