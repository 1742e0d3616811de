"""All that is held of one person: as one document for them, and gone when they ask for that."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.access.secrets import Secrets
from serving.logs import person as audit_name
from serving.ownership import Ownership
from serving.storage.accounts import AccountRows
from serving.storage.database import Database, now_us
from serving.storage.outbox import Envelope, put
from serving.storage.persons import Person, PersonRows
from serving.storage.sessions import SessionRows

ERASED = "account.erased"


class Persons:
    """Both calls raise DatabaseAwayError."""

    def __init__(self, database: Database, secrets: Secrets, ownership: Ownership) -> None:
        self._database, self._secrets, self._ownership = database, secrets, ownership
        self._rows, self._accounts, self._sessions = PersonRows(database), AccountRows(database), SessionRows(database)

    async def export(self, account: str) -> AsyncIterator[bytes]:
        """One JSON document in pieces: {account, exported_at, moments, tables: {name: [row, ...]}}. Passwords and the hashes of tokens are
        not in it. Each piece is read when it is asked for."""
        person = await self._person(account)
        said = orjson.dumps({"account": account, "exported_at": now_us(), "moments": "microseconds since 1970-01-01T00:00:00Z"})
        yield said[:-1] + b',"tables":{'
        open_table, first = "", True
        async for table, rows in self._rows.pages(person):
            if table != open_table:
                yield (b"]," if open_table else b"") + orjson.dumps(table) + b":["
                open_table, first = table, True
            if rows:
                yield (b"" if first else b",") + orjson.dumps(rows)[1:-1]
                first = False
        yield b"]}}" if open_table else b"}}"

    async def erase(self, account: str) -> bool:
        """Deletes everything of a person, or makes it anonymous, in one transaction; sessions end and every replica forgets them
        within a poll. False where there is no such account (any more)."""
        now = now_us()
        async with self._database.writing() as connection:
            # takes the account's row first: whoever logs in meanwhile waits, and finds no account
            if not await self._accounts.change(connection, account, {"status": "disabled"}):
                return False
            person = await self._person_of(connection, account)
            await self._rows.erase(connection, person)
            hashes = {
                "account": [self._secrets.stands_for("account", account)],
                "session": [self._secrets.stands_for("session", session) for session in person.sessions],
                "user": [self._secrets.stands_for("user", domain, user) for domain, user in person.users],
            }
            for what, hashed in hashes.items():
                await self._accounts.erased(connection, what, hashed, now)
            name = hashes["account"][0]
            await put(self._database, connection, [Envelope(ERASED, name, {"person": name})])
        self._ownership.erased.note([hashed for several in hashes.values() for hashed in several], now)
        return True

    async def _person(self, account: str) -> Person:
        async with self._database.reading() as connection:
            return await self._person_of(connection, account)

    async def _person_of(self, connection: AsyncConnection, account: str) -> Person:
        found = await self._accounts.of_id(connection, account)
        links = await self._accounts.links(connection, account)
        users = tuple((link.domain, link.user) for link in links)
        return Person(
            account=account,
            email=found.email if found is not None else None,
            sessions=tuple(await self._sessions.all(connection, account)),
            users=users,
            hashes=tuple({audit_name(name) for name in (account, *(user for _, user in users))}),
        )
