"""The inbox: what each consumer has taken. A row is written in the transaction of the effect, so that the effect is one.

States: `done`; `begun` = an effect outside the database was started and its end is not known; `dead` = it became a dead letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database, now_us

State = Literal["done", "begun", "dead"]


class Inbox:
    """Every method runs within the caller's transaction of `database.writing()`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._inbox = database.tables.inbox

    async def take(self, connection: AsyncConnection, pairs: Sequence[tuple[str, str]], state: State = "done") -> set[tuple[str, str]]:
        """Which of these (consumer, event_id) were not there; now they are. Another process that takes the same one waits for this
        transaction, and learns then that it came second."""
        if not pairs:
            return set()
        columns = self._inbox.c
        rows = [{"consumer": consumer, "event_id": event_id, "state": state, "at": now_us()} for consumer, event_id in sorted(set(pairs))]
        statement = self._database.insert(self._inbox).on_conflict_do_nothing().returning(columns.consumer, columns.event_id)
        return {(row.consumer, row.event_id) for row in (await connection.execute(statement, rows)).all()}

    async def state(self, connection: AsyncConnection, consumer: str, event_id: str) -> State | None:
        columns = self._inbox.c
        query = sa.select(columns.state).where(columns.consumer == consumer, columns.event_id == event_id)
        found: State | None = (await connection.execute(query)).scalar_one_or_none()
        return found

    async def set(self, connection: AsyncConnection, consumer: str, event_id: str, state: State) -> None:
        said = {"state": state, "at": now_us()}
        statement = self._database.insert(self._inbox).values(consumer=consumer, event_id=event_id, **said)
        await connection.execute(statement.on_conflict_do_update(index_elements=["consumer", "event_id"], set_=said))

    async def forget(self, connection: AsyncConnection, consumer: str, event_id: str) -> None:
        columns = self._inbox.c
        await connection.execute(sa.delete(self._inbox).where(columns.consumer == consumer, columns.event_id == event_id))
