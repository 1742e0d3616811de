"""What is promised also when processes are killed, the broker is away and messages are rubbish."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from pipelines.servers import MockKafka
from serving.events.consumers import Deliveries, Inside
from serving.events.exchange import Exchange
from serving.events.process import ProcessBus
from serving.events.relay import Relay
from serving.metrics import Metrics
from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.dead_letters import UNREADABLE, DeadLetters
from serving.storage.outbox import Envelope, Outbox, put
from tests.serving.test_events import KIND, _count, _letters, announce, effect, effects, exchange, until
from tests.serving.test_events import settings as words

ROOT = Path(__file__).resolve().parents[2]

#: A replica's relay and consumers, in a process of its own. The consumer dawdles, so that a kill finds it in the middle of its work.
CHILD = """
import asyncio, sys
from configs.deployment import Bus
from serving.events.consumers import Inside
from serving.events.exchange import Exchange
from serving.metrics import Metrics
from serving.storage.database import Database
from tests.serving.test_events import KIND, effect

async def main(url, bus, brokers):
    database = Database(url)
    write = effect(database, "one")
    async def slow(connection, envelope):
        await write(connection, envelope)
        await asyncio.sleep(0.02)
    relay = Exchange(database, [Inside("one", (KIND,), slow)], Bus.model_validate_json(bus), Metrics(), brokers)
    for part in relay._relays:
        part._lease_s, part._batch = 14.0 if brokers else 2.0, 10
    await relay.start()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


def child(database: Database, bus: Any, brokers: str) -> subprocess.Popen[bytes]:
    url = database._url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", CHILD, url, bus.model_dump_json(), brokers]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.fixture(params=["process", pytest.param("kafka", marks=pytest.mark.slow)])
def bus(request: pytest.FixtureRequest) -> tuple[Any, str]:
    return words(request.param), request.getfixturevalue("kafka").brokers if request.param == "kafka" else ""


async def test_a_replica_that_is_killed_in_the_middle_loses_nothing_and_repeats_nothing(database: Database, bus: tuple[Any, str]) -> None:
    sent = await announce(database, [f"k{number % 9}" for number in range(150)])
    rng = random.Random(7)
    for _ in range(2):
        process = await asyncio.to_thread(child, database, *bus)
        before = len(await effects(database, "one"))
        await until(lambda before=before: _count(database, "one", before + 10))  # type: ignore[misc]
        await asyncio.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.communicate)
    assert len(await effects(database, "one")) < len(sent)  # it was in the middle indeed
    async with exchange(database, bus, Inside("one", (KIND,), effect(database, "one"))):
        await until(lambda: _count(database, "one", len(sent)), 120.0)
    taken = await effects(database, "one")
    by_id = {envelope.event_id: envelope.key for envelope in sent}
    assert sorted(taken) == sorted(by_id)
    for key in set(by_id.values()):
        assert [e for e in taken if by_id[e] == key] == [e.event_id for e in sent if e.key == key]


async def test_a_broker_away_lets_the_outbox_grow_and_everything_goes_on_by_itself(database: Database, kafka: MockKafka) -> None:
    bus = (words("kafka"), kafka.brokers)
    first = await announce(database, ["a", "b"])
    async with exchange(database, bus, Inside("one", (KIND,), effect(database, "one"))) as made:
        await until(lambda: _count(database, "one", 2))
        kafka.pause()
        try:
            more = await announce(database, ["a", "b", "a"])
            made.wake()
            await asyncio.sleep(7.0)  # longer than a message is waited for
            waiting = await made.waiting()
            assert (waiting.count, waiting.oldest) == (3, more[0].occurred_at)
            lag = made._metrics.registry.get_sample_value("factotum_outbox_lag_seconds")
            assert lag is not None
            assert lag > 0.0
            more += await announce(database, ["b"])  # whoever writes is not held up
        finally:
            kafka.resume()
        await until(lambda: _count(database, "one", 6))
        await until(lambda: _none_waiting(made))
    taken = await effects(database, "one")
    assert sorted(taken) == sorted(e.event_id for e in (*first, *more))
    for key in "ab":
        mine = [e.event_id for e in (*first, *more) if e.key == key]
        assert [e for e in taken if e in mine] == mine
    assert await DeadLetters(database).count() == 0


async def _none_waiting(made: Exchange) -> bool:
    return (await made.waiting()).count == 0


async def test_a_broker_that_never_was_holds_up_nobody(database: Database) -> None:
    async with exchange(database, (words("kafka"), "127.0.0.1:1"), Inside("one", (KIND,), effect(database, "one"))) as made:
        await announce(database, ["a"])
        await asyncio.sleep(0.5)
        assert (await made.waiting()).count == 1
        async with database.reading() as connection:
            attempts = (await connection.execute(sa.select(database.tables.outbox.c.attempts))).scalar_one()
        assert attempts == 0  # it is not the event's fault


async def test_rubbish_in_the_topic_becomes_a_dead_letter_and_holds_up_nothing(database: Database, kafka: MockKafka) -> None:
    from confluent_kafka import Producer

    bus = words("kafka")
    producer = Producer({"bootstrap.servers": kafka.brokers})
    for rubbish in (b"\x00\xff not json", b'{"event_id": "x"}', None):
        producer.produce(f"{bus.prefix}.events", rubbish, b"a")
    assert await asyncio.to_thread(producer.flush, 10.0) == 0
    sent = await announce(database, ["a"] * 3)
    letters = DeadLetters(database)
    async with exchange(database, (bus, kafka.brokers), Inside("one", (KIND,), effect(database, "one"))):
        await until(lambda: _count(database, "one", 3))
        await until(lambda: _letters(letters, 3))
    assert await effects(database, "one") == [e.event_id for e in sent]
    for letter in await letters.page(5):
        assert (letter.consumer, letter.envelope) == (UNREADABLE, None)
        assert letter.event_id.startswith(f"{bus.prefix}.events-")
        assert set(orjson.loads(letter.raw)) == {"bytes", "base64"}


async def test_an_event_that_the_broker_cannot_take_is_a_dead_letter_for_all(database: Database, kafka: MockKafka) -> None:
    async with database.writing() as connection:
        huge, small = Envelope(KIND, "a", {"text": "x" * 2_000_000}), Envelope(KIND, "a", {})
        await put(database, connection, [huge, small])
    letters = DeadLetters(database)
    async with exchange(database, (words("kafka", attempts=2), kafka.brokers), Inside("one", (KIND,), effect(database, "one"))):
        await until(lambda: _count(database, "one", 1))
    (letter,) = await letters.page(5)
    assert (letter.consumer, letter.event_id) == ("kafka", huge.event_id)
    assert await effects(database, "one") == [small.event_id]


# ------------------------------------------------------------------ all interleavings


class _Killed(BaseException):
    """As if the process ended here: nothing after it is done."""


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=10),
    kills=st.lists(st.integers(0, 14), max_size=8),
    fails=st.sets(st.integers(0, 9), max_size=3),
)
async def test_whatever_is_killed_whenever_each_effect_is_one_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], kills: list[int], fails: set[int]
) -> None:
    """Two relays take turns, each killed after some number of steps: before or after a transaction, or in the middle of one."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('kills') / 'f.db'}")
    sent = await announce(database, keys)
    write = effect(database, "one")
    left = 0

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise _Killed

    failed: set[str] = set()

    async def take(connection: AsyncConnection, envelope: Envelope) -> None:
        step()
        await write(connection, envelope)
        if envelope.payload["number"] in fails and envelope.event_id not in failed:
            failed.add(envelope.event_id)
            raise ValueError("this time not")
        step()

    deliveries = Deliveries(database, [Inside("one", (KIND,), take)], 4, Metrics())

    def relay() -> Relay:
        made = Relay(
            database, ProcessBus(database, deliveries), deliveries, words("process", backoff_s=0.001), Metrics(), batch=4, lease_s=0.001
        )
        delivered = made.outbox.delivered

        async def mark(*arguments: Any) -> None:
            step()
            await delivered(*arguments)
            step()

        made.outbox.delivered = mark  # type: ignore[assignment, method-assign]

        async def no_giving_back(*_arguments: Any) -> None:
            """Who is killed gives nothing back."""

        give_back = made.outbox.give_back

        async def back(*arguments: Any) -> None:
            await (no_giving_back if left == 0 else give_back)(*arguments)

        made.outbox.give_back = back  # type: ignore[assignment, method-assign]
        return made

    relays = [relay(), relay()]
    for number, kill in enumerate(kills):
        left = kill + 1
        try:
            await relays[number % 2].once()
        except _Killed:
            relays[number % 2] = relay()
        await asyncio.sleep(0.002)
    left = -1
    async with asyncio.timeout(30.0):
        while (await Outbox(database, False).waiting()).count:
            await relays[0].once()
            await asyncio.sleep(0.002)
    taken = await effects(database, "one")
    assert sorted(taken) == sorted(e.event_id for e in sent)
    for key in set(keys):
        mine = [e.event_id for e in sent if e.key == key]
        assert [e for e in taken if e in mine] == mine
    await database.close()


async def test_what_is_claimed_is_nobody_elses_until_the_claim_runs_out(database: Database) -> None:
    sent = await announce(database, ["a", "b", "a"])
    first, second = Outbox(database, False), Outbox(database, False)
    taken, until_us = await first.claim(2, 60_000_000)
    assert [due.envelope.event_id for due in taken] == [e.event_id for e in sent[:2]]
    assert (await second.claim(10, 60_000_000))[0] == []  # the third is a later one of `a`
    await first.give_back(until_us, {sent[0].event_id: ("no", now_us() + 60_000_000)}, [sent[1].event_id])
    assert [due.envelope.event_id for due in (await second.claim(10, 1_000))[0]] == [sent[1].event_id]
    box = database.tables.outbox
    async with database.writing() as connection:  # its time has come
        await connection.execute(sa.update(box).where(box.c.event_id == sent[0].event_id).values(due_at=now_us()))
    again = [(due.envelope.event_id, due.attempts) for due in (await second.claim(10, 1_000))[0] if due.envelope.key == "a"]
    assert again == [(sent[0].event_id, 1), (sent[2].event_id, 0)]


async def test_relays_at_once_never_hold_the_same_event_nor_a_later_one_of_a_key(database: Database) -> None:
    sent = await announce(database, [f"k{number % 5}" for number in range(200)])
    held: dict[str, list[int]] = {}
    order = {e.event_id: number for number, e in enumerate(sent)}

    async def worker() -> None:
        box = Outbox(database, False)
        while True:
            try:
                taken, _ = await box.claim(7, 300_000_000)
            except DatabaseAwayError:  # five at once on a machine that does other things too
                continue
            if not taken:
                if not (await box.waiting()).count:
                    return
                await asyncio.sleep(0.005)
                continue
            for due in taken:
                held.setdefault(due.envelope.key, []).append(order[due.envelope.event_id])
            while True:
                with suppress(DatabaseAwayError):
                    async with database.writing() as connection:
                        await box.delivered(connection, [due.envelope for due in taken])
                    break

    await asyncio.gather(*(worker() for _ in range(5)))
    assert sorted(number for numbers in held.values() for number in numbers) == list(range(200))
    assert all(numbers == sorted(numbers) for numbers in held.values())
