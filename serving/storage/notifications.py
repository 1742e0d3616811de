"""What people are told: rows by account, newest first; and the marks of what they did."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database, now_us

_CHUNK = 500  # accounts asked for at once
_COARSE_US = 60_000_000  # when somebody was last active is kept to the minute


@dataclass(frozen=True, slots=True)
class Notification:
    """`payload`: what happened, in machine form. Moments in microseconds UTC."""

    notification: str
    account: str
    kind: str
    payload: dict[str, object]
    created: int
    read_at: int | None

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands among the account's."""
        return (self.created, self.notification)


class Notifications:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = database.tables.notifications
        self._accounts = database.tables.accounts

    async def add(
        self, connection: AsyncConnection, event_id: str, accounts: Sequence[str], kind: str, payload: Mapping[str, object]
    ) -> int:
        """Within a transaction: tells several people of one event, once each. How many were new."""
        if not accounts:
            return 0
        now, text = now_us(), orjson.dumps(dict(payload)).decode()
        rows = [
            {
                "notification": hashlib.blake2b(f"{event_id}/{account}".encode(), digest_size=16).hexdigest(),
                "account": account,
                "kind": kind,
                "payload": text,
                "created": now,
            }
            for account in sorted(set(accounts))
        ]
        statement = self._database.insert(self._rows).on_conflict_do_nothing().returning(self._rows.c.notification)
        return len((await connection.execute(statement, rows)).all())

    async def accounts(self, connection: AsyncConnection, roles: Sequence[str] = (), account: str | None = None) -> list[str]:
        """Within a transaction: the active accounts of some roles, or one account if it is there."""
        columns = self._accounts.c
        who = columns.account == account if account is not None else columns.role.in_(roles)
        return list((await connection.execute(sa.select(columns.account).where(who, columns.status == "active"))).scalars())

    async def touch(self, connection: AsyncConnection, active: Mapping[tuple[str, str], int]) -> None:
        """Within a transaction: (domain, user) -> when they were active. Changes the accounts that these are linked to; most have none."""
        if not active:
            return
        links, columns = self._database.tables.links.c, self._accounts.c
        for start in range(0, len(active), _CHUNK):
            some = sorted(active)[start : start + _CHUNK]
            query = sa.select(links.domain, links.user, links.account).where(sa.tuple_(links.domain, links.user).in_(some))
            latest: dict[str, int] = {}
            for row in (await connection.execute(query)).all():
                latest[row.account] = max(latest.get(row.account, 0), active[row.domain, row.user])
            for account, at in sorted(latest.items()):  # in one order, so that two transactions never wait for each other
                statement = sa.update(self._accounts).where(columns.account == account, columns.last_activity < at - _COARSE_US)
                await connection.execute(statement.values(last_activity=at))

    async def page(self, account: str, most: int, before: tuple[int, str] | None, unread: bool) -> list[Notification]:
        """Newest first, older than a place. Raises DatabaseAwayError."""
        columns = self._rows.c
        query = sa.select(self._rows).where(columns.account == account)
        if unread:
            query = query.where(columns.read_at.is_(None))
        if before is not None:
            query = query.where(_place(columns) < sa.tuple_(sa.literal(before[0]), sa.literal(before[1])))
        query = query.order_by(columns.created.desc(), columns.notification.desc()).limit(most)
        async with self._database.reading() as connection:
            return [_notification(row) for row in (await connection.execute(query)).all()]

    async def find(self, account: str, notification: str) -> Notification | None:
        """Raises DatabaseAwayError."""
        columns = self._rows.c
        query = sa.select(self._rows).where(columns.notification == notification, columns.account == account)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _notification(row)

    async def unread(self, account: str) -> int:
        """Raises DatabaseAwayError."""
        columns = self._rows.c
        query = sa.select(sa.func.count()).select_from(self._rows).where(columns.account == account, columns.read_at.is_(None))
        async with self._database.reading() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def after(self, account: str, place: tuple[int, str], most: int) -> list[Notification]:
        """Oldest first, newer than a place. Raises DatabaseAwayError."""
        columns = self._rows.c
        query = sa.select(self._rows).where(
            columns.account == account, _place(columns) > sa.tuple_(sa.literal(place[0]), sa.literal(place[1]))
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.order_by(columns.created, columns.notification).limit(most))).all()
        return [_notification(row) for row in rows]

    async def since(self, accounts: Sequence[str], moment: int) -> list[Notification]:
        """Of several people, created since a moment, oldest first. Raises DatabaseAwayError."""
        columns, found = self._rows.c, []
        async with self._database.reading() as connection:
            for start in range(0, len(accounts), _CHUNK):
                query = sa.select(self._rows).where(columns.account.in_(accounts[start : start + _CHUNK]), columns.created >= moment)
                found += [_notification(row) for row in (await connection.execute(query)).all()]
        return sorted(found, key=lambda one: one.place)

    async def read(self, account: str, notification: str) -> bool | None:
        """Marks one as read; whether it was unread, None if the account has no such one. Raises DatabaseAwayError."""
        columns = self._rows.c
        mine = sa.and_(columns.notification == notification, columns.account == account)
        async with self._database.writing() as connection:
            changed = await connection.execute(sa.update(self._rows).where(mine, columns.read_at.is_(None)).values(read_at=now_us()))
            if changed.rowcount:
                return True
            return None if (await connection.execute(sa.select(columns.notification).where(mine))).first() is None else False

    async def read_until(self, account: str, moment: int) -> int:
        """Marks as read what was created up to a moment; how many were unread. Raises DatabaseAwayError."""
        columns = self._rows.c
        mine = sa.and_(columns.account == account, columns.created <= moment, columns.read_at.is_(None))
        async with self._database.writing() as connection:
            return int((await connection.execute(sa.update(self._rows).where(mine).values(read_at=now_us()))).rowcount)


def _place(columns: sa.ColumnCollection[str, sa.Column[object]]) -> sa.Tuple:
    return sa.tuple_(columns.created, columns.notification)


def _notification(row: sa.Row[tuple[object, ...]]) -> Notification:
    return Notification(row.notification, row.account, row.kind, orjson.loads(row.payload), row.created, row.read_at)
