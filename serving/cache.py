"""A small cache of this process: what it holds belongs to one engine and goes when that engine goes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

from serving.engine import Engine
from serving.metrics import Metrics

_Value = TypeVar("_Value")


class Cache:
    """Least recently used entries leave first. For the event loop only. Hits and misses are counted by the cache's `name`."""

    def __init__(self, metrics: Metrics, most: int = 2_000) -> None:
        self._most = most
        self._metrics = metrics
        self._of: WeakKeyDictionary[Engine, OrderedDict[tuple[str, Hashable], object]] = WeakKeyDictionary()

    def get(self, name: str, engine: Engine, key: Hashable, make: Callable[[], _Value]) -> _Value:
        held = self._of.get(engine)
        if held is None:
            held = self._of[engine] = OrderedDict()
        whole = (name, key)
        if whole in held:
            self._metrics.cache.labels(name, "hit").inc()
            held.move_to_end(whole)
            return cast(_Value, held[whole])
        self._metrics.cache.labels(name, "miss").inc()
        value = make()
        held[whole] = value
        if len(held) > self._most:
            held.popitem(last=False)
        return value
