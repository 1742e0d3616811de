"""What people are told: from the event to the page and the stream, over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from configs.deployment import Deployment
from serving.notifications import STREAMS_OF_A_PERSON, NotificationStreams, TooManyStreamsError, sentence
from serving.service import Service
from serving.storage.database import Database, now_us
from serving.storage.notifications import Notification, Notifications
from serving.storage.outbox import Envelope, put
from tests.serving.callers import machine, person
from tests.serving.conftest import started


async def _until(look: Any, seconds: float = 30.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await look()):  # noqa: ASYNC110 (a relay acts)
            await asyncio.sleep(0.03)
        return found


async def _tell(service: Service, *envelopes: Envelope) -> None:
    async with service.database.writing() as connection:
        await put(service.database, connection, envelopes)
    service.relay.wake()


async def _pages(client: httpx.AsyncClient, headers: dict[str, str], least: int, **query: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        answer = await client.get("/v1/notifications", headers=headers, params={"limit": "100", **query})
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said if len(said["notifications"]) >= least else None

    found: dict[str, Any] = await _until(look)
    return found


async def test_from_an_event_to_the_page_and_the_marks(service: Service, client: httpx.AsyncClient) -> None:
    anna, boris = await person(service), await person(service)
    for what in ("account.password_changed", "session.reuse_detected"):
        await _tell(service, Envelope(what, anna.account, {"account": anna.account, "session": "s" * 32}))
    shown = await _pages(client, anna.headers, 3)  # the first says that the account was made
    assert [one["kind"] for one in shown["notifications"][:2]] == ["session.reuse_detected", "account.password_changed"]
    assert shown["notifications"][1]["text"].startswith("Your password was changed")
    assert "s" * 32 not in orjson.dumps(shown).decode()
    russian = await _pages(client, anna.headers, 2, language="ru")
    assert russian["notifications"][1]["text"].startswith("Пароль изменён")

    before = shown["unread"]
    first = shown["notifications"][0]["notification_id"]
    for _ in range(2):  # a repeated call changes nothing
        answer = await client.post(f"/v1/notifications/{first}/read", headers=anna.headers)
        assert (answer.status_code, answer.json()["unread"]) == (200, before - 1)
    assert first not in [one["notification_id"] for one in (await _pages(client, anna.headers, 1, unread="true"))["notifications"]]
    assert (await client.post(f"/v1/notifications/{first}/read", headers=boris.headers)).status_code == 404
    last = shown["notifications"][-1]["notification_id"]
    assert (await client.post("/v1/notifications/read", headers=anna.headers, json={"until": last})).json()["unread"] == before - 2
    assert (await client.post("/v1/notifications/read", headers=anna.headers, json={})).json()["unread"] == 0
    assert (await client.post("/v1/notifications/read", headers=boris.headers, json={"until": last})).status_code == 404
    kinds = [one["kind"] for one in (await client.get("/v1/notifications", headers=boris.headers)).json()["notifications"]]
    assert not {"account.password_changed", "session.reuse_detected"} & set(kinds)


async def test_pages_by_cursor_show_everything_once(service: Service, client: httpx.AsyncClient) -> None:
    anna = await person(service)
    await _tell(service, *(Envelope("account.password_changed", anna.account, {"account": anna.account}) for _ in range(7)))
    everything = [one["notification_id"] for one in (await _pages(client, anna.headers, 8))["notifications"]]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/notifications", headers=anna.headers, params=params)).json()
        seen += [one["notification_id"] for one in page["notifications"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == everything


async def test_nobody_without_an_account_is_told_anything(service: Service, client: httpx.AsyncClient) -> None:
    key = await machine(service, "users:read")
    calls = [("GET", "/v1/notifications"), ("GET", "/v1/notifications/stream"), ("POST", "/v1/notifications/read")]
    for method, path in [*calls, ("POST", f"/v1/notifications/{'a' * 32}/read")]:
        assert (await client.request(method, path, json={} if method == "POST" else None)).status_code == 401
        assert (await client.request(method, path, headers=key, json={} if method == "POST" else None)).status_code == 403


@pytest.mark.parametrize("cursor", ["x", "1-2", "99999999999999999999-" + "a" * 32, "-1-" + "a" * 32])
async def test_what_is_no_place_is_refused(service: Service, client: httpx.AsyncClient, cursor: str) -> None:
    anna = await person(service)
    assert (await client.get("/v1/notifications", headers=anna.headers, params={"cursor": cursor})).status_code == 422
    answer = await client.get("/v1/notifications/stream", headers={**anna.headers, "Last-Event-ID": cursor})
    assert answer.status_code == 422


async def test_a_promoted_bundle_is_told_to_those_who_watch_over_models(service: Service, client: httpx.AsyncClient) -> None:
    people = {role: await person(service, role) for role in ("user", "analyst", "admin")}
    await _tell(service, Envelope("bundle.promoted", "anime", {"domain": "anime", "version": "v2", "before": "v1"}))
    for role in ("analyst", "admin"):
        headers = people[role].headers

        async def told(headers: dict[str, str] = headers) -> bool:
            shown = (await client.get("/v1/notifications", headers=headers)).json()["notifications"]
            return "In anime the model v2 answers now; before it was v1." in [one["text"] for one in shown]

        await _until(told)
    plain = (await client.get("/v1/notifications", headers=people["user"].headers)).json()
    assert "bundle.promoted" not in [one["kind"] for one in plain["notifications"]]


async def test_recorded_events_are_announced_once_and_touch_the_account(service: Service, client: httpx.AsyncClient) -> None:
    anna = await person(service)
    event = {"event_id": "n1", "user_id": "me", "item_id": "1001", "kind": "like"}
    accounts, outbox = service.database.tables.accounts, service.database.tables.outbox
    async with service.database.writing() as connection:
        await connection.execute(accounts.update().values(last_activity=0))
    for _ in range(2):
        assert (await client.post("/v1/anime/events", headers=anna.headers, json=event)).status_code == 200

    async def touched() -> bool:
        async with service.database.reading() as connection:
            query = accounts.select().where(accounts.c.account == anna.account)
            return bool((await connection.execute(query)).one().last_activity > now_us() - 60_000_000)

    await _until(touched)
    async with service.database.reading() as connection:
        rows = (await connection.execute(outbox.select().where(outbox.c.type == "interactions.recorded"))).all()
    (row,) = rows
    payload = orjson.loads(row.payload)
    assert payload["events"] == [{"event_id": "n1", "kind": "like"}]
    assert set(payload) == {"domain", "user", "events"}


async def test_dead_letters_are_for_administrators(service: Service, client: httpx.AsyncClient) -> None:
    admin, anna = await person(service, "admin"), await person(service)
    await _tell(service, Envelope("session.reuse_detected", "k", {"nothing": "of use"}))  # its consumer cannot take it

    async def dead() -> Any:
        return (await client.get("/v1/admin/dead-letters", headers=admin.headers)).json()["dead_letters"]

    (letter,) = await _until(dead)
    assert (letter["consumer"], letter["type"]) == ("security", "session.reuse_detected")
    assert "of use" not in orjson.dumps(letter).decode()
    path = f"/v1/admin/dead-letters/security/{letter['event_id']}/replay"
    for headers, status in ((anna.headers, 403), ({}, 401), (admin.headers, 200), (admin.headers, 200)):
        assert (await client.post(path, headers=headers)).status_code == status
    assert (await client.get("/v1/admin/dead-letters", headers=anna.headers)).status_code == 403
    assert (await client.post("/v1/admin/dead-letters/mail/nothing/replay", headers=admin.headers)).status_code == 404
    assert (await _until(dead))[0]["event_id"] == letter["event_id"]  # it failed again


@pytest.fixture
def quick() -> Deployment:
    return Deployment.model_validate(
        {
            "storage": {"poll_ms": 50},
            "poll_bundles_ms": 50,
            "drain_s": 3,
            "bus": {"poll_ms": 30, "backoff_s": 0.01, "attempts": 2},
            "limits": {"person": 10_000},
            "replicas": {"gateways": 1},
        }
    )


# ------------------------------------------------------------------ streams


async def _tell_directly(stored: Notifications, database: Database, account: str, event: str) -> None:
    async with database.writing() as connection:
        await stored.add(connection, event, [account], "account.registered", {})


async def test_a_stream_brings_what_is_new_and_resumes_without_repeating(database: Database) -> None:
    stored, streams = Notifications(database), NotificationStreams(database, 0.02)
    await _tell_directly(stored, database, "a", "old")
    got: list[Notification] = []

    async def listen(after: tuple[int, str] | None, count: int) -> None:
        follow = streams.follow("a", after, lambda: True, 30.0)
        async for one in follow:
            got.append(one)
            if len(got) >= count:
                break
        await follow.aclose()  # type: ignore[attr-defined]

    first = asyncio.create_task(listen(None, 2))
    await asyncio.sleep(0.1)
    for event in ("one", "two"):
        await _tell_directly(stored, database, "a", event)
        await _tell_directly(stored, database, "b", event)
    async with asyncio.timeout(20.0):
        await first
    for event in ("three", "four"):  # while nobody listens
        await _tell_directly(stored, database, "a", event)
    second = asyncio.create_task(listen(got[-1].place, 5))
    await asyncio.sleep(0.1)
    await _tell_directly(stored, database, "a", "five")
    async with asyncio.timeout(20.0):
        await second
    everything = await stored.page("a", 10, None, False)
    assert [one.notification for one in got] == [one.notification for one in everything[::-1][1:]]
    assert len(streams) == 0
    await streams.stop()


async def test_streams_end_when_told_and_are_bounded(database: Database) -> None:
    streams = NotificationStreams(database, 0.02)
    ended = asyncio.Event()

    async def listen() -> None:
        async for _ in streams.follow("a", None, lambda: not ended.is_set(), 60.0):
            raise AssertionError("nothing was told")

    listening = [asyncio.create_task(listen()) for _ in range(STREAMS_OF_A_PERSON)]
    await asyncio.sleep(0.1)
    with pytest.raises(TooManyStreamsError):
        streams.room("a")
    streams.room("b")
    ended.set()  # the session was revoked
    async with asyncio.timeout(10.0):
        await asyncio.gather(*listening)
    ended.clear()
    listening = [asyncio.create_task(listen())]
    await asyncio.sleep(0.05)
    streams.close()  # the replica drains
    async with asyncio.timeout(10.0):
        await asyncio.gather(*listening)
    with pytest.raises(TooManyStreamsError):
        streams.room("a")
    await streams.stop()


async def test_a_reader_that_takes_nothing_is_let_go_and_holds_up_nobody(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.notifications._QUEUED", 3)
    stored, streams = Notifications(database), NotificationStreams(database, 0.02)
    slow = streams.follow("a", None, lambda: True, 60.0)
    quick = streams.follow("a", None, lambda: True, 60.0)
    waiting: list[asyncio.Task[Notification]] = [asyncio.create_task(anext(one)) for one in (slow, quick)]  # type: ignore[arg-type]
    await asyncio.sleep(0.1)
    for number in range(6):
        await _tell_directly(stored, database, "a", str(number))
        if number == 0:
            await asyncio.gather(*waiting)
        else:
            await anext(quick)
    async with asyncio.timeout(10.0):
        left = [one async for one in slow]
    assert len(left) < 5  # the rest is among the unread, and behind the place it comes back with
    await quick.aclose()  # type: ignore[attr-defined]
    await streams.stop()


async def test_the_wire_form_of_a_stream(home: Path, yaml_file: Path, quick: Deployment, running: AsyncExitStack) -> None:
    short = quick.model_copy(update={"http": quick.http.model_copy(update={"timeout_s": 4.0})})
    service, client = await started(Service(home, [str(yaml_file)], short), running)
    anna = await person(service)
    asking = asyncio.create_task(client.get("/v1/notifications/stream", headers=anna.headers))  # ends by itself after two seconds
    await asyncio.sleep(0.5)
    await _tell(service, Envelope("account.password_changed", anna.account, {"account": anna.account}))
    answer = await asking
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.splitlines() for block in answer.text.replace("\r\n", "\n").split("\n\n") if "event: notification" in block]
    (block,) = [block for block in blocks if "account.password_changed" in "".join(block)]
    fields = dict(line.split(": ", 1) for line in block)
    assert orjson.loads(fields["data"])["kind"] == "account.password_changed"
    again = await client.get("/v1/notifications/stream", headers={**anna.headers, "Last-Event-ID": fields["id"]})
    assert "account.password_changed" not in again.text
    assert "retry: 1000" in again.text


def test_a_sentence_is_made_of_what_there_is() -> None:
    def made(kind: str, **payload: object) -> Notification:
        return Notification("n", "a", kind, payload, 0, None)

    assert sentence(made("bundle.promoted", domain="d", version="v"), "en") == "In d the model v answers now."
    assert sentence(made("bundle.promoted", domain="d", version="v", before=None), "en") == "In d the model v answers now."
    assert sentence(made("bundle.promoted"), "ru") == "Событие: bundle.promoted."
    assert sentence(made("bundle.promoted", domain="{version}", version="v", before="x"), "en").startswith("In {version} the model v")
    assert sentence(made("something.else"), "en") == "Something happened: something.else."
