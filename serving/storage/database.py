"""The way to the database, SQLite and PostgreSQL alike: connections, transactions, and the one error for its being away.

The queries stand beside this file, by what they are about; each takes a Database. A write returns when it is committed and on disk.
Whatever keeps the database from answering becomes `DatabaseAwayError`; anything else that it objects to is a fault of ours
and is raised as it came.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from serving.storage.tables import POSTGRESQL, SCHEMAS, SQLITE, Tables

_CREATING = 0x_FAC7_0713  # PostgreSQL's advisory lock that one process holds while it makes the tables

#: Around each transaction: refuses to begin where trying is pointless (a breaker that is open), and learns how it went.
Guard = Callable[[], AbstractAsyncContextManager[object]]


class DatabaseAwayError(RuntimeError):
    """The database did not answer in time, or cannot be reached, or is locked. Nothing that was being written may be relied on.
    `retry_after_s`: it is pointless to ask again before."""

    def __init__(self, why: str, retry_after_s: float = 1.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


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
    """One pool of connections. `wait_s`: a lock or a connection is waited for so long, a whole operation at most twice that.
    `guard` stands around each transaction and sees DatabaseAwayError; what it raises itself should be one too."""

    def __init__(self, url: str, wait_s: float = 3.0, guard: Guard = nullcontext) -> None:
        self._url = make_url(url)
        self._wait_s = wait_s
        self.guard = guard
        self._prepared = False
        self._preparing = asyncio.Lock()
        self._writing = asyncio.Lock()
        self.lite = self._url.get_backend_name() == "sqlite"
        self.tables: Tables = SQLITE if self.lite else POSTGRESQL
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
    async def reading(self, limit_s: float | None = None) -> AsyncIterator[AsyncConnection]:
        """One transaction. Raises DatabaseAwayError."""
        async with self.guard(), self._transaction(limit_s) as connection:
            yield connection

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
                    for schema in SCHEMAS:
                        await connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
                await connection.run_sync(self.tables.metadata.create_all)
                for table in self.tables.metadata.sorted_tables:
                    if table.info["by_range"] and not self.lite:
                        await connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {table}_rest PARTITION OF {table} DEFAULT")
            self._prepared = True

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """As `reading`; on SQLite this process writes one thing at a time, so that only other processes are waited for by polling."""
        if not self.lite:
            async with self.reading() as connection:
                yield connection
            return
        async with self._turn_to_write(), self.reading() as connection:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @asynccontextmanager
    async def _turn_to_write(self) -> AsyncIterator[None]:
        """Where another process holds the lock, each writer waits for it: those behind must not wait for all before them."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._writing.acquire()
        except TimeoutError:
            raise DatabaseAwayError("other writes are under way for too long") from None
        try:
            yield
        finally:
            self._writing.release()

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT of this database's own dialect, which can say what to do about a row that is there."""
        return sqlite.insert(table) if self.lite else postgresql.insert(table)

    async def ping(self) -> None:
        """Raises DatabaseAwayError."""
        async with self.reading(self._wait_s) as connection:
            await connection.execute(sa.select(1))


def _lost(error: BaseException) -> bool:
    """Whether the tables may be gone when the database is back."""
    text = str(error)
    return "no such table" in text or "does not exist" in text
