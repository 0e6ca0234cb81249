"""What a generated call has answered."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def one(answer: object, kind: type[T]) -> T:
    """The answer, of the kind that was asked for: what is refused has been raised before."""
    if not isinstance(answer, kind):
        raise TypeError(f"the server answered {answer!r} where a {kind.__name__} was expected")
    return answer
