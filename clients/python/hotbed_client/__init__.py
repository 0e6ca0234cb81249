"""Hotbed's API. ``hotbed_client.rest`` is generated from its description and has every call and every model; here is what
is asked for most, with streams that go on across broken connections."""

from .rest import models
from .hotbed import Hotbed
from .problem import Problem
from .session import Exec, Finished, Output, Session
from .transport import Patience, makes_something

__all__ = [
    "Exec",
    "Finished",
    "Hotbed",
    "Output",
    "Patience",
    "Problem",
    "Session",
    "makes_something",
    "models",
]
