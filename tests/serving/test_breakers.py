"""Circuit breakers: when they open, whom they let through, and that nothing stale or given up changes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from configs.deployment import Breakers as Settings
from configs.deployment import Bus
from serving.access.breakers import Breakers, OpenError, State
from serving.events import kafka
from serving.events.bus import BusAwayError
from serving.events.kafka import KafkaBus
from serving.metrics import Metrics
from serving.resilience import BreakersShown, bus_guard, guard_of
from serving.storage.database import Database, DatabaseAwayError
from serving.storage.outbox import Due, Envelope


class AwayError(Exception):
    pass


def breakers(failures: int = 3, open_s: float = 60.0) -> tuple[Breakers, list[tuple[str, State]]]:
    changes: list[tuple[str, State]] = []
    return Breakers(Settings(failures=failures, open_s=open_s), lambda name, state: changes.append((name, state))), changes


async def call(made: Breakers, error: BaseException | None = None, name: str = "x") -> None:
    async with made.of(name, (AwayError,))():
        if error is not None:
            raise error


async def fail(made: Breakers, times: int) -> None:
    for _ in range(times):
        with pytest.raises(AwayError):
            await call(made, AwayError("no"))


async def test_opens_after_so_many_failures_in_a_row_and_then_does_not_ask() -> None:
    made, changes = breakers()
    await fail(made, 2)
    await call(made)  # in a row: this one starts the count anew
    await fail(made, 2)
    assert made.state("x") == "closed"
    await fail(made, 1)
    assert made.state("x") == "open"
    asked = False
    with pytest.raises(OpenError) as refused:
        async with made.of("x", (AwayError,))():
            asked = True
    assert not asked
    assert refused.value.name == "x"
    assert 0 < refused.value.retry_after_s <= 60 / 8
    assert changes == [("x", "closed"), ("x", "open")]
    assert made.state("y") == "closed"  # each dependency has its own


async def test_other_errors_are_answers() -> None:
    made, _ = breakers()
    for _ in range(10):
        with pytest.raises(KeyError):
            await call(made, KeyError("a row that is not there"))
    assert made.state("x") == "closed"


async def test_half_open_lets_one_through_and_only_one() -> None:
    made, changes = breakers()
    await fail(made, 3)
    made.hasten("x")
    release, asked = asyncio.Event(), 0

    async def slow() -> None:
        nonlocal asked
        async with made.of("x", (AwayError,))():
            asked += 1
            await release.wait()

    tasks = [asyncio.create_task(slow()) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asked == 1
    assert made.state("x") == "half-open"
    release.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in ended].count(OpenError) == 4
    assert made.state("x") == "closed"
    assert changes[-3:] == [("x", "open"), ("x", "half-open"), ("x", "closed")]


async def test_each_probe_that_fails_doubles_the_wait_up_to_the_longest() -> None:
    made, _ = breakers(open_s=60.0)
    await fail(made, 3)
    waits = []
    for _ in range(5):
        waits.append(made._of("x")._wait_s)
        made._of("x")._until = 0.0
        await fail(made, 1)
    assert [round(wait, 1) for wait in waits] == [7.5, 15.0, 30.0, 60.0, 60.0]
    made._of("x")._until = 0.0
    await call(made)
    assert dict(made.seen())["x"].retry_after_s == 0.0
    await fail(made, 3)
    assert round(made._of("x")._wait_s, 1) == 7.5
    assert 7.0 < dict(made.seen())["x"].retry_after_s <= 7.5


async def test_what_is_cheap_to_try_is_tried_more_often() -> None:
    made, _ = breakers(open_s=60.0)
    made.of("x", (AwayError,), longest_s=2.0)
    await fail(made, 3)
    assert 1.5 < dict(made.seen())["x"].retry_after_s <= 2.0


async def test_what_began_before_says_nothing_about_now() -> None:
    made, _ = breakers()
    begun, end = asyncio.Event(), asyncio.Event()

    async def old(error: BaseException | None) -> None:
        async with made.of("x", (AwayError,))():
            begun.set()
            await end.wait()
            if error is not None:
                raise error

    fine, broken = asyncio.create_task(old(None)), asyncio.create_task(old(AwayError("late")))
    await begun.wait()
    await asyncio.sleep(0)
    await fail(made, 3)
    end.set()
    await asyncio.gather(fine, broken, return_exceptions=True)
    assert made.state("x") == "open"  # the old success does not close it
    made.hasten("x")
    await call(made)
    assert made.state("x") == "closed"


async def test_a_call_that_was_given_up_counts_neither_way() -> None:
    made, _ = breakers()
    await fail(made, 2)

    async def for_ever() -> None:
        async with made.of("x", (AwayError,))():
            await asyncio.Event().wait()

    async def give_up() -> None:
        task = asyncio.create_task(for_ever())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await give_up()
    await fail(made, 1)
    assert made.state("x") == "open"  # it had not started the count anew
    made.hasten("x")
    await give_up()
    assert made.state("x") == "half-open"  # the probe was given up: the next call is one
    await call(made)
    assert made.state("x") == "closed"


@given(st.lists(st.sampled_from(["good", "away", "other", "hasten"]), max_size=60))
def test_never_open_without_failures_in_a_row_and_never_for_ever(what: list[str]) -> None:
    async def run() -> None:
        made, _ = breakers(failures=3)
        row = 0
        for step in what:
            if step == "hasten":
                made.hasten("x")
                continue
            error = {"good": None, "away": AwayError(), "other": ValueError()}[step]
            before = made.state("x")
            try:
                await call(made, error)
            except OpenError:
                assert before == "open"
                continue
            except (AwayError, ValueError):
                pass
            row = row + 1 if step == "away" else 0
            assert made.state("x") == ("open" if row >= 3 or (before == "open" and step == "away") else "closed")
            if made.state("x") == "open":
                row = 3
        made.hasten("x")
        await call(made)
        assert made.state("x") == "closed"

    asyncio.run(run())


async def test_the_database_that_is_left_alone_is_away_and_says_for_how_long() -> None:
    metrics = Metrics()
    made = Breakers(Settings(failures=2, open_s=80.0), BreakersShown(metrics))
    nowhere = Database("postgresql+asyncpg://nobody@127.0.0.1:9/none", wait_s=0.5)
    nowhere.guard = guard_of(made)
    for _ in range(2):
        with pytest.raises(DatabaseAwayError) as away:
            await nowhere.ping()
        assert away.value.retry_after_s == 1.0
    with pytest.raises(DatabaseAwayError, match="left alone") as away:
        await nowhere.ping()
    assert 9.0 < away.value.retry_after_s <= 10.0
    made.hasten("database")  # somebody looks by himself: it will be known soon
    with pytest.raises(DatabaseAwayError, match="Refused"):
        await nowhere.ping()
    with pytest.raises(DatabaseAwayError, match="left alone") as away:
        await nowhere.ping()
    assert away.value.retry_after_s == 1.0
    assert b'factotum_breaker_state{dependency="database"} 2.0' in metrics.text()
    assert b'factotum_breaker_opened_total{dependency="database"} 1.0' in metrics.text()
    await nowhere.close()


async def test_a_broker_that_is_left_alone_is_away_without_being_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_SEND_S", 0.3)
    states: list[tuple[str, str]] = []
    made = Breakers(Settings(failures=2), lambda name, state: states.append((name, state)))
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'f.db'}", wait_s=5.0)
    bus = KafkaBus(database, "127.0.0.1:9", Bus(kind="kafka"), bus_guard(made))
    due = [Due(Envelope("thing.happened", "k", {}), 0)]

    async def mark(_connection: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
        raise AssertionError(f"nothing was sent, and {envelopes} were marked")

    for _ in range(2):
        with pytest.raises(BusAwayError):
            await bus.publish(due, mark, time.monotonic() + 10.0)
    assert states == [("broker", "closed"), ("broker", "open")]
    with pytest.raises(BusAwayError, match="left alone"):
        await bus.publish(due, mark, time.monotonic() + 10.0)
    await bus.stop()
    await database.close()
