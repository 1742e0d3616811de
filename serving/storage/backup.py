"""All rows of a database as text, one consistent state of it, and back into a database of either kind.

A table is one entry of lines, each a row as JSON: both databases' values fit into it, it is read and written row by row however large
the table, and a person can look into it. Bytes are base64, dates ISO 8601, floats that JSON has no word for are strings. What is not
kept: leases, which are of the moment, and the views for analysts, which the next refresh makes anew.
"""

from __future__ import annotations

import base64
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage import partitions
from serving.storage.database import Database
from serving.storage.migrations import HEAD
from serving.storage.tables import SCHEMAS
from serving.storage.upgrade import known, turn, upgrade

PAGE = 1_000  # rows read and written at once
_NOT_KEPT = frozenset({"system.leases"})

#: Told the table and how many of its rows are done.
Progress = Callable[[str, int], None]


class BackupError(RuntimeError):
    """A backup that cannot be made, or may not be restored; the message says why and where."""


def entry(table: sa.Table) -> str:
    """A table's name in a backup, the same for both databases: users.accounts."""
    schema, name = (table.schema, table.name) if table.schema else table.name.split("_", 1)
    return f"{schema}.{name}"


async def dumped(connection: AsyncConnection, database: Database, progress: Progress) -> AsyncIterator[tuple[str, bytes]]:
    """(table, lines) of all rows, page by page: a table's pages behind one another, and one at least, though it may be empty.
    `connection`: of `database.apart(snapshot=True)`. DBAPIError as it comes."""
    for table in database.tables.metadata.sorted_tables:
        name = entry(table)
        if name in _NOT_KEPT:
            continue
        yield name, b""
        done = 0
        async with connection.stream(sa.select(table).execution_options(yield_per=PAGE)) as result:
            async for page in result.mappings().partitions(PAGE):
                yield name, b"".join(_line(dict(row)) for row in page)
                done += len(page)
                progress(name, done)


def _line(row: Mapping[Any, Any]) -> bytes:
    return orjson.dumps({str(name): _plain(value) for name, value in row.items()}, option=orjson.OPT_APPEND_NEWLINE)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def _back(value: Any, kind: sa.types.TypeEngine[Any]) -> Any:
    if value is None:
        return None
    if isinstance(kind, sa.LargeBinary):
        return base64.b64decode(value, validate=True)
    if isinstance(kind, sa.Date):
        return date.fromisoformat(value)
    return float(value) if isinstance(kind, sa.Float) else value


async def load(
    database: Database, revision: str, tables: Mapping[str, Callable[[], Iterable[bytes]]], replace: bool, progress: Progress
) -> dict[str, int]:
    """Rows into a database that holds none, or in place of what it holds (`replace`): all or, if anything fails, none of them.
    `tables`: name -> what reads its lines. Rows of an older revision go into tables of that revision, which are then upgraded.
    Returns how many rows each table got. Raises BackupError, DatabaseAwayError."""
    if not known(revision):
        raise BackupError(f"the backup is of revision {revision}, which this version of Factotum does not know (its newest is {HEAD})")
    counts = {}
    async with database.apart() as connection:
        await _refuse_rows(connection, database, replace)
        if revision == HEAD:
            await _clear(connection, database)
            known_tables = {entry(table): table for table in database.tables.metadata.sorted_tables}
        else:
            async with turn():
                await connection.run_sync(_rebuild, database, revision)
            known_tables = await connection.run_sync(_reflected, database, list(tables))
        for name, lines in tables.items():
            if name not in known_tables:
                raise BackupError(f"the backup holds a table {name!r}, which revision {revision} does not have")
            counts[name] = await _fill(connection, known_tables[name], name, lines(), progress)
        if revision != HEAD:
            async with turn():
                await connection.run_sync(upgrade)
        if not database.lite:
            await connection.run_sync(partitions.make_all, database.tables, datetime.now(UTC).date())
    return counts


async def _refuse_rows(connection: AsyncConnection, database: Database, replace: bool) -> None:
    for table in database.tables.metadata.sorted_tables:
        if (
            not replace
            and entry(table) not in _NOT_KEPT
            and (await connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1))).first()
        ):
            raise BackupError(
                f"the database is not empty: {entry(table)} has rows; name an empty one, or replace what it holds (--replace)"
            )


async def _clear(connection: AsyncConnection, database: Database) -> None:
    for table in reversed(database.tables.metadata.sorted_tables):
        await connection.exec_driver_sql(f"DELETE FROM {table}" if database.lite else f"TRUNCATE {table}")


async def _fill(connection: AsyncConnection, table: sa.Table, name: str, lines: Iterable[bytes], progress: Progress) -> int:
    kinds = {column.name: column.type for column in table.columns}
    page: list[dict[str, Any]] = []
    done = 0

    async def write() -> None:
        nonlocal done
        try:
            await connection.execute(sa.insert(table), page)
        except DBAPIError as error:
            said = str(error.orig).splitlines()[0] if str(error.orig) else type(error.orig).__name__
            raise BackupError(f"{name}: lines {done + 1} to {done + len(page)} do not fit into this database: {said}") from error
        done += len(page)
        page.clear()
        progress(name, done)

    for number, line in enumerate(lines, 1):
        try:
            row = orjson.loads(line)
            if row.keys() != kinds.keys():
                raise ValueError(f"columns {', '.join(sorted(row.keys() ^ kinds.keys()))}")
            page.append({column: _back(value, kinds[column]) for column, value in row.items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BackupError(f"{name}, line {number}: no row of this table ({type(error).__name__}: {error})") from error
        if len(page) == PAGE:
            await write()
    if page:
        await write()
    return done


# ------------------------------------------------------------ older revisions


def _rebuild(connection: sa.Connection, database: Database, revision: str) -> None:
    """Everything of Factotum's goes, and the tables of an older revision come."""
    inspector = sa.inspect(connection)
    if database.lite:
        ours = {f"{schema}_" for schema in SCHEMAS}
        for name in inspector.get_table_names():
            if any(name.startswith(prefix) for prefix in ours) or name == "alembic_version":
                connection.exec_driver_sql(f'DROP TABLE "{name}"')
    else:
        for schema in SCHEMAS:
            connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        connection.exec_driver_sql("DROP TABLE IF EXISTS alembic_version")
    upgrade(connection, revision)


def _reflected(connection: sa.Connection, database: Database, names: Iterable[str]) -> dict[str, sa.Table]:
    """The tables of these names as they stand, those that do not exist left out."""
    metadata, found = sa.MetaData(), {}
    inspector = sa.inspect(connection)
    for name in names:
        schema, _, bare = name.rpartition(".")
        whole, within = (f"{schema}_{bare}", None) if schema and database.lite else (bare, schema or None)
        if inspector.has_table(whole, schema=within):
            found[name] = sa.Table(whole, metadata, schema=within, autoload_with=connection)
    return found
