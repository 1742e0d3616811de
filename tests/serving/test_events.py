"""What the bus promises, on both buses and both databases: every event reaches every consumer once, in the order of its key."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from configs.deployment import Bus
from serving.events.consumers import UNKNOWN_END, Consumer, Inside, NotDoneError, Outside, RefusedError
from serving.events.exchange import Exchange
from serving.metrics import Metrics
from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.dead_letters import WIPED, DeadLetters, ReplayError
from serving.storage.inbox import Inbox
from serving.storage.outbox import Envelope, Outbox, decode, encode, put

KIND = "thing.happened"


def settings(kind: str, **also: object) -> Bus:
    words = {"poll_ms": 20, "backoff_s": 0.02, "longest_backoff_s": 0.1, "attempts": 4, "prefix": f"t{secrets.token_hex(6)}"}
    return Bus.model_validate({**words, "kind": kind, **also})


@pytest.fixture(params=["process", "kafka"])
def bus(request: pytest.FixtureRequest) -> tuple[Bus, str]:
    """Settings of either bus, and the brokers."""
    brokers = request.getfixturevalue("kafka").brokers if request.param == "kafka" else ""
    return settings(request.param), brokers


def effect(database: Database, name: str) -> Callable[[AsyncConnection, Envelope], Awaitable[None]]:
    """Something that shows if it is done twice: a row of its own each time."""

    async def write(connection: AsyncConnection, envelope: Envelope) -> None:
        row = {"notification": secrets.token_hex(16), "account": name, "kind": envelope.key, "payload": envelope.event_id}
        await connection.execute(database.tables.notifications.insert().values(**row, created=now_us()))

    return write


async def effects(database: Database, name: str) -> list[str]:
    """event_ids in the order in which a consumer took them."""
    table = database.tables.notifications.c
    async with database.reading() as connection:
        return list((await connection.execute(sa.select(table.payload).where(table.account == name).order_by(table.created))).scalars())


async def announce(database: Database, keys: Sequence[str], kind: str = KIND) -> list[Envelope]:
    made = []
    async with database.writing() as connection:
        for number, key in enumerate(keys):
            made.append(Envelope(kind, key, {"number": number}))
        await put(database, connection, made)
    return made


@asynccontextmanager
async def exchange(database: Database, bus: tuple[Bus, str], *consumers: Consumer, **also: object) -> AsyncIterator[Exchange]:
    made = Exchange(database, consumers, bus[0], Metrics(), bus[1], **also)  # type: ignore[arg-type]
    await made.start()
    try:
        yield made
    finally:
        await made.stop(5.0)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 (another process may be the one that acts)
            await asyncio.sleep(0.03)


async def test_every_consumer_takes_every_event_once_and_in_the_order_of_its_key(database: Database, bus: tuple[Bus, str]) -> None:
    keys = [f"k{number % 7}" for number in range(60)]
    sent = await announce(database, keys)
    consumers = [Inside(name, (KIND,), effect(database, name)) for name in ("first", "second")]
    consumers.append(Inside("other", ("something.else",), effect(database, "other")))
    async with exchange(database, bus, *consumers), exchange(database, bus, *consumers) as second:
        sent += await announce(database, keys)
        second.wake()
        for name in ("first", "second"):
            await until(lambda name=name: _count(database, name, 120))  # type: ignore[misc]
    by_id = {envelope.event_id: envelope for envelope in sent}
    for name in ("first", "second"):
        taken = await effects(database, name)
        assert sorted(taken) == sorted(by_id)
        for key in set(keys):
            assert [e for e in taken if by_id[e].key == key] == [e.event_id for e in sent if e.key == key]
    assert await effects(database, "other") == []
    assert (await Outbox(database, False).waiting()).count == 0


async def _count(database: Database, name: str, least: int) -> bool:
    return len(await effects(database, name)) >= least


async def test_a_failing_consumer_holds_up_its_key_and_nobody_else_then_becomes_a_dead_letter(
    database: Database, bus: tuple[Bus, str]
) -> None:
    sick = True

    async def fails(connection: AsyncConnection, envelope: Envelope) -> None:
        await effect(database, "sick")(connection, envelope)  # undone with the rest
        if sick and envelope.payload["number"] == 0 and envelope.key == "a":
            raise ValueError("not this one")

    sent = await announce(database, ["a", "a", "b"])
    letters = DeadLetters(database)
    async with exchange(database, bus, Inside("sick", (KIND,), fails), Inside("well", (KIND,), effect(database, "well"))) as made:
        await until(lambda: _count(database, "well", 3))
        await until(lambda: _count(database, "sick", 2))
        (letter,) = await letters.page(10)
        assert (letter.consumer, letter.event_id, letter.attempts) == ("sick", sent[0].event_id, 4)
        assert "not this one" in letter.error
        assert letter.envelope == sent[0]
        assert await effects(database, "sick") == [e for e in await effects(database, "sick") if e != sent[0].event_id]

        sick = False
        await letters.replay(letter, {"sick": (KIND,), "well": (KIND,)})
        with pytest.raises(ReplayError, match="already"):
            await letters.replay(letter, {"sick": (KIND,), "well": (KIND,)})
        made.wake()
        await until(lambda: _count(database, "sick", 3))
    assert sorted(await effects(database, "sick")) == sorted(await effects(database, "well")) == sorted(e.event_id for e in sent)
    assert await letters.page(10) == []
    assert (await letters.page(10, replayed=True))[0].replayed_at is not None


async def test_a_replay_reaches_its_own_consumer_alone_where_the_inbox_was_cleared(database: Database) -> None:
    ways = [True]

    async def fails(connection: AsyncConnection, envelope: Envelope) -> None:
        if ways:
            raise RefusedError("never")
        await effect(database, "sick")(connection, envelope)

    await announce(database, ["a"])
    consumers = (Inside("sick", (KIND,), fails), Inside("well", (KIND,), effect(database, "well")))
    letters = DeadLetters(database)
    async with exchange(database, (settings("process"), ""), *consumers):
        await until(lambda: _count(database, "well", 1))
        await until(lambda: _letters(letters, 1))
        async with database.writing() as connection:
            await connection.execute(database.tables.inbox.delete())
            await connection.execute(database.tables.outbox.delete())
        ways.clear()
        await letters.replay((await letters.page(1))[0], {consumer.name: consumer.types for consumer in consumers})
        await until(lambda: _count(database, "sick", 1))
    assert len(await effects(database, "well")) == 1


async def _letters(letters: DeadLetters, least: int) -> bool:
    return await letters.count() >= least


async def test_the_database_away_delays_and_loses_nothing(tmp_path_factory: pytest.TempPathFactory, bus: tuple[Bus, str]) -> None:
    """Away for real: the file's lock is held by somebody else for longer than anybody waits."""
    folder = tmp_path_factory.mktemp("away")
    database, other = (Database(f"sqlite+aiosqlite:///{folder / 'f.db'}", wait_s=0.2) for _ in range(2))
    sent = await announce(database, ["a", "b", "a", "c"])
    holding = asyncio.Event()

    async def hold() -> None:
        other._wait_s = 5.0
        async with other.writing() as connection:
            await connection.execute(sa.select(1))
            holding.set()
            await asyncio.sleep(1.5)

    holder = asyncio.create_task(hold())
    await holding.wait()
    async with exchange(database, bus, Inside("one", (KIND,), effect(database, "one"))):
        with pytest.raises(DatabaseAwayError):
            await announce(database, ["x"])
        await holder
        await until(lambda: _count(database, "one", 4))
    taken = await effects(database, "one")
    assert sorted(taken) == sorted(e.event_id for e in sent)
    assert taken.index(sent[0].event_id) < taken.index(sent[2].event_id)
    await database.close()
    await other.close()


# ------------------------------------------------------------------ effects outside the database


async def test_what_was_begun_and_not_ended_is_never_done_again(database: Database) -> None:
    done: list[str] = []

    async def send(envelope: Envelope) -> None:
        done.append(envelope.event_id)

    (sent,) = await announce(database, ["a"], "mail.requested")
    async with database.writing() as connection:  # as a process leaves it that dies in the middle of sending
        await Inbox(database).take(connection, [("mail", sent.event_id)], "begun")
    letters = DeadLetters(database)
    async with exchange(database, (settings("process"), ""), Outside("mail", ("mail.requested",), send)):
        await until(lambda: _letters(letters, 1))
        assert done == []
        (letter,) = await letters.page(1)
        assert letter.error == UNKNOWN_END
        assert letter.envelope == sent
        await letters.replay(letter, {"mail": ("mail.requested",)})
        await until(lambda: _flag(lambda: bool(done)))
    assert done == [sent.event_id]


async def _flag(look: Callable[[], bool]) -> bool:
    return look()


@pytest.mark.parametrize(("error", "tries", "letters"), [(NotDoneError("away"), 3, 0), (RefusedError("no"), 1, 1), (OSError("?"), 1, 1)])
async def test_only_what_certainly_did_not_happen_is_tried_again(database: Database, error: Exception, tries: int, letters: int) -> None:
    done: list[str] = []

    async def send(envelope: Envelope) -> None:
        done.append(envelope.event_id)
        if len(done) < 3:
            raise error

    (sent,) = await announce(database, ["a"], "mail.requested")
    async with exchange(database, (settings("process"), ""), Outside("mail", ("mail.requested",), send)):
        await until(lambda: _delivered(database, sent.event_id))
    assert len(done) == tries
    assert await DeadLetters(database).count() == letters
    table = database.tables.outbox
    async with database.reading() as connection:
        payload = (await connection.execute(sa.select(table.c.payload).where(table.c.event_id == sent.event_id))).scalar_one()
    assert payload == "{}"  # what was private is not kept


async def _delivered(database: Database, event_id: str) -> bool:
    table = database.tables.outbox.c
    async with database.reading() as connection:
        return (await connection.execute(sa.select(table.published_at).where(table.event_id == event_id))).scalar_one() is not None


async def test_a_secret_of_a_dead_letter_goes_when_it_is_not_valid_any_more(database: Database) -> None:
    letters = DeadLetters(database)
    old, new = Envelope("mail.requested", "a", {"values": {"link": "secret"}}, occurred_at=1), Envelope("mail.requested", "b", {"v": 1})
    async with database.writing() as connection:
        for envelope in (old, new):
            await letters.add(connection, "mail", envelope.event_id, encode(envelope), "no", 1)
    assert await letters.wipe("mail", now_us() - 10_000_000) == 1
    assert await letters.wipe("mail", now_us() - 10_000_000) == 0
    kept = {letter.event_id: letter for letter in await letters.page(5)}
    assert "secret" not in kept[old.event_id].raw
    assert kept[old.event_id].envelope == Envelope("mail.requested", "a", WIPED, old.event_id, 1)
    assert kept[new.event_id].envelope == new
    with pytest.raises(ReplayError, match="wiped"):
        await letters.replay(kept[old.event_id], {"mail": ("mail.requested",)})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"event_id": 1}',
        b"not json",
        encode(Envelope("a", "b", {})).replace(b'"version":1', b'"version":true'),
    ],
)
def test_what_is_no_envelope_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        decode(raw)


def test_an_envelope_survives_its_own_form_and_moments_only_grow() -> None:
    first, second = Envelope("a", "b", {"x": [1, None, "é"]}), Envelope("a", "b", {})
    assert decode(encode(first)) == first
    assert second.occurred_at > first.occurred_at
