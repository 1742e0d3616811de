"""The level of a cache that lies in this process: bounded, least recently used first out, each entry with an end."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Near(Generic[_Value]):
    """At most `most` entries. Nothing in it waits; for one thread, or the event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, tuple[_Value, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable) -> _Value | None:
        """None: not here, or no longer."""
        held = self._held.get(key)
        if held is None:
            return None
        value, until = held
        if time.monotonic() >= until:
            del self._held[key]
            return None
        self._held.move_to_end(key)
        return value

    def put(self, key: Hashable, value: _Value, lifetime_s: float = float("inf")) -> None:
        self._held[key] = (value, time.monotonic() + lifetime_s)
        self._held.move_to_end(key)
        if len(self._held) > self._most:
            self._held.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        self._held.pop(key, None)

    def clear(self) -> None:
        self._held.clear()
