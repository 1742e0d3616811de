"""How many requests a minute somebody may make: a moving window, exact, one for all gateways.

Of the requests let through, at most `per_minute` lie in any 60 seconds; those refused are not counted. Three places to count in,
behind one port: this process, a file that the gateways of one machine share, Redis. The library `limits` is not used: its window in
memory hands over to a thread for each name it knows at every request, and its Redis form needs two round trips and believes the clock of
whoever asks.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import math
import os
import sqlite3
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from configs.deployment import Limits

WINDOW_S = 60.0
FILE = "limits.db"
_NAMES = 100_000  # that a process remembers; the one not seen for longest is forgotten first
_REDIS_S = 1.0  # an answer of Redis is waited for so long: rather late than counted alone
_SKEW_S = 0.1
_LOCK_S = 5.0  # the file is waited for so long, in a thread
_SWEEP_S = 30.0

#: Around each question to Redis: refuses to begin where asking is pointless, and learns how it went.
Guard = Callable[[], AbstractAsyncContextManager[object]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`remaining`: requests that may follow at once. `reset_s`: seconds until the oldest one counted leaves the window, so that one
    more is free. `degraded`: the shared count was away, and this gateway counted its own share."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: float
    degraded: bool = False


class Limiter(Protocol):
    async def take(self, name: str, per_minute: int) -> Verdict:
        """Counts one request of `name`, if it is let through. `per_minute` >= 1. Raises nothing."""

    async def close(self) -> None:
        """Gives back files and connections."""


class ProcessLimiter:
    """Counts in this process. `clock`: seconds, never going back."""

    def __init__(self, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s, self._clock = window_s, clock
        self._taken: OrderedDict[str, deque[float]] = OrderedDict()
        self._full: OrderedDict[str, float] = OrderedDict()

    async def take(self, name: str, per_minute: int) -> Verdict:
        return self.take_now(name, per_minute)

    def take_now(self, name: str, per_minute: int) -> Verdict:
        now = self._clock()
        taken = self._of(name)
        while taken and taken[0] <= now - self._window_s:
            taken.popleft()
        verdict = _verdict(taken, per_minute, now, self._window_s)
        if verdict.allowed:
            taken.append(now)
        return verdict

    def full_for(self, name: str) -> float:
        """Seconds for which `name` is known to be full elsewhere."""
        return max(0.0, self._full.get(name, 0.0) - self._clock())

    def note(self, name: str, verdict: Verdict) -> None:
        """What was decided about a request of `name` elsewhere, where all gateways count."""
        now = self._clock()
        if verdict.remaining == 0:
            while len(self._full) >= _NAMES:
                self._full.popitem(last=False)
            self._full[name] = now + verdict.reset_s
            self._full.move_to_end(name)
        if not verdict.allowed:
            return
        taken = self._of(name)
        while taken and taken[0] <= now - self._window_s:
            taken.popleft()
        taken.append(now)

    async def close(self) -> None:
        self._taken.clear()

    def _of(self, name: str) -> deque[float]:
        taken = self._taken.get(name)
        if taken is None:
            while len(self._taken) >= _NAMES:
                self._taken.popitem(last=False)
            taken = self._taken[name] = deque()
        else:
            self._taken.move_to_end(name)
        return taken


def _verdict(taken: deque[float] | array[float], limit: int, now: float, window_s: float) -> Verdict:
    """`taken`: moments within the window, oldest first."""
    count = len(taken)
    if count >= limit:
        return Verdict(False, limit, 0, max(0.0, taken[count - limit] + window_s - now))
    oldest = taken[0] if count else now
    return Verdict(True, limit, limit - count - 1, max(0.0, oldest + window_s - now))


class FileLimiter:
    """Counts in an SQLite file that the gateways of one machine share: one row a name, with the moments of its last requests.

    A file lock orders the gateways: SQLite alone would look again only every millisecond or more. Where the lock is free the
    count is made at once, on the event loop (tens of microseconds); where it is held, a thread waits for it. A file that cannot be
    written, or a lock not given within seconds, leaves this gateway counting its share by itself.
    """

    def __init__(self, path: Path, gateways: int, window_s: float = WINDOW_S, clock: Callable[[], float] = time.time) -> None:
        self._path, self._gateways = path, gateways
        self._window_s, self._clock = window_s, clock
        self._alone = ProcessLimiter(window_s)
        self._here: _CountFile | None = None
        self._there: _CountFile | None = None
        self._thread: ThreadPoolExecutor | None = None

    async def take(self, name: str, per_minute: int) -> Verdict:
        try:
            if self._here is None:
                self._here = _CountFile(self._path, self._window_s, self._clock)
            verdict = self._here.take(name, per_minute, wait_s=0.0)
            if verdict is None:
                verdict = await asyncio.get_running_loop().run_in_executor(self._threads(), self._wait, name, per_minute)
        except (OSError, sqlite3.Error):
            verdict = None
        if verdict is None:
            return _share(self._alone, name, per_minute, self._gateways)
        self._alone.note(name, verdict)
        return verdict

    def _threads(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "limits")
        return self._thread

    def _wait(self, name: str, per_minute: int) -> Verdict | None:
        if self._there is None:
            self._there = _CountFile(self._path, self._window_s, self._clock)
        return self._there.take(name, per_minute, wait_s=_LOCK_S)

    async def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        for file in (self._here, self._there):
            if file is not None:
                file.close()
        self._here = self._there = self._thread = None


class _CountFile:
    """One connection and one hold of the lock. Used by one thread at a time. Raises OSError, sqlite3.Error."""

    def __init__(self, path: Path, window_s: float, clock: Callable[[], float]) -> None:
        self._window_s, self._clock = window_s, clock
        self._swept = clock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not self._locked(_LOCK_S):  # several that open a new file at once would find it locked by each other
                raise OSError(f"{path}: the lock was not given in {_LOCK_S:g} s")
            self._connection = sqlite3.connect(path, timeout=_LOCK_S, isolation_level=None, check_same_thread=False)
            for said in ("journal_mode=WAL", "synchronous=OFF"):  # counts of a minute need not survive the power
                self._connection.execute(f"PRAGMA {said}")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS taken (name BLOB PRIMARY KEY, last REAL NOT NULL, moments BLOB NOT NULL) WITHOUT ROWID"
            )
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        except BaseException:
            os.close(self._lock)
            raise

    def _locked(self, wait_s: float) -> bool:
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= until:
                    return False
                time.sleep(0.0002)

    def take(self, name: str, limit: int, wait_s: float) -> Verdict | None:
        """None: the lock was not given in time."""
        if not self._locked(wait_s):
            return None
        try:
            return self._taken(hashlib.blake2b(name.encode(), digest_size=16).digest(), limit)
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _taken(self, name: bytes, limit: int) -> Verdict:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            now = self._clock()  # asked under the lock: moments are written in their order
            row = self._connection.execute("SELECT moments FROM taken WHERE name = ?", (name,)).fetchone()
            known = array("d", row[0] if row else b"")
            if known and 0.0 < known[-1] - now < _SKEW_S:
                now = known[-1]  # the clocks of two processors
            # those later than now are of before the clock was set back
            moments = known[bisect_right(known, now - self._window_s) : bisect_right(known, now)]
            verdict = _verdict(moments, limit, now, self._window_s)
            if verdict.allowed:
                moments.append(now)
                self._connection.execute("INSERT OR REPLACE INTO taken VALUES (?, ?, ?)", (name, now, moments.tobytes()))
            if now - self._swept > _SWEEP_S:
                self._swept = now
                self._connection.execute("DELETE FROM taken WHERE last <= ?", (now - self._window_s,))
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        return verdict

    def close(self) -> None:
        self._connection.close()
        os.close(self._lock)


#: Newest first in a list of Redis' own microseconds; one round trip, one clock for all gateways.
_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local oldest = redis.call('LINDEX', KEYS[1], -1)
while oldest and tonumber(oldest) <= now - window do
  redis.call('RPOP', KEYS[1])
  oldest = redis.call('LINDEX', KEYS[1], -1)
end
local count = redis.call('LLEN', KEYS[1])
if count >= limit then
  return {0, 0, tonumber(redis.call('LINDEX', KEYS[1], limit - 1)) + window - now}
end
redis.call('LPUSH', KEYS[1], string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000) + 1000)
return {1, limit - count - 1, (oldest and tonumber(oldest) or now) + window - now}
"""


class RedisLimiter:
    """Counts in Redis. While it does not answer, each gateway counts by itself, up to its share of the limit; what it let through
    before is known to it."""

    def __init__(self, url: str, gateways: int, guard: Guard = nullcontext, window_s: float = WINDOW_S, prefix: str = "factotum") -> None:
        from redis.asyncio import BlockingConnectionPool, Redis

        pool: Any = BlockingConnectionPool.from_url(
            url, max_connections=16, timeout=_REDIS_S, socket_timeout=_REDIS_S, socket_connect_timeout=_REDIS_S
        )
        self._redis: Any = Redis(connection_pool=pool)
        self._ask = cast("Callable[..., Awaitable[list[int]]]", self._redis.register_script(_SCRIPT))
        self._gateways, self._guard, self._prefix = gateways, guard, prefix
        self._window_us = int(window_s * 1e6)
        self._alone = ProcessLimiter(window_s)

    async def take(self, name: str, per_minute: int) -> Verdict:
        key = f"{self._prefix}:limit:{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"
        try:
            async with self._guard():
                allowed, remaining, reset_us = await self._ask(keys=[key], args=[per_minute, self._window_us])
        except Exception:  # away, late, a breaker that is open: whatever it is, people are let in
            return _share(self._alone, name, per_minute, self._gateways)
        verdict = Verdict(bool(allowed), per_minute, int(remaining), max(0.0, reset_us / 1e6))
        self._alone.note(name, verdict)
        return verdict

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()


def _share(alone: ProcessLimiter, name: str, per_minute: int, gateways: int) -> Verdict:
    """What one of several gateways may let through by itself, rounded up; nothing where all together were known to be at the limit."""
    share = math.ceil(per_minute / gateways)
    full_s = alone.full_for(name)
    if full_s > 0:
        return Verdict(False, share, 0, full_s, degraded=True)
    return replace(alone.take_now(name, share), degraded=True)


def store(limits: Limits, gateways: int, redis_url: str | None, lite: bool) -> str:
    """Where requests are counted: "process", "file" or "redis".

    lite: the database is SQLite, so all gateways stand on one machine. Raises ValueError where no one count for all gateways
    is to be had, and says what is allowed.
    """
    if limits.store == "redis" and not redis_url:
        raise ValueError("limits.store: redis needs FACTOTUM_REDIS_URL; set it, or choose auto")
    if limits.store == "process" and gateways > 1:
        raise ValueError(f"limits.store: process counts for one gateway, and there may be {gateways}; allowed are redis, file and auto")
    if limits.store != "auto":
        return limits.store
    if redis_url:
        return "redis"
    if gateways == 1:
        return "process"
    if lite:
        return "file"
    raise ValueError(
        f"{gateways} gateways with PostgreSQL need one count of requests for all: set FACTOTUM_REDIS_URL, or limits.store: file where all "
        "gateways stand on one machine, or replicas.gateways: 1"
    )


def choose(limits: Limits, gateways: int, redis_url: str | None, home: Path, lite: bool, guard: Guard = nullcontext) -> Limiter:
    """The limiter of a deployment. `guard` stands around each question to Redis. Raises ValueError as `store`, or for no URL."""
    match store(limits, gateways, redis_url, lite):
        case "redis":
            assert redis_url
            return RedisLimiter(redis_url, gateways, guard)
        case "file":
            return FileLimiter(home / FILE, gateways)
        case _:
            return ProcessLimiter()
