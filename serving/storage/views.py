"""Figures for analysts: aggregates over events and slates that the weekly job makes anew.

PostgreSQL has them as materialised views, refreshed without keeping readers waiting; SQLite as tables of the same name, refilled in
one transaction. Both say the same, by the same query but for how JSON is unfolded. Days and weeks are UTC; events that
happened before 1970 are in none of them. A view whose query has changed with the code is made anew by the next refresh.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database, now_us

_DAY = 86_400_000_000  # microseconds
_LAST = 253_402_300_799_999_999  # the last microsecond of the year 9999
_ACTED = 7 * _DAY  # an event counts for a slate that was served at most so long before it
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class View:
    """`when`: "day" or "week", the first column, in days since 1970. `key`: what a row is of, `figures`: what it says.
    `query`: {events} and {slates} stand for the tables, {item} and {items} for an item's id and the unfolded items of a slate `s`."""

    name: str
    when: str
    key: tuple[str, ...]
    figures: tuple[str, ...]
    query: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.when, *self.key, *self.figures)


VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View(
            "events",
            "day",
            ("domain", "kind"),
            ("events", "people"),
            f'SELECT time / {_DAY} AS day, domain, kind, count(*) AS events, count(DISTINCT "user") AS people FROM {{events}} '
            f"WHERE time BETWEEN 0 AND {_LAST} GROUP BY 1, 2, 3",
        ),
        View(
            "slates",
            "day",
            ("domain", "version", "variant"),
            ("slates", "degraded", "degraded_share"),
            f"SELECT created / {_DAY} AS day, domain, version, variant, count(*) AS slates, "
            "sum(CASE WHEN degraded = '' THEN 0 ELSE 1 END) AS degraded, "
            "CAST(sum(CASE WHEN degraded = '' THEN 0 ELSE 1 END) AS double precision) / count(*) AS degraded_share "
            f"FROM {{slates}} WHERE created BETWEEN 0 AND {_LAST} GROUP BY 1, 2, 3, 4",
        ),
        View(
            "click_through",
            "day",
            ("domain", "variant"),
            ("shown", "acted", "rate"),
            "SELECT day, domain, variant, count(*) AS shown, sum(acted) AS acted, "
            "CAST(sum(acted) AS double precision) / count(*) AS rate "
            f"FROM (SELECT s.created / {_DAY} AS day, s.domain AS domain, s.variant AS variant, "
            'CASE WHEN EXISTS (SELECT 1 FROM {events} e WHERE e.domain = s.domain AND e."user" = s."user" AND e.item = {item} '
            f"AND e.time >= s.created AND e.time < s.created + {_ACTED}) THEN 1 ELSE 0 END AS acted "
            f'FROM {{slates}} s, {{items}} AS i WHERE s."user" IS NOT NULL AND s.created BETWEEN 0 AND {_LAST}) AS shown_items '
            "GROUP BY 1, 2, 3",
        ),
        View(
            "people",
            "week",
            ("domain",),
            ("people", "events"),
            f'SELECT (time / {_DAY} + 3) / 7 * 7 - 3 AS week, domain, count(DISTINCT "user") AS people, count(*) AS events '
            f"FROM {{events}} WHERE time BETWEEN 0 AND {_LAST} GROUP BY 1, 2",
        ),
    )
}


@dataclass(frozen=True)
class ViewPage:
    """`rows`: column -> value, the newest day (or the week's Monday) first, as ISO 8601. `refreshed`: microseconds UTC, None if it never
    was. `more`: whether there are rows behind these."""

    view: str
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    refreshed: int | None
    more: bool


class Views:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def refresh(self, names: Sequence[str] = tuple(VIEWS)) -> dict[str, int]:
        """Makes views anew, each in a transaction of its own; returns how many rows each has. Raises KeyError, DatabaseAwayError."""
        counts = {}
        for view in [VIEWS[name] for name in names]:
            counts[view.name] = await (self._refill(view) if self._database.lite else self._refresh(view))
        return counts

    async def refreshed(self, name: str) -> int | None:
        """When a view was last made, microseconds UTC; None: never. Raises KeyError, DatabaseAwayError."""
        metrics = self._database.tables.metrics.c
        async with self._database.reading() as connection:
            found: int | None = await connection.scalar(sa.select(metrics.metric_timestamp).where(metrics.metric == _mark(VIEWS[name])))
        return found

    async def rows(self, name: str, since: date | None = None, until: date | None = None, offset: int = 0, size: int = 100) -> ViewPage:
        """A page of a view: since <= day (or week's Monday) < until. Raises KeyError for a view that is not there, DatabaseAwayError."""
        view = VIEWS[name]
        columns: list[sa.ColumnClause[Any]] = [sa.column(column) for column in view.columns]
        async with self._database.reading() as connection:
            if not await self._there(connection, view):
                return ViewPage(name, view.columns, [], None, False)
            query = sa.select(*columns).select_from(sa.text(self._name(view)))
            when = columns[0]
            if since is not None:
                query = query.where(when >= (since - _EPOCH).days)
            if until is not None:
                query = query.where(when < (until - _EPOCH).days)
            query = query.order_by(when.desc(), *columns[1 : 1 + len(view.key)]).offset(offset).limit(size + 1)
            found = (await connection.execute(query)).all()
            metrics = self._database.tables.metrics.c
            refreshed = await connection.scalar(sa.select(metrics.metric_timestamp).where(metrics.metric == _mark(view)))
        rows = [
            {**dict(zip(view.columns, row, strict=True)), view.when: (_EPOCH + timedelta(days=row[0])).isoformat()} for row in found[:size]
        ]
        return ViewPage(name, view.columns, rows, refreshed, len(found) > size)

    # ------------------------------------------------------------ the two databases

    def _name(self, view: View) -> str:
        return f"recommendations_by_{view.name}" if self._database.lite else f"recommendations.by_{view.name}"

    def _query(self, view: View) -> str:
        unfolded = (
            {"items": "json_each(s.items)", "item": "json_extract(i.value, '$.item_id')"}
            if self._database.lite
            else {"items": "LATERAL json_array_elements(CAST(s.items AS json))", "item": "i.value ->> 'item_id'"}
        )
        tables = self._database.tables
        return view.query.format(events=tables.events, slates=tables.slates, **unfolded)

    async def _there(self, connection: AsyncConnection, view: View) -> bool:
        if self._database.lite:
            query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = :name"
        else:
            query = "SELECT count(*) FROM pg_matviews WHERE schemaname || '.' || matviewname = :name AND ispopulated"
        return bool(await connection.scalar(sa.text(query), {"name": self._name(view)}))

    async def _refill(self, view: View) -> int:
        """The query runs before the lock for writing is taken: aggregates are few rows, and others write meanwhile."""
        name = self._name(view)
        async with self._database.apart(snapshot=True) as connection:
            found = [tuple(row) for row in (await connection.exec_driver_sql(self._query(view))).all()]
        async with self._database.writing() as connection:
            await connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
            await connection.exec_driver_sql(
                f"CREATE TABLE {name} ({', '.join(view.columns)}, PRIMARY KEY ({view.when}, {', '.join(view.key)}))"
            )
            if found:
                marks = ", ".join("?" for _ in view.columns)
                await connection.exec_driver_sql(f"INSERT INTO {name} VALUES ({marks})", found)
            await self._note(connection, view, len(found))
        return len(found)

    async def _refresh(self, view: View) -> int:
        name, query = self._name(view), self._query(view)
        digest = hashlib.sha256(query.encode()).hexdigest()
        async with self._database.apart() as connection:
            made_of = await connection.scalar(sa.text("SELECT obj_description(to_regclass(:name), 'pg_class')"), {"name": name})
            if made_of == digest:
                await connection.exec_driver_sql(f"REFRESH MATERIALIZED VIEW CONCURRENTLY {name}")
            else:
                key = ", ".join((view.when, *view.key))
                await connection.exec_driver_sql(f"DROP MATERIALIZED VIEW IF EXISTS {name}")
                await connection.exec_driver_sql(f"CREATE MATERIALIZED VIEW {name} AS {query}")
                await connection.exec_driver_sql(f"CREATE UNIQUE INDEX by_{view.name}_key ON {name} ({key})")
                await connection.exec_driver_sql(f"COMMENT ON MATERIALIZED VIEW {name} IS '{digest}'")
            rows = int((await connection.exec_driver_sql(f"SELECT count(*) FROM {name}")).scalar_one())
            await self._note(connection, view, rows)
        return rows

    async def _note(self, connection: AsyncConnection, view: View, rows: int) -> None:
        """When it was, as a figure among the others: one row, written over."""
        said = {"metric_value": float(rows), "metric_timestamp": now_us()}
        statement = self._database.insert(self._database.tables.metrics).values(
            metric=_mark(view), service_name="database", metric_name=f"view_rows_{view.name}", tags="{}", **said
        )
        await connection.execute(statement.on_conflict_do_update(index_elements=["metric"], set_=said))


def _mark(view: View) -> str:
    return f"view-{view.name}"
