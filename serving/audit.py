"""Who did what, when, and how it ended: an entry for every request, written behind the answers. What was asked is never kept."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from serving.access.identity import NOBODY, Caller
from serving.logs import person
from serving.metrics import Metrics
from serving.storage.audit import AuditEntry, AuditQuery, AuditRows
from serving.storage.database import Database, now_us
from serving.storage.spool import Spool

EventType = Literal["READ", "CREATE", "UPDATE", "DELETE", "LOGIN", "REFUSED", "ERROR"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
GATEWAY = "gateway"
MOST = 500  # entries of a page
_BY_METHOD: dict[str, EventType] = {"POST": "CREATE", "PUT": "UPDATE", "PATCH": "UPDATE", "DELETE": "DELETE"}
_ENDPOINT = 200  # characters


def hashes_of(name: str) -> tuple[str, ...]:
    """What stands in the audit for an account or a domain's user, and for the user that an account has where it named none."""
    return person(name), person(f"a-{name}")


def event_type(method: str, status: int, question: bool = False, login: bool = False) -> EventType:
    """question: a POST that only asks. login: a request by which somebody comes in."""
    if status >= 500:
        return "ERROR"
    if status in (401, 403, 429):
        return "REFUSED"
    if login and status < 400:
        return "LOGIN"
    return "READ" if question else _BY_METHOD.get(method, "READ")


class Audit:
    """`put` never waits: entries are written in batches, and kept in memory and in a file of the home folder while the database is
    away. Beyond `bound` waiting ones the oldest are lost, and counted."""

    def __init__(self, database: Database, home: Path, bound: int, metrics: Metrics) -> None:
        self._rows = AuditRows(database)
        self._spool: Spool[AuditEntry] = Spool(
            "audit", home / "spool", bound, self._rows.add, _plain, _entry, metrics.audited.inc, metrics.audit_lost.inc
        )
        metrics.audit_waiting.set_function(lambda: len(self._spool))

    async def start(self) -> None:
        await self._spool.start()

    async def stop(self, seconds: float) -> None:
        """Writes what waits, for at most so long; the rest stays in the file for the next start."""
        await self._spool.stop(seconds)

    def put(
        self,
        kind: EventType,
        method: str,
        endpoint: str,
        status: int,
        request_id: str,
        ms: float,
        caller: Caller = NOBODY,
        user: str | None = None,
    ) -> None:
        """One request, under its caller's account. `user`, whom it asked about, stands beside it, or in its place where nobody
        called by name."""
        who = caller.name if caller.kind == "account" else user if caller.kind == "anonymous" else None
        hashed = None if who is None else person(who)
        about = person(user) if user is not None and caller.kind != "anonymous" else None
        entry = AuditEntry(
            secrets.token_hex(16),
            now_us(),
            kind,
            hashed,
            caller.kind,
            GATEWAY,
            method,
            endpoint[:_ENDPOINT],
            status,
            request_id,
            round(ms, 3),
            about,
        )
        self._spool.put(entry.entry, entry)

    async def search(self, query: AuditQuery) -> list[AuditEntry]:
        """Newest first, with those of this process that are not written yet left out. Raises DatabaseAwayError."""
        return await self._rows.search(query)


def _plain(entry: AuditEntry) -> dict[str, Any]:
    return asdict(entry)


def _entry(plain: dict[str, Any]) -> AuditEntry:
    return AuditEntry(**plain)
