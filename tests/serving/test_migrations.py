"""The way from an older database to this one, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from pipelines.refusals import exit_code
from pipelines.servers import PostgresServer
from serving.storage import migrations, partitions
from serving.storage.database import Database, DatabaseAwayError
from serving.storage.interactions import Interactions
from serving.storage.slates import Slates
from serving.storage.upgrade import SchemaError, revision, upgrade

_DAY_US = 86_400_000_000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that holds nothing at all."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'new' / 'x.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create(f"m{secrets.token_hex(6)}")


@pytest.fixture
async def fresh(url: str) -> AsyncIterator[Database]:
    made = Database(url)
    yield made
    await made.close()


def _partitions(connection: sa.Connection) -> set[str]:
    """Names of partitions, which tables.py does not know."""
    if connection.dialect.name == "sqlite":
        return set()
    return set(connection.execute(sa.text("SELECT relname FROM pg_class WHERE relispartition")).scalars())


async def test_the_revisions_make_what_the_tables_say(fresh: Database) -> None:
    assert await fresh.upgrade() == (None, migrations.HEAD)

    def differences(connection: sa.Connection) -> list[object]:
        parts = _partitions(connection)

        def include(_item: object, name: str | None, kind: str, reflected: bool, _compared: object) -> bool:
            return not (kind == "table" and reflected and (name in parts or name == "alembic_version"))

        context = MigrationContext.configure(
            connection, opts={"include_schemas": not fresh.lite, "include_object": include, "compare_type": True}
        )
        return list(compare_metadata(context, fresh.tables.metadata))

    async with fresh.reading() as connection:
        assert await connection.run_sync(differences) == []


def test_the_newest_revision_is_the_one_that_is_named() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [migrations.HEAD]


_OLD = """
CREATE TABLE events (domain VARCHAR(40) NOT NULL, event_id VARCHAR(200) NOT NULL, "user" VARCHAR(200) NOT NULL, item VARCHAR(200) NOT NULL,
  kind VARCHAR(40) NOT NULL, value FLOAT, time BIGINT NOT NULL, recorded_at BIGINT NOT NULL, PRIMARY KEY (domain, event_id));
CREATE INDEX events_by_user ON events (domain, "user");
CREATE INDEX events_by_recorded_at ON events (domain, recorded_at);
CREATE TABLE slates (slate VARCHAR(200) NOT NULL, domain VARCHAR(40) NOT NULL, "user" VARCHAR(200), version VARCHAR(200) NOT NULL,
  variant VARCHAR(40) NOT NULL, mode VARCHAR(40) NOT NULL, degraded TEXT NOT NULL, notes TEXT NOT NULL, request TEXT NOT NULL,
  items TEXT NOT NULL, created BIGINT NOT NULL, PRIMARY KEY (slate));
CREATE INDEX slates_by_created ON slates (domain, created);
CREATE INDEX slates_by_user ON slates (domain, "user");
CREATE TABLE items (domain VARCHAR(40) NOT NULL, item VARCHAR(200) NOT NULL, title TEXT NOT NULL, cells TEXT NOT NULL,
  available BOOLEAN NOT NULL, recorded_at BIGINT NOT NULL, PRIMARY KEY (domain, item));
CREATE INDEX items_by_recorded_at ON items (domain, recorded_at)
"""


async def _old(database: Database, days: list[int]) -> None:
    """The tables of the version before, and in them an event, an item, and a slate of each of these days since 1970."""
    async with database.alone() as connection:
        for statement in _OLD.split(";"):
            await connection.exec_driver_sql(statement)
        await connection.exec_driver_sql("INSERT INTO events VALUES ('d', 'e1', 'u', 'i', 'seen', 0.5, 7, 8)")
        await connection.exec_driver_sql("INSERT INTO items VALUES ('d', 'i', 'Название', '{}', true, 9)")
        for day in days:
            await connection.exec_driver_sql(
                f"INSERT INTO slates VALUES ('s{day}', 'd', NULL, 'v', 'x', 'm', 'als', '[]', '{{}}', '[]', {day * _DAY_US + 5})"
            )


async def test_a_database_of_the_version_before_is_taken_over_with_its_rows(fresh: Database) -> None:
    today = (datetime.now(UTC).date() - datetime(1970, 1, 1).date()).days
    days = [today, today - 3, 100, 99_000_000]  # the last in a year that no partition is made for
    await _old(fresh, days)
    await fresh.ping()  # any query does it
    assert [e.event_id async for page in Interactions(fresh).events_since("d", 0) for e in page] == ["e1"]
    assert [(i.item, i.title, i.available) for i in await Interactions(fresh).items_since("d", 0)] == [("i", "Название", True)]
    for day in days:
        found = await Slates(fresh).find("d", f"s{day}")
        assert found is not None
        assert (found.degraded, found.user, found.created) == (("als",), None, day * _DAY_US + 5)
    async with fresh.reading() as connection:
        assert await connection.run_sync(revision) == migrations.HEAD
        assert not await connection.run_sync(lambda c: sa.inspect(c).has_table("events"))
        if not fresh.lite:
            rest = await connection.scalar(sa.text("SELECT count(*) FROM recommendations.slates_rest"))
            assert rest == 1
            made = await connection.run_sync(partitions.existing, fresh.tables.slates, True)
            starts = {(part.start - datetime(1970, 1, 1).date()).days for part in made}
            assert {today, today - 3, 100, today + partitions.DAYS_AHEAD} <= starts


async def test_an_upgrade_that_fails_leaves_the_old_tables_as_they_were(fresh: Database) -> None:
    await _old(fresh, [1])
    async with fresh.alone() as connection:
        await connection.exec_driver_sql("ALTER TABLE events ADD COLUMN stranger INTEGER")
    with pytest.raises(DatabaseAwayError, match="stranger"):
        await fresh.ping()
    async with fresh.alone(snapshot=True) as connection:
        assert await connection.run_sync(revision) is None
        assert (await connection.exec_driver_sql("SELECT count(*) FROM events")).scalar_one() == 1
        assert not await connection.run_sync(
            lambda c: sa.inspect(c).has_table("slates", schema=None if fresh.lite else "recommendations")
        ) or (fresh.lite)


async def test_a_database_of_a_newer_version_is_refused(url: str, fresh: Database) -> None:
    await fresh.ping()
    async with fresh.writing() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    older = Database(url)
    with pytest.raises(SchemaError, match="revision 9999, which this version of Factotum does not know") as refused:
        await older.ping()
    assert exit_code(refused.value) == 3
    await older.close()


async def test_tables_that_no_revision_made_are_refused(fresh: Database) -> None:
    async with fresh.alone() as connection:
        if not fresh.lite:
            await connection.exec_driver_sql("CREATE SCHEMA recommendations")
        await connection.run_sync(fresh.tables.events.create)
    with pytest.raises(SchemaError, match="never released"):
        await fresh.ping()


def _open(url: str, ready: object) -> None:
    async def act() -> None:
        database = Database(url, wait_s=10.0)
        ready.wait()  # type: ignore[attr-defined]
        await database.ping()
        await database.close()

    asyncio.run(act())


def test_several_processes_upgrade_the_same_database_at_once(url: str) -> None:
    async def old() -> None:
        database = Database(url)
        await _old(database, [1, 2, 3])
        await database.close()

    async def slates() -> int:
        database = Database(url)
        async with database.reading() as connection:
            count = await connection.scalar(sa.select(sa.func.count()).select_from(database.tables.slates))
        await database.close()
        return int(count or 0)

    asyncio.run(old())
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(3)
    processes = [context.Process(target=_open, args=(url, ready)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert asyncio.run(slates()) == 3


async def test_two_databases_are_upgraded_in_one_process_at_once(tmp_path: Path) -> None:
    both = [Database(f"sqlite+aiosqlite:///{tmp_path / name}") for name in ("a.db", "b.db")]
    await asyncio.gather(*(database.ping() for database in both for _ in range(3)))
    for database in both:
        async with database.reading() as connection:
            assert await connection.run_sync(revision) == migrations.HEAD
        await database.close()


async def test_where_the_tables_are_right_one_query_says_so(url: str, fresh: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await fresh.ping()

    async def never(_database: Database) -> None:
        raise AssertionError("an upgrade was begun")

    monkeypatch.setattr(Database, "upgrade", never)
    again = Database(url)
    said: list[str] = []
    sa.event.listen(again._engine.sync_engine, "before_cursor_execute", lambda *args: said.append(args[2]))
    await again.ping()
    assert [text for text in said if "alembic_version" in text] == ["SELECT version_num FROM alembic_version"]
    assert len(said) == 2  # and the ping itself
    await again.close()


async def test_a_database_that_is_emptied_under_a_running_process_is_made_anew(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    await database.ping()
    async with database.writing() as connection:
        for table in [*(t.name for t in database.tables.metadata.sorted_tables), "alembic_version"]:
            await connection.exec_driver_sql(f"DROP TABLE {table}")
    with pytest.raises(DatabaseAwayError, match="no such table"):
        await Interactions(database).items_since("d", 0)
    assert await Interactions(database).items_since("d", 0) == []
    await database.close()


async def test_an_older_revision_can_be_made_and_upgraded(fresh: Database) -> None:
    async with fresh.alone() as connection:
        assert await connection.run_sync(upgrade, "0001") == (None, "0001")
    await fresh.ping()
    async with fresh.reading() as connection:
        assert await connection.run_sync(revision) == migrations.HEAD


@pytest.mark.postgres
async def test_partitions_are_made_ahead_and_old_ones_go_as_a_whole(postgres: PostgresServer) -> None:
    database = Database(postgres.create(f"p{secrets.token_hex(6)}"))
    await database.ping()
    today = datetime.now(UTC).date()
    later = today + timedelta(days=40)
    async with database.writing() as connection:
        for day in (today, later):
            row = {
                "created": partitions.microseconds(day) + 1,
                "slate": str(day),
                "domain": "d",
                "version": "v",
                "variant": "x",
                "mode": "m",
            }
            texts = {"degraded": "", "notes": "[]", "request": "{}", "items": "[]"}
            await connection.execute(sa.insert(database.tables.slates).values(**row, **texts))
    async with database.reading() as connection:
        names = {table.name for table, _ in partitions.parted(database.tables)}
        assert names == {"slates", "biorhythms", "daily_recommendations"}
        for table, by_day in partitions.parted(database.tables):
            made = await connection.run_sync(partitions.existing, table, by_day)
            assert len(made) == (partitions.DAYS_AHEAD if by_day else partitions.MONTHS_AHEAD) + 1
            absent = await connection.run_sync(partitions.missing, table, by_day, today)
            assert [part.start for part in absent] == ([later] if by_day else [])
        assert await connection.scalar(sa.text("SELECT count(*) FROM recommendations.slates_rest")) == 1
        assert await connection.run_sync(partitions.make, database.tables.slates, absent_of(later)) == 1
        assert await connection.scalar(sa.text("SELECT count(*) FROM recommendations.slates_rest")) == 0
    assert await Slates(database).find("d", str(later)) is not None
    async with database.reading() as connection:
        await connection.run_sync(partitions.drop, database.tables.slates, absent_of(later))
    assert await Slates(database).find("d", str(later)) is None
    assert await Slates(database).find("d", str(today)) is not None
    await database.close()


def absent_of(day: object) -> partitions.Partition:
    assert isinstance(day, type(datetime.now(UTC).date()))
    return partitions.Partition("slates", day, True)
