"""What an answer had to do without. Noted where it is found out, told where the answer goes out: the header `Degraded`."""

from __future__ import annotations

from contextvars import ContextVar

HEADER = b"degraded"  # names with commas between

#: Of the request being answered; tasks and threads begun on its behalf see the same set.
_noted: ContextVar[set[str] | None] = ContextVar("degraded", default=None)


def begin() -> set[str]:
    """For the outermost layer of a request: the set that fills while it is answered."""
    noted: set[str] = set()
    _noted.set(noted)
    return noted


def note(part: str) -> None:
    """The request being answered goes on without `part` (the name of a dependency: cache, database, limits, recommender)."""
    noted = _noted.get()
    if noted is not None:
        noted.add(part)
