"""Every query there is, for SQLite and PostgreSQL alike.

A write returns when it is committed and on disk. Whatever keeps the database from answering becomes one error,
`DatabaseAwayError`; anything else that the database objects to is a fault of ours and is raised as it came.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from serving.storage import tables
from serving.storage.tables import StoredEvent, StoredItem, StoredSlate, events, items, slates

PAGE = 2_000  # rows read at once
_CREATING = 0x_FAC7_0713  # PostgreSQL's advisory lock that one process holds while it makes the tables
_EVENT_COLUMNS = (events.c.event_id, events.c.user, events.c.item, events.c.kind, events.c.value, events.c.time, events.c.recorded_at)


class DatabaseAwayError(RuntimeError):
    """The database did not answer in time, or cannot be reached, or is locked. Nothing that was being written may be relied on."""


def now_us() -> int:
    """This moment, microseconds UTC."""
    return time.time_ns() // 1_000


def address(home: Path, url: str = "") -> str:
    """The database's URL: FACTOTUM_DATABASE_URL, else `url` of the deployment, else SQLite in the home folder.

    `postgresql://` and `sqlite:///` are completed by the asynchronous drivers. Raises ValueError for any other database.
    """
    wanted = os.environ.get("FACTOTUM_DATABASE_URL") or url
    if not wanted:
        return f"sqlite+aiosqlite:///{home / 'factotum.db'}"
    parsed = make_url(wanted)
    match parsed.get_backend_name():
        case "postgresql":
            return parsed.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        case "sqlite":
            return parsed.set(drivername="sqlite+aiosqlite").render_as_string(hide_password=False)
        case other:
            raise ValueError(f"database {other!r}: allowed are sqlite and postgresql")


class Database:
    """One pool of connections. `wait_s`: a lock or a connection is waited for so long, a whole operation at most twice that."""

    def __init__(self, url: str, wait_s: float = 3.0) -> None:
        self._url = make_url(url)
        self._wait_s = wait_s
        self._prepared = False
        self._preparing = asyncio.Lock()
        self._writing = asyncio.Lock()
        self.lite = self._url.get_backend_name() == "sqlite"
        self._engine: AsyncEngine = self._connect()

    def _connect(self) -> AsyncEngine:
        if not self.lite:
            return create_async_engine(
                self._url,
                pool_size=5,
                max_overflow=5,
                pool_timeout=self._wait_s,
                pool_pre_ping=True,
                connect_args={"timeout": self._wait_s, "command_timeout": 2 * self._wait_s},
            )
        engine = create_async_engine(self._url, pool_timeout=self._wait_s, connect_args={"timeout": self._wait_s})

        @sa.event.listens_for(engine.sync_engine, "connect")
        def _each(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={int(self._wait_s * 1_000)}")
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")  # NORMAL may lose the last commits when the power goes
            cursor.close()

        return engine

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def _transaction(self, limit_s: float | None = None) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(limit_s or 2 * self._wait_s):
                if not self._prepared:
                    await self._prepare()
                async with self._engine.begin() as connection:
                    yield connection
        except (DataError, IntegrityError):
            raise
        except (DBAPIError, PoolTimeout, OSError, TimeoutError) as error:
            self._prepared = self._prepared and not _lost(error)
            raise DatabaseAwayError(
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer in time'}"
            ) from error

    async def _prepare(self) -> None:
        """Makes the tables that do not exist yet. Several processes may do so at once."""
        async with self._preparing:
            if self._prepared:
                return
            if self.lite and self._url.database:
                Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
            async with self._engine.begin() as connection:
                if self.lite:
                    await connection.exec_driver_sql("BEGIN IMMEDIATE")
                else:
                    await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATING})")
                await connection.run_sync(tables.metadata.create_all)
            self._prepared = True

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        """As `_transaction`; on SQLite this process writes one thing at a time, so that only other processes are waited for by polling."""
        if not self.lite:
            async with self._transaction() as connection:
                yield connection
            return
        async with self._writing, self._transaction() as connection:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def _insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        return sqlite.insert(table) if self.lite else postgresql.insert(table)

    # ------------------------------------------------------------ events

    async def ping(self) -> None:
        """Raises DatabaseAwayError."""
        async with self._transaction(self._wait_s) as connection:
            await connection.execute(sa.select(1))

    async def record_events(self, domain: str, happened: Sequence[StoredEvent]) -> list[StoredEvent]:
        """Writes events once each; returns those that were new, stamped. One whose event_id is known changes nothing.
        Raises DatabaseAwayError."""
        if not happened:
            return []
        async with self._write() as connection:
            stamp = now_us()
            once = {event.event_id: event for event in reversed(happened)}
            rows = [
                {
                    tables.DOMAIN: domain,
                    "event_id": event.event_id,
                    "user": event.user,
                    "item": event.item,
                    "kind": event.kind,
                    "value": event.value,
                    "time": event.time,
                    tables.RECORDED_AT: stamp,
                }
                for event in reversed(once.values())
            ]
            statement = self._insert(events).on_conflict_do_nothing().returning(events.c.event_id)
            new = set((await connection.execute(statement, rows)).scalars())
        return [
            StoredEvent(event.event_id, event.user, event.item, event.kind, event.value, event.time, stamp)
            for event in happened
            if event.event_id in new and once[event.event_id] is event
        ]

    async def events_since(self, domain: str, since: int, until: int | None = None) -> AsyncIterator[list[StoredEvent]]:
        """Pages of the events with since <= recorded_at (< until), in the order in which they were recorded. Raises DatabaseAwayError.

        Pages are read in transactions of their own; an event that becomes visible behind the reader is not in them.
        """
        place = (since, "")
        while True:
            after = sa.tuple_(events.c.recorded_at, events.c.event_id) > sa.tuple_(sa.literal(place[0]), sa.literal(place[1]))
            query = sa.select(*_EVENT_COLUMNS).where(events.c.domain == domain, events.c.recorded_at >= place[0], after)
            if until is not None:
                query = query.where(events.c.recorded_at < until)
            async with self._transaction() as connection:
                rows = (await connection.execute(query.order_by(events.c.recorded_at, events.c.event_id).limit(PAGE))).all()
            page = [StoredEvent(*row) for row in rows]
            if page:
                yield page
                place = (page[-1].recorded_at, page[-1].event_id)
            if len(page) < PAGE:
                return

    async def event_ids_since(self, domain: str, since: int) -> list[str]:
        """Raises DatabaseAwayError."""
        async with self._transaction() as connection:
            query = sa.select(events.c.event_id).where(events.c.domain == domain, events.c.recorded_at >= since)
            return list((await connection.execute(query)).scalars())

    async def events_by_id(self, domain: str, event_ids: Sequence[str]) -> list[StoredEvent]:
        """Raises DatabaseAwayError."""
        found: list[StoredEvent] = []
        async with self._transaction() as connection:
            for start in range(0, len(event_ids), 500):
                query = sa.select(*_EVENT_COLUMNS).where(events.c.domain == domain, events.c.event_id.in_(event_ids[start : start + 500]))
                found.extend(StoredEvent(*row) for row in (await connection.execute(query)).all())
        return found

    # ------------------------------------------------------------ items

    async def put_item(self, domain: str, item: StoredItem) -> StoredItem:
        """Writes an item, anew if it is there already; returns it stamped. Raises DatabaseAwayError."""
        async with self._write() as connection:
            stamp = now_us()
            said = {"title": item.title, "cells": item.cells, "available": item.available, tables.RECORDED_AT: stamp}
            statement = self._insert(items).values(domain=domain, item=item.item, **said)
            await connection.execute(statement.on_conflict_do_update(index_elements=["domain", "item"], set_=said))
        return StoredItem(item.item, item.title, item.cells, item.available, stamp)

    async def items_since(self, domain: str, since: int) -> list[StoredItem]:
        """Items with recorded_at >= since, oldest first. Raises DatabaseAwayError."""
        async with self._transaction() as connection:
            query = sa.select(items.c.item, items.c.title, items.c.cells, items.c.available, items.c.recorded_at)
            query = query.where(items.c.domain == domain, items.c.recorded_at >= since).order_by(items.c.recorded_at, items.c.item)
            return [StoredItem(*row) for row in (await connection.execute(query)).all()]

    # ------------------------------------------------------------ slates

    async def add_slates(self, served: Sequence[StoredSlate]) -> None:
        """Writes slates; one that is there already is left as it is. Raises DatabaseAwayError."""
        rows = [
            {
                "slate": slate.slate,
                "domain": slate.domain,
                "user": slate.user,
                "version": slate.version,
                "variant": slate.variant,
                "mode": slate.mode,
                "degraded": ",".join(slate.degraded),
                "notes": slate.notes,
                "request": slate.request,
                "items": slate.items,
                "created": slate.created,
            }
            for slate in served
        ]
        if not rows:
            return
        async with self._write() as connection:
            await connection.execute(self._insert(slates).on_conflict_do_nothing(), rows)

    async def slate(self, domain: str, slate: str) -> StoredSlate | None:
        """Raises DatabaseAwayError."""
        async with self._transaction() as connection:
            row = (await connection.execute(sa.select(slates).where(slates.c.slate == slate, slates.c.domain == domain))).one_or_none()
        if row is None:
            return None
        degraded = tuple(name for name in row.degraded.split(",") if name)
        return StoredSlate(
            row.slate, row.domain, row.user, row.version, row.variant, row.mode, degraded, row.notes, row.request, row.items, row.created
        )

    async def forget_slates(self, before: int, most: int = 5_000) -> int:
        """Deletes at most `most` slates created before a moment; returns how many. Raises DatabaseAwayError."""
        async with self._write() as connection:
            old = sa.select(slates.c.slate).where(slates.c.created < before).limit(most)
            return int((await connection.execute(sa.delete(slates).where(slates.c.slate.in_(old)))).rowcount)


def _lost(error: BaseException) -> bool:
    """Whether the tables may be gone when the database is back."""
    text = str(error)
    return "no such table" in text or "does not exist" in text
