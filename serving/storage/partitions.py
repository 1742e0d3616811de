"""PostgreSQL's partitions: slates by day, biorhythms and daily recommendations by month, made ahead of time.

What fits into none of them lies in the partition `<table>_rest`, so that a write never fails for a partition that nobody made; it
moves when its own is made. Old partitions go as a whole, which costs nothing however many rows they hold. SQLite has none of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from serving.storage.tables import Tables

DAYS_AHEAD = 7
MONTHS_AHEAD = 2
_CATCH_UP = 400  # partitions of a table made for rows of the past at one time
_DAY_US = 86_400_000_000
_LOCK_MS = 2_000  # a table is waited for so long: a query that takes longer must not keep all others waiting behind this
_FIRST, _LAST = date(1970, 1, 1), date(2200, 1, 1)  # moments beyond these stay in `_rest`


@dataclass(frozen=True)
class Partition:
    """One partition of a table, from a day (inclusive) to a day (exclusive). `by_day`: else a whole month."""

    table: str
    start: date
    by_day: bool

    @property
    def name(self) -> str:
        return f"{self.table}_{self.start:%Y%m%d}" if self.by_day else f"{self.table}_{self.start:%Y%m}"

    @property
    def end(self) -> date:
        return self.start + timedelta(days=1) if self.by_day else (self.start + timedelta(days=32)).replace(day=1)

    def bounds(self) -> tuple[str, str]:
        """As SQL literals: microseconds UTC where the table is kept by day, dates else."""
        if self.by_day:
            return str(microseconds(self.start)), str(microseconds(self.end))
        return f"'{self.start.isoformat()}'", f"'{self.end.isoformat()}'"


def microseconds(day: date) -> int:
    """The day's first moment, UTC."""
    return (day - _FIRST).days * _DAY_US


def parted(tables: Tables) -> Iterator[tuple[sa.Table, bool]]:
    """The tables that PostgreSQL keeps in partitions, and whether by day."""
    for table in tables.metadata.sorted_tables:
        if table.info["by_range"]:
            yield table, isinstance(table.c[table.info["by_range"]].type, sa.BigInteger)


def existing(connection: sa.Connection, table: sa.Table, by_day: bool) -> list[Partition]:
    """Oldest first; without `_rest`."""
    query = sa.text(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = CAST(:parent AS regclass) ORDER BY c.relname"
    )
    names = connection.execute(query, {"parent": str(table)}).scalars()
    found = []
    for name in names:
        digits = re.fullmatch(re.escape(table.name) + (r"_(\d{8})" if by_day else r"_(\d{6})"), name)
        if digits:
            text = digits[1] if by_day else digits[1] + "01"
            found.append(Partition(table.name, datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date(), by_day))
    return found


def missing(connection: sa.Connection, table: sa.Table, by_day: bool, today: date) -> list[Partition]:
    """Those that should be there: ahead of `today`, and of every day or month that has rows in `_rest`."""
    column = table.info["by_range"]
    if by_day:
        low, high = f"{microseconds(_FIRST)}", f"{microseconds(_LAST)}"
        cut = f"{column} / {_DAY_US}"
        wanted = {today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)}
    else:
        low, high = f"'{_FIRST}'", f"'{_LAST}'"
        cut = f"CAST(date_trunc('month', {column}) AS date)"
        month = today.replace(day=1)
        wanted = {month}
        for _ in range(MONTHS_AHEAD):
            month = (month + timedelta(days=32)).replace(day=1)
            wanted.add(month)
    query = f"SELECT DISTINCT {cut} FROM {table}_rest WHERE {column} >= {low} AND {column} < {high} ORDER BY 1 DESC LIMIT {_CATCH_UP}"
    for value in connection.execute(sa.text(query)).scalars():
        wanted.add(_FIRST + timedelta(days=value) if by_day else value)
    there = set(existing(connection, table, by_day))
    return [part for part in (Partition(table.name, start, by_day) for start in sorted(wanted)) if part not in there]


def make(connection: sa.Connection, table: sa.Table, part: Partition) -> int:
    """Makes one partition, within a transaction; returns how many rows moved into it from `_rest`. Writers of `_rest` wait meanwhile,
    other writers do not. DBAPIError where the tables are busy: nothing has changed then, and the next time will do."""
    schema, column, (low, high) = table.schema, table.info["by_range"], part.bounds()
    connection.execute(sa.text(f"SET LOCAL lock_timeout = {_LOCK_MS}"))
    connection.execute(sa.text(f"LOCK TABLE {table}_rest IN ACCESS EXCLUSIVE MODE"))
    connection.execute(sa.text(f"CREATE TABLE {schema}.{part.name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"))
    moved = connection.execute(
        sa.text(
            f"WITH gone AS (DELETE FROM {table}_rest WHERE {column} >= {low} AND {column} < {high} RETURNING *) "
            f"INSERT INTO {schema}.{part.name} SELECT * FROM gone"
        )
    ).rowcount
    connection.execute(sa.text(f"ALTER TABLE {table} ATTACH PARTITION {schema}.{part.name} FOR VALUES FROM ({low}) TO ({high})"))
    return int(moved)


def drop(connection: sa.Connection, table: sa.Table, part: Partition) -> None:
    """Drops a partition with all its rows, within a transaction. DBAPIError where the table is busy."""
    connection.execute(sa.text(f"SET LOCAL lock_timeout = {_LOCK_MS}"))
    connection.execute(sa.text(f"DROP TABLE {table.schema}.{part.name}"))


def make_all(connection: sa.Connection, tables: Tables, today: date) -> int:
    """All that are missing, within one transaction: for an upgrade, while nobody else is there. Returns how many."""
    count = 0
    for table, by_day in parted(tables):
        for part in missing(connection, table, by_day, today):
            make(connection, table, part)
            count += 1
    return count
