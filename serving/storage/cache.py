"""What is expensive to know and may be a little old, in two levels: this process, then Redis where there is one.

What belongs to an engine (similar items, popular lists, prepared answers) is not here but in serving/cache.py: it is needed on the
way of every request, is made faster than Redis answers, and goes with its engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from configs.deployment import Caching
from serving.storage.far import Far, away
from serving.storage.near import Near

Kind = Literal["key", "view", "profile", "sentence"]
Outcome = Literal["near", "far", "miss"]
Guard = Callable[[], AbstractAsyncContextManager[object]]
Value = Any  # whatever JSON can say

_MAKING_S = 10.0  # a lock ends by itself after so long: its maker died, or is very slow
_WAIT_S = 2.0  # a value that another process is making is waited for so long, then made here too
_LOOK_S = (0.005, 0.01, 0.02, 0.04)  # pauses between looks whether it is there; the last repeats
_PAY_S = 0.5
_MOST_OWED = 10_000  # forgotten keys that Redis could not be told of; beyond them, whole kinds

log = logging.getLogger("factotum.cache")


class _Making:
    """A value on its way, and everybody in this process who waits for it."""

    __slots__ = ("stale", "task")

    def __init__(self) -> None:
        self.stale = False  # forgotten while it was being made: given to those who wait, kept nowhere
        self.task: asyncio.Task[_Made]


@dataclass(frozen=True)
class _Made:
    value: bytes
    outcome: Outcome
    alone: bool  # Redis did not answer


class Levels:
    """Values by kind and key. What comes out has been through JSON whichever level it comes from: tuples are lists, keys are strings.

    One maker at a time for each key: in this process always, over all processes as long as Redis answers. A value that was
    forgotten while it was being made is kept nowhere. While Redis is away this process's own level goes on and makers are
    called; no error of Redis reaches a caller. Without Redis, `forget` reaches this process only: give keys a version, or a short life.
    """

    def __init__(
        self,
        settings: Caching,
        redis_url: str | None = None,
        count: Callable[[str, Outcome], None] = lambda kind, outcome: None,
        guard: Guard = nullcontext,
        missing: Callable[[], None] = lambda: None,
    ) -> None:
        """`guard` stands around each question to Redis and knows `serving.storage.far.away()` as failures. `count(kind, outcome)` is told
        each look-up, `missing()` each one that went without Redis. Raises ValueError for an address that is none."""
        self._settings, self._count, self._guard, self._missing = settings, count, guard, missing
        self._far = Far(redis_url) if redis_url else None
        self._away: tuple[type[BaseException], ...] = (*away(), RuntimeError) if redis_url else ()  # RuntimeError: a guard that refuses
        self._lifetimes: dict[Kind, float] = {
            "key": settings.key_s,
            "view": settings.view_s,
            "profile": settings.profile_s,
            "sentence": settings.sentence_s,
        }
        self._near: dict[str, Near[bytes]] = {}
        self._making: dict[tuple[str, str], _Making] = {}
        self._owed: set[tuple[str, str | None]] = set()
        self._owing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def far(self) -> bool:
        """Whether there is a level beyond this process."""
        return self._far is not None

    async def start(self) -> None:
        if self._far is not None:
            self._tasks = [
                asyncio.create_task(self._far.listen(self._heard, self._missed), name="cache-forgotten"),
                asyncio.create_task(self._pay_on(self._far), name="cache-owed"),
            ]

    async def close(self) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._tasks, *(making.task for making in self._making.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._far is not None:
            await self._far.close()

    # ------------------------------------------------------------ look-ups

    async def get(self, kind: Kind, key: str, make: Callable[[], Awaitable[Value]], lifetime: float | None = None) -> Value:
        """The value, made by `make` where no level has it. Raises what `make` raises, which is kept nowhere.

        `lifetime`: seconds, by default as `caching` says for the kind; `make` goes on where who asked first no longer waits.
        """
        held = self._near_of(kind).get(key)
        if held is not None:
            self._count(kind, "near")
            return orjson.loads(held)
        making = self._making.get((kind, key))
        if making is None or making.stale:
            making = _Making()
            making.task = asyncio.create_task(self._fetch(kind, key, make, self._lifetimes[kind] if lifetime is None else lifetime, making))
            self._making[kind, key] = making
            making.task.add_done_callback(lambda _: self._made(kind, key, making))
        made = await asyncio.shield(making.task)
        self._count(kind, made.outcome)
        if made.alone:
            self._missing()
        return orjson.loads(made.value)

    def _made(self, kind: str, key: str, making: _Making) -> None:
        if self._making.get((kind, key)) is making:
            del self._making[kind, key]
        if not making.task.cancelled():
            making.task.exception()  # those who waited have it; nobody may be left

    async def _fetch(self, kind: str, key: str, make: Callable[[], Awaitable[Value]], lifetime: float, making: _Making) -> _Made:
        made = await self._through_far(self._far, kind, key, make, lifetime) if self._far is not None else None
        if made is None:
            made = _Made(orjson.dumps(await make()), "miss", alone=self._far is not None)
        if not making.stale:
            near_s = lifetime if self._far is None else min(lifetime, self._settings.near_s)
            self._near_of(kind).put(key, made.value, near_s)
        return made

    async def _through_far(self, far: Far, kind: str, key: str, make: Callable[[], Awaitable[Value]], lifetime: float) -> _Made | None:
        """None: Redis is away, and nothing has been made yet."""
        try:
            await self._pay(far)
            found, ticket = await self._found(far, kind, key)
        except self._away as error:
            log.debug("the cache is away", extra={"fields": {"why": str(error)}})
            return None
        if found is not None:
            return _Made(found, "far", alone=False)
        try:
            value = orjson.dumps(await make())
        except BaseException:
            if ticket is not None:
                await self._ask(lambda: far.give_up(kind, key, ticket))
            raise
        kept = ticket is None or await self._ask(lambda: far.keep(kind, key, value, lifetime, ticket))
        return _Made(value, "miss", alone=not kept)

    async def _found(self, far: Far, kind: str, key: str) -> tuple[bytes | None, str | None]:
        """The value, or the right to make it, or neither after waiting long for somebody else's."""
        loop = asyncio.get_running_loop()
        until, look = loop.time() + _WAIT_S, 0
        while True:
            async with self._guard():
                found = await far.get(kind, key)
                if found is not None and _readable(found):
                    return found, None
                ticket = await far.lock(kind, key, _MAKING_S)
            if ticket is not None or loop.time() >= until:
                return None, ticket
            await asyncio.sleep(_LOOK_S[min(look, len(_LOOK_S) - 1)])
            look += 1

    async def _ask(self, question: Callable[[], Awaitable[object]]) -> bool:
        """Whether Redis took it."""
        try:
            async with self._guard():
                await question()
        except self._away as error:
            log.debug("the cache is away", extra={"fields": {"why": str(error)}})
            return False
        return True

    def _near_of(self, kind: str) -> Near[bytes]:
        near = self._near.get(kind)
        if near is None:
            near = self._near[kind] = Near(self._settings.entries)
        return near

    # ------------------------------------------------------------ invalidation

    async def forget(self, kind: Kind, key: str | None = None) -> None:
        """The value has changed; None: all of the kind have. Call it once the change is committed. Every replica forgets at once, one
        that does not hear it within `caching.near_s`. Redis, where it is away, is told within half a second of its return."""
        self._heard(kind, None if key is None else [key])
        if self._far is not None:
            self._owe(kind, key)
            try:
                await self._pay(self._far)
            except self._away as error:
                self._owing.set()
                log.warning("what was forgotten is told later: the cache is away", extra={"fields": {"kind": kind, "why": str(error)}})

    def _owe(self, kind: str, key: str | None) -> None:
        if len(self._owed) >= _MOST_OWED:
            self._owed = {(owed, None) for owed, _ in self._owed}
        self._owed.add((kind, key))

    async def _pay(self, far: Far) -> None:
        """Tells Redis what was forgotten while it was away. What is not told stays owed."""
        for kind in {kind for kind, _ in self._owed}:
            paying = {entry for entry in self._owed if entry[0] == kind}
            keys = [key for _, key in paying if key is not None]
            async with self._guard():
                await far.forget(kind, None if (kind, None) in paying else keys)
            self._owed -= paying

    async def _pay_on(self, far: Far) -> None:
        while True:
            await self._owing.wait()
            try:
                await self._pay(far)
                self._owing.clear()
            except self._away:
                await asyncio.sleep(_PAY_S)

    def _heard(self, kind: str, keys: list[str] | None) -> None:
        near = self._near_of(kind)
        if keys is None:
            near.clear()
        else:
            for key in keys:
                near.forget(key)
        for (other, key), making in self._making.items():
            if other == kind and (keys is None or key in keys):
                making.stale = True

    def _missed(self) -> None:
        for near in self._near.values():
            near.clear()

    async def ping(self) -> None:
        """Asks Redis whether it is there. Raises what `away()` names, or what the guard does."""
        if self._far is not None:
            async with self._guard():
                await self._far.ping()


def _readable(found: bytes) -> bool:
    try:
        orjson.loads(found)
    except orjson.JSONDecodeError:
        log.error("the cache holds something that is no JSON; it is made anew")
        return False
    return True
