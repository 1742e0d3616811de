"""What a person takes with them, and what is left when they have everything erased: every table is looked at, on both databases."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from configs.deployment import Deployment
from serving.access.secrets import Secrets
from serving.logs import person, use_key
from serving.service import Service
from serving.storage.database import Database, now_us
from serving.storage.outbox import Envelope, put
from serving.storage.persons import HELD, Person, called, without
from serving.storage.tables import StoredEvent, StoredSlate, Tables
from tests.serving.conftest import started
from tests.serving.test_accounts import PASSWORD, Replica

USER = "the-user-of-ann"
_FILLED = {"subscription_status": "free", "language": "en", "role": "user", "status": "active"}


@pytest.fixture
async def replica(database: Database, tmp_path: Path) -> AsyncIterator[Replica]:
    database._wait_s = 10.0  # a busy machine is not a database that is away
    keys = Secrets(tmp_path)
    use_key(keys.person)
    made = Replica(database, keys)
    yield made
    await made.accounts.close()


def _value(column: sa.Column[object], ids: dict[str, str], n: int) -> object:
    """Something to put into a column: the person's own id where it takes one."""
    if column.name in ids:
        return ids[column.name]
    match column.type:
        case sa.String() | sa.Text():
            return _FILLED.get(column.name, f"x{n}"[: column.type.length or 40])
        case sa.BigInteger() | sa.Integer():
            return n
        case sa.Float():
            return 0.5
        case sa.Date():
            return datetime.date(2026, 1, 1) + datetime.timedelta(days=n)
        case sa.Boolean():
            return True
        case sa.LargeBinary():
            return b"\x00\x01"
        case other:
            raise AssertionError(f"no value for a column of type {other}")


async def _fill(database: Database, account: str, session: str, user: str) -> list[str]:
    """A row of this person in every table that has people; returns the tables."""
    filled: list[str] = []
    async with database.writing() as connection:
        for n, table in enumerate(database.tables.metadata.sorted_tables, start=1_000):
            held = HELD[called(table)]  # a table that is not named there fails here: say whose rows it has
            ids = {"account": account, "session": session, "user": user, "domain": "anime"}
            ids |= {"person": person(account), "about": person(account)}
            if held.by in ("told", "nobody") or called(table) in ("users_accounts", "users_sessions", "users_links"):
                continue
            await connection.execute(sa.insert(table).values({c.name: _value(c, ids, n) for c in table.columns}))
            filled.append(called(table))
        payload: dict[str, object] = {"domain": "anime", "user": user, "events": []}
        several: dict[str, object] = {"domain": "anime", "events": [{"user": user, "n": 1}, {"user": "another", "n": 2}]}
        elsewhere: dict[str, object] = {"domain": "shop", "user": user}
        await put(database, connection, [Envelope("t", account, {"account": account}), Envelope("t", user, payload)])
        await put(database, connection, [Envelope("t", "anime", several, "several"), Envelope("t", "shop", elsewhere, "elsewhere")])
        dead = database.tables.dead_letters
        for consumer, told in (("mail", {"key": account, "payload": {"account": account}}), ("bus", {"key": "x", "payload": payload})):
            row = {"consumer": consumer, "event_id": "e", "envelope": orjson.dumps(told).decode(), "error": "", "attempts": 1, "at": 1}
            await connection.execute(sa.insert(dead).values(row))
    return filled


async def _everything(database: Database) -> dict[str, str]:
    """Each table as text."""
    found: dict[str, str] = {}
    async with database.reading() as connection:
        for table in database.tables.metadata.sorted_tables:
            found[called(table)] = repr([tuple(row) for row in (await connection.execute(sa.select(table))).all()])
    return found


def test_of_every_table_it_is_said_whose_rows_it_has() -> None:
    assert {called(table) for table in Tables(prefixed=True).metadata.sorted_tables} == set(HELD)
    assert {called(table) for table in Tables(prefixed=False).metadata.sorted_tables} == set(HELD)


async def test_an_export_has_everything_and_an_erasure_leaves_nothing(replica: Replica, database: Database) -> None:
    accounts = replica.accounts
    entry = await accounts.register("ann@example.org", PASSWORD, "a phone")
    bob = await accounts.register("bob@example.org", PASSWORD, "a desk")
    await accounts.link("anime", entry.account, USER)
    await accounts.link("anime", bob.account, "another")
    filled = await _fill(database, entry.account, entry.session, USER)
    bobs = await _export(replica, bob.account)

    document = await _export(replica, entry.account)
    tables = document["tables"]
    hidden = {"users_refreshes"}
    assert document["account"] == entry.account
    assert {name for name in filled if len(tables.get(name, ())) != 1} == hidden
    assert tables["users_accounts"][0]["email"] == "ann@example.org"
    assert [row["device"] for row in tables["users_sessions"]] == ["a phone"]
    assert [row["user"] for row in tables["users_links"]] == [USER]
    assert tables["system_audit_log"][0]["endpoint"].startswith("x")
    async with database.reading() as connection:
        kept = list((await connection.execute(sa.select(database.tables.accounts.c.password))).scalars())
        kept += (await connection.execute(sa.select(database.tables.refreshes.c.hash))).scalars()
    text = orjson.dumps(document).decode()
    assert not any(secret in text for secret in kept)
    assert bob.account not in text

    assert await accounts.erase(entry.account)
    assert not await accounts.erase(entry.account)
    after = await _everything(database)
    for word in (entry.account, entry.session, "ann@example.org", person(entry.account)):
        assert [name for name, rows in after.items() if word in rows] == []
    # the same user id of another domain is somebody else, whom nobody asked to erase
    assert [name for name, rows in after.items() if USER in rows] == ["system_outbox"]
    outbox = after["system_outbox"]
    assert outbox.count(USER) == 1
    assert "elsewhere" in outbox
    assert "'several'" in outbox
    assert '"another"' in outbox
    assert "account.erased" in outbox
    assert await _export(replica, bob.account) | {"exported_at": 0} == bobs | {"exported_at": 0}
    assert replica.ownership.disabled(entry.account)
    assert replica.ownership.revoked(entry.session)
    assert replica.ownership.owner("anime", USER) is None
    again = await accounts.register("ann@example.org", PASSWORD, "")
    assert again.account != entry.account


async def _export(replica: Replica, account: str) -> dict[str, Any]:
    pieces = [piece async for piece in replica.accounts.export(account)]
    document: dict[str, Any] = orjson.loads(b"".join(pieces))
    return document


async def test_many_rows_are_exported_in_pages(replica: Replica, database: Database) -> None:
    entry = await replica.accounts.register("ann@example.org", PASSWORD, "")
    await replica.accounts.link("anime", entry.account, USER)
    rows = [
        {"domain": "anime", "event_id": f"{n:05}", "user": USER, "item": "1", "kind": "view", "time": n, "recorded_at": n}
        for n in range(1_050)
    ]
    for start in range(0, len(rows), 150):
        async with database.writing() as connection:
            await connection.execute(sa.insert(database.tables.events).values(rows[start : start + 150]))
    exported = (await _export(replica, entry.account))["tables"]["recommendations_events"]
    assert sorted(row["event_id"] for row in exported) == [row["event_id"] for row in rows]


def test_what_names_a_person_goes_and_the_rest_stays() -> None:
    ann = Person("a" * 32, "ann@example.org", ("s" * 32,), (("anime", "1"),))
    assert without({"account": "a" * 32}, ann) is None
    assert without({"payload": {"to": "ann@example.org"}}, ann) is None
    assert without({"domain": "anime", "user": "1"}, ann) is None
    assert without({"domain": "shop", "user": "1"}, ann) == {"domain": "shop", "user": "1"}
    assert without({"domain": "anime", "item": "1", "n": None}, ann) == {"domain": "anime", "item": "1", "n": None}
    assert without({"domain": "anime", "users": ["1", "2"]}, ann) == {"domain": "anime", "users": ["2"]}
    assert without({"domain": "anime", "events": [{"user": "1"}, {"user": "2"}]}, ann) == {"domain": "anime", "events": [{"user": "2"}]}
    assert without({"domain": "anime", "events": [{"user": "1"}]}, ann) is None


# ------------------------------------------------------------ in the memory of replicas


async def test_every_replica_forgets_the_person(home: Path, yaml_file: Path, quick: Deployment, running: AsyncExitStack) -> None:
    here, _ = await started(Service(home, [str(yaml_file)], quick), running)
    there, _ = await started(Service(home, [str(yaml_file)], quick), running)
    (domain,) = here.domains
    standing = here.standing(domain)
    known = standing.engine.users.id(0)  # of the bundle itself
    item = standing.engine.catalogue.ids.id(0)
    kind = standing.engine.kinds.names[0]
    entry = await here.accounts.register("ann@example.org", PASSWORD, "")
    await here.accounts.link(domain, entry.account, known)
    await here.record(
        domain, [StoredEvent("e1", known, item, kind, None, now_us()), StoredEvent("e2", known, "no such item", kind, None, 1)]
    )
    for service in (here, there):
        await _until(lambda service=service: "e1" in service.standing(domain)._folded)
        assert known in service.standing(domain).people
    stale = StoredSlate("s1", domain, known, "v", "default", "m", (), "[]", "{}", "[]", now_us())

    await here.accounts.erase(entry.account)
    for service in (here, there):
        await _until(lambda service=service: known not in service.standing(domain).people)
        assert service.standing(domain).people.state(known) is None
        assert [event for event in service.standing(domain)._waiting if event.user == known] == []
    there.slates.put(stale)  # it waited in a spool when the person was erased
    there.slates.put(StoredSlate("s2", domain, "somebody", "v", "default", "m", (), "[]", "{}", "[]", now_us()))
    await _until(lambda: len(there.slates) == 0)
    assert await there.find_slate(domain, "s2") is not None
    assert await there.find_slate(domain, "s1") is None

    # the same id, used anew, is somebody of whom only the news is known
    await here.record(domain, [StoredEvent("e3", known, item, kind, None, now_us())])
    for service in (here, there):
        await _until(lambda service=service: known in service.standing(domain).people)
        state = service.standing(domain).people.state(known)
        assert state is not None
        assert len(state) == 1
    third, _ = await started(Service(home, [str(yaml_file)], quick), running)
    await _until(lambda: known in third.standing(domain).people)
    state = third.standing(domain).people.state(known)
    assert state is not None
    assert len(state) == 1


async def _until(true: object, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.02)
