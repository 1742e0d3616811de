"""One bundle in service: its engine, its people, and the place up to which the database's events are folded in."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import orjson

from serving.engine import Engine
from serving.erased import Erased
from serving.people import Happening, People
from serving.storage.database import now_us
from serving.storage.interactions import Interactions
from serving.storage.seats import UNKNOWN, Seats
from serving.storage.tables import StoredEvent, StoredItem

_MOST_WAITING = 10_000  # events about items that are not known (yet)
_MANY = 200  # events; folding more is left to a thread, so that answers go on meanwhile

log = logging.getLogger("factotum.live")


class Standing:
    """Read by any thread at any time: what is read is replaced whole. `fold` and `place` may be called from any thread too.

    Positions in a log shared by several writers cannot be trusted: an event stamped earlier may become visible later. So
    everything recorded in the last `settle_us` is looked at again each time, and told apart by event_id.
    """

    def __init__(self, engine: Engine, settle_us: int, erased: Erased | None = None) -> None:
        self.engine = engine
        self._domain, self._erased = engine.domain.name, erased
        self._obeyed: Mapping[str, int] = {} if erased is None else erased.known  # what they had is not in the database any more
        self.people = People(engine.users, engine.histories, engine.kinds, None if erased is None else self._gone)
        self._settle_us = settle_us
        self._floor = engine.bundle.manifest.events_through
        self._horizon = self._floor  # latest recorded_at folded in, never later than this machine's clock
        self._items_horizon = self._stock_horizon = 0
        self._left: Mapping[str, int] = {}
        self._caught_up = False
        self._folded: dict[str, int] = {}  # event_id -> recorded_at, as far back as is looked at again
        self._placed: dict[str, int] = {}  # item -> recorded_at of the form it has here
        self._waiting: list[StoredEvent] = []
        self._folding = threading.Lock()

    @property
    def version(self) -> str:
        return self.engine.version

    # ------------------------------------------------------------ events

    def fold(self, happened: Iterable[StoredEvent]) -> int:
        """Folds in the events that have not been; returns how many those were."""
        with self._folding:
            return self._fold(happened)

    def _fold(self, happened: Iterable[StoredEvent]) -> int:
        fresh = [event for event in happened if event.recorded_at >= self._floor and event.event_id not in self._folded]
        if not fresh:
            return 0
        telling: list[Happening] = []
        catalogue, kinds = self.engine.catalogue, self.engine.kinds
        for event in fresh:
            self._folded[event.event_id] = event.recorded_at
            row = catalogue.row(event.item)
            if row is None:
                if len(self._waiting) < _MOST_WAITING:
                    self._waiting.append(event)
            elif event.kind in kinds.names:
                value = np.nan if event.value is None else event.value
                telling.append(Happening(event.user, row, kinds.code(event.kind), value, event.time))
        self.people.fold(telling)
        self._horizon = max(self._horizon, min(now_us(), max(event.recorded_at for event in fresh)))
        return len(fresh)

    async def follow(self, recorded: Interactions, domain: str) -> int:
        """Folds in what the database has beyond this; returns how many events that was. Raises DatabaseAwayError."""
        if not self._caught_up:
            folded = 0
            async for page in recorded.events_since(domain, self._floor):
                folded += await self._fold_page(page)
            self._caught_up = True
        else:
            since = max(self._floor, self._horizon - self._settle_us)
            unknown = [event_id for event_id in await recorded.event_ids_since(domain, since) if event_id not in self._folded]
            found = await recorded.events_by_id(domain, unknown) if unknown else []
            folded = await self._fold_page(sorted(found, key=lambda event: (event.time, event.event_id)))
        with self._folding:
            self._forget()
        return folded

    async def _fold_page(self, page: Sequence[StoredEvent]) -> int:
        return self.fold(page) if len(page) <= _MANY else await asyncio.to_thread(self.fold, page)

    def _forget(self) -> None:
        oldest = self._horizon - self._settle_us
        if len(self._folded) > 1_000:
            self._folded = {event_id: recorded for event_id, recorded in self._folded.items() if recorded >= oldest}

    async def follow_stock(self, stored: Seats) -> None:
        """Tells the engine how many of each item are left, as the database says, where a domain's items have a capacity and what is left of
        it is stored. Raises DatabaseAwayError."""
        domain = self.engine.domain
        if domain.itinerary is None or domain.items.capacity is None:
            return
        rows = await stored.since(self._domain, max(0, self._stock_horizon - self._settle_us))
        left = {**self._left, **{row.item: row.free for row in rows}}
        if left != self._left:
            known = {item: count for item, count in left.items() if count != UNKNOWN}
            self.engine = await asyncio.to_thread(self.engine.with_left, known)
            self._left = left
        if rows:
            self._stock_horizon = max(self._stock_horizon, min(now_us(), max(row.updated for row in rows)))

    # ------------------------------------------------------------ the erased

    def forget(self) -> None:
        """Forgets those who were erased since the last call. What they do afterwards is news of somebody unknown."""
        if self._erased is None:
            return
        known = self._erased.known
        if known is self._obeyed:
            return
        fresh = {hashed for hashed, at in known.items() if self._obeyed.get(hashed) != at}
        with self._folding:
            self.people.forget(lambda user: self._hash(user) in fresh)
            self._waiting = [event for event in self._waiting if self._hash(event.user) not in fresh]
        self._obeyed = known

    def _hash(self, user: str) -> str:
        assert self._erased is not None
        return self._erased.hashed("user", self._domain, user)

    def _gone(self, user: str) -> bool:
        return self._erased is not None and self._erased.at("user", self._domain, user) is not None

    # ------------------------------------------------------------ items

    def items_from(self) -> int:
        """From which recorded_at on the database may hold items that are not placed here."""
        return max(0, self._items_horizon - self._settle_us)

    def stale(self, items: Sequence[StoredItem]) -> list[StoredItem]:
        """Which of these, read from the database, the engine does not know in their latest form."""
        out = []
        if items:
            self._items_horizon = max(self._items_horizon, min(now_us(), max(item.recorded_at for item in items)))
        for item in items:
            placed = self._placed.get(item.item)
            inside = placed is None and item.recorded_at < self._floor and self.engine.catalogue.row(item.item) is not None
            if not inside and (placed is None or placed < item.recorded_at):
                out.append(item)
        return out

    def place(self, items: Sequence[StoredItem]) -> None:
        """Makes the engine know these items (slow: milliseconds). An item its schema does not allow (any more) is left out."""
        catalogue = self.engine.catalogue
        for item in items:
            try:
                catalogue = catalogue.with_item(item.item, item.title, orjson.loads(item.cells), item.available)
            except ValueError as error:
                log.warning("an item does not fit the schema", extra={"fields": {"item": item.item, "why": str(error)}})
            self._placed[item.item] = item.recorded_at
        self.engine = self.engine.over(catalogue)
        with self._folding:
            again, self._waiting = self._waiting, []
            for event in again:
                self._folded.pop(event.event_id, None)
            self._fold(again)
