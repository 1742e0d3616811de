"""The level of a cache that all replicas share: Redis. Keys and JSON bytes, locks that end by themselves, and word of what is forgotten.

redis-py itself, not cashews on top of it: cashews pickles by default, hides that Redis is away from who wants to know, and its lock
is waited for without an end.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import orjson

_PREFIX = "factotum:cache"
_CHANNEL = "factotum:cache:forgotten"
_ANSWER_S = 0.25  # an answer is waited for so long
_CONNECTIONS = 16
_PAUSE_S = 0.5
_LISTEN_S = 5.0  # a silent subscription is asked after so long whether it is still there

# The value of a maker is kept only while its lock is: whoever forgets the key takes the lock away too, and with it a value
# that was being made from what was there before.
_KEEP = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return 1
"""
_GIVE_UP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

log = logging.getLogger("factotum.cache")


def away() -> tuple[type[BaseException], ...]:
    """The errors that mean that Redis is away, or of no use for now (loading, full, read-only, another password)."""
    from redis.exceptions import RedisError

    return (RedisError, OSError, TimeoutError)


class Far:
    """Every method but `listen` raises one of `away()`, after at most a quarter of a second."""

    def __init__(self, url: str) -> None:
        from redis.asyncio import BlockingConnectionPool, Redis

        pool: Any = BlockingConnectionPool.from_url(
            url, max_connections=_CONNECTIONS, timeout=_ANSWER_S, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S
        )
        self._redis: Any = Redis(connection_pool=pool)
        self._keep: Any = self._redis.register_script(_KEEP)
        self._give_up: Any = self._redis.register_script(_GIVE_UP)
        # a subscription waits for its messages much longer than a question for its answer
        self._telling: Any = Redis.from_url(url, socket_connect_timeout=_ANSWER_S, health_check_interval=_LISTEN_S, socket_keepalive=True)

    async def close(self) -> None:
        for client in (self._redis, self._telling):
            await client.aclose()
            await client.connection_pool.disconnect()

    async def ping(self) -> None:
        async with asyncio.timeout(_ANSWER_S):
            await self._redis.ping()

    async def get(self, kind: str, key: str) -> bytes | None:
        async with asyncio.timeout(_ANSWER_S):
            return cast("bytes | None", await self._redis.get(_value(kind, key)))

    async def lock(self, kind: str, key: str, lifetime_s: float) -> str | None:
        """A ticket for who may make the value; None: somebody else is making it."""
        ticket = secrets.token_hex(8)
        async with asyncio.timeout(_ANSWER_S):
            given = await self._redis.set(_lock(kind, key), ticket, nx=True, px=max(1, int(lifetime_s * 1_000)))
        return ticket if given else None

    async def keep(self, kind: str, key: str, value: bytes, lifetime_s: float, ticket: str) -> bool:
        """Stores what the holder of the ticket made, and takes the lock away. False: it was forgotten meanwhile, and is not stored."""
        async with asyncio.timeout(_ANSWER_S):
            keys = [_value(kind, key), _lock(kind, key)]
            return bool(await self._keep(keys=keys, args=[ticket, value, max(1, int(lifetime_s * 1_000))]))

    async def give_up(self, kind: str, key: str, ticket: str) -> None:
        """The holder of the ticket could not make it: the next may try."""
        async with asyncio.timeout(_ANSWER_S):
            await self._give_up(keys=[_lock(kind, key)], args=[ticket])

    async def forget(self, kind: str, keys: Sequence[str] | None) -> None:
        """Takes values and locks away, and tells every replica. None: all of the kind."""
        async with asyncio.timeout(_ANSWER_S if keys is not None else 20 * _ANSWER_S):
            if keys is None:
                async for page in self._pages(kind):
                    await self._redis.unlink(*page)
            else:
                await self._redis.unlink(*(name for key in keys for name in (_value(kind, key), _lock(kind, key))))
            await self._redis.publish(_CHANNEL, orjson.dumps([kind, keys]))

    async def _pages(self, kind: str) -> AsyncIterator[list[bytes]]:
        cursor = 0
        while True:
            cursor, page = await self._redis.scan(cursor, match=f"{_PREFIX}:{kind}:*", count=500)
            if page:
                yield page
            if not cursor:
                return

    async def listen(self, heard: Callable[[str, list[str] | None], None], missed: Callable[[], None]) -> None:
        """Ends only by cancellation. `heard(kind, keys)`: forgotten by some replica, this one included; `missed()`: what was said in
        the last while may have been missed."""
        failures: tuple[type[BaseException], ...] = (*away(), ValueError)
        while True:
            try:
                async with self._telling.pubsub() as said:
                    await said.subscribe(_CHANNEL)
                    while True:
                        message = await said.get_message(timeout=_LISTEN_S)
                        if message is not None and message["type"] == "subscribe":
                            missed()
                        elif message is not None and message["type"] == "message":
                            kind, keys = orjson.loads(message["data"])
                            heard(str(kind), None if keys is None else [str(key) for key in keys])
            except failures as error:
                log.debug("not listening", extra={"fields": {"why": str(error)}})
                missed()
            await asyncio.sleep(_PAUSE_S)


def _value(kind: str, key: str) -> str:
    return f"{_PREFIX}:{kind}:value:{key}"


def _lock(kind: str, key: str) -> str:
    return f"{_PREFIX}:{kind}:lock:{key}"
