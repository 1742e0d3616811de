"""The outbox: what happened is written in the transaction of the thing itself, and told afterwards.

A relay claims rows that are due, hands them on and marks them. What belongs to one key is handed on in the order in which it was
stamped: as long as a row of a key is in somebody's hands, or waits for its next attempt, nobody gets a later one. Rows are never
found by "position > last": a transaction that began earlier may become visible later.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database, now_us

#: Types that are told to somebody outside, in whose payload may be what nobody else should read: they stay in this database, never go to a
#: broker, and are wiped once they are delivered.
PRIVATE = frozenset({"mail.requested", "order.placed"})
_LATEST = 0


def _stamp() -> int:
    """Microseconds UTC, later than any that this process gave before: what happened after another thing is stamped after it."""
    global _LATEST
    _LATEST = max(now_us(), _LATEST + 1)
    return _LATEST


@dataclass(frozen=True, slots=True)
class Envelope:
    """One thing that happened. `key`: what must stay in order (a person, a domain); `payload`: plain JSON values, no birth data, and
    secrets only in PRIVATE types.

    `occurred_at`: microseconds UTC; make an envelope within the transaction that announces it. `version`: of the payload's form.
    """

    type: str
    key: str
    payload: dict[str, object]
    event_id: str = field(default_factory=lambda: secrets.token_hex(16))
    occurred_at: int = field(default_factory=_stamp)
    version: int = 1


@dataclass(frozen=True, slots=True)
class Due:
    """An envelope in a relay's hands. `attempts`: how often it failed before."""

    envelope: Envelope
    attempts: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """`oldest`: when the oldest event that is not delivered happened, microseconds UTC; None where nothing waits."""

    count: int
    oldest: int | None


def encode(envelope: Envelope) -> bytes:
    """JSON of the six fields."""
    return orjson.dumps(
        {
            "event_id": envelope.event_id,
            "type": envelope.type,
            "version": envelope.version,
            "occurred_at": envelope.occurred_at,
            "key": envelope.key,
            "payload": envelope.payload,
        }
    )


def decode(raw: bytes | str) -> Envelope:
    """Raises ValueError for anything that `encode` did not write."""
    said = orjson.loads(raw)
    if not isinstance(said, dict):
        raise ValueError("an envelope is a JSON object")
    wanted = {"event_id": str, "type": str, "version": int, "occurred_at": int, "key": str, "payload": dict}
    for name, kind in wanted.items():
        if not isinstance(said.get(name), kind) or isinstance(said[name], bool):
            raise ValueError(f"an envelope's {name} is {kind.__name__}, not {type(said.get(name)).__name__}")
    if set(said) != set(wanted):
        raise ValueError(f"an envelope has the fields {', '.join(wanted)}, not {', '.join(sorted(map(str, said)))}")
    return Envelope(said["type"], said["key"], said["payload"], said["event_id"], said["occurred_at"], said["version"])


async def put(database: Database, connection: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
    """Within a transaction of `database.writing()`. An event_id that is there already changes nothing."""
    if not envelopes:
        return
    rows = [_row(envelope, envelope.occurred_at) for envelope in envelopes]
    await connection.execute(database.insert(database.tables.outbox).on_conflict_do_nothing(), rows)


def _row(envelope: Envelope, due_at: int) -> dict[str, object]:
    return {
        "event_id": envelope.event_id,
        "type": envelope.type,
        "version": envelope.version,
        "occurred_at": envelope.occurred_at,
        "key": envelope.key,
        "payload": orjson.dumps(envelope.payload).decode(),
        "attempts": 0,
        "due_at": due_at,
    }


class Outbox:
    """`private`: the rows of PRIVATE types alone, or all others alone. The two are apart so that a mail server that is slow holds up no
    other event; the order of a key is kept within each."""

    def __init__(self, database: Database, private: bool) -> None:
        self._database = database
        self._outbox = database.tables.outbox
        box = self._outbox.c
        self._mine = sa.and_(box.published_at.is_(None), box.type.in_(PRIVATE) if private else box.type.not_in(PRIVATE))
        self._columns = (box.type, box.key, box.payload, box.event_id, box.occurred_at, box.version, box.attempts, box.due_at)

    async def waiting(self) -> Waiting:
        """What is not delivered yet. Raises DatabaseAwayError."""
        async with self._database.reading() as connection:
            query = sa.select(sa.func.count(), sa.func.min(self._outbox.c.occurred_at)).where(self._mine)
            count, oldest = (await connection.execute(query)).one()
        return Waiting(int(count), oldest)

    async def claim(self, most: int, lease_us: int) -> tuple[list[Due], int]:
        """At most so many rows that are due, oldest first, and the moment up to which they are in the caller's hands: whoever dies with
        them loses them to the next one then. Raises DatabaseAwayError.

        Of a key the oldest rows without a gap are taken, or none. On PostgreSQL rows that another relay has locked are skipped, and
        with them everything behind them of the same key; on SQLite there is one writer.
        """
        if not await self.some_due():
            return [], now_us()
        async with self._database.writing() as connection:
            taken = await self.due(connection, most)
            until = now_us() + lease_us
            if taken:
                mine = [one.envelope.event_id for one in taken]
                await connection.execute(sa.update(self._outbox).where(self._outbox.c.event_id.in_(mine)).values(due_at=until))
        return taken, until

    def _due_keys(self, now: int, most: int) -> sa.Select[tuple[str]]:
        """Of what is due, except where something of the same key is in somebody's hands or waits for its next attempt."""
        box = self._outbox.c
        busy = sa.select(box.key).where(self._mine, box.due_at > now)
        return sa.select(box.key).where(self._mine, box.due_at <= now, box.key.not_in(busy)).order_by(box.due_at).limit(most)

    async def some_due(self) -> bool:
        """On SQLite readers wait for nobody: an empty round costs no lock. Raises DatabaseAwayError."""
        async with self._database.reading() as connection:
            return (await connection.execute(self._due_keys(now_us(), 1))).first() is not None

    async def due(self, connection: AsyncConnection, most: int) -> list[Due]:
        """Within a transaction, which holds them until its end: what `claim` takes. Who marks them as delivered in it needs no claim."""
        box, now = self._outbox.c, now_us()
        keys = list(dict.fromkeys((await connection.execute(self._due_keys(now, most))).scalars()))
        oldest = sa.select(*self._columns).where(self._mine, box.key.in_(keys)).order_by(box.occurred_at, box.event_id).limit(most)
        free: set[str] | None = None
        if not self._database.lite:
            locked = oldest.with_only_columns(box.event_id).with_for_update(skip_locked=True)
            free = set((await connection.execute(locked)).scalars())
        rows = (await connection.execute(oldest)).all()
        taken: list[Due] = []
        for _, of_key in groupby(sorted(rows, key=lambda row: row.key), key=lambda row: row.key):
            for row in of_key:  # sorting is stable: oldest first
                if row.due_at > now or (free is not None and row.event_id not in free):
                    break
                envelope = Envelope(row.type, row.key, orjson.loads(row.payload), row.event_id, row.occurred_at, row.version)
                taken.append(Due(envelope, row.attempts))
        taken.sort(key=lambda one: (one.envelope.occurred_at, one.envelope.event_id))
        return taken

    async def delivered(self, connection: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
        """Within a transaction: they need not be handed on again. Private ones lose their payload."""
        box = self._outbox.c
        done: dict[str, object] = {"published_at": now_us(), "error": None}
        for private in (False, True):
            mine = [envelope.event_id for envelope in envelopes if (envelope.type in PRIVATE) is private]
            if mine:
                wiped = {"payload": "{}"} if private else {}
                await connection.execute(sa.update(self._outbox).where(box.event_id.in_(mine)).values(**done, **wiped))

    async def give_back(self, until: int, failed: Mapping[str, tuple[str, int]], untried: Iterable[str]) -> None:
        """Those that failed (event_id -> what went wrong, when to try again), and those that were not tried and are due at once. What
        somebody else has claimed meanwhile (its moment is not `until` any more) is left to them. Raises DatabaseAwayError."""
        box, released = self._outbox.c, sorted(untried)
        async with self._database.writing() as connection:
            held = sa.and_(box.published_at.is_(None), box.due_at == until)
            for event_id, (error, due_at) in sorted(failed.items()):
                said = {"attempts": box.attempts + 1, "due_at": due_at, "error": error}
                await connection.execute(sa.update(self._outbox).where(held, box.event_id == event_id).values(said))
            if released:
                await connection.execute(sa.update(self._outbox).where(held, box.event_id.in_(released)).values(due_at=now_us()))

    async def again(self, connection: AsyncConnection, envelope: Envelope) -> None:
        """Within a transaction: to be handed on once more, as if it had never been."""
        row = _row(envelope, now_us())
        statement = self._database.insert(self._outbox).values(row)
        anew = {"payload": row["payload"], "attempts": 0, "due_at": row["due_at"], "published_at": None, "error": None}
        await connection.execute(statement.on_conflict_do_update(index_elements=["event_id"], set_=anew))
