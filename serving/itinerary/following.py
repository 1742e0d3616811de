"""What a replica keeps current of its timetables: seats and labels that others wrote, and the timetable of the bundle in service.

Everything is polled, as in serving/live.py; what this replica wrote itself is seen by its very next answer, and so is what another process
of the same home wrote, which rings a bell (serving/storage/bell.py) that is looked at before each answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from configs.domain import Domain
from features.itinerary.search import warm
from features.itinerary.timetable import Timetable
from serving.itinerary.current import Current
from serving.live import Live, NotReadyError
from serving.metrics import Metrics
from serving.storage.bell import Bell
from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.seats import Label, Seat, Seats

log = logging.getLogger("factotum.itinerary")


class _Followed:
    """What is known of one domain. Read by any thread; written by the event loop."""

    def __init__(self, domain: Domain, bell: Bell) -> None:
        assert domain.itinerary is not None
        self.bell, self.heard = bell, 0  # so often it had rung when the database was read last
        self.name, self.words = domain.name, domain.itinerary
        self.planned: tuple[str, Timetable] | None = None  # of the bundle so called
        self.current: Current | None = None
        self.why: str = "no bundle of it is in service"  # where there is no current one
        self.seats: dict[str, Seat] = {}
        self.labels: dict[tuple[str, str, str], Label] = {}
        self.horizon = 0  # latest `updated` seen, never later than this machine's clock

    def fold(self, seats: Iterable[Seat], labels: Iterable[Label]) -> None:
        """The last word on each stands; a snapshot is made where it says something new."""
        changed_seats = changed_labels = False
        for seat in seats:
            known = self.seats.get(seat.item)
            if known is None or (seat.updated >= known.updated and seat != known):
                changed_seats = changed_seats or known is None or (seat.free, seat.on_sale) != (known.free, known.on_sale)
                self.seats[seat.item] = seat
            self._reach(seat.updated)
        for label in labels:
            key = (label.of, label.target, label.label)
            before = self.labels.get(key)
            if before is None or (label.updated >= before.updated and label != before):
                changed_labels = changed_labels or before is None or before.present != label.present
                self.labels[key] = label
            self._reach(label.updated)
        if changed_labels:
            self.anew()
        elif changed_seats and self.current is not None:
            self.current = self.current.with_seats(self.seats.values())

    def _reach(self, updated: int) -> None:
        self.horizon = max(self.horizon, min(now_us(), updated))

    def anew(self) -> None:
        if self.planned is not None:
            self.current = Current.of(*self.planned, self.seats.values(), self.labels.values())


class Itineraries:
    """The timetables of all domains that have one, from `start` to `stop`. `settle_us`: a row may become visible so long after it was
    stamped."""

    def __init__(self, domains: Mapping[str, Domain], live: Live, database: Database, home: Path, settle_us: int, metrics: Metrics) -> None:
        self._live, self._metrics, self._settle_us = live, metrics, settle_us
        self.stored = Seats(database, home)
        timed = {name: domain for name, domain in domains.items() if domain.itinerary is not None}
        self._of = {name: _Followed(domain, self.stored.bell(name)) for name, domain in timed.items()}
        self._tasks: list[asyncio.Task[None]] = []
        self._warming: asyncio.Task[None] | None = None

    def __contains__(self, domain: str) -> bool:
        return domain in self._of

    def __len__(self) -> int:
        """How many domains have one."""
        return len(self._of)

    async def start(self) -> None:
        if self._of:
            self._warming = asyncio.create_task(self._warm(), name="search-warming")
        for followed in self._of.values():
            self._plan(followed)
            try:
                await self._follow(followed)
            except DatabaseAwayError as error:
                log.warning("seats are not known yet: the database is away", extra={"fields": {"why": str(error)}})
            self._tasks.append(asyncio.create_task(self._watch(followed), name=f"seats-{followed.name}"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._warming is not None:
            await asyncio.gather(self._warming, return_exceptions=True)  # a thread cannot be called back
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def compiling(self) -> bool:
        """Whether searches still wait until the kernel is compiled for this machine."""
        return self._warming is not None and not self._warming.done()

    async def warmed(self) -> None:
        """Returns when the search is compiled: at once, but for the first seconds after the first start on a machine."""
        if self._warming is not None and not self._warming.done():
            await asyncio.shield(self._warming)

    async def _warm(self) -> None:
        """What fails here fails again in the first search, which says so to who asked: it keeps nobody else waiting."""
        try:
            await asyncio.to_thread(warm)
        except Exception:
            self._metrics.errors.labels("search").inc()
            log.exception("the search could not be compiled beforehand")

    def current(self, domain: str) -> Current:
        """Raises NotReadyError where no bundle of the domain is in service, or the one that is has no timetable."""
        found = self._of[domain].current
        if found is None:
            raise NotReadyError(f"there is no timetable of {domain}: {self._of[domain].why}")
        return found

    def gone(self, domain: str) -> frozenset[str]:
        """Ids of stops that cannot be had; none in a domain without a timetable."""
        followed = self._of.get(domain)
        return frozenset() if followed is None or followed.current is None else followed.current.gone

    # ------------------------------------------------------------ what this replica wrote itself

    def seated(self, domain: str, seats: Iterable[Seat]) -> None:
        """Rows of this replica, once they are committed."""
        self._of[domain].fold(seats, ())

    def labelled(self, domain: str, labels: Iterable[Label]) -> None:
        """Rows of this replica, once they are committed."""
        self._of[domain].fold((), labels)

    # ------------------------------------------------------------ what others wrote

    async def _watch(self, followed: _Followed) -> None:
        while True:
            await asyncio.sleep(followed.words.seats_refresh_s)
            try:
                self._plan(followed)
                await self._follow(followed)
            except DatabaseAwayError as error:
                log.debug("seats stay as they were: the database is away", extra={"fields": {"why": str(error)}})
            except Exception:
                self._metrics.errors.labels("seats").inc()
                log.exception("following the seats failed", extra={"fields": {"domain": followed.name}})

    async def hear(self, domain: str) -> None:
        """Sees that what another process of this home wrote before now is known; at once where nothing was written. While the database is
        away what is known stays."""
        followed = self._of.get(domain)
        if followed is not None and followed.bell.rung() != followed.heard:
            try:
                await self._follow(followed)
            except DatabaseAwayError as error:
                log.debug("seats stay as they were: the database is away", extra={"fields": {"why": str(error)}})

    async def _follow(self, followed: _Followed) -> None:
        rung = followed.bell.rung()  # before the database is read: what rings meanwhile is looked at again
        since = max(0, followed.horizon - self._settle_us)
        seats = await self.stored.since(followed.name, since)
        followed.fold(seats, await self.stored.labels_since(followed.name, since))
        followed.heard = rung

    def _plan(self, followed: _Followed) -> None:
        """Takes over the timetable of the bundle in service."""
        try:
            bundle = self._live.standing(followed.name).engine.bundle
        except NotReadyError as error:
            followed.why = str(error)
            return
        if followed.planned is not None and followed.planned[0] == bundle.version:
            return
        if bundle.timetable is None:
            if followed.current is None:
                followed.why = f"the bundle {bundle.version} was made without one; `factotum run {followed.name}` makes another"
            return
        followed.planned = (bundle.version, bundle.timetable)
        followed.anew()
