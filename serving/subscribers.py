"""Who takes what: the consumers of this application.

What people did (`interactions.recorded`) is announced for those outside the engine. The replicas themselves go on following the table
of events: each of them needs every event, once started all of the last hours, in any number of replicas that come and go; a table
that is read from a moment on is exactly that, and it is there before, during and after any broker's life. A bus hands an event to one
of a group, which is right for effects and wrong for copies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from serving.events.consumers import Consumer, Inside, Outside
from serving.itinerary.ordering import PLACED
from serving.mail import REQUESTED
from serving.metrics import Metrics
from serving.storage.database import Database
from serving.storage.interactions import RECORDED
from serving.storage.notifications import Notifications
from serving.storage.outbox import Envelope

PROMOTED, ROLLED_BACK = "bundle.promoted", "bundle.rolled_back"
MAIL, ORDERS = "mail", "orders"

#: Consumer -> the types it takes.
INTERESTS: dict[str, tuple[str, ...]] = {
    "activity": (RECORDED,),
    "models": (PROMOTED, ROLLED_BACK),
    "security": ("account.registered", "account.password_changed", "session.reuse_detected"),
    MAIL: (REQUESTED,),
    ORDERS: (PLACED,),
    "kafka": (),  # the bus itself, where it did not take an event: a replay is for all
}


Send = Callable[[Envelope], Awaitable[None]]


def subscribers(database: Database, send: Send, order: Send, metrics: Metrics) -> tuple[Consumer, ...]:
    """`send`: what a mail that was asked for goes through (serving/mail.py); `order`: what an order goes through
    (serving/itinerary/ordering.py)."""
    people = Notifications(database)

    async def active(connection: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
        latest: dict[tuple[str, str], int] = {}
        for envelope in envelopes:
            who = (str(envelope.payload["domain"]), str(envelope.payload["user"]))
            latest[who] = max(latest.get(who, 0), envelope.occurred_at)
        await people.touch(connection, latest)

    async def activity(connection: AsyncConnection, envelope: Envelope) -> None:
        await active(connection, [envelope])

    async def models(connection: AsyncConnection, envelope: Envelope) -> None:
        told = await people.accounts(connection, roles=("analyst", "admin"))
        new = await people.add(connection, envelope.event_id, told, envelope.type, envelope.payload)
        metrics.notified.labels(envelope.type).inc(new)

    async def security(connection: AsyncConnection, envelope: Envelope) -> None:
        account = str(envelope.payload["account"])
        told = await people.accounts(connection, account=account)  # one that was erased meanwhile is told nothing
        plain = {word: value for word, value in envelope.payload.items() if word not in ("account", "session")}
        new = await people.add(connection, envelope.event_id, told, envelope.type, plain)
        metrics.notified.labels(envelope.type).inc(new)

    return (
        Inside("activity", INTERESTS["activity"], activity, active),
        Inside("models", INTERESTS["models"], models),
        Inside("security", INTERESTS["security"], security),
        Outside(MAIL, INTERESTS[MAIL], send),
        Outside(ORDERS, INTERESTS[ORDERS], order),
    )
