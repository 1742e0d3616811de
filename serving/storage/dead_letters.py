"""Dead letters: events that a consumer could not take, whole and with what went wrong, until somebody replays or drops them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database, now_us
from serving.storage.inbox import Inbox
from serving.storage.outbox import PRIVATE, Envelope, Outbox, decode, encode

UNREADABLE = "unreadable"  # the consumer's name of a message that is no envelope
WIPED: dict[str, object] = {"wiped": True}  # the payload of a letter whose secret is not valid any more
_MOST_ERROR = 500  # characters


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`envelope`: None where the message could not be read; `raw` is what is kept in the row, as text. Moments in microseconds UTC."""

    consumer: str
    event_id: str
    envelope: Envelope | None
    raw: str
    error: str
    attempts: int
    at: int
    replayed_at: int | None

    @property
    def shown(self) -> dict[str, object]:
        """For people: without the payload of what is private."""
        envelope = self.envelope
        said: dict[str, object] = {
            "consumer": self.consumer,
            "event_id": self.event_id,
            "type": envelope.type if envelope else None,
            "occurred_at": envelope.occurred_at if envelope else None,
            "error": self.error,
            "attempts": self.attempts,
            "at": self.at,
            "replayed_at": self.replayed_at,
            "wiped": envelope is not None and envelope.payload == WIPED,
        }
        return said


class ReplayError(RuntimeError):
    """A letter that cannot be replayed; the message says why."""


class DeadLetters:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._letters = database.tables.dead_letters
        self._inbox = Inbox(database)

    async def add(self, connection: AsyncConnection, consumer: str, event_id: str, raw: bytes, error: str, attempts: int) -> None:
        """Within a transaction. A letter that was replayed and failed again is open again."""
        said = {
            "envelope": raw.decode("utf-8", "replace"),
            "error": error[:_MOST_ERROR],
            "attempts": attempts,
            "at": now_us(),
            "replayed_at": None,
        }
        statement = self._database.insert(self._letters).values(consumer=consumer, event_id=event_id, **said)
        await connection.execute(statement.on_conflict_do_update(index_elements=["consumer", "event_id"], set_=said))

    async def remove(self, connection: AsyncConnection, consumer: str, event_id: str) -> None:
        """Within a transaction."""
        letters = self._letters.c
        await connection.execute(sa.delete(self._letters).where(letters.consumer == consumer, letters.event_id == event_id))

    async def count(self) -> int:
        """How many are open. Raises DatabaseAwayError."""
        async with self._database.reading() as connection:
            query = sa.select(sa.func.count()).select_from(self._letters).where(self._letters.c.replayed_at.is_(None))
            return int((await connection.execute(query)).scalar_one())

    async def page(
        self,
        most: int,
        consumer: str | None = None,
        event_id: str | None = None,
        replayed: bool = False,
        after: tuple[int, str] | None = None,
    ) -> list[DeadLetter]:
        """Newest first; open ones, or also those that were replayed. `after`: (at, event_id) of the last one seen.
        Raises DatabaseAwayError."""
        letters = self._letters.c
        query = sa.select(self._letters)
        if consumer is not None:
            query = query.where(letters.consumer == consumer)
        if event_id is not None:
            query = query.where(letters.event_id == event_id)
        if not replayed:
            query = query.where(letters.replayed_at.is_(None))
        if after is not None:
            query = query.where(sa.tuple_(letters.at, letters.event_id) < sa.tuple_(sa.literal(after[0]), sa.literal(after[1])))
        query = query.order_by(letters.at.desc(), letters.event_id.desc(), letters.consumer).limit(most)
        async with self._database.reading() as connection:
            return [_letter(row) for row in (await connection.execute(query)).all()]

    async def replay(self, letter: DeadLetter, interests: Mapping[str, Sequence[str]]) -> None:
        """Puts it into the outbox again, for its own consumer alone. `interests`: the types that each consumer takes; for the others it
        counts as taken, also where their inbox does not reach back so far. One that takes none is a bus:
        its letters are for all. Raises ReplayError, DatabaseAwayError."""
        envelope = letter.envelope
        if envelope is None:
            raise ReplayError(f"{letter.event_id} is no envelope: nobody could take it; drop it")
        if envelope.payload == WIPED:
            raise ReplayError(f"{letter.event_id} held a secret that is not valid any more; it was wiped, the person has to ask again")
        if letter.consumer not in interests:
            raise ReplayError(f"there is no consumer {letter.consumer!r}; there are {', '.join(interests)}")
        letters = self._letters.c
        mine = sa.and_(letters.consumer == letter.consumer, letters.event_id == letter.event_id, letters.replayed_at.is_(None))
        async with self._database.writing() as connection:
            changed = await connection.execute(sa.update(self._letters).where(mine).values(replayed_at=now_us()))
            if not changed.rowcount:
                raise ReplayError(f"{letter.event_id} of {letter.consumer} was replayed or dropped already")
            also = interests.items() if interests[letter.consumer] else ()
            others = [(name, letter.event_id) for name, types in also if envelope.type in types and name != letter.consumer]
            await self._inbox.take(connection, others)
            await self._inbox.forget(connection, letter.consumer, letter.event_id)
            await Outbox(self._database, envelope.type in PRIVATE).again(connection, envelope)

    async def drop(self, letter: DeadLetter) -> bool:
        """Whether it was there. Its consumer will never take it. Raises DatabaseAwayError."""
        letters = self._letters.c
        mine = sa.and_(letters.consumer == letter.consumer, letters.event_id == letter.event_id)
        async with self._database.writing() as connection:
            return bool((await connection.execute(sa.delete(self._letters).where(mine))).rowcount)

    async def wipe(self, consumer: str, before: int, most: int = 200) -> int:
        """The payloads of a consumer's letters about what happened before a moment go; everything else of them stays. How many.
        Raises DatabaseAwayError."""
        letters = self._letters.c
        marked = sa.and_(letters.consumer == consumer, letters.envelope.not_like('%"payload":{"wiped":true}%'))
        async with self._database.writing() as connection:
            rows = (await connection.execute(sa.select(letters.event_id, letters.envelope).where(marked).limit(most))).all()
            wiped = 0
            for row in rows:
                envelope = decode(row.envelope)
                if envelope.occurred_at < before:
                    wiped += 1
                    await connection.execute(
                        sa.update(self._letters)
                        .where(letters.consumer == consumer, letters.event_id == row.event_id)
                        .values(envelope=without_payload(envelope).decode())
                    )
        return wiped


def without_payload(envelope: Envelope) -> bytes:
    return encode(Envelope(envelope.type, envelope.key, WIPED, envelope.event_id, envelope.occurred_at, envelope.version))


def _letter(row: sa.Row[tuple[object, ...]]) -> DeadLetter:
    try:
        envelope = None if row.consumer == UNREADABLE else decode(row.envelope)
    except (ValueError, orjson.JSONDecodeError):
        envelope = None
    return DeadLetter(row.consumer, row.event_id, envelope, row.envelope, row.error, row.attempts, row.at, row.replayed_at)
