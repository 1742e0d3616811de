"""Seats, labels, choices, answers and orders, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from serving.storage import choices
from serving.storage.choices import Choices, TooManyError
from serving.storage.database import Database, now_us
from serving.storage.orders import Order, Orders
from serving.storage.outbox import Envelope
from serving.storage.seats import Seats


async def test_free_seats_and_what_is_on_sale_are_said_apart(database: Database, tmp_path: Path) -> None:
    seats = Seats(database, tmp_path)
    first = await seats.put_free("d", {"b": 3, "a": 5})
    assert [(seat.item, seat.free, seat.on_sale) for seat in first] == [("a", 5, True), ("b", 3, True)]
    off = await seats.put_on_sale("d", ["b", "c", "b"], False)
    assert [(seat.item, seat.free, seat.on_sale) for seat in off] == [("b", 3, False), ("c", -1, False)]
    again = await seats.put_free("d", {"b": 0})
    assert [(seat.item, seat.free, seat.on_sale) for seat in again] == [("b", 0, False)]
    assert await seats.put_free("d", {}) == []
    known = {seat.item: (seat.free, seat.on_sale) for seat in await seats.since("d", 0)}
    assert known == {"a": (5, True), "b": (0, False), "c": (-1, False)}
    assert await seats.since("other", 0) == []
    assert [seat.item for seat in await seats.since("d", again[0].updated)] == ["b"]
    assert await seats.since("d", again[0].updated + 1) == []


async def test_a_label_that_was_taken_back_is_told_to_those_who_follow(database: Database, tmp_path: Path) -> None:
    seats = Seats(database, tmp_path)
    put = await seats.put_label("d", "artist", "Ансамбль «Ключ»", "recommended", True)
    await seats.put_label("d", "artist", "Ансамбль «Ключ»", "recommended", True)
    assert [(found.of, found.target, found.present) for found in await seats.labels_since("d", put.updated)] == [
        ("artist", "Ансамбль «Ключ»", True)
    ]
    back = await seats.put_label("d", "artist", "Ансамбль «Ключ»", "recommended", False)
    assert [found.present for found in await seats.labels_since("d", back.updated)] == [False]
    assert len(await seats.labels_since("d", 0)) == 1


async def test_choices_are_sets_and_yes_takes_back_no(database: Database) -> None:
    stored = Choices(database)
    assert await stored.add("d", "u", "no", "stop", ["1", "2", "1"]) == ["1", "2"]
    assert await stored.add("d", "u", "no", "stop", ["2"]) == []
    assert await stored.add("d", "u", "yes", "stop", ["2", "3"]) == ["2", "3"]
    await stored.add("d", "u", "favourite", "route", ["r"])
    await stored.add("d", "other", "favourite", "stop", ["9"])
    said = {(one.choice, one.of, one.target) for one in await stored.of("d", "u")}
    assert said == {("no", "stop", "1"), ("yes", "stop", "2"), ("yes", "stop", "3"), ("favourite", "route", "r")}
    assert await stored.remove("d", "u", "yes", "stop", "2")
    assert not await stored.remove("d", "u", "yes", "stop", "2")
    assert not await stored.remove("d", "u", "favourite", "stop", "9")  # somebody else's
    assert len(await stored.of("d", "u")) == 3
    assert await stored.add("d", "u", "yes", "stop", []) == []


async def test_who_would_have_too_many_choices_gets_none_of_the_new(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "MOST", 3)
    stored = Choices(database)
    await stored.add("d", "u", "no", "stop", ["1", "2"])
    with pytest.raises(TooManyError, match="at most 3 choices of a person; these would make 4"):
        await stored.add("d", "u", "yes", "stop", ["3", "4"])
    assert [one.target for one in await stored.of("d", "u")] == ["1", "2"]


async def test_the_last_answers_stand(database: Database) -> None:
    stored = Choices(database)
    assert await stored.answers("d", "u") is None
    await stored.put_answers("d", "u", '{"a":1}')
    await stored.put_answers("d", "u", '{"a":2}')
    assert await stored.answers("d", "u") == '{"a":2}'
    assert await stored.told("d", "u") == ([], '{"a":2}')
    assert await stored.answers("d", "other") is None


def order(attempt: str, *stops: str, user: str = "u") -> Order:
    return Order(secrets.token_hex(16), "d", user, attempt, stops, 2, "you@example.org", "у прохода", 0)


def announced(order: Order) -> Envelope:
    return Envelope("mail.requested", order.user, {"order": order.order}, f"order-{order.order}")


async def test_an_order_is_stored_once_and_announced_once(database: Database) -> None:
    orders = Orders(database)
    first, new = await orders.place(order("x", "1", "2"), announced)
    assert new
    again, new = await orders.place(order("x", "3"), announced)
    assert (again, new) == (first, False)
    other, new = await orders.place(order("x", "3", user="v"), announced)
    assert new
    assert await orders.of("d", "u") == [first]
    assert await orders.of("d", "v") == [other]
    async with database.reading() as connection:
        told = list((await connection.execute(sa.select(database.tables.outbox.c.event_id))).scalars())
    assert sorted(told) == sorted([f"order-{first.order}", f"order-{other.order}"])


async def test_the_same_order_in_many_tasks_at_once_is_one(database: Database) -> None:
    orders = Orders(database)
    placed = await asyncio.gather(*(orders.place(order("same", "1"), announced) for _ in range(12)))
    assert sum(new for _, new in placed) == 1
    assert len({one.order for one, _ in placed}) == 1
    async with database.reading() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(database.tables.outbox)) == 1


async def test_the_newest_order_comes_first(database: Database) -> None:
    orders = Orders(database)
    for attempt in ("a", "b", "c"):
        await orders.place(order(attempt, attempt), announced)
    found = await orders.of("d", "u")
    assert [one.stops for one in found] == [("c",), ("b",), ("a",)]
    assert all(one.created <= now_us() for one in found)


async def test_each_question_uses_an_index(database: Database, tmp_path: Path) -> None:
    asked: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        asked.append((statement, parameters))

    seats, stored, orders = Seats(database, tmp_path), Choices(database), Orders(database)
    await seats.since("d", 0)  # the tables are there
    engines = [database._engine.sync_engine, *([database._direct] if database._direct is not None else [])]
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", note)
    await seats.since("d", 5)
    await seats.labels_since("d", 5)
    await stored.of("d", "u")
    await stored.told("d", "u")
    await stored.answers("d", "u")
    await orders.of("d", "u")
    await orders.of_attempt("d", "u", "x")
    await orders.find("o")
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", note)
    queries = [(text, parameters) for text, parameters in asked if text.startswith("SELECT")]
    assert len(queries) == 8
    for text, parameters in queries:
        async with database.reading() as connection:
            if database.lite:
                plan = [str(row[-1]) for row in (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", parameters)).all()]
                assert not any(line.startswith("SCAN") for line in plan), plan
            else:
                await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # the tables are as good as empty
                plan = [str(row[0]) for row in (await connection.exec_driver_sql(f"EXPLAIN {text}", parameters)).all()]
                assert not any("Seq Scan" in line for line in plan), plan
