"""Leases, retention, views for analysts and the indices of the hot queries, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from configs.deployment import Deployment, Retention
from pipelines.servers import PostgresServer
from serving.housekeeping import Housekeeping, figures
from serving.metrics import Metrics, Noticeboard
from serving.storage import partitions, retention
from serving.storage.audit import AuditQuery, AuditRows
from serving.storage.database import Database, now_us
from serving.storage.interactions import Interactions
from serving.storage.leases import Leases
from serving.storage.slates import Slates
from serving.storage.tables import StoredEvent, StoredSlate
from serving.storage.views import VIEWS, Views

DAY_US = 86_400_000_000


# ------------------------------------------------------------ leases


async def test_one_of_many_holds_a_lease_until_its_time_is_up_or_it_is_given_back(database: Database) -> None:
    many = [Leases(database, f"replica-{number}") for number in range(6)]
    taken = await asyncio.gather(*(leases.take("sweep", 60.0) for leases in many))
    assert sum(taken) == 1
    holder = many[taken.index(True)]
    other = many[taken.index(False)]
    assert await holder.take("sweep", 60.0)  # longer
    assert await other.take("another", 60.0)
    await other.give("sweep")  # not theirs to give
    assert not await other.take("sweep", 60.0)
    await holder.give("sweep")
    assert await other.take("sweep", -1.0)  # over at once
    assert await holder.take("sweep", 60.0)


# ------------------------------------------------------------ retention


def _row(table: sa.Table, **said: Any) -> dict[str, Any]:
    """A row of any table: what is not said is empty."""
    row: dict[str, Any] = {}
    for column in table.columns:
        if column.name in said:
            row[column.name] = said[column.name]
        elif not column.nullable:
            row[column.name] = 0 if isinstance(column.type, sa.Integer | sa.Float) else secrets.token_hex(4)
    return row


async def _insert(database: Database, table: sa.Table, *rows: dict[str, Any]) -> None:
    async with database.writing() as connection:
        for row in rows:
            await connection.execute(sa.insert(table).values(_row(table, **row)))


async def _count(database: Database, table: sa.Table) -> int:
    async with database.reading() as connection:
        return int(await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


async def _filled(database: Database, now: int) -> None:
    """Of each kind one row that is 400 days old and one of an hour ago."""
    tables = database.tables
    for moment in (now - 400 * DAY_US, now - DAY_US // 24):
        await _insert(database, tables.slates, {"created": moment})
        await _insert(database, tables.audit_log, {"at": moment})
        await _insert(database, tables.sessions, {"session": f"s{moment}", "expires": moment})
        await _insert(database, tables.refreshes, {"session": f"s{moment}"})
        await _insert(database, tables.one_time, {"expires": moment})
        await _insert(database, tables.notifications, {"created": moment})
        await _insert(database, tables.outbox, {"published_at": moment})
        await _insert(database, tables.inbox, {"at": moment})
        await _insert(database, tables.dead_letters, {"at": moment})
        await _insert(database, tables.metrics, {"metric_timestamp": moment})
        await _insert(database, tables.events, {"recorded_at": moment})


async def test_old_rows_of_each_kind_go_and_young_ones_stay(database: Database) -> None:
    now, tables = now_us(), database.tables
    await _filled(database, now)
    await _insert(database, tables.outbox, {"published_at": None, "occurred_at": 5})  # not delivered yet: however old
    await _insert(database, tables.sessions, {"session": "living", "expires": now + DAY_US, "created": 5})
    await _insert(database, tables.refreshes, {"session": "living"})

    would = await retention.sweep(database, Retention(), dry_run=True)
    assert {what.table for what in would if what.rows == 1} == {what.table for what in would}
    assert await _count(database, tables.slates) == 2

    went = await retention.sweep(database, Retention())
    assert {what.kind for what in went} == {
        "slates", "audit", "sessions", "notifications", "outbox", "dead_letters", "metrics",
    }  # fmt: skip
    assert all(what.rows == 1 or what.partitions for what in went)
    counts = {str(table): await _count(database, table) for table in {rule.table for rule in retention.rules(tables, Retention())}}
    assert {name.replace("_", ".", 1) if database.lite else name: count for name, count in counts.items()} == {
        "recommendations.slates": 1, "system.audit_log": 1, "users.sessions": 2, "users.refreshes": 2, "users.one_time": 1,
        "users.notifications": 1, "system.outbox": 2, "system.inbox": 1, "system.dead_letters": 1, "system.metrics": 1,
    }  # fmt: skip
    assert await _count(database, tables.events) == 2  # kept for ever unless said
    assert [what.rows for what in await retention.sweep(database, Retention())] == [0] * len(went)
    await retention.sweep(database, Retention(events=30))
    assert await _count(database, tables.events) == 1


async def test_many_old_rows_go_in_pieces(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PIECE", 10)
    await _insert(
        database, database.tables.metrics, *({"metric": f"m{n}", "metric_timestamp": 5 if n < 35 else now_us()} for n in range(40))
    )
    statements: list[str] = []
    sa.event.listen(
        database._engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]) if "DELETE" in args[2] else None
    )
    went = {what.kind: what.rows for what in await retention.sweep(database, Retention())}
    assert went["metrics"] == 35
    assert await _count(database, database.tables.metrics) == 5
    assert sum("metrics" in statement for statement in statements) == 4  # 10, 10, 10 and 5


@pytest.mark.postgres
async def test_old_days_of_slates_go_as_partitions(postgres: PostgresServer) -> None:
    database = Database(postgres.create(f"r{secrets.token_hex(6)}"))
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=n) for n in (0, 20, 40, 41)]
    await _insert(database, database.tables.slates, *({"created": partitions.microseconds(day) + 1} for day in days))
    assert await retention.maintain(database) == 3  # of the days behind that have slates
    assert await retention.maintain(database) == 0
    would = (await retention.sweep(database, Retention(), dry_run=True))[0]
    assert (would.kind, would.rows, len(would.partitions)) == ("slates", 2, 2)
    assert await _count(database, database.tables.slates) == 4
    went = (await retention.sweep(database, Retention()))[0]
    assert went.partitions == tuple(partitions.Partition("slates", day, True).name for day in sorted(days[2:]))
    assert await _count(database, database.tables.slates) == 2
    await database.close()


@pytest.mark.postgres
async def test_a_partition_in_use_is_left_for_the_next_time(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_LOCK_MS", 100)
    database = Database(postgres.create(f"r{secrets.token_hex(6)}"))
    old = datetime.now(UTC).date() - timedelta(days=50)
    await _insert(database, database.tables.slates, {"created": partitions.microseconds(old) + 1})
    assert await retention.maintain(database) == 1
    async with database.reading() as reader:
        await reader.execute(sa.select(database.tables.slates))
        went = (await retention.sweep(database, Retention()))[0]
        assert went.partitions == ()
        assert went.rows == 1  # which went by itself
    assert len((await retention.sweep(database, Retention()))[0].partitions) == 1
    assert await _count(database, database.tables.slates) == 0
    await database.close()


# ------------------------------------------------------------ views


def _slate(name: str, day: int, user: str | None, items: str, variant: str = "a", degraded: tuple[str, ...] = ()) -> StoredSlate:
    return StoredSlate(name, "d", user, "v1", variant, "m", degraded, "[]", "{}", items, day * DAY_US + 1_000)


def _event(name: str, day: int, user: str, item: str, kind: str = "seen") -> StoredEvent:
    return StoredEvent(name, user, item, kind, None, day * DAY_US + 5_000)


async def test_views_count_what_happened(database: Database) -> None:
    views = Views(database)
    if database.lite:  # PostgreSQL's tests share one database
        assert (await views.rows("events")).refreshed is None
    day = 20_000  # 2024-10-04, a Friday
    await Slates(database).add(
        [
            _slate("s1", day, "u1", '[{"item_id":"1"},{"item_id":"2"},{"item_id":"ключ\\"3"}]'),
            _slate("s2", day, "u2", '[{"item_id":"1"}]', degraded=("als",)),
            _slate("s3", day, None, '[{"item_id":"1"}]', variant="b"),
            _slate("s4", day + 1, "u1", "[]"),
        ]
    )
    await Interactions(database).record_events(
        "d",
        [
            _event("e1", day, "u1", "1"),
            _event("e2", day, "u1", "1"),  # twice on the same item: acted on once
            _event("e3", day + 6, "u1", 'ключ"3'),
            _event("e4", day + 8, "u1", "2"),  # too late
            _event("e5", day - 1, "u2", "1"),  # before it was shown
            _event("e6", day, "u3", "1", "liked"),
            StoredEvent("e7", "u4", "1", "seen", None, -5),  # before 1970
        ],
    )
    assert await views.refresh() == {"events": 5, "slates": 3, "click_through": 1, "people": 2}
    friday = date(1970, 1, 1) + timedelta(days=day)
    events = await views.rows("events", friday, friday + timedelta(days=1))
    assert events.rows == [
        {"day": "2024-10-04", "domain": "d", "kind": "liked", "events": 1, "people": 1},
        {"day": "2024-10-04", "domain": "d", "kind": "seen", "events": 2, "people": 1},
    ]
    assert (await views.rows("slates")).rows == [
        {"day": "2024-10-05", "domain": "d", "version": "v1", "variant": "a", "slates": 1, "degraded": 0, "degraded_share": 0.0},
        {"day": "2024-10-04", "domain": "d", "version": "v1", "variant": "a", "slates": 2, "degraded": 1, "degraded_share": 0.5},
        {"day": "2024-10-04", "domain": "d", "version": "v1", "variant": "b", "slates": 1, "degraded": 0, "degraded_share": 0.0},
    ]
    assert (await views.rows("click_through")).rows == [
        {"day": "2024-10-04", "domain": "d", "variant": "a", "shown": 4, "acted": 2, "rate": 0.5}
    ]
    assert (await views.rows("people")).rows == [
        {"week": "2024-10-07", "domain": "d", "people": 1, "events": 2},
        {"week": "2024-09-30", "domain": "d", "people": 3, "events": 4},
    ]


async def test_views_are_refreshed_again_and_read_in_pages(database: Database) -> None:
    views = Views(database)
    for day in range(5):
        await Interactions(database).record_events("d", [_event(f"e{day}", 20_000 + day, "u", "1")])
    await views.refresh(["events"])
    before = now_us()
    await Interactions(database).record_events("d", [_event("later", 20_009, "u", "1")])
    assert len((await views.rows("events")).rows) == 5  # as of the refresh
    await views.refresh(["events"])
    pages = [await views.rows("events", offset=offset, size=4) for offset in (0, 4)]
    assert [len(page.rows) for page in pages] == [4, 2]
    assert [page.more for page in pages] == [True, False]
    assert pages[0].rows[0]["day"] == "2024-10-13"
    assert pages[0].refreshed is not None
    assert pages[0].refreshed >= before
    with pytest.raises(KeyError):
        await views.rows("events; drop table events")


async def test_a_view_whose_query_changed_is_made_anew(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views(database)
    await Interactions(database).record_events("d", [_event("e", 20_000, "u", "1")])
    await views.refresh()
    old = VIEWS["people"]
    monkeypatch.setitem(VIEWS, "people", type(old)(old.name, old.when, old.key, old.figures, old.query.replace("count(*)", "2 * count(*)")))
    await views.refresh()
    assert (await views.rows("people")).rows[0]["events"] == 2
    monkeypatch.undo()
    await views.refresh()
    assert (await views.rows("people")).rows[0]["events"] == 1


# ------------------------------------------------------------ figures


async def test_figures_of_the_replicas_are_kept(database: Database, tmp_path: Path) -> None:
    ours, theirs = Metrics(), Metrics()
    theirs.replica = "other-replica"
    board = Noticeboard(tmp_path, ours)
    keeper = Housekeeping(database, Deployment(), board, ours)
    await keeper.keep_figures()  # only looks
    assert await _count(database, database.tables.metrics) == 0
    for metrics in (ours, theirs):
        for number in range(20):
            metrics.requests.labels("/r", "GET", "500" if number == 0 else "200").inc()
            metrics.request_seconds.labels("/r").observe(0.004 if number else 4.0)
        metrics.cache.labels("similar", "near").inc(3)
        metrics.cache.labels("similar", "miss").inc(1)
    Noticeboard(tmp_path, theirs).write()
    await keeper.keep_figures()
    table = database.tables.metrics.c
    async with database.reading() as connection:
        found = dict((await connection.execute(sa.select(table.metric_name, table.metric_value))).tuples().all())
    assert found == {
        "requests": 40.0, "requests_failed": 2.0, "errors": 0.0, "degraded": 0.0, "slates_written": 0.0, "slates_lost": 0.0,
        "request_p95_ms": 5.0, "cache_hit_ratio": 0.75,
    }  # fmt: skip
    await keeper.keep_figures()
    async with database.reading() as connection:
        last = await connection.scalar(sa.select(sa.func.count()).where(table.metric_name == "request_p95_ms"))
    assert last == 1  # nothing was asked meanwhile


def test_figures_of_nothing_are_counts_of_zero() -> None:
    assert figures({})["requests"] == 0.0
    assert "request_p95_ms" not in figures({})


# ------------------------------------------------------------ indices


async def test_the_hot_queries_use_an_index(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        asked.append((statement, parameters))

    tables = database.tables
    # enough rows that one index is plainly the best: between several that fit an empty table PostgreSQL chooses by what it last counted
    await Interactions(database).record_events("d", [_event(f"e{n}", 1, f"u{n}", f"i{n}") for n in range(400)])
    if not database.lite:
        async with database.writing() as connection:
            await connection.execute(sa.text("ANALYZE recommendations.events"))
    now = now_us()
    await Slates(database).find("d", "warm")
    sa.event.listen(database._engine.sync_engine, "before_cursor_execute", note)
    assert [page async for page in Interactions(database).events_since("d", now)] == []
    await Slates(database).find("d", "s")
    await AuditRows(database).search(AuditQuery(people=("p",)))
    async with database.reading() as connection:
        await connection.execute(sa.select(tables.events).where(tables.events.c.domain == "d", tables.events.c.user == "u"))
    sa.event.remove(database._engine.sync_engine, "before_cursor_execute", note)
    queries = [(text, parameters) for text, parameters in asked if text.startswith("SELECT")]
    assert len(queries) == 4
    wanted = ("events_by_recorded_at", "slates", "audit_log_by_person", "events_by_user")
    for (text, parameters), index in zip(queries, wanted, strict=True):
        async with database.reading() as connection:
            if database.lite:
                plan = [str(row[-1]) for row in (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", parameters)).all()]
                assert not any(line.startswith("SCAN") for line in plan), plan
            else:
                await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # the tables are as good as empty
                plan = [str(row[0]) for row in (await connection.exec_driver_sql(f"EXPLAIN {text}", parameters)).all()]
                assert not any("Seq Scan" in line for line in plan), plan
            assert any(index in line and "ndex" in line.lower() for line in plan), plan
