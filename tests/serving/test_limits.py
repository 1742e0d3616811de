"""The count of requests: exact, a moving window, one for several processes, and what happens when its place is away."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import ConfigError
from configs.deployment import Deployment, Limits
from serving.access.limits import FileLimiter, Limiter, ProcessLimiter, RedisLimiter, Verdict, choose
from serving.counting import check

PEOPLE, CALLS, LIMIT = 2, 5_000, 50


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def plain(taken: list[float], limit: int, now: float, window_s: float = 60.0) -> Verdict:
    """The same by counting: `taken` are all moments let through so far."""
    inside = [moment for moment in taken if now - window_s < moment <= now]
    if len(inside) >= limit:
        return Verdict(False, limit, 0, inside[len(inside) - limit] + window_s - now)
    taken.append(now)
    return Verdict(True, limit, limit - len(inside) - 1, (inside[0] if inside else now) + window_s - now)


def same(left: Verdict, right: Verdict) -> bool:
    return (left.allowed, left.limit, left.remaining) == (right.allowed, right.limit, right.remaining) and left.reset_s == pytest.approx(
        right.reset_s, abs=1e-6
    )


#: Pauses that fall on, before and behind the window's edges.
PAUSES = st.lists(st.one_of(st.sampled_from([0.0, 0.25, 20.0, 29.75, 30.0, 59.75, 60.0, 60.25]), st.integers(0, 280).map(lambda n: n / 4)))


@settings(max_examples=150)
@given(st.integers(1, 5), PAUSES)
def test_a_process_counts_as_a_plain_list_does(limit: int, pauses: list[float]) -> None:
    clock, taken = Clock(), list[float]()
    limiter = ProcessLimiter(clock=clock)
    for pause in pauses:
        clock.now += pause
        assert same(limiter.take_now("one", limit), plain(taken, limit, clock.now))
    for start in taken:
        assert sum(start <= moment < start + 60.0 for moment in taken) <= limit


@settings(max_examples=40)
@given(st.integers(1, 5), PAUSES)
def test_the_file_counts_as_a_plain_list_does(tmp_path_factory: pytest.TempPathFactory, limit: int, pauses: list[float]) -> None:
    async def run() -> None:
        clock, taken = Clock(), list[float]()
        path = tmp_path_factory.mktemp("limits") / "limits.db"
        limiters = [FileLimiter(path, 2, clock=clock), FileLimiter(path, 2, clock=clock)]
        for place, pause in enumerate(pauses):
            clock.now += pause
            assert same(await limiters[place % 2].take("one", limit), plain(taken, limit, clock.now))
        for limiter in limiters:
            await limiter.close()

    asyncio.run(run())


def test_the_window_moves() -> None:
    """A fixed minute would let 50 pass at its end and 50 more a second later."""
    clock = Clock()
    limiter = ProcessLimiter(clock=clock)
    clock.now = 1_079.0
    assert sum(limiter.take_now("one", LIMIT).allowed for _ in range(60)) == LIMIT
    clock.now = 1_081.0
    refused = limiter.take_now("one", LIMIT)
    assert not refused.allowed
    assert refused.reset_s == pytest.approx(58.0)
    clock.now = 1_139.0
    assert limiter.take_now("one", LIMIT).allowed


def test_a_clock_set_back_locks_nobody_out(tmp_path: Path) -> None:
    async def run() -> None:
        clock = Clock()
        limiter = FileLimiter(tmp_path / "limits.db", 2, clock=clock)
        assert (await limiter.take("one", 1)).allowed
        assert not (await limiter.take("one", 1)).allowed
        clock.now -= 86_400.0
        assert (await limiter.take("one", 1)).allowed
        await limiter.close()

    asyncio.run(run())


async def _calls(limiter: Limiter, count: int) -> list[int]:
    passed = [0] * PEOPLE
    for place in range(count):
        passed[place % PEOPLE] += (await limiter.take(f"account:{place % PEOPLE}", LIMIT)).allowed
    await limiter.close()
    return passed


def _replica(make: Callable[[], Limiter], count: int, together: Barrier, passed: Any) -> None:
    limiter = make()
    together.wait()
    passed.put(asyncio.run(_calls(limiter, count)))


class MakeFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> Limiter:
        return FileLimiter(self.path, 3)


class MakeRedis:
    def __init__(self, url: str, prefix: str) -> None:
        self.url, self.prefix = url, prefix

    def __call__(self) -> Limiter:
        return RedisLimiter(self.url, 3, prefix=self.prefix)


def _on_three_processes(make: Callable[[], Limiter]) -> list[list[int]]:
    """What passed for each person in each process; all together CALLS calls, at once."""
    context = multiprocessing.get_context("spawn")
    together, passed = context.Barrier(3), context.Queue()
    shares = [CALLS // 3, CALLS // 3, CALLS - 2 * (CALLS // 3)]
    replicas = [context.Process(target=_replica, args=(make, share, together, passed)) for share in shares]
    for replica in replicas:
        replica.start()
    found = [passed.get(timeout=60) for _ in replicas]
    for replica in replicas:
        replica.join(10)
    return found


def test_of_5000_calls_of_two_people_100_pass_on_one_replica() -> None:
    assert asyncio.run(_calls(ProcessLimiter(), CALLS)) == [LIMIT, LIMIT]


def test_of_5000_calls_of_two_people_100_pass_on_one_replica_with_the_file(tmp_path: Path) -> None:
    assert asyncio.run(_calls(FileLimiter(tmp_path / "limits.db", 1), CALLS)) == [LIMIT, LIMIT]


def test_of_5000_calls_of_two_people_100_pass_on_three_processes_with_the_file(tmp_path: Path) -> None:
    found = _on_three_processes(MakeFile(tmp_path / "limits.db"))
    assert [sum(person) for person in zip(*found, strict=True)] == [LIMIT, LIMIT]


def test_of_5000_calls_of_two_people_100_pass_with_redis(redis: Any) -> None:
    prefix = f"one-{time.time_ns()}"
    assert asyncio.run(_calls(RedisLimiter(redis.url, 1, prefix=prefix), CALLS)) == [LIMIT, LIMIT]
    found = _on_three_processes(MakeRedis(redis.url, f"three-{time.time_ns()}"))
    assert [sum(person) for person in zip(*found, strict=True)] == [LIMIT, LIMIT]


async def test_redis_moves_its_window_too(redis: Any) -> None:
    limiter = RedisLimiter(redis.url, 1, window_s=0.4, prefix=f"moving-{time.time_ns()}")
    passed: list[tuple[float, float]] = []
    until = time.monotonic() + 1.4
    while time.monotonic() < until:
        before = time.monotonic()
        if (await limiter.take("one", 3)).allowed:
            passed.append((before, time.monotonic()))
        await asyncio.sleep(0.01)
    await limiter.close()
    assert len(passed) >= 6
    # the first of four was counted after it was sent, the fourth before it was answered
    assert all(fourth[1] - first[0] >= 0.4 for first, fourth in zip(passed, passed[3:], strict=False))


async def test_while_redis_is_away_each_gateway_counts_its_share(redis: Any) -> None:
    limiter = RedisLimiter(redis.url, 3, prefix=f"away-{time.time_ns()}")
    first = await limiter.take("one", LIMIT)
    assert (first.allowed, first.remaining, first.degraded) == (True, LIMIT - 1, False)
    redis.kill()
    try:
        verdicts = [await limiter.take("one", LIMIT) for _ in range(30)]
        assert sum(verdict.allowed for verdict in verdicts) == 17 - 1  # a third, rounded up, less the one it knows of
        assert all(verdict.degraded for verdict in verdicts)
    finally:
        redis.start()
    healed = await limiter.take("two", LIMIT)
    for _ in range(50):
        if not healed.degraded:
            break
        await asyncio.sleep(0.05)
        healed = await limiter.take("two", LIMIT)
    assert not healed.degraded
    assert healed.limit == LIMIT
    await limiter.close()


async def test_who_was_at_the_limit_stays_there_while_redis_is_away(redis: Any) -> None:
    prefix = f"full-{time.time_ns()}"
    here, there = RedisLimiter(redis.url, 3, prefix=prefix), RedisLimiter(redis.url, 3, prefix=prefix)
    assert sum([(await there.take("one", LIMIT)).allowed for _ in range(LIMIT)]) == LIMIT
    assert not (await here.take("one", LIMIT)).allowed  # so it has heard that all 50 are gone, though it let none through itself
    redis.kill()
    try:
        refused = await here.take("one", LIMIT)
        assert (refused.allowed, refused.degraded) == (False, True)
        assert 50.0 < refused.reset_s <= 60.0
        assert (await here.take("two", LIMIT)).allowed
    finally:
        redis.start()
    await here.close()
    await there.close()


async def test_a_file_that_cannot_be_used_lets_each_gateway_count_its_share(tmp_path: Path) -> None:
    path = tmp_path / "limits.db"
    path.write_bytes(b"this is no database" * 100)
    limiter = FileLimiter(path, 2)
    verdicts = [await limiter.take("one", 10) for _ in range(8)]
    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 3
    assert all(verdict.degraded for verdict in verdicts)
    await limiter.close()


async def test_old_names_leave_the_file(tmp_path: Path) -> None:
    clock = Clock()
    limiter = FileLimiter(tmp_path / "limits.db", 2, clock=clock)
    for place in range(20):
        await limiter.take(f"anonymous:10.0.0.{place}", 10)
    clock.now += 61.0
    await limiter.take("one", 10)
    await limiter.close()
    with sqlite3.connect(tmp_path / "limits.db") as connection:
        assert connection.execute("SELECT count(*) FROM taken").fetchone() == (1,)
        assert b"one" not in connection.execute("SELECT name FROM taken").fetchone()[0]  # no name stands there as it is


def test_what_cannot_share_one_count_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="FACTOTUM_REDIS_URL"):
        choose(Limits(), 2, None, tmp_path, lite=False)
    with pytest.raises(ValueError, match="redis needs FACTOTUM_REDIS_URL"):
        choose(Limits(store="redis"), 1, None, tmp_path, lite=True)
    with pytest.raises(ValueError, match="redis, file and auto"):
        choose(Limits(store="process"), 2, None, tmp_path, lite=True)
    assert isinstance(choose(Limits(), 1, None, tmp_path, lite=False), ProcessLimiter)
    assert isinstance(choose(Limits(), 2, None, tmp_path, lite=True), FileLimiter)
    assert isinstance(choose(Limits(store="file"), 2, None, tmp_path, lite=False), FileLimiter)
    assert isinstance(choose(Limits(), 2, "redis://127.0.0.1:1/0", tmp_path, lite=False), RedisLimiter)
    with pytest.raises(ValueError):
        choose(Limits(), 2, "http://127.0.0.1:1/0", tmp_path, lite=False)
    postgres = Deployment.model_validate({"storage": {"url": "postgresql://factotum@127.0.0.1/factotum"}})
    with pytest.raises(ConfigError, match=r"replicas\.gateways: 1"):
        check(tmp_path, postgres)
    check(tmp_path, postgres.model_copy(update={"replicas": postgres.replicas.model_copy(update={"gateways": 1})}))
    monkeypatch.setenv("FACTOTUM_REDIS_URL", "redis://127.0.0.1:1/0")
    check(tmp_path, postgres)
