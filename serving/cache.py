"""A small cache of this process: what it holds belongs to one engine and goes when that engine goes.

A promoted bundle or a new item makes another engine, so nothing in here is ever out of date, on any replica, and no word between
replicas is needed. What does not belong to an engine is in serving/storage/cache.py.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

from serving.engine import Engine
from serving.metrics import Metrics
from serving.storage.near import Near

_Value = TypeVar("_Value")


class Cache:
    """At most `most` entries of each engine. For the event loop only. Outcomes are counted by the cache's `name`; no value is None."""

    def __init__(self, metrics: Metrics, most: int = 2_000) -> None:
        self._most = most
        self._metrics = metrics
        self._of: WeakKeyDictionary[Engine, Near[object]] = WeakKeyDictionary()

    def get(self, name: str, engine: Engine, key: Hashable, make: Callable[[], _Value]) -> _Value:
        near = self._of.get(engine)
        if near is None:
            near = self._of[engine] = Near(self._most)
        whole = (name, key)
        held = near.get(whole)
        if held is not None:
            self._metrics.cache.labels(name, "near").inc()
            return cast(_Value, held)
        self._metrics.cache.labels(name, "miss").inc()
        value = make()
        near.put(whole, value)
        return value
