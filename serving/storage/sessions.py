"""Sessions and the refresh tokens that keep them alive."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database, now_us


@dataclass(frozen=True, slots=True)
class Session:
    """Moments in microseconds UTC. `seen`: its last refresh."""

    session: str
    account: str
    created: int
    seen: int
    expires: int
    device: str
    revoked_at: int | None = None
    revoked_why: str | None = None


class SessionRows:
    """Each call works on a connection of the caller's own transaction; writes need one of `database.writing()`."""

    def __init__(self, database: Database) -> None:
        self._sessions, self._refreshes = database.tables.sessions, database.tables.refreshes

    async def begin(self, connection: AsyncConnection, session: Session, refresh_hash: str) -> None:
        row = {name: getattr(session, name) for name in Session.__dataclass_fields__}
        await connection.execute(sa.insert(self._sessions).values(row))
        await self.add_refresh(connection, session.session, refresh_hash, session.created)

    async def find(self, connection: AsyncConnection, session: str) -> Session | None:
        row = (await connection.execute(sa.select(self._sessions).where(self._sessions.c.session == session))).one_or_none()
        return None if row is None else Session(*row)

    async def live(self, connection: AsyncConnection, account: str) -> list[Session]:
        """Those that are neither revoked nor over, the newest first."""
        columns = self._sessions.c
        query = sa.select(self._sessions).where(columns.account == account, columns.revoked_at.is_(None), columns.expires > now_us())
        return [Session(*row) for row in (await connection.execute(query.order_by(columns.created.desc(), columns.session))).all()]

    async def all(self, connection: AsyncConnection, account: str) -> list[str]:
        """Every one there is a row of."""
        return list((await connection.execute(sa.select(self._sessions.c.session).where(self._sessions.c.account == account))).scalars())

    async def extend(self, connection: AsyncConnection, session: str, seen: int, expires: int) -> None:
        statement = sa.update(self._sessions).where(self._sessions.c.session == session)
        await connection.execute(statement.values(seen=seen, expires=expires))

    async def revoke(
        self, connection: AsyncConnection, why: str, account: str, session: str | None = None, but: str | None = None
    ) -> list[str]:
        """One session of an account, or all, or all but one; returns those that were not revoked before."""
        columns = self._sessions.c
        statement = sa.update(self._sessions).where(columns.account == account, columns.revoked_at.is_(None))
        if session is not None:
            statement = statement.where(columns.session == session)
        if but is not None:
            statement = statement.where(columns.session != but)
        statement = statement.values(revoked_at=now_us(), revoked_why=why)
        return list((await connection.execute(statement.returning(columns.session))).scalars())

    # ------------------------------------------------------------ refresh tokens, as hashes

    async def add_refresh(self, connection: AsyncConnection, session: str, hashed: str, issued: int) -> None:
        await connection.execute(sa.insert(self._refreshes).values(hash=hashed, session=session, issued=issued))

    async def session_of(self, connection: AsyncConnection, hashed: str) -> str | None:
        """The session that a refresh token belongs to, used or not."""
        query = sa.select(self._refreshes.c.session).where(self._refreshes.c.hash == hashed)
        return (await connection.execute(query)).scalar_one_or_none()

    async def use_refresh(self, connection: AsyncConnection, hashed: str) -> bool:
        """True for the one who uses it first, whoever else tries at the same time on whichever replica."""
        columns = self._refreshes.c
        statement = sa.update(self._refreshes).where(columns.hash == hashed, columns.used_at.is_(None)).values(used_at=now_us())
        return (await connection.execute(statement)).rowcount == 1

    async def unused(self, connection: AsyncConnection, hashed: str) -> bool:
        """Whether this refresh token was issued and has not been used."""
        columns = self._refreshes.c
        query = sa.select(columns.session).where(columns.hash == hashed, columns.used_at.is_(None))
        return (await connection.execute(query)).scalar_one_or_none() is not None
