"""The relay: takes what is due from the outbox and gives it to the bus, over and over. Every replica runs one; they share the work.

A relay that dies with events in its hands loses them to the others when its claim has run out; whatever it had done of them is known
by the inbox. The database or the bus away: it waits a little longer each time, up to five seconds, and goes on by itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncConnection

from configs.deployment import Bus
from serving.events.bus import BusAwayError, Publisher
from serving.events.consumers import Deliveries
from serving.metrics import Metrics
from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.outbox import Due, Envelope, Outbox

BATCH = 200  # events claimed at once
LEASE_S = 30.0  # a claim holds so long
_LONGEST_PAUSE_S = 5.0
_REST = 4.0  # after a batch that was not full, requests have the database for so many times as long as the batch took

log = logging.getLogger("factotum.relay")


class Relay:
    """`private`: hands on the PRIVATE types alone, or all others alone. `lease_s`: must be longer than any one event may take."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        deliveries: Deliveries,
        settings: Bus,
        metrics: Metrics,
        private: bool = False,
        batch: int = BATCH,
        lease_s: float = LEASE_S,
    ) -> None:
        self.outbox = Outbox(database, private)
        self._database = database
        self._publisher = publisher
        self._deliveries = deliveries
        self._settings = settings
        self._metrics = metrics
        self._batch = batch
        self._lease_s = lease_s
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._jitter = random.Random()

    def wake(self) -> None:
        """Something was just written to the outbox by this process: look at once."""
        self._woken.set()

    async def start(self) -> None:
        await self._publisher.start()
        self._task = asyncio.create_task(self._run(), name="relay")

    async def stop(self, seconds: float) -> None:
        """Finishes the batch under way, for at most so long; what it could not finish, another relay takes."""
        self._stopping.set()
        self._woken.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._publisher.stop()

    async def _run(self) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                began = time.monotonic()
                if taken := await self.once():
                    pause = 0.0
                    if taken < self._batch:
                        await _either(self._stopping, min(self._settings.poll_ms / 1_000.0, _REST * (time.monotonic() - began)))
                    continue
                pause, wait = 0.0, self._settings.poll_ms / 1_000.0
            except (DatabaseAwayError, BusAwayError) as error:
                pause = wait = min(_LONGEST_PAUSE_S, 2 * pause or 0.25)
                log.warning("events wait", extra={"fields": {"why": f"{type(error).__name__}: {error}", "again_in_s": wait}})
                await _either(self._stopping, wait)  # no write ends this pause
                continue
            except Exception:
                pause = wait = min(_LONGEST_PAUSE_S, 2 * pause or 0.25)
                self._metrics.errors.labels("relay").inc()
                log.exception("the relay failed")
                await _either(self._stopping, wait)
                continue
            await _either(self._woken, wait)

    async def once(self) -> int:
        """One batch; how many events were due. Raises DatabaseAwayError, BusAwayError."""
        at_once = await self._publisher.at_once(self.outbox, self._batch)
        if at_once is not None:
            return at_once
        batch, claimed = await self.outbox.claim(self._batch, int(self._lease_s * 1e6))
        if not batch:
            return 0
        marked: set[str] = set()

        async def mark(connection: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
            await self.outbox.delivered(connection, envelopes)
            marked.update(envelope.event_id for envelope in envelopes)

        failed: dict[str, str] = {}
        whole = False
        try:
            failed = await self._publisher.publish(batch, mark, time.monotonic() + self._lease_s / 2)
            whole = not failed and len(marked) == len(batch)
        finally:
            if not whole:  # also where the database or the bus went away: what can still be given back need not wait for the claim's end
                await self._give_back(batch, claimed, failed)
        return len(batch)

    async def _give_back(self, batch: Sequence[Due], claimed: int, failed: Mapping[str, str]) -> None:
        again: dict[str, tuple[str, int]] = {}
        for due in batch:
            error = failed.get(due.envelope.event_id)
            if error is None:
                continue
            if due.attempts + 1 < self._settings.attempts:
                again[due.envelope.event_id] = (error, now_us() + int(backoff_s(self._settings, due.attempts, self._jitter) * 1e6))
                continue
            async with self._database.writing() as connection:
                await self._deliveries.untakeable(self._publisher.name, due.envelope, error, due.attempts + 1, connection)
                await self.outbox.delivered(connection, [due.envelope])
        untried = [due.envelope.event_id for due in batch if due.envelope.event_id not in failed]
        await self.outbox.give_back(claimed, again, untried)


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Until the event, or until the time is up."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def backoff_s(settings: Bus, failed: int, jitter: random.Random) -> float:
    """Seconds before the next attempt: doubled with each one that failed, and between half and all of it, so that many do not come at
    once."""
    return min(settings.longest_backoff_s, settings.backoff_s * 2.0 ** min(failed, 60)) * (0.5 + jitter.random() / 2.0)
