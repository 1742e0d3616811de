"""What a database holds: its revision, rows, sizes and partitions, counted without changing anything, not even an old revision."""

from __future__ import annotations

import os
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage import partitions
from serving.storage.backup import entry
from serving.storage.database import Database
from serving.storage.migrations import HEAD
from serving.storage.upgrade import revision


@dataclass(frozen=True)
class TableCount:
    """`bytes`: with indices, None where the database does not say. `partitions`: name -> rows; `rest`: rows in none of them."""

    table: str
    rows: int
    bytes: int | None
    partitions: dict[str, int]
    rest: int


@dataclass(frozen=True)
class Census:
    """`revision`: None before the first; `newest`: what this code knows. `bytes`: of the whole database."""

    kind: str
    revision: str | None
    newest: str
    bytes: int
    tables: list[TableCount]


async def census(database: Database) -> Census:
    """Raises DatabaseAwayError, FileNotFoundError for an SQLite file that is not there (asking would make it)."""
    path = database.path
    if path is not None and not os.path.isfile(path):  # noqa: ASYNC240
        raise FileNotFoundError(f"there is no database yet: {path} (`factotum db upgrade` makes one)")
    async with database.alone(snapshot=True) as connection:
        stands_at = await connection.run_sync(revision)
        tables = (
            [await _count(connection, database, table) for table in database.tables.metadata.sorted_tables] if stands_at == HEAD else []
        )
        if database.lite:
            whole = await connection.scalar(sa.text("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"))
        else:
            whole = await connection.scalar(sa.text("SELECT pg_database_size(current_database())"))
    return Census("sqlite" if database.lite else "postgresql", stands_at, HEAD, int(whole or 0), tables)


async def _count(connection: AsyncConnection, database: Database, table: sa.Table) -> TableCount:
    rows = int(await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
    if database.lite:
        return TableCount(entry(table), rows, None, {}, 0)
    by_day = dict(partitions.parted(database.tables)).get(table)
    if by_day is None:
        size = await connection.scalar(sa.text("SELECT pg_total_relation_size(CAST(:name AS regclass))"), {"name": str(table)})
        return TableCount(entry(table), rows, int(size or 0), {}, 0)
    parts = {}
    for part in await connection.run_sync(partitions.existing, table, by_day):
        parts[part.name] = int(await connection.scalar(sa.text(f"SELECT count(*) FROM {table.schema}.{part.name}")) or 0)
    size = await connection.scalar(
        sa.text("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(CAST(:name AS regclass))"), {"name": str(table)}
    )
    return TableCount(entry(table), rows, int(size or 0), parts, rows - sum(parts.values()))
