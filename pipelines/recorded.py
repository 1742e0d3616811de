"""What was recorded while serving, as tables that tomorrow's ingest reads: the loop closes through storage."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from sqlalchemy.engine import make_url

from configs.deployment import Deployment
from features.tables import EVENTS
from pipelines.sources.items import Added
from serving.storage.database import Database, address, now_us
from serving.storage.tables import StoredEvent, StoredItem


@dataclass(frozen=True)
class Recorded:
    """`events` as features.tables.EVENTS, in the order they were recorded; `through`: microseconds UTC, every event that the
    database recorded before that moment is among them, none later is. 0 where there are none."""

    events: pa.Table
    items: tuple[Added, ...]
    through: int


def recorded(home: Path, domain: str, deployment: Deployment, kinds: frozenset[str]) -> Recorded:
    """Reads everything that has settled. Events of a kind that the domain no longer has are left out.

    Raises DatabaseAwayError if the database does not answer."""
    url = address(home, deployment.storage.url)
    if not _exists(url):
        return Recorded(EVENTS.empty_table(), (), 0)
    events, items = asyncio.run(_read(url, domain, deployment.storage.settle_s))
    kept = [event for event in events if event.kind in kinds]
    table = pa.table(
        [
            [event.user for event in kept],
            [event.item for event in kept],
            [event.kind for event in kept],
            pa.array([event.value for event in kept], pa.float32()),
            pa.array([event.time for event in kept], pa.timestamp("us", tz="UTC")),
        ],
        schema=EVENTS,
    )
    added = tuple(Added(item.item, item.title, json.loads(item.cells), item.available) for item in items)
    return Recorded(table, added, max((event.recorded_at for event in events), default=-1) + 1)


def _exists(url: str) -> bool:
    """Whether there is a database to read: asking SQLite for one that is not there would make it."""
    parsed = make_url(url)
    return parsed.get_backend_name() != "sqlite" or bool(parsed.database and Path(parsed.database).is_file())


async def _read(url: str, domain: str, settle_s: float) -> tuple[list[StoredEvent], list[StoredItem]]:
    database = Database(url)
    try:
        until = now_us() - int(settle_s * 1e6)  # what is stamped later may still have earlier neighbours under way
        events = [event async for page in database.events_since(domain, 0, until) for event in page]
        return sorted(events, key=lambda event: (event.recorded_at, event.event_id)), await database.items_since(domain, 0)
    finally:
        await database.close()


def live_events(home: Path, domain: str, deployment: Deployment, since: int) -> tuple[list[StoredEvent], list[StoredItem]]:
    """Events recorded from `since` (microseconds UTC) on, and all items added while serving. Raises DatabaseAwayError."""
    url = address(home, deployment.storage.url)
    if not _exists(url):
        return [], []

    async def read() -> tuple[list[StoredEvent], list[StoredItem]]:
        database = Database(url)
        try:
            return [event async for page in database.events_since(domain, since) for event in page], await database.items_since(domain, 0)
        finally:
            await database.close()

    return asyncio.run(read())
