"""What is kept for how long: old rows go in small pieces, so that nobody waits for them, and old partitions of PostgreSQL as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from configs.deployment import Retention
from serving.storage import partitions
from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.tables import Tables

PIECE = 2_000  # rows deleted in one transaction
_PAUSE_S = 0.05  # between pieces: others come in
_DAY_US = 86_400e6


@dataclass(frozen=True)
class Kept:
    """One table's rule. `over`: which rows may go, given the moment before which they are old (microseconds UTC)."""

    kind: str
    table: sa.Table
    days: float
    over: Callable[[int], sa.ColumnElement[bool]]

    def before(self, now: int) -> int:
        return now - int(self.days * _DAY_US)


@dataclass(frozen=True)
class Swept:
    kind: str
    table: str
    rows: int  # deleted, or to be deleted
    partitions: tuple[str, ...] = ()  # dropped as a whole; their rows are counted only in a dry run


def rules(tables: Tables, words: Retention) -> list[Kept]:
    """In the order in which they run: what belongs to a session goes before it."""
    sessions, refreshes, one_time = tables.sessions.c, tables.refreshes.c, tables.one_time.c
    outbox, letters, slates, events = tables.outbox.c, tables.dead_letters.c, tables.slates.c, tables.events.c

    def ended(before: int) -> sa.ColumnElement[bool]:
        return sa.or_(sessions.revoked_at < before, sessions.expires < before)

    kept = [
        Kept("slates", tables.slates, words.slates, lambda before: slates.created < before),
        Kept("audit", tables.audit_log, words.audit, lambda before: tables.audit_log.c.at < before),
        Kept(
            "sessions",
            tables.refreshes,
            words.sessions,
            lambda before: refreshes.session.in_(sa.select(sessions.session).where(ended(before))),
        ),
        Kept("sessions", tables.sessions, words.sessions, ended),
        Kept("sessions", tables.one_time, words.sessions, lambda before: one_time.expires < before),
        Kept("notifications", tables.notifications, words.notifications, lambda before: tables.notifications.c.created < before),
        Kept("outbox", tables.outbox, words.outbox, lambda before: outbox.published_at < before),
        # What a consumer has taken is remembered for as long as it may come again: from the outbox, or from the dead letters.
        Kept("outbox", tables.inbox, max(words.outbox, words.dead_letters), lambda before: tables.inbox.c.at < before),
        Kept("dead_letters", tables.dead_letters, words.dead_letters, lambda before: letters.at < before),
        Kept("metrics", tables.metrics, words.metrics, lambda before: tables.metrics.c.metric_timestamp < before),
    ]
    if words.events is not None:
        kept.append(Kept("events", tables.events, words.events, lambda before: events.recorded_at < before))
    return kept


async def sweep(database: Database, words: Retention, dry_run: bool = False, now: int | None = None) -> list[Swept]:
    """Deletes what is older than `words` say; returns what went, by table, or what would. `now`: microseconds UTC.
    Raises DatabaseAwayError: what went until then is gone, the next time goes on."""
    moment = now_us() if now is None else now
    out = []
    for rule in rules(database.tables, words):
        before = rule.before(moment)
        dropped = [] if database.lite else await _drop(database, rule.table, before, dry_run)
        if dry_run:
            async with database.apart(snapshot=True) as connection:
                query = sa.select(sa.func.count()).select_from(rule.table).where(rule.over(before))
                rows = int(await connection.scalar(query) or 0)
        else:
            rows = await _delete(database, rule, before)
        out.append(Swept(rule.kind, str(rule.table), rows, tuple(dropped)))
    return out


async def _drop(database: Database, table: sa.Table, before: int, dry_run: bool) -> list[str]:
    by_day = dict(partitions.parted(database.tables)).get(table)
    if by_day is None:
        return []
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=before)).date()
    async with database.reading() as connection:
        parts = await connection.run_sync(partitions.existing, table, by_day)
    dropped = []
    for part in parts:
        if part.end > day:
            continue
        if not dry_run:
            try:
                async with database.apart() as connection:
                    await connection.run_sync(partitions.drop, table, part)
            except DatabaseAwayError as error:
                if _busy(error):
                    continue  # somebody reads it for long: the next time
                raise
        dropped.append(part.name)
    return dropped


def _busy(error: DatabaseAwayError) -> bool:
    """Whether a lock was not to be had in time."""
    cause = error.__cause__
    return isinstance(cause, DBAPIError) and getattr(cause.orig, "sqlstate", None) == "55P03"


async def _delete(database: Database, rule: Kept, before: int) -> int:
    keys = list(rule.table.primary_key.columns)
    key = sa.tuple_(*keys) if len(keys) > 1 else keys[0]
    gone = 0
    while True:
        old = sa.select(*keys).where(rule.over(before)).limit(PIECE)
        async with database.writing() as connection:
            piece = int((await connection.execute(sa.delete(rule.table).where(key.in_(old)))).rowcount)
        gone += piece
        if piece < PIECE:
            return gone
        await asyncio.sleep(_PAUSE_S)


async def maintain(database: Database) -> int:
    """Makes the partitions that are missing, each in a transaction of its own; returns how many. 0 on SQLite. Raises DatabaseAwayError.
    One whose table is busy is left for the next time."""
    if database.lite:
        return 0
    made = 0
    today = datetime.now(UTC).date()
    for table, by_day in partitions.parted(database.tables):
        async with database.reading() as connection:
            wanted = await connection.run_sync(partitions.missing, table, by_day, today)
        for part in wanted:
            try:
                async with database.apart() as connection:
                    await connection.run_sync(partitions.make, table, part)
                made += 1
            except DatabaseAwayError as error:
                if not _busy(error):
                    raise
    return made
