"""The port of the bus. Two forms: serving/events/process.py delivers by itself, serving/events/kafka.py goes through a broker.

What both promise: an event that was committed reaches every consumer that wants its type; each takes it once; events of one key come
in order, as long as an earlier one did not become a dead letter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.outbox import Due, Envelope, Outbox

#: Marks envelopes as delivered, within a transaction.
Mark = Callable[[AsyncConnection, Sequence[Envelope]], Awaitable[None]]


class BusAwayError(RuntimeError):
    """The bus does not answer: nothing is wrong with the events, they wait."""


class Publisher(Protocol):
    """Takes events from the relay. `name` stands in dead letters of events that the bus itself does not take."""

    name: str

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def at_once(self, outbox: Outbox, most: int) -> int | None:
        """Delivers what is due in one transaction, without a claim, and says how many that were. None: this bus cannot, or what is due
        wants more care; nothing was done. Raises DatabaseAwayError."""
        ...

    async def publish(self, batch: Sequence[Due], mark: Mark, until: float) -> dict[str, str]:
        """Hands on what it can before `until` (time.monotonic), in the order of each key, and marks it in a transaction of its own once
        it is safe. event_id -> error of those that failed; what is neither marked nor failed was not tried.
        Raises BusAwayError, DatabaseAwayError: what is not marked goes back untried."""
        ...


class Subscription(Protocol):
    """Brings events to the consumers of this process."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
