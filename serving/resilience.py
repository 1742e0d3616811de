"""What joins the breakers with what they stand around, and looks by itself whether that is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from types import TracebackType

from serving.access.breakers import STATES, Breakers, OpenError, State
from serving.access.breakers import Guard as Enter
from serving.events.bus import BusAwayError
from serving.metrics import Metrics
from serving.storage.database import DatabaseAwayError, Guard
from serving.storage.far import away

DATABASE = "database"
_LOOK_S = 0.25  # how often a dependency that is away is asked whether it is back

log = logging.getLogger("factotum.resilience")


class BreakersShown:
    """Tells the metrics what the breakers do. A breaker opens once and may be probed often before it closes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._whole: dict[str, bool] = {}

    def __call__(self, name: str, state: State) -> None:
        self._metrics.breaker.labels(name).set(STATES.index(state))
        self._metrics.breaker_opened.labels(name).inc(state == "open" and self._whole.get(name, True))
        self._whole[name] = state == "closed"


class _Guarded:
    """A breaker in the dependency's own words: left alone is away."""

    __slots__ = ("_away", "_call")

    def __init__(self, enter: Enter, away: Callable[[OpenError], Exception]) -> None:
        self._call, self._away = enter(), away

    async def __aenter__(self) -> None:
        try:
            await self._call.__aenter__()
        except OpenError as error:
            raise self._away(error) from None

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._call.__aexit__(kind, error, trace)


def guard_of(breakers: Breakers, longest_s: float | None = None) -> Guard:
    """What a Database wants around its transactions. `longest_s`: as Breakers.of."""
    enter = breakers.of(DATABASE, (DatabaseAwayError,), longest_s)
    return lambda: _Guarded(enter, lambda error: DatabaseAwayError(str(error), error.retry_after_s))


def bus_guard(breakers: Breakers) -> Guard:
    """What stands around what the relay sends to a broker. Only the relay sends, and it pauses by itself: a second's rest is enough."""
    enter = breakers.of("broker", (BusAwayError,), longest_s=1.0)
    return lambda: _Guarded(enter, lambda error: BusAwayError(str(error)))


def redis_guard(breakers: Breakers, name: str, url: str | None) -> Enter:
    """What stands around each question to Redis; nothing where there is none."""
    return breakers.of(name, away()) if url else nullcontext


class Lookout:
    """Asks what is away, again and again, whether it is back, so that no person's request need be the probe and all heals at once.

    `asks`: by the breaker's name, a cheap question that goes through that breaker (SELECT 1, PING). One at a time each.
    """

    def __init__(self, breakers: Breakers, asks: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        self._breakers = breakers
        self._asks = dict(asks)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._look(name, ask), name=f"lookout-{name}") for name, ask in self._asks.items()]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._breakers.state(name) != "open":
                continue
            self._breakers.hasten(name)  # nothing waits between here and the breaker: the next call is this one
            try:
                await ask()
            except Exception as error:
                log.debug("still away", extra={"fields": {"dependency": name, "why": str(error)}})
