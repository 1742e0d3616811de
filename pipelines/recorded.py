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
from serving.storage.interactions import Interactions
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
    until = now_us() - int(deployment.storage.settle_s * 1e6)  # what is stamped later may still have earlier neighbours under way
    events, items = _read(home, domain, deployment, 0, until)
    events.sort(key=lambda event: (event.recorded_at, event.event_id))
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


def live_events(home: Path, domain: str, deployment: Deployment, since: int) -> tuple[list[StoredEvent], list[StoredItem]]:
    """Events recorded from `since` (microseconds UTC) on, and all items added while serving. Raises DatabaseAwayError."""
    return _read(home, domain, deployment, since, None)


def _read(home: Path, domain: str, deployment: Deployment, since: int, until: int | None) -> tuple[list[StoredEvent], list[StoredItem]]:
    """Events stamped in [since, until), and all items added; nothing where there is no database yet."""
    url = address(home, deployment.storage.url)
    if not _exists(url):
        return [], []

    async def read() -> tuple[list[StoredEvent], list[StoredItem]]:
        database = Database(url)
        try:
            stored = Interactions(database)
            events = [event async for page in stored.events_since(domain, since, until) for event in page]
            return events, await stored.items_since(domain, 0)
        finally:
            await database.close()

    return asyncio.run(read())
