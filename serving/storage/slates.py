"""The table of slates, and slates on their way to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from serving.metrics import Metrics
from serving.storage.database import Database
from serving.storage.spool import Spool
from serving.storage.tables import StoredSlate


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
    """`put` never waits. Beyond `spool` waiting slates the oldest are lost, and counted. `home`: slates that could not be written
    wait in its folder `spool`, beyond the end of this process. `gone`: when a user of a domain was erased (microseconds UTC), whose
    slates of before are not written any more."""

    def __init__(
        self,
        database: Database,
        home: Path,
        spool: int,
        metrics: Metrics,
        gone: Callable[[str, str], int | None] | None = None,
    ) -> None:
        self._stored, self._gone = Slates(database), gone
        self._spool = Spool[StoredSlate](
            "slates",
            home / "spool",
            spool,
            self._add,
            asdict,
            _loaded,
            metrics.slates_written.inc,
            metrics.slates_lost.inc,
        )

    def __len__(self) -> int:
        return len(self._spool)

    def put(self, slate: StoredSlate) -> None:
        self._spool.put(slate.slate, slate)

    def waiting(self, domain: str, slate: str) -> StoredSlate | None:
        """A slate that is not written yet."""
        found = self._spool.waiting(slate)
        return found if found is not None and found.domain == domain else None

    async def _add(self, served: Sequence[StoredSlate]) -> None:
        await self._stored.add([slate for slate in served if not self._is_gone(slate)])

    def _is_gone(self, slate: StoredSlate) -> bool:
        at = None if self._gone is None or slate.user is None else self._gone(slate.domain, slate.user)
        return at is not None and at >= slate.created

    async def start(self) -> None:
        await self._spool.start()

    async def stop(self, seconds: float) -> None:
        """Writes what waits, for at most so long; what is left then stays in a file of the home folder for the next start."""
        await self._spool.stop(seconds)


def _loaded(said: dict[str, Any]) -> StoredSlate:
    return StoredSlate(**{**said, "degraded": tuple(said["degraded"])})
