"""Accounts, what people say of themselves, their links to domains' users, and what may be used once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database, now_us


@dataclass(frozen=True, slots=True)
class Account:
    """`password` as argon2 wrote it; moments in microseconds UTC."""

    account: str
    email: str | None
    password: str | None = field(repr=False)
    telegram_id: int | None
    role: str
    status: str
    created: int
    last_activity: int


@dataclass(frozen=True, slots=True)
class Profile:
    """What a person says of themselves; shown to nobody else and never logged."""

    birth_date: str | None = field(default=None, repr=False)
    birth_time: str | None = field(default=None, repr=False)
    birth_city: str | None = field(default=None, repr=False)
    subscription_status: str = "free"
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Link:
    domain: str
    account: str
    user: str
    linked_at: int


class AccountRows:
    """Each call works on a connection of the caller's own transaction; writes need one of `database.writing()`."""

    def __init__(self, database: Database) -> None:
        self._database, self._tables = database, database.tables

    # ------------------------------------------------------------ accounts

    async def of_email(self, connection: AsyncConnection, email: str) -> Account | None:
        return await self._one(connection, self._tables.accounts.c.email == email)

    async def of_telegram(self, connection: AsyncConnection, telegram_id: int) -> Account | None:
        return await self._one(connection, self._tables.accounts.c.telegram_id == telegram_id)

    async def of_id(self, connection: AsyncConnection, account: str) -> Account | None:
        return await self._one(connection, self._tables.accounts.c.account == account)

    async def add(self, connection: AsyncConnection, account: Account) -> bool:
        """False where the email or the Telegram id is somebody's already: then nothing was written."""
        row = {name: getattr(account, name) for name in Account.__dataclass_fields__}
        statement = self._database.insert(self._tables.accounts).values(row).on_conflict_do_nothing()
        return (await connection.execute(statement)).rowcount == 1

    async def change(self, connection: AsyncConnection, account: str, to: Mapping[str, object]) -> bool:
        """False where there is no such account."""
        statement = sa.update(self._tables.accounts).where(self._tables.accounts.c.account == account).values(dict(to))
        return (await connection.execute(statement)).rowcount == 1

    async def rehash(self, connection: AsyncConnection, account: str, before: str, after: str) -> None:
        """The same password, kept in another form; nothing happens where it was changed meanwhile."""
        c = self._tables.accounts.c
        await connection.execute(sa.update(self._tables.accounts).where(c.account == account, c.password == before).values(password=after))

    async def page(self, connection: AsyncConnection, size: int, after: str = "", email: str | None = None) -> list[Account]:
        """Accounts in the order of their ids, those behind `after`; `email`: only those whose address begins so."""
        columns = self._tables.accounts.c
        query = sa.select(self._tables.accounts).where(columns.account > after)
        if email is not None:
            query = query.where(columns.email.startswith(email, autoescape=True))
        rows = (await connection.execute(query.order_by(columns.account).limit(size))).all()
        return [_account(row) for row in rows]

    async def _one(self, connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> Account | None:
        row = (await connection.execute(sa.select(self._tables.accounts).where(condition))).one_or_none()
        return None if row is None else _account(row)

    # ------------------------------------------------------------ profiles

    async def profile(self, connection: AsyncConnection, account: str) -> Profile:
        """What was said, or the defaults."""
        columns = self._tables.profiles.c
        row = (await connection.execute(sa.select(self._tables.profiles).where(columns.account == account))).one_or_none()
        if row is None:
            return Profile()
        return Profile(row.birth_date, row.birth_time, row.birth_city, row.subscription_status, row.language)

    async def change_profile(self, connection: AsyncConnection, account: str, to: Mapping[str, str | None]) -> None:
        """Changes the named fields, of the defaults where nothing was said yet."""
        fresh = Profile()
        said = {name: getattr(fresh, name) for name in Profile.__dataclass_fields__} | dict(to) | {"updated": now_us()}
        statement = self._database.insert(self._tables.profiles).values(account=account, **said)
        await connection.execute(statement.on_conflict_do_update(index_elements=["account"], set_={**to, "updated": said["updated"]}))

    # ------------------------------------------------------------ links

    async def link(self, connection: AsyncConnection, link: Link) -> bool:
        """False where the account has a user in this domain already, or the user an account."""
        row = {name: getattr(link, name) for name in Link.__dataclass_fields__}
        statement = self._database.insert(self._tables.links).values(row).on_conflict_do_nothing()
        return (await connection.execute(statement)).rowcount == 1

    async def unlink(self, connection: AsyncConnection, domain: str, account: str) -> str | None:
        """The user that was unlinked."""
        links = self._tables.links
        statement = sa.delete(links).where(links.c.domain == domain, links.c.account == account).returning(links.c.user)
        return (await connection.execute(statement)).scalar_one_or_none()

    async def links(self, connection: AsyncConnection, account: str) -> list[Link]:
        links = self._tables.links
        query = sa.select(links.c.domain, links.c.account, links.c.user, links.c.linked_at).where(links.c.account == account)
        return [Link(*row) for row in (await connection.execute(query.order_by(links.c.domain))).all()]

    # ------------------------------------------------------------ what may be used once, and what is gone

    async def put_one_time(self, connection: AsyncConnection, hashed: str, purpose: str, account: str | None, expires: int) -> bool:
        """False where it is there already."""
        row = {"hash": hashed, "purpose": purpose, "account": account, "expires": expires}
        statement = self._database.insert(self._tables.one_time).values(row).on_conflict_do_nothing()
        return (await connection.execute(statement)).rowcount == 1

    async def use_one_time(self, connection: AsyncConnection, hashed: str, purpose: str) -> str | None:
        """The account it was made for, the first time and before it expires."""
        table, now = self._tables.one_time, now_us()
        statement = (
            sa.update(table)
            .where(table.c.hash == hashed, table.c.purpose == purpose, table.c.used_at.is_(None), table.c.expires > now)
            .values(used_at=now)
            .returning(table.c.account)
        )
        account: str | None = (await connection.execute(statement)).scalar_one_or_none()
        return account

    async def one_time(self, connection: AsyncConnection, hashed: str, purpose: str) -> tuple[str | None, int, int | None] | None:
        """(account, expires, used_at), where there is one."""
        table = self._tables.one_time
        query = sa.select(table.c.account, table.c.expires, table.c.used_at).where(table.c.hash == hashed, table.c.purpose == purpose)
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else (row[0], row[1], row[2])

    async def forget_one_time(self, connection: AsyncConnection, account: str, purpose: str) -> None:
        """What this account has not used yet can no longer be used."""
        table = self._tables.one_time
        await connection.execute(sa.delete(table).where(table.c.account == account, table.c.purpose == purpose, table.c.used_at.is_(None)))

    async def waiting_one_time(self, connection: AsyncConnection, account: str, purpose: str, since: int) -> bool:
        """Whether one that expires after `since` waits to be used."""
        table = self._tables.one_time
        query = sa.select(sa.literal(1)).where(table.c.account == account, table.c.purpose == purpose, table.c.used_at.is_(None))
        return (await connection.execute(query.where(table.c.expires > since).limit(1))).scalar() is not None

    async def erased(self, connection: AsyncConnection, what: str, hashes: Sequence[str], at: int) -> None:
        """Tells all replicas, by a keyed hash each, that something no longer counts."""
        if not hashes:
            return
        rows = [{"hash": hashed, "what": what, "at": at} for hashed in hashes]
        statement = self._database.insert(self._tables.erasures)
        await connection.execute(statement.on_conflict_do_update(index_elements=["hash"], set_={"at": statement.excluded.at}), rows)


def _account(row: sa.Row[tuple[object, ...]]) -> Account:
    said = row._mapping
    return Account(**{name: cast(object, said[name]) for name in Account.__dataclass_fields__})  # type: ignore[arg-type]
