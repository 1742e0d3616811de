"""Those who take events, and how each takes one once.

A consumer whose effect is in the database takes an event in one transaction: the inbox row (consumer, event_id), which can be written
once, and the effect. An effect outside the database (a mail) cannot be in a transaction: `begun` is committed first, then comes the
effect, then `done`. Who finds `begun` does not know how it ended and never does it again: it becomes a dead letter that says so.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.metrics import Metrics
from serving.storage.database import Database, DatabaseAwayError
from serving.storage.dead_letters import UNREADABLE, DeadLetters, without_payload
from serving.storage.inbox import Inbox
from serving.storage.outbox import Envelope, encode

_KEEP_TRYING_S = (0.1, 0.3, 1.0, 3.0, 5.0, 5.0)  # pauses before `done` is given up: what was done shall not look unfinished
_MOST_KEPT = 10_000  # bytes of a message that nobody can read
UNKNOWN_END = "it was begun and its end is not known: it may have been done. Look before you replay it"

log = logging.getLogger("factotum.events")


class NotDoneError(RuntimeError):
    """The effect did not take place, for certain. It may be tried again."""


class RefusedError(RuntimeError):
    """The effect did not take place and never will; a dead letter at once. `wipe`: without the payload, it is of no use any more."""

    def __init__(self, why: str, wipe: bool = False) -> None:
        super().__init__(why)
        self.wipe = wipe


@dataclass(frozen=True, slots=True)
class Inside:
    """`effect` writes within the transaction it is given, and does nothing else. Whatever it raises undoes it; it is tried again.
    `together`: the same for several events at once, where that is faster."""

    name: str
    types: tuple[str, ...]
    effect: Callable[[AsyncConnection, Envelope], Awaitable[None]]
    together: Callable[[AsyncConnection, Sequence[Envelope]], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Outside:
    """`effect` does something that cannot be undone. It raises NotDoneError or RefusedError where it knows that nothing was done;
    anything else that it raises means that nobody knows."""

    name: str
    types: tuple[str, ...]
    effect: Callable[[Envelope], Awaitable[None]]


Consumer = Inside | Outside


class Deliveries:
    """Hands events to consumers. `attempts`: a consumer that fails so often at one gets it as a dead letter."""

    def __init__(self, database: Database, consumers: Sequence[Consumer], attempts: int, metrics: Metrics) -> None:
        self.consumers = tuple(consumers)
        self._database = database
        self._attempts = attempts
        self._metrics = metrics
        self._inbox = Inbox(database)
        self._letters = DeadLetters(database)

    def wanting(self, kind: str) -> list[Consumer]:
        return [consumer for consumer in self.consumers if kind in consumer.types]

    async def together(self, connection: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
        """All effects of several events within one transaction; only for events that Inside consumers alone want. Raises what an effect
        raises: then nothing of it may be committed."""
        wanted = {consumer: [e for e in envelopes if e.type in consumer.types] for consumer in self.consumers}
        pairs = [(consumer.name, envelope.event_id) for consumer, wants in wanted.items() for envelope in wants]
        new = await self._inbox.take(connection, pairs)
        for consumer, wants in wanted.items():
            fresh = [envelope for envelope in wants if (consumer.name, envelope.event_id) in new]
            if not fresh:
                continue
            assert isinstance(consumer, Inside)
            if consumer.together is not None:
                await consumer.together(connection, fresh)
                continue
            for envelope in fresh:
                await consumer.effect(connection, envelope)

    def count(self, envelopes: Sequence[Envelope]) -> None:
        """After the transaction of `together` was committed."""
        for envelope in envelopes:
            for consumer in self.wanting(envelope.type):
                self._metrics.delivered.labels(consumer.name, "done").inc()

    async def to_all(self, envelope: Envelope, failed: int) -> str | None:
        """To every consumer that wants it; one that fails holds up no other. None: all have it (or its dead letter); else what went wrong
        with those that want it again. `failed`: attempts before this one. Raises DatabaseAwayError."""
        outcomes = await asyncio.gather(
            *(self.to(consumer, envelope, failed) for consumer in self.wanting(envelope.type)), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return "; ".join(str(outcome) for outcome in outcomes if outcome is not None) or None

    async def to(self, consumer: Consumer, envelope: Envelope, failed: int) -> str | None:
        """One consumer's part of `to_all`."""
        match consumer:
            case Inside():
                error = await self._inside(consumer, envelope)
            case Outside():
                error = await self._outside(consumer, envelope)
        if error is None:
            return None
        if failed + 1 < self._attempts:
            self._metrics.delivered.labels(consumer.name, "failed").inc()
            log.warning("a consumer failed", extra={"fields": {"consumer": consumer.name, "event": envelope.event_id, "why": error}})
            return f"{consumer.name}: {error}"
        await self._bury(consumer.name, envelope, error, failed + 1)
        return None

    async def _inside(self, consumer: Inside, envelope: Envelope) -> str | None:
        try:
            async with self._database.writing() as connection:
                if not await self._inbox.take(connection, [(consumer.name, envelope.event_id)]):
                    return None
                await consumer.effect(connection, envelope)
        except DatabaseAwayError:
            raise
        except RefusedError as error:
            await self._bury(consumer.name, envelope, str(error), 1, error.wipe)
            return None
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        self._metrics.delivered.labels(consumer.name, "done").inc()
        return None

    async def _outside(self, consumer: Outside, envelope: Envelope) -> str | None:
        name, event_id = consumer.name, envelope.event_id
        async with self._database.writing() as connection:
            mine = bool(await self._inbox.take(connection, [(name, event_id)], "begun"))
            state = None if mine else await self._inbox.state(connection, name, event_id)
        if state == "begun":
            await self._bury(name, envelope, UNKNOWN_END, 1)
        if not mine:
            return None
        try:
            await consumer.effect(envelope)
        except NotDoneError as error:
            async with self._database.writing() as connection:
                await self._inbox.forget(connection, name, event_id)
            return str(error)
        except RefusedError as error:
            await self._bury(name, envelope, str(error), 1, error.wipe)
            return None
        except Exception as error:
            await self._bury(name, envelope, f"{type(error).__name__}: {error}; {UNKNOWN_END}", 1)
            return None
        for pause in (*_KEEP_TRYING_S, None):
            try:
                async with self._database.writing() as connection:
                    await self._inbox.set(connection, name, event_id, "done")
                    await self._letters.remove(connection, name, event_id)  # of one who found `begun` meanwhile
                break
            except DatabaseAwayError:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        self._metrics.delivered.labels(name, "done").inc()
        return None

    async def _bury(self, consumer: str, envelope: Envelope, error: str, attempts: int, wipe: bool = False) -> None:
        """Unless it was taken meanwhile. Raises DatabaseAwayError."""
        raw = without_payload(envelope) if wipe else encode(envelope)
        async with self._database.writing() as connection:
            if await self._inbox.state(connection, consumer, envelope.event_id) in ("done", "dead"):
                return
            await self._inbox.set(connection, consumer, envelope.event_id, "dead")
            await self._letters.add(connection, consumer, envelope.event_id, raw, error, attempts)
        self._metrics.delivered.labels(consumer, "dead").inc()
        fields = {"consumer": consumer, "event": envelope.event_id, "type": envelope.type, "why": error}
        log.error("a dead letter", extra={"fields": fields})

    async def unreadable(self, place: str, raw: bytes, error: str) -> None:
        """A message that is no envelope; `place` names it once and for all. Kept as JSON of its first bytes in base64. Raises
        DatabaseAwayError."""
        kept = orjson.dumps({"bytes": len(raw), "base64": base64.b64encode(raw[:_MOST_KEPT]).decode()})
        async with self._database.writing() as connection:
            if await self._inbox.take(connection, [(UNREADABLE, place)], "dead"):
                await self._letters.add(connection, UNREADABLE, place, kept, error, 1)
        self._metrics.delivered.labels(UNREADABLE, "dead").inc()
        log.error("a message that is no event", extra={"fields": {"place": place, "why": error}})

    async def untakeable(self, bus: str, envelope: Envelope, error: str, attempts: int, connection: AsyncConnection) -> None:
        """Within a transaction: an event that the bus itself does not take."""
        await self._letters.add(connection, bus, envelope.event_id, encode(envelope), error, attempts)
        self._metrics.delivered.labels(bus, "dead").inc()
