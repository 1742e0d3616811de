"""Orders: stored, sent to whom the YAML names, and never twice; by mail to a real SMTP server, and by HTTP to a real one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

import configs
from configs.deployment import Deployment
from serving.events.consumers import NotDoneError, RefusedError
from serving.itinerary.current import Current
from serving.itinerary.ordering import PLACED, Ordering, announced, letter
from serving.service import Service
from serving.storage.database import Database
from serving.storage.orders import Order
from serving.storage.outbox import Envelope
from tests.serving.callers import Person, machine, person
from tests.serving.conftest import started, unhurried
from tests.serving.itinerary_world import Season, season_file
from tests.serving.test_mail import Inboxes, inboxes

__all__ = ["inboxes"]  # a fixture
URL = "/v1/season/orders"


async def order(client: httpx.AsyncClient, who: Person, attempt: str | None = None, **body: Any) -> httpx.Response:
    headers = {**who.headers, **({"Idempotency-Key": attempt} if attempt else {})}
    return await client.post(URL, json=body, headers=headers)


async def state(client: httpx.AsyncClient, who: Person, wanted: str, seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while (await client.get(URL, headers=who.headers)).json()["orders"][0]["state"] != wanted:  # noqa: ASYNC110 (a relay acts)
            await asyncio.sleep(0.05)


async def test_an_order_is_mailed_to_the_desk_once(
    tmp_path: Path, season: Season, season_yaml: Path, quick: Deployment, running: AsyncExitStack, inboxes: tuple[Inboxes, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    box, url = inboxes
    monkeypatch.setenv("FACTOTUM_SMTP_URL", url)
    season.publish(tmp_path / "home")
    service, client = await started(unhurried(tmp_path / "home", season_yaml, quick), running)
    other, second = await started(unhurried(tmp_path / "home", season_yaml, quick), running)  # two replicas, one relay each
    me = await person(service)
    body: dict[str, Any] = {"concerts": ["d1h0", "d1h1"], "party": 2, "note": "у прохода"}
    placed = await asyncio.gather(*(order(one, me, **body) for one in (client, second) * 3))
    assert sorted(answer.status_code for answer in placed) == [200] * 5 + [201]
    assert len({answer.json()["order_id"] for answer in placed}) == 1
    await state(client, me, "sent")
    await asyncio.sleep(0.5)
    assert len(box.got) == 1
    mail = message_from_bytes(box.got[0], policy=policy.default)
    assert mail["To"] == "desk@example.org"
    text = mail.get_content()
    assert f"Answer to: {(await service.accounts.find(me.account)).email}" in text
    assert "d1h1: 2030-07-01 13:00-13:45, Small: Концерт d1h1 (400 RUB)" in text
    assert "Together for one: 700 RUB, for 2: 1 400 RUB" in text
    assert "у прохода" in text
    assert mail["Message-ID"].startswith(f"<order-{placed[0].json()['order_id']}@")
    await other.stop()
    async with service.database.reading() as connection:
        outbox = service.database.tables.outbox.c
        assert list((await connection.execute(sa.select(outbox.payload).where(outbox.type == PLACED))).scalars()) == ["{}"]


def test_the_desk_is_written_to_in_the_language_of_the_person(season: Season) -> None:
    words = season.domain.itinerary
    assert words is not None
    placed = Order("a" * 32, "season", "u", "x", ("d1h0", "d1h1", "old"), 5, "me@example.org", "", 0)
    current = Current.of("b", season.timetable, [], [])
    mail = letter(placed, words, current, "desk@example.org", "ru")
    assert mail["Subject"] == f"Заказ {'a' * 32}: 3 концерта, человек: 5"
    assert mail.get_content().splitlines() == [
        f"Заказ {'a' * 32}",
        "Человек: 5",
        "Ответить: me@example.org",
        "",
        "d1h0: 2030-07-01 12:00-12:45, Big: Концерт d1h0 (300 RUB)",
        "d1h1: 2030-07-01 13:00-13:45, Small: Концерт d1h1 (400 RUB)",
        "old: в расписании больше нет",
        "",
        "Всего на одного: 700 RUB, на 5: 3 500 RUB",
    ]
    assert letter(placed, words, current, "desk@example.org", "en")["Subject"] == f"Order {'a' * 32}: 3 concerts for 5"


async def test_the_language_of_a_mail_is_what_is_said_else_the_profiles(seated: tuple[Service, httpx.AsyncClient]) -> None:
    service, client = seated
    me = await person(service)

    async def announced_in(**body: Any) -> str:
        """The language of what waits to be sent."""
        name = (await order(client, me, **body)).json()["order_id"]
        outbox = service.database.tables.outbox.c
        async with service.database.reading() as connection:
            payload = (await connection.execute(sa.select(outbox.payload).where(outbox.event_id == f"order-{name}"))).scalar_one()
        return str(json.loads(payload)["language"])

    await service.relay.stop(0.0)  # what waits is to be looked at
    assert await announced_in(concerts=["d1h0"]) == "en"
    assert await announced_in(concerts=["d1h1"], language="ru") == "ru"
    assert (await client.patch("/v1/me", json={"language": "ru"}, headers=me.headers)).status_code == 200
    assert await announced_in(concerts=["d1h2"]) == "ru"
    assert await announced_in(concerts=["d1h4"], language="en") == "en"
    unknown = await order(client, me, concerts=["d1h0"], language="de")
    assert (unknown.status_code, unknown.json()["errors"][0]["where"]) == (422, "language")


async def test_the_same_key_means_the_same_order_and_another_list_with_it_is_refused(seated: tuple[Service, httpx.AsyncClient]) -> None:
    service, client = seated
    me, other = await person(service), await person(service)
    first = await order(client, me, "attempt-1", concerts=["d1h0"])
    again = await order(client, me, "attempt-1", concerts=["d1h0"])
    changed = await order(client, me, "attempt-1", concerts=["d1h1"])
    assert [answer.status_code for answer in (first, again, changed)] == [201, 200, 409]
    assert first.json()["order_id"] == again.json()["order_id"]
    assert (await order(client, other, "attempt-1", concerts=["d1h0"])).json()["order_id"] != first.json()["order_id"]
    assert (await order(client, me, "attempt-2", concerts=["d1h0"])).status_code == 201
    assert len((await client.get(URL, headers=me.headers)).json()["orders"]) == 2
    assert len((await client.get(URL, headers=other.headers)).json()["orders"]) == 1


async def test_what_cannot_be_had_is_not_ordered(seated: tuple[Service, httpx.AsyncClient]) -> None:
    service, client = seated
    me = await person(service)
    service.itineraries.seated("season", await service.itineraries.stored.put_free("season", {"d1h0": 2}))
    placed = await order(client, me, "party-of-2", concerts=["d1h0"], party=2)
    assert placed.status_code == 201
    gone = await order(client, me, concerts=["d1h1", "d1h0"], party=3)
    assert (gone.status_code, gone.json()["errors"][0]) == (
        409, {"where": "concerts[1]", "what": "has not so many free seats", "got": "d1h0"}
    )  # fmt: skip
    service.itineraries.seated("season", await service.itineraries.stored.put_on_sale("season", ["d1h0"], False))
    assert (await order(client, me, concerts=["d1h0"])).json()["errors"][0]["what"] == "is not on sale"
    assert (await order(client, me, "party-of-2", concerts=["d1h0"], party=2)).status_code == 200  # what stands, stands
    unknown = await order(client, me, concerts=["d1h9"])
    assert unknown.status_code == 422
    assert (await order(client, me, concerts=[])).status_code == 422
    assert (await order(client, me, concerts=["d1h1"], contact="nobody")).status_code == 422
    assert (await client.post(URL, json={"concerts": ["d1h1"]})).status_code == 401
    assert (await client.post(URL, json={"concerts": ["d1h1"]}, headers=await machine(service, "recommend"))).status_code == 403


async def test_the_order_of_somebody_who_was_erased_is_gone_and_never_sent(seated: tuple[Service, httpx.AsyncClient]) -> None:
    service, client = seated
    me = await person(service)
    placed = (await order(client, me, concerts=["d1h0"])).json()
    stored = await service.ordering.orders.find(placed["order_id"])
    assert stored is not None
    exported = b"".join([piece async for piece in service.accounts.export(me.account)]).decode()
    assert placed["order_id"] in exported
    await service.accounts.erase(me.account)
    assert await service.ordering.orders.find(placed["order_id"]) is None
    with pytest.raises(RefusedError, match="everything erased"):
        await service.ordering.send(announced(stored))


# ------------------------------------------------------------ to an address of the net


@dataclass
class Desk:
    """A server that takes orders. `status`: what it answers."""

    status: int = 201
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@pytest.fixture
def desk() -> Iterator[tuple[Desk, str]]:
    made = Desk()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.got.append((self.headers["Idempotency-Key"], json.loads(body)))
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made, f"http://127.0.0.1:{server.server_port}/orders"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_an_order_is_posted_under_its_own_key(tmp_path: Path, season: Season, desk: tuple[Desk, str]) -> None:
    made, url = desk
    ordering, envelope = await _placed(tmp_path, season, url)
    await ordering.send(envelope)
    ((key, body),) = made.got
    assert envelope.event_id == f"order-{key}"
    assert (body["stops"], body["party"], body["contact"]) == (["d1h0"], 2, "me@example.org")


@pytest.mark.parametrize(("status", "kind"), [(503, NotDoneError), (429, NotDoneError), (422, RefusedError), (500, OSError)])
async def test_the_desks_word_is_believed(
    tmp_path: Path, season: Season, desk: tuple[Desk, str], status: int, kind: type[Exception]
) -> None:
    made, url = desk
    made.status = status
    ordering, envelope = await _placed(tmp_path, season, url)
    with pytest.raises(kind, match=str(status)):
        await ordering.send(envelope)


async def test_a_desk_that_is_away_has_nothing(tmp_path: Path, season: Season) -> None:
    ordering, envelope = await _placed(tmp_path, season, "http://127.0.0.1:9/orders")
    with pytest.raises(NotDoneError, match="does not answer"):
        await ordering.send(envelope)


async def test_where_nobody_is_named_an_order_is_only_stored(tmp_path: Path, season: Season) -> None:
    ordering, envelope = await _placed(tmp_path, season, None)
    stored = await ordering.orders.find(str(envelope.payload["order"]))
    assert stored is not None
    states = await ordering.orders.states([stored], lambda one: announced(one).event_id, "orders")
    assert states == {stored.order: "stored"}
    with pytest.raises(RefusedError, match="nobody is named"):
        await ordering.send(envelope)


async def _placed(folder: Path, season: Season, orders_to: str | None) -> tuple[Ordering, Envelope]:
    domain = configs.load(str(season_file(folder, orders_to=orders_to)))
    database = Database(f"sqlite+aiosqlite:///{folder / 'x.db'}")

    async def mail(*_: object) -> None:
        raise AssertionError("nothing is mailed here")

    ordering = Ordering(database, {"season": domain}, lambda _: Current.of("b", season.timetable, [], []), mail)
    placed, new = await ordering.place(Order("a" * 32, "season", "u", "x", ("d1h0",), 2, "me@example.org", "", 0))
    assert new
    return ordering, announced(placed)
