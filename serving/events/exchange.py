"""Everything of the events that a replica runs: the relays, what brings events back from a broker, and an eye on what waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress

from configs.deployment import Bus
from serving.events.bus import Publisher, Subscription
from serving.events.consumers import Consumer, Deliveries
from serving.events.process import ProcessBus
from serving.events.relay import LEASE_S, Relay
from serving.metrics import Metrics
from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.dead_letters import DeadLetters
from serving.storage.outbox import Waiting

_WATCH_S = 1.0
_WIPE_S = 30.0
_PRIVATE_BATCH = 16


class Exchange:
    """`outside_s`: an effect outside the database may take so long. `secret_s`: consumer -> seconds after which the payloads of its dead
    letters are wiped. `brokers`: of Kafka, used where settings.kind says so; ValueError where they are missing then. `guard`: a breaker
    around what is sent to them."""

    def __init__(
        self,
        database: Database,
        consumers: Sequence[Consumer],
        settings: Bus,
        metrics: Metrics,
        brokers: str | None = None,
        outside_s: float = 10.0,
        secret_s: Mapping[str, float] | None = None,
        guard: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> None:
        self._deliveries = Deliveries(database, consumers, settings.attempts, metrics)
        self._metrics = metrics
        self._letters = DeadLetters(database)
        self._secret_s = dict(secret_s or {})
        local = ProcessBus(database, self._deliveries)
        publisher: Publisher = local
        self._subscription: Subscription | None = None
        if settings.kind == "kafka":
            from serving.events.kafka import KafkaBus, KafkaSubscription

            addresses = brokers or settings.brokers
            if not addresses:
                raise ValueError("bus.kind is kafka, and there are no brokers: set FACTOTUM_KAFKA_BROKERS or bus.brokers (host:port)")
            publisher = KafkaBus(database, addresses, settings, guard)
            self._subscription = KafkaSubscription(self._deliveries, addresses, settings)
        self._relays = (
            Relay(database, publisher, self._deliveries, settings, metrics),
            Relay(database, local, self._deliveries, settings, metrics, True, _PRIVATE_BATCH, max(LEASE_S, 4 * outside_s)),
        )
        self._oldest: int | None = None
        metrics.outbox_lag.set_function(lambda: 0.0 if self._oldest is None else max(0.0, (now_us() - self._oldest) / 1e6))
        self._watching: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """This process just wrote something to the outbox and committed it."""
        for relay in self._relays:
            relay.wake()

    async def start(self) -> None:
        """Returns at once, whoever is away."""
        for relay in self._relays:
            await relay.start()
        if self._subscription is not None:
            await self._subscription.start()
        self._watching = asyncio.create_task(self._watch(), name="events-watch")

    async def stop(self, seconds: float) -> None:
        """What is under way is finished, for at most so long; the rest waits in the outbox."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        parts = [relay.stop(seconds) for relay in self._relays]
        if self._subscription is not None:
            parts.append(self._subscription.stop())
        await asyncio.gather(*parts)

    async def waiting(self) -> Waiting:
        """What is not delivered yet. Raises DatabaseAwayError."""
        each = [await relay.outbox.waiting() for relay in self._relays]
        return Waiting(sum(one.count for one in each), min((one.oldest for one in each if one.oldest is not None), default=None))

    async def _watch(self) -> None:
        wiped = 0.0
        while True:
            with suppress(DatabaseAwayError):  # the figures stay, and the age goes on growing
                now = await self.waiting()
                self._oldest = now.oldest
                self._metrics.outbox_waiting.set(now.count)
                self._metrics.dead_letters.set(await self._letters.count())
                if time.monotonic() - wiped > _WIPE_S:
                    for consumer, seconds in self._secret_s.items():
                        await self._letters.wipe(consumer, now_us() - int(seconds * 1e6))
                    wiped = time.monotonic()
            await asyncio.sleep(_WATCH_S)
