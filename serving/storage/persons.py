"""All that the database holds of one person: read in pages, and deleted or made anonymous in one transaction.

`HELD` says of every table how a person's rows are found in it. A table that is not named there stops both: whoever adds one must
say whose rows it has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.database import Database

PAGE = 1_000  # rows read at once


@dataclass(frozen=True, slots=True)
class Held:
    """`by`: which column tells whose a row is; `told`: JSON that may name people; `nobody`: no person at all. `hidden`: columns that
    are secret even to the person; `shown`: whether the rows are in an export."""

    by: Literal["account", "session", "user", "person", "told", "nobody"]
    hidden: tuple[str, ...] = ()
    shown: bool = True


HELD: dict[str, Held] = {
    "users_accounts": Held("account", hidden=("password",)),
    "users_profiles": Held("account"),
    "users_sessions": Held("account"),
    "users_refreshes": Held("session", shown=False),
    "users_links": Held("account"),
    "users_api_keys": Held("nobody"),
    "users_one_time": Held("account", hidden=("hash",)),
    "users_erasures": Held("nobody"),
    "users_notifications": Held("account"),
    "profiling_astro_data": Held("account"),
    "profiling_biorhythms": Held("account"),
    "profiling_psychology_data": Held("account"),
    "profiling_ml_profiles": Held("account"),
    "recommendations_events": Held("user"),
    "recommendations_slates": Held("user"),
    "recommendations_items": Held("nobody"),
    "recommendations_daily_recommendations": Held("account"),
    "recommendations_feedback": Held("account"),
    "recommendations_availability": Held("nobody"),
    "recommendations_labels": Held("nobody"),
    "recommendations_choices": Held("user"),
    "recommendations_questionnaires": Held("user"),
    "recommendations_orders": Held("user"),
    "system_audit_log": Held("person"),
    "system_metrics": Held("nobody"),
    "system_outbox": Held("told", shown=False),
    "system_inbox": Held("nobody"),
    "system_dead_letters": Held("told", shown=False),
    "system_leases": Held("nobody"),
}

#: Words of a payload that name people.
_NAMING = frozenset({"account", "user", "user_id", "users", "to", "email", "person", "session"})


@dataclass(frozen=True)
class Person:
    """How the tables call one person. `users`: (domain, user); `hashes`: what stands for them in the audit."""

    account: str
    email: str | None = field(default=None, repr=False)
    sessions: tuple[str, ...] = ()
    users: tuple[tuple[str, str], ...] = ()
    hashes: tuple[str, ...] = ()


def called(table: sa.Table) -> str:
    """A table's name on both databases: users_accounts."""
    return f"{table.schema}_{table.name}" if table.schema else str(table.name)


class PersonRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def pages(self, person: Person) -> AsyncIterator[tuple[str, list[dict[str, object]]]]:
        """(table, rows) page by page, each read in a transaction of its own; a table without rows gives one empty page.
        Raises DatabaseAwayError, KeyError for a table that HELD does not name."""
        for table in self._database.tables.metadata.sorted_tables:
            held = HELD[called(table)]
            condition = _condition(table, held, person)
            if condition is None or not held.shown:
                continue
            key = list(table.primary_key.columns)
            hidden = {*held.hidden, "person", "about"} if held.by == "person" else set(held.hidden)
            place: list[object] | None = None
            while True:
                query = sa.select(table).where(condition).order_by(*key).limit(PAGE)
                if place is not None:
                    after = [sa.literal(value, column.type) for value, column in zip(place, key, strict=True)]
                    query = query.where(sa.tuple_(*key) > sa.tuple_(*after))
                async with self._database.reading() as connection:
                    rows = [dict(row._mapping) for row in (await connection.execute(query)).all()]
                yield called(table), [{str(name): _plain(value) for name, value in row.items() if name not in hidden} for row in rows]
                if len(rows) < PAGE:
                    break
                place = [rows[-1][column.name] for column in key]

    async def erase(self, connection: AsyncConnection, person: Person) -> dict[str, int]:
        """Within a transaction of `database.writing()`: deletes what is of the person, takes their name out of the audit, and out of
        what waits to be told. Returns the rows concerned by table. Raises KeyError for a table that HELD does not name."""
        touched: dict[str, int] = {}
        for table in self._database.tables.metadata.sorted_tables:
            held = HELD[called(table)]
            if held.by == "told":
                touched[called(table)] = await self._silence(connection, table, person)
                continue
            condition = _condition(table, held, person)
            if condition is None:
                continue
            if held.by == "person":
                touched[called(table)] = 0
                for column in (table.c.person, table.c.about):
                    named = sa.update(table).where(column.in_(person.hashes)).values({column.name: None})
                    touched[called(table)] += (await connection.execute(named)).rowcount
                continue
            touched[called(table)] = (await connection.execute(sa.delete(table).where(condition))).rowcount
        return touched

    async def _silence(self, connection: AsyncConnection, table: sa.Table, person: Person) -> int:
        """Rows that name the person go; where a row tells of several people, only what is theirs goes."""
        column = table.c.payload if "payload" in table.c else table.c.envelope
        words = [person.account, *person.sessions, *(user for _, user in person.users), *([person.email] if person.email else [])]
        likely = [column.contains(orjson.dumps(word).decode()[1:-1], autoescape=True) for word in words]
        likely += [table.c.key.in_(words)] if "key" in table.c else []
        keys = list(table.primary_key.columns)
        touched = 0
        about = [table.c.key] if "key" in table.c else []
        for row in (await connection.execute(sa.select(*keys, column, *about).where(sa.or_(*likely)))).all():
            this = sa.and_(*(key == value for key, value in zip(keys, row, strict=False)))
            payload = orjson.loads(row[len(keys)])
            whole = {"payload": payload, "key": row[-1] if about else None}
            if isinstance(payload, dict) and isinstance(payload.get("domain"), str):
                whole["domain"] = payload["domain"]
            left = without(whole, person)
            if left == whole:
                continue
            touched += 1
            if not isinstance(left, dict):
                await connection.execute(sa.delete(table).where(this))
            else:
                await connection.execute(sa.update(table).where(this).values({column.name: orjson.dumps(left["payload"]).decode()}))
        return touched


def without(document: object, person: Person, domain: str | None = None) -> object:
    """JSON without what names this person; None where nothing is left. A user's id counts only in a domain of theirs (or where no domain
    is named): the same id may be somebody else in another one."""
    if isinstance(document, list):
        kept = [left for part in document if (left := without(part, person, domain)) is not None or part is None]
        return kept if kept or not document else None
    if not isinstance(document, dict):
        return document
    domain = document["domain"] if isinstance(document.get("domain"), str) else domain
    names = {person.account, *person.sessions} | ({person.email} if person.email else set())
    names |= {user for linked, user in person.users if domain is None or linked == domain}
    out: dict[str, object] = {}
    for word, value in document.items():
        if word in _NAMING or word == "key":
            if isinstance(value, str) and value in names:
                return None
            if isinstance(value, list):
                out[word] = [part for part in value if not (isinstance(part, str) and part in names)]
                continue
        left = without(value, person, domain)
        if left is None and value is not None:
            return None  # what it told of is gone
        out[word] = left
    return out


def _condition(table: sa.Table, held: Held, person: Person) -> sa.ColumnElement[bool] | None:
    """Which rows are the person's; None where none can be."""
    match held.by:
        case "account":
            return table.c.account == person.account
        case "session":
            return table.c.session.in_(person.sessions) if person.sessions else None
        case "user":
            theirs = [sa.and_(table.c.domain == domain, table.c.user == user) for domain, user in person.users]
            return sa.or_(*theirs) if theirs else None
        case "person":
            return sa.or_(table.c.person.in_(person.hashes), table.c.about.in_(person.hashes)) if person.hashes else None
        case "told" | "nobody":
            return None


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value
