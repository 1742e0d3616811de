"""Orders: who wants which stops. An order and the mail that asks for it are written in one transaction, once each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson
import sqlalchemy as sa

from serving.storage.database import Database, now_us
from serving.storage.outbox import Envelope, put

_MOST = 100  # orders of a person that are shown


@dataclass(frozen=True, slots=True)
class Order:
    """`attempt`: the word that tells this order from the same one sent again; `contact`: where the answer goes; `party`: people;
    `created`: microseconds UTC."""

    order: str
    domain: str
    user: str
    attempt: str = field(repr=False)
    stops: tuple[str, ...]
    party: int
    contact: str = field(repr=False)
    note: str = field(repr=False)
    created: int


class Orders:
    """Each call raises DatabaseAwayError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._orders = database.tables.orders

    async def place(self, order: Order, announce: Callable[[Order], Envelope] | None) -> tuple[Order, bool]:
        """Stores an order and what announces it (None: nobody is told); the order as it stands, and whether it is new. One whose attempt is
        known changes nothing and is announced no second time: what stands is returned, which may name other stops."""
        columns = self._orders.c
        async with self._database.writing() as connection:
            stamped = Order(
                order.order, order.domain, order.user, order.attempt, order.stops, order.party, order.contact, order.note, now_us()
            )
            statement = self._database.insert(self._orders).values(_row(stamped)).on_conflict_do_nothing().returning(columns.order)
            if (await connection.execute(statement)).scalar_one_or_none() is not None:
                await put(self._database, connection, [] if announce is None else [announce(stamped)])
                return stamped, True
            same = (columns.domain == order.domain, columns.user == order.user, columns.attempt == order.attempt)
            found = (await connection.execute(sa.select(self._orders).where(*same))).one()
        return _order(found), False

    async def find(self, order: str) -> Order | None:
        async with self._database.reading() as connection:
            row = (await connection.execute(sa.select(self._orders).where(self._orders.c.order == order))).one_or_none()
        return None if row is None else _order(row)

    async def of_attempt(self, domain: str, user: str, attempt: str) -> Order | None:
        columns = self._orders.c
        query = sa.select(self._orders).where(columns.domain == domain, columns.user == user, columns.attempt == attempt)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _order(row)

    async def states(self, orders: Sequence[Order], event_of: Callable[[Order], str], consumer: str) -> dict[str, str]:
        """Order -> how far its sending is: the state of the inbox (begun, done, dead), "waiting" as long as it is in the outbox, else
        "stored"."""
        if not orders:
            return {}
        inbox, outbox = self._database.tables.inbox.c, self._database.tables.outbox.c
        events = {event_of(order): order.order for order in orders}
        found: dict[str, str] = dict.fromkeys(events.values(), "stored")
        async with self._database.reading() as connection:
            waiting = sa.select(outbox.event_id).where(outbox.event_id.in_(list(events)))
            for event in (await connection.execute(waiting)).scalars():
                found[events[event]] = "waiting"
            taken = sa.select(inbox.event_id, inbox.state).where(inbox.consumer == consumer, inbox.event_id.in_(list(events)))
            for event, state in (await connection.execute(taken)).tuples():
                found[events[event]] = state
        return found

    async def of(self, domain: str, user: str) -> list[Order]:
        """A person's orders, newest first, at most 100."""
        columns = self._orders.c
        query = sa.select(self._orders).where(columns.domain == domain, columns.user == user)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.order_by(columns.created.desc(), columns.order).limit(_MOST))).all()
        return [_order(row) for row in rows]


def _row(order: Order) -> dict[str, object]:
    return {
        "order": order.order,
        "domain": order.domain,
        "user": order.user,
        "attempt": order.attempt,
        "stops": orjson.dumps(order.stops).decode(),
        "party": order.party,
        "contact": order.contact,
        "note": order.note,
        "created": order.created,
    }


def _order(row: sa.Row[tuple[object, ...]]) -> Order:
    said = row._mapping
    return Order(
        said["order"],
        said["domain"],
        said["user"],
        said["attempt"],
        tuple(orjson.loads(said["stops"])),
        said["party"],
        said["contact"],
        said["note"],
        said["created"],
    )
