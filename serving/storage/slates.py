"""Slates on their way to the database: queued, written in batches, and kept in a bounded spool while the database is away."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

import sqlalchemy as sa

from serving.metrics import Metrics
from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.tables import StoredSlate

BATCH = 200  # rows written at once
LINGER_S = 0.1  # a slate waits at most so long for others to be written with
_HOUR_S = 3_600.0

log = logging.getLogger("factotum.slates")


class Slates:
    """The table of slates."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._slates = database.tables.slates

    async def add(self, served: Sequence[StoredSlate]) -> None:
        """Writes slates; one that is there already is left as it is. Raises DatabaseAwayError."""
        rows = [
            {
                "slate": slate.slate,
                "domain": slate.domain,
                "user": slate.user,
                "version": slate.version,
                "variant": slate.variant,
                "mode": slate.mode,
                "degraded": ",".join(slate.degraded),
                "notes": slate.notes,
                "request": slate.request,
                "items": slate.items,
                "created": slate.created,
            }
            for slate in served
        ]
        if not rows:
            return
        async with self._database.writing() as connection:
            await connection.execute(self._database.insert(self._slates).on_conflict_do_nothing(), rows)

    async def find(self, domain: str, slate: str) -> StoredSlate | None:
        """Raises DatabaseAwayError."""
        async with self._database.reading() as connection:
            row = (
                await connection.execute(sa.select(self._slates).where(self._slates.c.slate == slate, self._slates.c.domain == domain))
            ).one_or_none()
        if row is None:
            return None
        degraded = tuple(name for name in row.degraded.split(",") if name)
        return StoredSlate(
            row.slate, row.domain, row.user, row.version, row.variant, row.mode, degraded, row.notes, row.request, row.items, row.created
        )

    async def forget(self, before: int, most: int = 5_000) -> int:
        """Deletes at most `most` slates created before a moment; returns how many. Raises DatabaseAwayError."""
        async with self._database.writing() as connection:
            old = sa.select(self._slates.c.slate).where(self._slates.c.created < before).limit(most)
            return int((await connection.execute(sa.delete(self._slates).where(self._slates.c.slate.in_(old)))).rowcount)


class SlateWriter:
    """`put` never waits. Beyond `spool` waiting slates the oldest are lost, and counted."""

    def __init__(self, database: Database, spool: int, keep_days: float, metrics: Metrics) -> None:
        self._stored = Slates(database)
        self._spool = spool
        self._keep_us = int(keep_days * 86_400e6)
        self._metrics = metrics
        self._waiting: OrderedDict[str, StoredSlate] = OrderedDict()
        self._woken = asyncio.Event()
        self._full = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, slate: StoredSlate) -> None:
        while len(self._waiting) >= self._spool:
            self._waiting.popitem(last=False)
            self._metrics.slates_lost.inc()
        self._waiting[slate.slate] = slate
        self._woken.set()
        if len(self._waiting) >= BATCH:
            self._full.set()

    def waiting(self, domain: str, slate: str) -> StoredSlate | None:
        """A slate that is not written yet."""
        found = self._waiting.get(slate)
        return found if found is not None and found.domain == domain else None

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._write_on(), name="slates"),
            asyncio.create_task(self._forget_on(), name="slates-retention"),
        ]

    async def stop(self, seconds: float) -> None:
        """Writes what waits, for at most so long; what is left then is lost, and counted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(seconds):
                while self._waiting:
                    try:
                        await self._write()
                    except DatabaseAwayError:
                        await asyncio.sleep(0.2)
        except TimeoutError:
            self._metrics.slates_lost.inc(len(self._waiting))
            log.error("slates lost: the database was away when the server stopped", extra={"fields": {"slates": len(self._waiting)}})
            self._waiting.clear()

    async def _write(self) -> None:
        batch = [slate for slate, _ in zip(self._waiting.values(), range(BATCH), strict=False)]
        await self._stored.add(batch)
        for slate in batch:
            self._waiting.pop(slate.slate, None)  # it may have overflowed meanwhile
        self._metrics.slates_written.inc(len(batch))

    async def _write_on(self) -> None:
        pause = 0.0
        while True:
            await self._woken.wait()
            try:
                async with asyncio.timeout(LINGER_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            try:
                await self._write()
                pause = 0.0
            except DatabaseAwayError as error:
                pause = min(5.0, 2 * pause or 0.25)
                log.warning("slates wait: the database is away", extra={"fields": {"waiting": len(self._waiting), "why": str(error)}})
                await asyncio.sleep(pause)
            if not self._waiting:
                self._woken.clear()
            if len(self._waiting) < BATCH:
                self._full.clear()

    async def _forget_on(self) -> None:
        while True:
            pause = _HOUR_S
            try:
                if await self._stored.forget(now_us() - self._keep_us) > 0:
                    pause = 1.0  # there may be more
            except DatabaseAwayError:
                log.warning("old slates stay: the database is away")
            await asyncio.sleep(pause)
