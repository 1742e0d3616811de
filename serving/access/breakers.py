"""Circuit breakers: what failed several times in a row is left alone for a while, then asked by one, and only by one.

The three states and the count of failures are purgatory's (Nygard, "Release It!", chapter "Circuit Breaker"). What it lacks stands
here: a clock that nobody sets (it reads the time of day), one probe instead of a rush of them, outcomes of calls that began before
the state changed (they say nothing about now), and calls that were given up by their caller (they say nothing at all).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, get_args

from purgatory.domain.model import Context

from configs.deployment import Breakers as Settings

State = Literal["closed", "half-open", "open"]
STATES: tuple[State, ...] = get_args(State)  # a state's place is its figure in the metric factotum_breaker_state

_OF_PURGATORY: dict[str, State] = {"closed": "closed", "half-opened": "half-open", "opened": "open"}
_FIRST = 8  # the first wait is this part of the longest; each probe that fails doubles it

Counts = tuple[type[BaseException], ...]
Guard = Callable[[], AbstractAsyncContextManager[None]]

log = logging.getLogger("factotum.breakers")


class OpenError(RuntimeError):
    """The dependency is being left alone; it was not asked. `retry_after_s`: seconds until it will be."""

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__(f"{name} failed again and again and is left alone for {retry_after_s:.1f} s more")
        self.name, self.retry_after_s = name, retry_after_s


@dataclass(frozen=True)
class Seen:
    """A breaker as it stands: `since` is when it last went from whole to not, or back (seconds, Unix time)."""

    state: State
    since: float
    retry_after_s: float  # 0 while it is closed
    why: str  # the last failure that counted; empty while it is closed


class Breaker:
    """One dependency's. For the event loop only: nothing in it waits, so a call is judged in a microsecond or two."""

    def __init__(self, name: str, settings: Settings, changed: Callable[[str, State], None]) -> None:
        self.name = name
        self._settings, self._changed = settings, changed
        self.longest_s = settings.open_s
        self._context = Context(name, settings.failures, ttl=float("-inf"))  # whether it is time to probe is decided here, not there
        self._state: State = "closed"
        self._turn = 0  # grows with each change of state
        self._wait_s = 0.0
        self._until = 0.0  # time.monotonic() from which on a probe may go
        self._probing = self._looked_at = False
        self._since, self._why = time.time(), ""

    def seen(self) -> Seen:
        return Seen(self._state, self._since, self._left() if self._state != "closed" else 0.0, self._why)

    def hasten(self) -> None:
        """The next call may be the probe, however long the wait would have been. For who looks by itself, all the time, whether the
        dependency is back: from then on nobody is told to wait longer than a second."""
        self._until, self._looked_at = 0.0, True

    def enter(self) -> int:
        """Lets a call through and returns its ticket for `leave`. Raises OpenError."""
        if self._state == "closed":
            return self._turn
        if self._probing or time.monotonic() < self._until:
            raise OpenError(self.name, self._left())
        self._probing = True
        self._context.handle_new_request()
        self._settle()
        return self._turn

    def leave(self, ticket: int, error: BaseException | None, failed: bool) -> None:
        """How the call went. `failed`: the dependency did, by an error that counts; another error is an answer too, a cancellation none."""
        if ticket != self._turn:
            return  # it began before the state changed
        self._probing = False
        if failed:
            self._why = f"{type(error).__name__}: {error}"[:200]
            assert error is not None
            self._context.handle_exception(error)
        elif error is None or isinstance(error, Exception):
            self._context.handle_end_request()
        self._settle()

    def _left(self) -> float:
        left = max(0.1, self._until - time.monotonic())
        return min(left, 1.0) if self._looked_at else left

    def _settle(self) -> None:
        """Takes over what purgatory made of it."""
        self._context.messages.clear()  # its own log of changes, which nobody reads
        before, self._state = self._state, _OF_PURGATORY[self._context.state]
        if before == self._state:
            return
        self._turn += 1
        fields: dict[str, object] = {"dependency": self.name, "state": self._state}
        match self._state:
            case "open":
                first = before == "closed"
                self._wait_s = min(self.longest_s, self._settings.open_s / _FIRST if first else 2 * self._wait_s)
                self._until = time.monotonic() + self._wait_s
                if first:
                    self._since = time.time()
                log.log(logging.WARNING if first else logging.DEBUG, "breaker open", extra={"fields": fields | {"why": self._why}})
            case "half-open":
                log.debug("breaker half open", extra={"fields": fields})
            case "closed":
                log.info("breaker closed", extra={"fields": fields | {"away_s": round(time.time() - self._since, 1)}})
                self._since, self._why = time.time(), ""
        self._changed(self.name, self._state)


class _Call:
    """One call through a breaker."""

    __slots__ = ("_breaker", "_counts", "_ticket")

    def __init__(self, breaker: Breaker, counts: Counts) -> None:
        self._breaker, self._counts, self._ticket = breaker, counts, 0

    async def __aenter__(self) -> None:
        self._ticket = self._breaker.enter()

    async def __aexit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        self._breaker.leave(self._ticket, error, isinstance(error, self._counts))


class Breakers:
    """The breakers of a process, one a dependency, made at first mention.

    Whoever calls a dependency asks once for its guard, and puts it around each call:

        guard = service.breakers.of("mail", (OSError, TimeoutError))
        async with guard():  # raises OpenError at once while the dependency is left alone: say so, or do without
            await send(...)

    `counts` names the errors that mean "it is away". Any other error is an answer, and a good one for this purpose: a row
    that exists already, a mail address that is refused. Time-outs are the caller's: put asyncio.timeout *inside* the guard, and
    TimeoutError into `counts`; a call that is cancelled from outside counts neither way. Names in use: database, cache, limiter,
    broker, mail, recommender; a language model (`llm`) and a profiler (`profiler`) do the same. Each is the label `dependency` of
    factotum_breaker_state and a line of /readyz. After `failures` failures in a row the wait is an eighth of `open_s`, then
    twice that after each probe that failed, at most `open_s`.
    """

    def __init__(self, settings: Settings, changed: Callable[[str, State], None]) -> None:
        """`changed(name, state)` is called at each change of state, and with "closed" when a breaker is made."""
        self._settings, self._changed = settings, changed
        self._by_name: dict[str, Breaker] = {}

    def of(self, name: str, counts: Counts, longest_s: float | None = None) -> Guard:
        """The guard of a dependency; `counts` belongs to the guard, the state to the dependency. `longest_s`: a longest wait below
        `open_s`, for what is cheap to try because something stands in for it at once."""
        breaker = self._of(name)
        if longest_s is not None:
            breaker.longest_s = min(longest_s, self._settings.open_s)
        return lambda: _Call(breaker, counts)

    def state(self, name: str) -> State:
        return self._of(name).seen().state

    def hasten(self, name: str) -> None:
        """The next call of this dependency may be the probe."""
        self._of(name).hasten()

    def seen(self) -> Iterator[tuple[str, Seen]]:
        """Every breaker by name, for /readyz."""
        for name, breaker in sorted(self._by_name.items()):
            yield name, breaker.seen()

    def _of(self, name: str) -> Breaker:
        if name not in self._by_name:
            self._by_name[name] = Breaker(name, self._settings, self._changed)
            self._changed(name, "closed")
        return self._by_name[name]
