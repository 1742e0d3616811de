"""What people did, and items added while serving."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database, now_us
from serving.storage.outbox import Envelope, put
from serving.storage.tables import DOMAIN, RECORDED_AT, StoredEvent, StoredItem

PAGE = 2_000  # rows read at once
RECORDED = "interactions.recorded"


def _announced(domain: str, new: Sequence[StoredEvent]) -> list[Envelope]:
    """One envelope a person: which events, and of which kinds; who wants more reads the table."""
    by_user: dict[str, list[dict[str, str]]] = {}
    for event in new:
        by_user.setdefault(event.user, []).append({"event_id": event.event_id, "kind": event.kind})
    return [Envelope(RECORDED, user, {"domain": domain, "user": user, "events": events}) for user, events in by_user.items()]


class Interactions:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._events, self._items = database.tables.events, database.tables.items
        columns = self._events.c
        self._columns = (columns.event_id, columns.user, columns.item, columns.kind, columns.value, columns.time, columns.recorded_at)

    async def record_events(self, domain: str, happened: Sequence[StoredEvent]) -> list[StoredEvent]:
        """`write` in a transaction of its own."""
        async with self._database.writing() as connection:
            return await self.write(connection, domain, happened)

    async def write(self, connection: AsyncConnection, domain: str, happened: Sequence[StoredEvent]) -> list[StoredEvent]:
        """Writes events once each, and announces the new ones in the same transaction (`interactions.recorded`); returns those that were
        new, stamped. One whose event_id is known changes nothing. Raises DatabaseAwayError."""
        if not happened:
            return []
        stamp = now_us()
        once = {event.event_id: event for event in reversed(happened)}
        rows = [
            {
                DOMAIN: domain,
                "event_id": event.event_id,
                "user": event.user,
                "item": event.item,
                "kind": event.kind,
                "value": event.value,
                "time": event.time,
                RECORDED_AT: stamp,
            }
            for event in reversed(once.values())
        ]
        statement = self._database.insert(self._events).on_conflict_do_nothing().returning(self._events.c.event_id)
        new = set((await connection.execute(statement, rows)).scalars())
        await put(self._database, connection, _announced(domain, [event for event in once.values() if event.event_id in new]))
        return [
            StoredEvent(event.event_id, event.user, event.item, event.kind, event.value, event.time, stamp)
            for event in happened
            if event.event_id in new and once[event.event_id] is event
        ]

    async def events_since(self, domain: str, since: int, until: int | None = None) -> AsyncIterator[list[StoredEvent]]:
        """Pages of the events with since <= recorded_at (< until), in the order in which they were recorded. Raises DatabaseAwayError.

        Pages are read in transactions of their own; an event that becomes visible behind the reader is not in them.
        """
        place = (since, "")
        while True:
            after = sa.tuple_(self._events.c.recorded_at, self._events.c.event_id) > sa.tuple_(sa.literal(place[0]), sa.literal(place[1]))
            query = sa.select(*self._columns).where(self._events.c.domain == domain, self._events.c.recorded_at >= place[0], after)
            if until is not None:
                query = query.where(self._events.c.recorded_at < until)
            async with self._database.reading() as connection:
                rows = (await connection.execute(query.order_by(self._events.c.recorded_at, self._events.c.event_id).limit(PAGE))).all()
            page = [StoredEvent(*row) for row in rows]
            if page:
                yield page
                place = (page[-1].recorded_at, page[-1].event_id)
            if len(page) < PAGE:
                return

    async def event_ids_since(self, domain: str, since: int) -> list[str]:
        """Raises DatabaseAwayError."""
        async with self._database.reading() as connection:
            query = sa.select(self._events.c.event_id).where(self._events.c.domain == domain, self._events.c.recorded_at >= since)
            return list((await connection.execute(query)).scalars())

    async def events_by_id(self, domain: str, event_ids: Sequence[str]) -> list[StoredEvent]:
        """Raises DatabaseAwayError."""
        found: list[StoredEvent] = []
        async with self._database.reading() as connection:
            for start in range(0, len(event_ids), 500):
                query = sa.select(*self._columns).where(
                    self._events.c.domain == domain, self._events.c.event_id.in_(event_ids[start : start + 500])
                )
                found.extend(StoredEvent(*row) for row in (await connection.execute(query)).all())
        return found

    # ------------------------------------------------------------ items

    async def put_item(self, domain: str, item: StoredItem) -> StoredItem:
        """Writes an item, anew if it is there already; returns it stamped. Raises DatabaseAwayError."""
        async with self._database.writing() as connection:
            stamp = now_us()
            said = {"title": item.title, "cells": item.cells, "available": item.available, RECORDED_AT: stamp}
            statement = self._database.insert(self._items).values(domain=domain, item=item.item, **said)
            await connection.execute(statement.on_conflict_do_update(index_elements=["domain", "item"], set_=said))
        return StoredItem(item.item, item.title, item.cells, item.available, stamp)

    async def items_since(self, domain: str, since: int) -> list[StoredItem]:
        """Items with recorded_at >= since, oldest first. Raises DatabaseAwayError."""
        async with self._database.reading() as connection:
            query = sa.select(
                self._items.c.item, self._items.c.title, self._items.c.cells, self._items.c.available, self._items.c.recorded_at
            )
            query = query.where(self._items.c.domain == domain, self._items.c.recorded_at >= since).order_by(
                self._items.c.recorded_at, self._items.c.item
            )
            return [StoredItem(*row) for row in (await connection.execute(query)).all()]
