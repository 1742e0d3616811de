"""Searching the audit from the command line: who did what, when, and how it ended."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from configs.deployment import Deployment
from serving.access.secrets import Secrets
from serving.audit import EVENT_TYPES, Audit, hashes_of
from serving.logs import use_key
from serving.metrics import Metrics
from serving.storage.audit import AuditQuery
from serving.storage.database import Database, address

_PAGE = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Wanted:
    """What is searched for; None: anything. `person` called, `about` was asked about: an account's id or a domain's user id each.
    Moments as ISO 8601; without an offset they are UTC. `most`: entries at most."""

    person: str | None = None
    about: str | None = None
    since: str | None = None
    until: str | None = None
    event_type: str | None = None
    endpoint: str | None = None
    status: int | None = None
    most: int = 100


def search(home: Path, deployment: Deployment, wanted: Wanted) -> list[dict[str, Any]]:
    """Entries newest first, `at` as ISO 8601. The hash of a person is made with the key that the service has: FACTOTUM_LOG_KEY, or the
    home's own. Raises ValueError for a moment or a type that is none, SecretError, DatabaseAwayError."""
    if wanted.event_type is not None and wanted.event_type not in EVENT_TYPES:
        raise ValueError(f"event type {wanted.event_type!r}: allowed are {', '.join(EVENT_TYPES)}")
    use_key(Secrets.from_environment(home, deployment.environment).person)
    query = AuditQuery(
        people=None if wanted.person is None else hashes_of(wanted.person),
        about=None if wanted.about is None else hashes_of(wanted.about),
        since=_us(wanted.since),
        until=_us(wanted.until),
        event_type=wanted.event_type,
        endpoint=wanted.endpoint,
        status=wanted.status,
    )
    return asyncio.run(_search(home, deployment, query, wanted.most))


async def _search(home: Path, deployment: Deployment, query: AuditQuery, most: int) -> list[dict[str, Any]]:
    database = Database(address(home, deployment.storage.url))
    try:
        audit = Audit(database, home, 1, Metrics())
        found: list[dict[str, Any]] = []
        after: tuple[int, str] | None = None
        while len(found) < most:
            page = await audit.search(AuditQuery(**{**asdict(query), "after": after, "size": min(_PAGE, most - len(found))}))
            if not page:
                break
            found += [{**asdict(entry), "at": (_EPOCH + timedelta(microseconds=entry.at)).isoformat()} for entry in page]
            after = (page[-1].at, page[-1].entry)
        return found
    finally:
        await database.close()


def _us(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no moment; expected ISO 8601 such as 2026-01-31 or 2026-01-31T20:15:00Z") from None
    aware = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
    return round((aware - _EPOCH).total_seconds() * 1e6)


def table(entries: list[dict[str, Any]]) -> list[str]:
    """One line an entry, for a terminal."""
    if not entries:
        return ["nothing was found"]
    lines = [f"{'at':26} {'event':8} {'person':13} {'caller':10} {'about':13} {'status':>6} {'ms':>9}  request"]
    for entry in entries:
        at = entry["at"].partition("+")[0]
        who = entry["person"] or "-"
        what = f"{entry['method']} {entry['endpoint']}"
        about, status, ms = entry["about"] or "-", entry["response_status"], entry["ms"]
        lines.append(f"{at:26} {entry['event_type']:8} {who:13} {entry['caller']:10} {about:13} {status:6d} {ms:9.1f}  {what}")
    return lines
