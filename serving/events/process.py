"""The bus without a broker: the relay's own process delivers to the consumers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from serving.events.bus import Mark
from serving.events.consumers import Deliveries, Inside
from serving.storage.database import Database, DatabaseAwayError
from serving.storage.outbox import Due, Outbox

_MOST_LANES = 8  # keys whose events are handed on at once, one by one

log = logging.getLogger("factotum.events")


class ProcessBus:
    """A batch is first delivered in one transaction: claim, effects, inbox and mark together. Where something in it fails, or is no matter
    of the database alone, it is claimed, and each key delivered by itself."""

    name = "process"

    def __init__(self, database: Database, deliveries: Deliveries) -> None:
        self._database = database
        self._deliveries = deliveries

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    async def at_once(self, outbox: Outbox, most: int) -> int | None:
        """As the port says."""
        if not await outbox.some_due():
            return 0
        try:
            async with self._database.writing() as connection:
                batch = await outbox.due(connection, most)
                if any(due.attempts or not self._plain(due) for due in batch):
                    return None
                envelopes = [due.envelope for due in batch]
                await self._deliveries.together(connection, envelopes)
                await outbox.delivered(connection, envelopes)
        except DatabaseAwayError:
            raise
        except Exception as error:
            log.info("a batch is delivered one by one", extra={"fields": {"why": f"{type(error).__name__}: {error}"}})
            return None
        self._deliveries.count(envelopes)
        return len(batch)

    async def publish(self, batch: Sequence[Due], mark: Mark, until: float) -> dict[str, str]:
        """As the port says."""
        lanes: dict[str, list[Due]] = {}
        for due in batch:
            lanes.setdefault(due.envelope.key, []).append(due)
        failed: dict[str, str] = {}
        room = asyncio.Semaphore(_MOST_LANES)

        async def along(lane: list[Due]) -> None:
            async with room:
                for due in lane:
                    if time.monotonic() >= until:
                        return
                    error = await self._deliveries.to_all(due.envelope, due.attempts)
                    if error is not None:
                        failed[due.envelope.event_id] = error
                        return
                    async with self._database.writing() as connection:
                        await mark(connection, [due.envelope])

        outcomes = await asyncio.gather(*(along(lane) for lane in lanes.values()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return failed

    def _plain(self, due: Due) -> bool:
        return all(isinstance(consumer, Inside) for consumer in self._deliveries.wanting(due.envelope.type))
