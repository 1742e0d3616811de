"""Who does what only one may do: a lease is held until its time is up or it is given back, then the next takes it."""

from __future__ import annotations

import os
import secrets
import socket

import sqlalchemy as sa

from serving.storage.database import Database, now_us


class Leases:
    """The leases that one process takes part in. Every call raises DatabaseAwayError."""

    def __init__(self, database: Database, holder: str | None = None) -> None:
        """`holder`: what this process is called, at most 80 characters; by default machine, process and chance."""
        self._database = database
        self._leases = database.tables.leases
        self.holder = holder or f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"

    async def take(self, name: str, seconds: float) -> bool:
        """Whether this process holds the lease now, for so long from now on. Who holds it already holds it anew.

        PostgreSQL's own clock counts, as machines differ; SQLite is one machine's."""
        columns = self._leases.c
        now: sa.ColumnElement[int] = (
            sa.literal(now_us(), sa.BigInteger)
            if self._database.lite
            else sa.cast(sa.extract("epoch", sa.func.clock_timestamp()) * 1_000_000, sa.BigInteger)
        )
        until = now + int(seconds * 1e6)
        async with self._database.writing() as connection:
            statement = self._database.insert(self._leases).values(name=name, holder=self.holder, until=until)
            free = sa.or_(columns.holder == self.holder, columns.until < now)
            statement = statement.on_conflict_do_update(index_elements=["name"], set_={"holder": self.holder, "until": until}, where=free)
            taken = await connection.execute(statement.returning(columns.holder))
            return taken.scalar_one_or_none() is not None

    async def give(self, name: str) -> None:
        """Gives the lease back, if this process holds it."""
        columns = self._leases.c
        async with self._database.writing() as connection:
            await connection.execute(sa.delete(self._leases).where(columns.name == name, columns.holder == self.holder))
