"""Keys of machines, as hashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from serving.storage.database import Database, now_us


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Moments in microseconds UTC."""

    key: str
    name: str
    scopes: tuple[str, ...]
    created: int
    expires: int | None = None
    revoked_at: int | None = None
    last_used: int | None = None


class ApiKeyRows:
    """Each call is a transaction of its own and raises DatabaseAwayError."""

    def __init__(self, database: Database) -> None:
        self._database, self._keys = database, database.tables.api_keys

    async def add(self, key: ApiKey, hashed: str) -> None:
        async with self._database.writing() as connection:
            row = {"key": key.key, "hash": hashed, "name": key.name, "scopes": " ".join(key.scopes)}
            await connection.execute(sa.insert(self._keys).values(**row, created=key.created, expires=key.expires))

    async def of_hash(self, hashed: str) -> ApiKey | None:
        """Revoked and expired ones too."""
        async with self._database.reading() as connection:
            row = (await connection.execute(self._query().where(self._keys.c.hash == hashed))).one_or_none()
        return None if row is None else _key(row)

    async def all(self) -> list[ApiKey]:
        """Oldest first."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(self._query().order_by(self._keys.c.created, self._keys.c.key))).all()
        return [_key(row) for row in rows]

    async def revoke(self, key: str) -> bool:
        """False where there is no such key; one revoked before keeps its moment."""
        async with self._database.writing() as connection:
            moment = sa.func.coalesce(self._keys.c.revoked_at, now_us())
            return (await connection.execute(sa.update(self._keys).where(self._keys.c.key == key).values(revoked_at=moment))).rowcount == 1

    async def used(self, key: str, at: int) -> None:
        async with self._database.writing() as connection:
            await connection.execute(sa.update(self._keys).where(self._keys.c.key == key).values(last_used=at))

    def _query(self) -> sa.Select[Any]:
        c = self._keys.c
        return sa.select(c.key, c.name, c.scopes, c.created, c.expires, c.revoked_at, c.last_used)


def _key(row: sa.Row[Any]) -> ApiKey:
    return ApiKey(row.key, row.name, tuple(row.scopes.split()), row.created, row.expires, row.revoked_at, row.last_used)
