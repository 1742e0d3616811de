"""The audit's table: one row a request, and how it is searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from serving.storage.database import Database


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One request. `at`: microseconds UTC; `person`: a keyed hash of who called, `about` of whom they asked about; `endpoint`: the
    route's template, never the address."""

    entry: str
    at: int
    event_type: str
    person: str | None
    caller: str
    service_name: str
    method: str
    endpoint: str
    response_status: int
    request_id: str
    ms: float
    about: str | None = None


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """What is searched for; None: anything. `since` is within, `until` is not (microseconds UTC). `after`: the last entry of the page
    before, as (at, entry)."""

    people: tuple[str, ...] | None = None  # hashes of who called
    about: tuple[str, ...] | None = None  # of who was asked about
    since: int | None = None
    until: int | None = None
    event_type: str | None = None
    endpoint: str | None = None
    status: int | None = None
    after: tuple[int, str] | None = None
    size: int = 100


class AuditRows:
    """Every call raises DatabaseAwayError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = database.tables.audit_log

    async def add(self, entries: Sequence[AuditEntry]) -> None:
        """Writes entries; one that is there already is left as it is."""
        if entries:
            async with self._database.writing() as connection:
                rows = [asdict(entry) for entry in entries]
                await connection.execute(self._database.insert(self._log).on_conflict_do_nothing(), rows)

    async def search(self, query: AuditQuery) -> list[AuditEntry]:
        """At most `size` entries, newest first."""
        log = self._log.c
        wanted: list[sa.ColumnElement[bool]] = []
        for column, value in (
            (log.event_type, query.event_type),
            (log.endpoint, query.endpoint),
            (log.response_status, query.status),
        ):
            if value is not None:
                wanted.append(column == value)
        for column, names in ((log.person, query.people), (log.about, query.about)):
            if names is not None:
                wanted.append(column.in_(names))
        if query.since is not None:
            wanted.append(log.at >= query.since)
        if query.until is not None:
            wanted.append(log.at < query.until)
        if query.after is not None:
            at, entry = query.after
            wanted.append(sa.or_(log.at < at, sa.and_(log.at == at, log.entry < entry)))
        asked = sa.select(self._log).where(*wanted).order_by(log.at.desc(), log.entry.desc()).limit(query.size)
        async with self._database.reading() as connection:
            return [AuditEntry(**row._asdict()) for row in await connection.execute(asked)]
