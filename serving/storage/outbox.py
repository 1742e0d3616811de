"""The outbox: what happened is written in the transaction of the thing itself, and told afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database, now_us


@dataclass(frozen=True, slots=True)
class Envelope:
    """One thing that happened. `key`: what must stay in order (a person, a domain); `payload`: plain JSON values, no secrets, no birth data.

    `occurred_at`: microseconds UTC. `version`: of the payload's form.
    """

    type: str
    key: str
    payload: dict[str, object]
    event_id: str = field(default_factory=lambda: secrets.token_hex(16))
    occurred_at: int = field(default_factory=now_us)
    version: int = 1


async def put(database: Database, connection: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
    """Within a transaction of `database.writing()`. An event_id that is there already changes nothing."""
    if not envelopes:
        return
    rows = [
        {
            "event_id": envelope.event_id,
            "type": envelope.type,
            "version": envelope.version,
            "occurred_at": envelope.occurred_at,
            "key": envelope.key,
            "payload": orjson.dumps(envelope.payload).decode(),
            "attempts": 0,
            "due_at": envelope.occurred_at,
        }
        for envelope in envelopes
    ]
    await connection.execute(database.insert(database.tables.outbox).on_conflict_do_nothing(), rows)
