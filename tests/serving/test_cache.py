"""The two levels of the cache, on a real Redis: one maker a key, forgotten everywhere, and nobody notices when Redis is gone."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from configs.deployment import Breakers as BreakerSettings
from configs.deployment import Caching
from pipelines.servers import RedisServer
from serving.access.breakers import Breakers
from serving.storage import cache, far
from serving.storage.cache import Levels
from serving.storage.far import Far, away
from serving.storage.near import Near

Make = Callable[[], Awaitable[Any]]
_SETTINGS = Caching(near_s=60.0)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not a Redis that is away."""
    monkeypatch.setattr(far, "_ANSWER_S", 2.0)


class Seen:
    """What a Levels told, and a maker that counts."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.missing = 0
        self.made = 0

    def levels(self, url: str | None, settings: Caching = _SETTINGS, guard: Any = None) -> Levels:
        said: dict[str, Any] = {} if guard is None else {"guard": guard}
        return Levels(settings, url, lambda kind, outcome: self.outcomes.append(outcome), missing=self._note, **said)

    def _note(self) -> None:
        self.missing += 1

    async def make(self) -> Any:
        self.made += 1
        await asyncio.sleep(0.02)
        return {"made": self.made, "by": ("a", "b")}


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server of this test alone: it is killed."""
    if not RedisServer.found():
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def url(redis: RedisServer) -> str:
    from redis.asyncio import Redis

    client: Any = Redis.from_url(redis.url_of(7))
    await client.flushdb()
    await client.aclose()
    return redis.url_of(7)


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 (it is another process that makes it true)
            await asyncio.sleep(0.01)


def test_near_is_bounded_and_the_least_used_leaves() -> None:
    near: Near[int] = Near(3)
    for number in range(3):
        near.put(number, number)
    near.get(0)
    near.put(3, 3)
    assert [near.get(number) for number in range(4)] == [0, None, 2, 3]
    near.put(4, 4, lifetime_s=0.0)
    assert near.get(4) is None
    assert len(near) == 2


async def test_in_process_one_maker_whoever_gives_up() -> None:
    seen = Seen()
    levels = seen.levels(None)
    first = asyncio.create_task(levels.get("view", "x", seen.make))
    await asyncio.sleep(0)
    others = [asyncio.create_task(levels.get("view", "x", seen.make)) for _ in range(20)]
    await asyncio.sleep(0)
    first.cancel()  # who asked first leaves: the others get their answer all the same
    values = await asyncio.gather(*others)
    assert values == [{"made": 1, "by": ["a", "b"]}] * 20
    assert await levels.get("view", "x", seen.make) == values[0]
    assert seen.outcomes == ["miss"] * 20 + ["near"]
    values[0]["made"] = 99
    assert (await levels.get("view", "x", seen.make))["made"] == 1  # what one caller does to its value is not seen by others
    await levels.forget("view", "x")
    assert (await levels.get("view", "x", seen.make))["made"] == 2
    await levels.close()


async def test_an_error_of_the_maker_reaches_all_and_is_not_kept() -> None:
    levels = Seen().levels(None)

    async def broken() -> None:
        await asyncio.sleep(0.01)
        raise KeyError("no such thing")

    ended = await asyncio.gather(*(levels.get("key", "x", broken) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in ended] == [KeyError] * 3

    async def fine() -> None:
        return None

    assert await levels.get("key", "x", fine) is None
    assert await levels.get("key", "x", broken) is None  # nothing is a value too
    await levels.close()


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.redis)])
async def test_what_was_forgotten_while_it_was_made_is_kept_nowhere(shared: bool, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue("redis").url_of(8) if shared else None
    seen = Seen()
    levels = seen.levels(address)
    await levels.forget("key")
    begun, go = asyncio.Event(), asyncio.Event()

    async def old() -> str:
        begun.set()
        await go.wait()
        return "old"

    async def new() -> str:
        return "new"

    waiting = asyncio.create_task(levels.get("key", "k", old))
    await begun.wait()
    await levels.forget("key", "k")
    assert await levels.get("key", "k", new) == "new"  # who comes after does not get what was read before
    go.set()
    assert await waiting == "old"
    assert await levels.get("key", "k", old) == "new"
    await levels.close()


@pytest.mark.redis
async def test_two_replicas_share_and_forget_together(url: str) -> None:
    one, two = Seen(), Seen()
    first, second = one.levels(url), two.levels(url)
    await first.start()
    await second.start()
    value = await first.get("view", "x", one.make)
    assert await second.get("view", "x", two.make) == value
    assert await second.get("view", "x", two.make) == value
    assert (one.outcomes, two.outcomes, two.made) == (["miss"], ["far", "near"], 0)
    await asyncio.sleep(0.2)  # both listen by now
    assert await second.get("view", "x", two.make) == value

    await first.forget("view", "x")
    near = second._near_of("view")
    await until(lambda: near.get("x") is None)  # near_s is a minute here: it heard of it
    assert (await second.get("view", "x", two.make))["made"] == 1
    assert two.made == 1

    await first.get("view", "y", one.make)
    await second.get("view", "y", two.make)
    await second.forget("view")
    await until(lambda: first._near_of("view").get("y") is None)
    before = one.made
    await first.get("view", "y", one.make)
    assert one.made == before + 1
    await first.close()
    await second.close()


@pytest.mark.redis
async def test_deaf_replicas_see_a_change_within_near_s(url: str) -> None:
    one, two = Seen(), Seen()
    first, second = one.levels(url), two.levels(url, Caching(near_s=0.1))  # neither was started: they do not listen
    await first.get("view", "x", one.make)
    await second.get("view", "x", two.make)
    await first.forget("view", "x")
    await asyncio.sleep(0.11)
    assert (await second.get("view", "x", two.make))["made"] == 1
    assert two.outcomes == ["far", "miss"]
    await first.close()
    await second.close()


@pytest.mark.redis
async def test_redis_holds_json_that_ends_and_rubbish_is_made_anew(url: str) -> None:
    from redis.asyncio import Redis

    seen = Seen()
    levels = seen.levels(url)
    await levels.get("key", "k", seen.make, lifetime=20.0)
    client: Any = Redis.from_url(url)
    names = await client.keys("*")
    assert names == [b"factotum:cache:key:value:k"]  # the lock is gone
    assert json.loads(await client.get(names[0])) == {"made": 1, "by": ["a", "b"]}
    assert 15_000 < await client.pttl(names[0]) <= 20_000
    other = Seen()
    again = other.levels(url)
    await client.set(names[0], b"\x80\x04cos\nsystem\n(S'true'\ntR.")  # a pickle that would run a program
    assert (await again.get("key", "k", other.make))["made"] == 1
    assert other.outcomes == ["miss"]
    assert "pickle" not in sys.modules["serving.storage.far"].__dict__
    await client.aclose()
    await levels.close()
    await again.close()


@pytest.mark.redis
async def test_redis_killed_and_restarted_in_the_middle(own: RedisServer) -> None:
    breakers = Breakers(BreakerSettings(failures=3, open_s=30.0), lambda name, state: None)
    seen = Seen()
    levels = seen.levels(own.url, Caching(near_s=60.0), breakers.of("cache", away()))
    await levels.start()
    await levels.get("view", "before", seen.make)
    own.kill()
    assert (await levels.get("view", "before", seen.make))["made"] == 1  # its own level goes on
    for number in range(5):
        assert await levels.get("view", f"x{number}", seen.make)
    assert breakers.state("cache") == "open"
    assert seen.made == 6
    assert seen.missing == 5
    await levels.forget("view", "before")
    assert (await levels.get("view", "before", seen.make))["made"] == 7  # forgotten here all the same

    own.start()
    breakers.hasten("cache")
    await levels.ping()
    assert breakers.state("cache") == "closed"
    missing = seen.missing
    await levels.get("view", "after", seen.make)
    assert seen.missing == missing
    other = Seen()
    second = other.levels(own.url)
    await second.get("view", "after", other.make)
    assert other.outcomes == ["far"]
    await levels.close()
    await second.close()


@pytest.mark.redis
async def test_what_was_forgotten_while_redis_hung_is_told_when_it_answers(own: RedisServer) -> None:
    seen, other = Seen(), Seen()
    levels, second = seen.levels(own.url), other.levels(own.url, Caching(near_s=0.01))
    await levels.start()
    await levels.get("key", "k", seen.make)
    own.pause()
    await levels.forget("key", "k")
    assert (await second.get("key", "k", other.make))["made"] == 1  # late, not for ever
    assert other.missing == 1
    own.resume()
    await until(lambda: not levels._owed)
    await asyncio.sleep(0.02)
    assert (await second.get("key", "k", other.make))["made"] == 2  # not what Redis had before
    await levels.close()
    await second.close()


def _ask_many(url: str, barrier: Barrier, folder: str) -> None:
    far._ANSWER_S, cache._WAIT_S = 20.0, 60.0  # a process of its own: patched for its whole life

    async def run() -> None:
        levels = Levels(Caching(), url)

        async def make() -> int:
            tempfile.mkstemp(dir=folder)
            await asyncio.sleep(0.3)
            return 42

        await levels.get("view", "warm", _nothing)
        await asyncio.to_thread(barrier.wait, 60)
        assert await asyncio.gather(*(levels.get("view", "x", make) for _ in range(50))) == [42] * 50
        await levels.close()

    asyncio.run(run())


async def _nothing() -> None:
    return None


@pytest.mark.redis
async def test_one_maker_over_several_processes(url: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_ask_many, args=(url, barrier, str(tmp_path))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.redis
async def test_a_maker_that_died_is_waited_for_not_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_WAIT_S", 0.2)
    dead = Far(url)
    assert await dead.lock("view", "x", 60.0) is not None  # and its process is gone
    seen = Seen()
    levels = seen.levels(url)
    assert (await levels.get("view", "x", seen.make))["made"] == 1
    assert Counter(seen.outcomes) == {"miss": 1}
    await levels.close()
    await dead.close()
