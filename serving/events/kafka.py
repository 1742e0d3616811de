"""The bus through Kafka's protocol. Tested against librdkafka's mock broker, and nothing else.

One topic, `<prefix>.events`, with the envelope's key as the message's key: what belongs together stays in order whatever its type is.
The relay's producer is idempotent and waits for all replicas of a partition (acks=all); of a key the next event is sent when the broker
has confirmed the one before. Every replica reads in the group `<prefix>`; an offset is committed once every event up to it has been
taken by all that want it, so that a reader that dies leaves nothing out, and what comes twice is known by the inbox.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from itertools import count
from typing import Any

from configs.deployment import Bus
from serving.events.bus import BusAwayError, Mark
from serving.events.consumers import Consumer, Deliveries
from serving.events.relay import backoff_s
from serving.storage.database import Database, DatabaseAwayError
from serving.storage.outbox import Due, Envelope, Outbox, decode, encode

_SEND_S = 5.0  # a message that is not confirmed after so long has failed
_POLL_S = 0.2
_MOST_READ = 500  # messages in this process that are not finished; then reading pauses
_AT_ONCE = 200
_AWAY_S = 0.5
_MISSED_MS = 9_000  # a reader that was killed is missed after so long, and its share goes to the others

#: Around each publishing: refuses with BusAwayError where trying is pointless, and learns from BusAwayError how it went.
Guard = Callable[[], AbstractAsyncContextManager[object]]

log = logging.getLogger("factotum.kafka")


def topic(settings: Bus) -> str:
    return f"{settings.prefix}.events"


class KafkaBus:
    """The publisher. Its calls that wait run in a thread of their own."""

    name = "kafka"

    def __init__(self, database: Database, brokers: str, settings: Bus, guard: Guard = nullcontext) -> None:
        self._database = database
        self._guard = guard
        self._brokers = brokers
        self._topic = topic(settings)
        self._producer: Any = None
        self._thread = ThreadPoolExecutor(1, "kafka-producer")

    async def start(self) -> None:
        """Nothing yet: the producer is made when there is something to send."""

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, lambda: (producer.purge(), producer.flush(0.5)))
        self._thread.shutdown(wait=False)

    async def at_once(self, outbox: Outbox, most: int) -> int | None:
        """None: what the broker confirms cannot be in a transaction of the database."""
        return None

    async def publish(self, batch: Sequence[Due], mark: Mark, until: float) -> dict[str, str]:
        """As the port says."""
        async with self._guard():
            return await self._published(batch, mark, until)

    async def _published(self, batch: Sequence[Due], mark: Mark, until: float) -> dict[str, str]:
        lanes: dict[str, list[Envelope]] = {}
        for due in batch:
            lanes.setdefault(due.envelope.key, []).append(due.envelope)
        failed: dict[str, str] = {}
        while lanes and time.monotonic() < until - _SEND_S:
            heads = [lane.pop(0) for lane in lanes.values()]
            errors = await asyncio.get_running_loop().run_in_executor(self._thread, self._send, heads)
            sent = [envelope for envelope in heads if errors[envelope.event_id] is None]
            if sent:
                async with self._database.writing() as connection:
                    await mark(connection, sent)
            away = False
            for envelope in heads:
                error = errors[envelope.event_id]
                if error is not None:
                    lanes.pop(envelope.key)
                    away = away or error[0]
                    if not error[0]:
                        failed[envelope.event_id] = error[1]
            if away:
                if failed:
                    return failed  # the next round finds out for itself
                raise BusAwayError(next(error[1] for error in errors.values() if error is not None))
            lanes = {key: lane for key, lane in lanes.items() if lane}
        return failed

    def _send(self, envelopes: Sequence[Envelope]) -> dict[str, tuple[bool, str] | None]:
        """In the thread. event_id -> None where the broker confirmed it, else (whether the broker is away, what went wrong)."""
        from confluent_kafka import KafkaException, Producer

        outcome: dict[str, tuple[bool, str] | None] = {e.event_id: (True, "no word from the broker in time") for e in envelopes}
        fatal = False

        def told(event_id: str) -> Callable[[Any, Any], None]:
            def on_delivery(error: Any, _message: Any) -> None:
                nonlocal fatal
                outcome[event_id] = None if error is None else (_is_away(error), str(error))
                fatal = fatal or (error is not None and error.fatal())

            return on_delivery

        try:
            if self._producer is None:
                self._producer = Producer(
                    {
                        "bootstrap.servers": self._brokers,
                        "enable.idempotence": True,
                        "acks": "all",
                        "linger.ms": 2,
                        "message.timeout.ms": int(_SEND_S * 1_000),
                        "socket.timeout.ms": int(_SEND_S * 1_000),
                        "reconnect.backoff.max.ms": 1_000,
                        "log_level": 2,
                    },
                    logger=log,
                )
            for envelope in envelopes:
                try:
                    self._producer.produce(
                        self._topic,
                        encode(envelope),
                        envelope.key.encode(),
                        on_delivery=told(envelope.event_id),
                        headers={"event_id": envelope.event_id.encode(), "type": envelope.type.encode()},
                    )
                except KafkaException as error:
                    outcome[envelope.event_id] = (_is_away(error.args[0]), str(error))
            if self._producer.flush(_SEND_S + 1.0):
                fatal = True  # what is still in its queue must not be sent after what comes next
        except KafkaException as error:
            fatal = True
            outcome = {event_id: (True, str(error)) for event_id in outcome}
        if fatal and self._producer is not None:
            self._producer.purge()
            self._producer = None
        return outcome


def _is_away(error: Any) -> bool:
    """Whether an error says that nobody answers, rather than that this one message cannot be taken."""
    from confluent_kafka import KafkaError

    of_the_message = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD, KafkaError._INVALID_ARG)
    return error.code() not in of_the_message


class KafkaSubscription:
    """Reads in the group and hands events to the consumers of this process. Each consumer takes the events of a key one after the other;
    one that fails waits between its attempts and holds up nothing but its own key."""

    def __init__(self, deliveries: Deliveries, brokers: str, settings: Bus) -> None:
        self._deliveries = deliveries
        self._brokers = brokers
        self._settings = settings
        self._topic = topic(settings)
        self._thread = ThreadPoolExecutor(1, "kafka-reader")
        self._reader: Any = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._places: dict[int, _Place] = {}  # of the partitions assigned, by number
        self._lanes: dict[tuple[str, str], asyncio.Task[None]] = {}  # the last event under way of (consumer, key)
        self._pending = 0
        self._finished = asyncio.Event()
        self._jitter = random.Random()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="kafka-reader")

    async def stop(self) -> None:
        self._stopping = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        for task in list(self._lanes.values()):
            task.cancel()
        await asyncio.gather(*self._lanes.values(), return_exceptions=True)
        reader, self._reader = self._reader, None
        if reader is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, reader.close)
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping:
            try:
                messages = await loop.run_in_executor(self._thread, self._read)
                for message in messages:
                    self._take(message)
                await loop.run_in_executor(self._thread, self._commit)
                while self._pending >= _MOST_READ and not self._stopping:
                    self._finished.clear()
                    try:
                        async with asyncio.timeout(_POLL_S):
                            await self._finished.wait()
                    except TimeoutError:
                        await loop.run_in_executor(self._thread, self._commit)
            except Exception as error:
                log.warning("the broker's reader failed", extra={"fields": {"why": f"{type(error).__name__}: {error}"}})
                await asyncio.sleep(_AWAY_S)
        await loop.run_in_executor(self._thread, self._commit)

    # ------------------------------------------------ in the reader's thread, while the loop waits for it

    def _read(self) -> list[Any]:
        from confluent_kafka import Consumer as Reader
        from confluent_kafka import KafkaError

        if self._reader is None:
            self._reader = Reader(
                {
                    "bootstrap.servers": self._brokers,
                    "group.id": self._settings.prefix,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "earliest",
                    "allow.auto.create.topics": True,
                    "session.timeout.ms": _MISSED_MS,
                    "heartbeat.interval.ms": _MISSED_MS // 3,
                    "topic.metadata.refresh.interval.ms": 2_000,
                    "reconnect.backoff.max.ms": 1_000,
                    "log_level": 2,
                },
                logger=log,
            )
            self._reader.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
        messages = []
        for message in self._reader.consume(_AT_ONCE, _POLL_S):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._PARTITION_EOF):
                log.warning("the broker says", extra={"fields": {"error": str(error)}})
                time.sleep(_POLL_S)
        return messages

    def _assigned(self, _reader: Any, partitions: Sequence[Any]) -> None:
        for partition in partitions:
            self._places[partition.partition] = _Place()

    def _revoked(self, _reader: Any, partitions: Sequence[Any]) -> None:
        """What is under way of them goes on; whoever has them now gets it too, and the inbox lets one of us have it."""
        self._commit()
        for partition in partitions:
            self._places.pop(partition.partition, None)

    def _commit(self) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        if self._reader is None:
            return
        ready = {number: place.ready() for number, place in list(self._places.items())}
        offsets = [TopicPartition(self._topic, number, offset) for number, offset in ready.items() if offset is not None]
        if not offsets:
            return
        try:
            self._reader.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            log.warning("offsets were not committed", extra={"fields": {"why": str(error)}})
            return
        for partition in offsets:
            if partition.partition in self._places:
                self._places[partition.partition].committed = partition.offset

    # ------------------------------------------------ in the loop

    def _take(self, message: Any) -> None:
        place = self._places.setdefault(message.partition(), _Place())
        offset, raw = message.offset(), message.value() or b""
        place.begin(offset)
        self._pending += 1
        try:
            envelope = decode(raw)
            wanting = self._deliveries.wanting(envelope.type)
        except ValueError as error:
            named = f"{message.topic()}-{message.partition()}-{offset}"
            parts = [asyncio.create_task(self._keep_trying(partial(self._deliveries.unreadable, named, raw, str(error))))]
        else:
            parts = [self._behind(consumer, envelope) for consumer in wanting]
        whole = asyncio.gather(*parts, return_exceptions=True)

        def over(done: asyncio.Future[list[Any]]) -> None:
            self._pending -= 1
            self._finished.set()
            if not done.cancelled() and not any(isinstance(outcome, BaseException) for outcome in done.result()):
                place.end(offset)

        whole.add_done_callback(over)

    def _behind(self, consumer: Consumer, envelope: Envelope) -> asyncio.Task[None]:
        """Delivers after what the same consumer has under way of the same key."""
        lane = (consumer.name, envelope.key)
        before = self._lanes.get(lane)

        async def deliver() -> None:
            if before is not None:
                await asyncio.gather(before, return_exceptions=True)
                if before.cancelled():
                    raise asyncio.CancelledError
            for failed in count():
                if await self._keep_trying(partial(self._deliveries.to, consumer, envelope, failed)) is None:
                    return
                await asyncio.sleep(backoff_s(self._settings, failed, self._jitter))

        task = asyncio.create_task(deliver())
        self._lanes[lane] = task
        task.add_done_callback(lambda done: self._lanes.pop(lane) if self._lanes.get(lane) is done else None)
        return task

    async def _keep_trying(self, act: Callable[[], Any]) -> Any:
        """For as long as the database is away."""
        pause = 0.0
        while True:
            try:
                return await act()
            except DatabaseAwayError as error:
                pause = min(5.0, 2 * pause or 0.25)
                log.warning("events wait: the database is away", extra={"fields": {"why": str(error)}})
                await asyncio.sleep(pause)


class _Place:
    """How far a partition is done: the offset that may be committed is that of the oldest message under way. For both threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: set[int] = set()
        self._next = 0
        self.committed = -1

    def begin(self, offset: int) -> None:
        with self._lock:
            self._under_way.add(offset)
            self._next = max(self._next, offset + 1)

    def end(self, offset: int) -> None:
        with self._lock:
            self._under_way.discard(offset)

    def ready(self) -> int | None:
        """What should be committed and is not yet."""
        with self._lock:
            offset = min(self._under_way, default=self._next)
        return offset if offset > max(self.committed, 0) else None
