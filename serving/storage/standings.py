"""What replicas poll about accounts: revoked sessions and keys, disabled accounts, links, erasures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa

from serving.storage.database import Database

PAGE = 5_000  # rows read at once


class Standings:
    """Each question raises DatabaseAwayError. `since`: microseconds UTC, included."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sessions_revoked(self, since: int) -> list[tuple[str, int]]:
        """(session, revoked_at)."""
        sessions = self._database.tables.sessions.c
        return await self._pairs(sa.select(sessions.session, sessions.revoked_at).where(sessions.revoked_at >= since))

    async def keys_revoked(self, since: int) -> list[tuple[str, int]]:
        """(key, revoked_at)."""
        keys = self._database.tables.api_keys.c
        return await self._pairs(sa.select(keys.key, keys.revoked_at).where(keys.revoked_at >= since))

    async def erasures(self, since: int) -> list[tuple[str, int]]:
        """(hash, at)."""
        erasures = self._database.tables.erasures.c
        return await self._pairs(sa.select(erasures.hash, erasures.at).where(erasures.at >= since))

    async def disabled(self) -> list[str]:
        """Accounts that may not come in now."""
        accounts = self._database.tables.accounts.c
        async with self._database.reading() as connection:
            return list((await connection.execute(sa.select(accounts.account).where(accounts.status == "disabled"))).scalars())

    async def links(self, since: int) -> AsyncIterator[list[tuple[str, str, str, int]]]:
        """Pages of (domain, account, user, linked_at), oldest first."""
        links = self._database.tables.links.c
        place = (since, "", "")
        while True:
            after = sa.tuple_(links.linked_at, links.domain, links.account) > sa.tuple_(*(sa.literal(part) for part in place))
            query = sa.select(links.domain, links.account, links.user, links.linked_at).where(links.linked_at >= place[0], after)
            async with self._database.reading() as connection:
                rows = (await connection.execute(query.order_by(links.linked_at, links.domain, links.account).limit(PAGE))).all()
            page = [(row[0], row[1], row[2], row[3]) for row in rows]
            if page:
                yield page
                place = (page[-1][3], page[-1][0], page[-1][1])
            if len(page) < PAGE:
                return

    async def _pairs(self, query: sa.Select[Any]) -> list[tuple[str, int]]:
        async with self._database.reading() as connection:
            return [(row[0], row[1]) for row in (await connection.execute(query)).all()]
