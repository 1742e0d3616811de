"""The way to the database, SQLite and PostgreSQL alike: connections, transactions, and the one error for its being away.

The queries stand beside this file, by what they are about; each takes a Database. A write returns when it is committed and on disk.
Whatever keeps the database from answering becomes `DatabaseAwayError`; anything else that it objects to is a fault of ours
and is raised as it came.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from serving.storage import partitions
from serving.storage.migrations import HEAD
from serving.storage.tables import POSTGRESQL, SQLITE, Tables
from serving.storage.upgrade import turn, upgrade

_UPGRADE_S = 20.0  # a query waits so long for an upgrade of the tables

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
        self._upgrading: asyncio.Task[tuple[str | None, str]] | None = None
        self._writing = asyncio.Lock()
        self.lite = self._url.get_backend_name() == "sqlite"
        self.tables: Tables = SQLITE if self.lite else POSTGRESQL
        self._engine: AsyncEngine = self._connect()
        self._direct: sa.Engine | None = None if self.path is None else self._connect_directly()
        self._reader: ThreadPoolExecutor | None = None

    def _connect(self, limited: bool = True) -> AsyncEngine:
        if not self.lite:
            return create_async_engine(
                self._url,
                hide_parameters=True,  # an error's text must not show what a row would have held
                pool_size=10,  # the relay, the spools and the followers hold some beside the requests
                max_overflow=10,
                pool_timeout=self._wait_s,
                pool_pre_ping=True,
                connect_args={"timeout": self._wait_s, "command_timeout": 2 * self._wait_s if limited else None},
            )
        words = {"timeout": self._wait_s, "factory": _Connection}
        engine = create_async_engine(self._url, hide_parameters=True, pool_timeout=self._wait_s, connect_args=words)

        @sa.event.listens_for(engine.sync_engine, "connect")
        def _each(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={int(self._wait_s * 1_000)}")
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")  # NORMAL may lose the last commits when the power goes
            cursor.close()

        return engine

    def _connect_directly(self) -> sa.Engine:
        """Without the asynchronous driver: for `look_up`."""
        return sa.create_engine(self._url.set(drivername="sqlite"), hide_parameters=True, connect_args={"timeout": self._wait_s})

    @property
    def path(self) -> Path | None:
        """SQLite's file."""
        return Path(self._url.database) if self.lite and self._url.database else None

    async def close(self) -> None:
        if self._upgrading is not None:
            self._upgrading.cancel()
            await asyncio.gather(self._upgrading, return_exceptions=True)
        await self._engine.dispose()
        if self._reader is not None:
            self._reader.shutdown(wait=False)
            self._reader = None
        if self._direct is not None:
            self._direct.dispose()

    async def look_up(self, query: sa.Executable, values: Mapping[str, object]) -> Sequence[sa.Row[*tuple[Any, ...]]]:
        """The rows of one small query that is asked with every request. Raises DatabaseAwayError.

        SQLite's asynchronous driver hands each step of a transaction to another thread and back, which on a busy machine takes many times
        what the query does; here one thread does all of it."""
        direct = self._direct
        if direct is None:
            async with self.reading() as connection:
                return (await connection.execute(query, values)).all()

        def ask() -> Sequence[sa.Row[*tuple[Any, ...]]]:
            with direct.connect() as connection:
                return connection.execute(query, values).all()

        async with self.guard(), self._judged():
            if self._reader is None:
                self._reader = ThreadPoolExecutor(2, "look-up")
            return await asyncio.get_running_loop().run_in_executor(self._reader, ask)

    @asynccontextmanager
    async def reading(self, limit_s: float | None = None) -> AsyncIterator[AsyncConnection]:
        """One transaction. Raises DatabaseAwayError."""
        async with self.guard(), self._transaction(limit_s) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, limit_s: float | None = None) -> AsyncIterator[AsyncConnection]:
        async with self._judged(limit_s), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _judged(self, limit_s: float | None = None) -> AsyncIterator[None]:
        """The tables are there; what takes too long or fails means that the database is away."""
        try:
            if not self._prepared:
                await self._prepare(limit_s or 2 * self._wait_s)
            async with asyncio.timeout(limit_s or 2 * self._wait_s):
                yield
        except (DataError, IntegrityError):
            raise
        except (DBAPIError, PoolTimeout, OSError, TimeoutError) as error:
            self._prepared = self._prepared and not _lost(error)
            raise _away(error) from error

    async def _prepare(self, limit_s: float) -> None:
        """Sees that the tables are in the form that this code knows; one query where they are. An upgrade goes on for as long as it
        takes, though nobody waits for it longer than `_UPGRADE_S`. Raises SchemaError."""
        async with asyncio.timeout(limit_s), self._preparing:
            if not self._prepared and (self._upgrading is None or self._upgrading.done()):
                if await self._at_head():
                    self._prepared = True
                else:
                    self._upgrading = asyncio.create_task(self.upgrade(), name="upgrade")
                    self._upgrading.add_done_callback(lambda task: task.cancelled() or task.exception())
            upgrading = self._upgrading
        if not self._prepared and upgrading is not None:
            async with asyncio.timeout(max(limit_s, _UPGRADE_S)):
                await asyncio.shield(upgrading)

    async def _at_head(self) -> bool:
        if self.lite and not os.path.isfile(self._url.database or ""):  # noqa: ASYNC240 - asking for it would make it
            return False
        try:
            async with self._engine.connect() as connection:
                return list((await connection.exec_driver_sql("SELECT version_num FROM alembic_version")).scalars()) == [HEAD]
        except DBAPIError as error:
            if _lost(error):
                return False
            raise

    async def upgrade(self) -> tuple[str | None, str]:
        """Brings the tables to the form that this code knows; returns the revisions before and after. Several processes may do so at
        once. Raises SchemaError, DatabaseAwayError."""
        async with turn(), self.alone() as connection:
            revisions = await connection.run_sync(upgrade)
            if not self.lite:
                await connection.run_sync(partitions.make_all, self.tables, datetime.now(UTC).date())
        self._prepared = True
        return revisions

    @asynccontextmanager
    async def apart(self, snapshot: bool = False) -> AsyncIterator[AsyncConnection]:
        """One transaction on a connection of its own, without limits of time: for work that takes long. `snapshot`: it only reads, and
        reads one state of the whole database. On SQLite nobody else writes meanwhile, unless it is a snapshot.
        Raises DatabaseAwayError, SchemaError."""
        async with self.reading():
            pass  # the tables are there
        async with self.alone(snapshot) as connection:
            yield connection

    @asynccontextmanager
    async def alone(self, snapshot: bool = False) -> AsyncIterator[AsyncConnection]:
        """As `apart`, of a database as it is: its tables may be older, newer or missing."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        engine = self._connect(limited=False)
        try:
            async with engine.connect() as connection:
                if self.lite:
                    await connection.exec_driver_sql("BEGIN" if snapshot else "BEGIN IMMEDIATE")
                elif snapshot:
                    await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                if snapshot:  # the first query says which state it is
                    await connection.exec_driver_sql("SELECT count(*) FROM sqlite_master" if self.lite else "SELECT 1")
                yield connection
                await connection.commit()
        except (DataError, IntegrityError):
            raise
        except (DBAPIError, PoolTimeout, OSError, TimeoutError) as error:
            raise _away(error) from error
        finally:
            await engine.dispose()

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


class _Connection(sqlite3.Connection):
    """SQLite keeps a closed connection, and the lock that it holds, for as long as a statement of it lives; that of a cancelled task
    lives in the task's traceback. So what is closed within a transaction gives it up first."""

    def close(self) -> None:
        try:
            if self.in_transaction:
                self.rollback()
        finally:
            super().close()


def _away(error: BaseException) -> DatabaseAwayError:
    return DatabaseAwayError(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer in time'}")


def _lost(error: BaseException) -> bool:
    """Whether the tables may be gone when the database is back."""
    text = str(error)
    return "no such table" in text or "does not exist" in text
