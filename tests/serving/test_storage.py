"""The tables and queries, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipelines.servers import PostgresServer
from serving.metrics import Metrics
from serving.storage import interactions
from serving.storage.database import Database, DatabaseAwayError, address, now_us
from serving.storage.interactions import Interactions
from serving.storage.slates import Slates, SlateWriter
from serving.storage.tables import StoredEvent, StoredItem, StoredSlate


def event(name: str, user: str = "u", item: str = "i", time: int = 5) -> StoredEvent:
    return StoredEvent(name, user, item, "seen", None, time)


def slate(name: str, created: int = 1) -> StoredSlate:
    return StoredSlate(name, "d", "u", "v1", "default", "two-stage", ("als", "sasrec"), "[]", '{"k":1}', '[{"item_id":"1"}]', created)


async def everything(database: Database, domain: str = "d", since: int = 0, until: int | None = None) -> list[StoredEvent]:
    return [found async for page in Interactions(database).events_since(domain, since, until) for found in page]


async def test_an_event_counts_once_and_the_first_word_stands(database: Database) -> None:
    first = await Interactions(database).record_events("d", [event("a", time=1), event("b"), event("a", time=2)])
    assert [(e.event_id, e.time) for e in first] == [("a", 1), ("b", 5)]
    again = await Interactions(database).record_events("d", [event("a", time=9), event("c")])
    assert [e.event_id for e in again] == ["c"]
    assert {e.event_id: e.time for e in await everything(database)} == {"a": 1, "b": 5, "c": 5}


async def test_the_same_event_id_in_another_domain_is_another_event(database: Database) -> None:
    await Interactions(database).record_events("d", [event("a")])
    assert len(await Interactions(database).record_events("e", [event("a")])) == 1


async def test_events_are_stamped_and_come_in_pages_in_the_order_recorded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactions, "PAGE", 2)
    before = now_us()
    stamped = []
    for name in "abcde":
        stamped += await Interactions(database).record_events("d", [event(name)])
    assert before <= stamped[0].recorded_at <= stamped[-1].recorded_at <= now_us()
    assert await everything(database) == sorted(stamped, key=lambda e: (e.recorded_at, e.event_id))
    third = stamped[2].recorded_at
    assert {e.event_id for e in await everything(database, since=third)} == {e.event_id for e in stamped if e.recorded_at >= third}
    assert {e.event_id for e in await everything(database, until=third)} == {e.event_id for e in stamped if e.recorded_at < third}
    assert sorted(await Interactions(database).event_ids_since("d", third)) == sorted(e.event_id for e in stamped if e.recorded_at >= third)
    assert await Interactions(database).events_by_id("d", ["b", "nobody"]) == [stamped[1]]


async def test_values_and_texts_come_back_as_they_went(database: Database) -> None:
    odd = StoredEvent("ключ'; drop table events; --", "日本", 'q"uote', "like", 7.25, -(2**40))
    stored = await Interactions(database).record_events("d", [odd])
    assert await everything(database) == stored
    assert (stored[0].event_id, stored[0].user, stored[0].value, stored[0].time) == (odd.event_id, "日本", 7.25, -(2**40))


async def test_a_repeated_event_in_many_tasks_at_once_is_new_for_one(database: Database) -> None:
    told = await asyncio.gather(*(Interactions(database).record_events("d", [event("same"), event(f"own{n}")]) for n in range(12)))
    assert sum(1 for new in told for e in new if e.event_id == "same") == 1
    assert len(await everything(database)) == 13


async def test_an_item_said_anew_replaces_the_old_word(database: Database) -> None:
    first = await Interactions(database).put_item("d", StoredItem("1", "One", '{"genre":["A"]}', True))
    second = await Interactions(database).put_item("d", StoredItem("1", "Uno", "{}", False))
    assert second.recorded_at >= first.recorded_at
    assert await Interactions(database).items_since("d", 0) == [second]
    assert await Interactions(database).items_since("d", second.recorded_at + 1) == []


async def test_slates_come_back_and_old_ones_are_forgotten(database: Database) -> None:
    await Slates(database).add([slate("s1", 10), slate("s2", 20)])
    await Slates(database).add([slate("s2", 20)])  # repeated after a doubtful write
    assert await Slates(database).find("d", "s2") == slate("s2", 20)
    assert await Slates(database).find("other", "s2") is None
    assert await Slates(database).forget(before=20) == 1
    assert await Slates(database).find("d", "s1") is None
    assert await Slates(database).find("d", "s2") is not None


async def test_what_is_committed_is_seen_by_another_process(database: Database) -> None:
    await Interactions(database).record_events("d", [event("a")])
    other = Database(database._url.render_as_string(hide_password=False))
    assert [e.event_id for e in await everything(other)] == ["a"]
    await other.close()


def _write_many(url: str, name: str) -> None:
    async def write() -> None:
        database = Database(url)
        for number in range(25):
            await Interactions(database).record_events("d", [event(f"{name}-{number}"), event(f"shared-{number}")])
        await database.close()

    asyncio.run(write())


def test_several_processes_make_the_tables_and_write_the_same_file(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'new' / 'events.db'}"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_many, args=(url, name)) for name in ("x", "y", "z")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with sqlite3.connect(tmp_path / "new" / "events.db") as connection:
        assert connection.execute("select count(*) from recommendations_events").fetchone() == (100,)


async def test_sqlite_waits_for_the_disk_at_each_commit(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    async with database._transaction() as connection:
        assert (await connection.exec_driver_sql("PRAGMA synchronous")).scalar() == 2  # FULL
        assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "wal"
    await database.close()


async def test_a_locked_sqlite_file_is_a_database_away_and_nothing_is_half_written(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", wait_s=0.2)
    await Interactions(database).record_events("d", [event("before")])
    holder = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseAwayError, match="locked"):
        await Interactions(database).record_events("d", [event("during")])
    assert [e.event_id for e in await everything(database)] == ["before"]  # reading goes on
    holder.execute("COMMIT")
    holder.close()
    await Interactions(database).record_events("d", [event("after")])
    assert [e.event_id for e in await everything(database)] == ["before", "after"]
    await database.close()


@pytest.mark.postgres
async def test_a_write_that_is_cancelled_half_way_locks_nobody_out(database: Database) -> None:
    """The cancelled task, and with it the cursor in its traceback, lives on: as those of a stop or of a caller who hung up do."""
    events, begun = Interactions(database), asyncio.Event()

    async def write_on() -> None:
        async with database.writing() as connection:
            begun.set()
            insert = database.insert(database.tables.events)
            row = {"domain": "d", "user": "u", "item": "i", "kind": "seen", "time": 1, "recorded_at": 1}
            await connection.execute(insert, [row | {"event_id": str(number)} for number in range(20_000)])

    task = asyncio.create_task(write_on())
    await begun.wait()
    await asyncio.sleep(0.02)
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    assert len(await events.record_events("d", [event("after")])) == 1
    assert [found.event_id for found in await everything(database)] == ["after"]


async def test_a_stopped_postgresql_is_a_database_away_and_heals(postgres: PostgresServer) -> None:
    database = Database(postgres.url, wait_s=1.0)
    await Interactions(database).record_events("stopped", [event("before")])
    postgres.stop()
    try:
        with pytest.raises(DatabaseAwayError):
            await Interactions(database).record_events("stopped", [event("during")])
        with pytest.raises(DatabaseAwayError):
            await everything(database, "stopped")
    finally:
        postgres.start()
    await Interactions(database).record_events("stopped", [event("after")])
    assert [e.event_id for e in await everything(database, "stopped")] == ["before", "after"]
    await database.close()


async def test_an_unreachable_server_is_a_database_away() -> None:
    database = Database("postgresql+asyncpg://nobody@127.0.0.1:9/none", wait_s=0.5)
    with pytest.raises(DatabaseAwayError):
        await database.ping()
    await database.close()


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert address(tmp_path) == f"sqlite+aiosqlite:///{tmp_path}/factotum.db"
    assert address(tmp_path, "postgresql://a:b@h/d") == "postgresql+asyncpg://a:b@h/d"
    assert address(tmp_path, "postgresql+psycopg://a:b@h/d") == "postgresql+asyncpg://a:b@h/d"
    with pytest.raises(ValueError, match="allowed are sqlite and postgresql"):
        address(tmp_path, "mysql://a@h/d")
    monkeypatch.setenv("FACTOTUM_DATABASE_URL", "sqlite:///elsewhere.db")
    assert address(tmp_path, "mysql://a@h/d") == "sqlite+aiosqlite:///elsewhere.db"  # the environment wins


async def test_slates_wait_while_the_database_is_away_and_flow_when_it_is_back(tmp_path: Path) -> None:
    database, metrics = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", wait_s=0.1), Metrics()
    await database.ping()
    writer = SlateWriter(database, tmp_path, spool=100, metrics=metrics)
    await writer.start()
    holder = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for number in range(130):
        writer.put(slate(f"s{number}", now_us()))
    await asyncio.sleep(0.5)
    assert len(writer) == 100
    assert metrics.registry.get_sample_value("factotum_slates_lost_total") == 30
    assert writer.waiting("d", "s0") is None  # the oldest went
    assert writer.waiting("d", "s129") is not None
    holder.execute("COMMIT")
    holder.close()
    for _ in range(100):
        if not len(writer):
            break
        await asyncio.sleep(0.05)
    assert await Slates(database).find("d", "s129") is not None
    assert await Slates(database).find("d", "s0") is None
    assert metrics.registry.get_sample_value("factotum_slates_written_total") == 100
    await writer.stop(1.0)
    await database.close()


async def test_stopping_writes_what_waits(tmp_path: Path) -> None:
    database, metrics = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}"), Metrics()
    writer = SlateWriter(database, tmp_path, spool=1_000, metrics=metrics)
    await writer.start()
    for number in range(450):
        writer.put(slate(f"s{number}", now_us()))
    await writer.stop(5.0)
    assert len(writer) == 0
    assert await Slates(database).find("d", "s449") is not None
    await database.close()


async def test_a_small_query_is_looked_up_as_a_transaction_reads_it(database: Database) -> None:
    events = database.tables.events.c
    query = sa.select(events.event_id).where(events.domain == sa.bindparam("of")).order_by(events.event_id)
    assert await database.look_up(query, {"of": "d"}) == []  # it makes the tables like any other
    await Interactions(database).record_events("d", [event("b"), event("a")])
    assert [row[0] for row in await database.look_up(query, {"of": "d"})] == ["a", "b"]
    found = await asyncio.gather(*(database.look_up(query, {"of": name}) for name in "de" * 20))
    assert [len(rows) for rows in found] == [2, 0] * 20

    @asynccontextmanager
    async def closed() -> AsyncIterator[None]:
        raise DatabaseAwayError("open")
        yield

    database.guard = closed
    with pytest.raises(DatabaseAwayError, match="open"):
        await database.look_up(query, {"of": "d"})


async def test_a_look_up_in_what_is_no_database_says_that_it_is_away(tmp_path: Path) -> None:
    made = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", wait_s=1.0)
    await Interactions(made).record_events("d", [event("a")])
    await made.close()
    (tmp_path / "x.db").write_bytes(b"no database " * 1_000)
    with pytest.raises(DatabaseAwayError, match="not a database"):
        await made.look_up(sa.select(made.tables.events.c.event_id), {})
    await made.close()
