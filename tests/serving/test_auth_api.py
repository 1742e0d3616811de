"""/v1/auth and /v1/me as their users call them, and as those do who should not."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import orjson
import pytest
import sqlalchemy as sa

from configs.deployment import Deployment
from serving import logs
from serving.access.secrets import new_signing_key
from serving.service import Service
from tests.serving.conftest import started
from tests.serving.test_telegram import BOT, init_data, widget

PASSWORD = "correct horse battery"
BIRTH = {"birth_date": "1987-03-14", "birth_time": "04:37", "birth_city": "Verkhoyansk"}


@pytest.fixture
async def log() -> AsyncIterator[io.StringIO]:
    stream = io.StringIO()
    logs.setup(stream=stream)
    yield stream
    logs.setup()


@pytest.fixture
async def gate(
    home: Path, yaml_file: Path, quick: Deployment, running: AsyncExitStack, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> tuple[Service, httpx.AsyncClient]:
    monkeypatch.setenv("FACTOTUM_TELEGRAM_TOKEN", BOT)
    limits = quick.limits.model_copy(update={"credentials": 60, "person": 500})
    return await started(Service(home, [str(yaml_file)], quick.model_copy(update={"limits": limits})), running)


@pytest.fixture
def client(gate: tuple[Service, httpx.AsyncClient]) -> httpx.AsyncClient:
    return gate[1]


async def entered(client: httpx.AsyncClient, email: str = "ann@example.org", **more: object) -> dict[str, str]:
    answer = await client.post("/v1/auth/register", json={"email": email, "password": PASSWORD, **more})
    assert answer.status_code == 200, answer.text
    said: dict[str, str] = answer.json()
    return said


def bearer(entry: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {entry['access_token']}"}


def kind(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()["type"].removeprefix("urn:factotum:problem:")


async def test_a_life(gate: tuple[Service, httpx.AsyncClient], log: io.StringIO) -> None:
    """From the first registration to the last trace; and nothing of it is in the log or in an answer where it does not belong."""
    service, client = gate
    entry = await entered(client)
    me = (await client.get("/v1/me", headers=bearer(entry))).json()
    assert (me["email"], me["role"], me["telegram"]) == ("ann@example.org", "user", False)
    changed = await client.patch("/v1/me", json=BIRTH | {"language": "ru"}, headers=bearer(entry))
    assert {**changed.json()["profile"]} == {**BIRTH, "subscription_status": "free", "language": "ru"}
    changed = await client.patch("/v1/me", json={"birth_time": None}, headers=bearer(entry))
    assert changed.json()["profile"]["birth_time"] is None
    assert changed.json()["profile"]["birth_date"] == BIRTH["birth_date"]

    login = await client.post("/v1/auth/login", json={"email": "ann@example.org", "password": PASSWORD}, headers={"User-Agent": "Phone"})
    assert login.headers["cache-control"] == "no-store"
    listed = (await client.get("/v1/me/sessions", headers=bearer(entry))).json()["sessions"]
    assert {session["device"] for session in listed} >= {"Phone"}
    assert [session["current"] for session in listed if session["session_id"] == entry["session_id"]] == [True]
    ended = await client.delete(f"/v1/me/sessions/{login.json()['session_id']}", headers=bearer(entry))
    assert ended.json() == {"ended": 1}
    assert (await client.get("/v1/me", headers=bearer(login.json()))).status_code == 401

    pair = (await client.post("/v1/auth/refresh", json={"refresh_token": entry["refresh_token"]})).json()
    assert kind(await client.post("/v1/auth/refresh", json={"refresh_token": entry["refresh_token"]})) == (401, "refresh")
    assert (await client.get("/v1/me", headers=bearer(pair))).status_code == 401

    assert (await client.post("/v1/auth/password/reset", json={"email": "ann@example.org"})).json() == {"done": True}
    assert (await client.post("/v1/auth/password/reset", json={"email": "nobody@example.org"})).json() == {"done": True}
    outbox = service.database.tables.outbox.c
    async with service.database.reading() as connection:
        query = sa.select(outbox.payload).where(outbox.type == "mail.requested")
        payloads = [orjson.loads(payload) for payload in (await connection.execute(query)).scalars()]
    token = payloads[0]["values"]["token"]
    answer = await client.post("/v1/auth/password/reset/confirm", json={"token": token, "new_password": "a new password 1"})
    if answer.status_code == 400:  # the relay has sent the mail meanwhile, and wiped the row
        pytest.fail("the reset's token was gone before it was used")
    assert answer.json() == {"done": True}
    entry = (await client.post("/v1/auth/login", json={"email": "ann@example.org", "password": "a new password 1"})).json()
    body = {"old_password": "a new password 1", "new_password": "a newer password"}
    assert (await client.post("/v1/auth/password", json=body, headers=bearer(entry))).json() == {"done": True}

    exported = (await client.get("/v1/me/export", headers=bearer(entry))).json()
    assert exported["tables"]["users_profiles"][0]["birth_city"] == BIRTH["birth_city"]
    assert kind(await client.request("DELETE", "/v1/me", json={"password": "wrong password"}, headers=bearer(entry))) == (403, "proof")
    assert (await client.request("DELETE", "/v1/me", json={"password": "a newer password"}, headers=bearer(entry))).status_code == 200
    assert (await client.get("/v1/me", headers=bearer(entry))).status_code == 401
    assert kind(await client.post("/v1/auth/login", json={"email": "ann@example.org", "password": "a newer password"})) == (
        401,
        "credentials",
    )

    logged = log.getvalue()
    assert "/v1/auth/login" in logged
    tokens = [word for said in (entry, pair, login.json()) for word in (said["access_token"], said["refresh_token"], said["account_id"])]
    for secret in (PASSWORD, "a new password 1", "a newer password", "wrong password", token, "ann@example.org", *BIRTH.values(), *tokens):
        assert secret not in logged


async def test_the_refresh_token_in_a_cookie(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/auth/register", json={"email": "ann@example.org", "password": PASSWORD, "cookie": True})
    said = answer.headers["set-cookie"]
    for word in ("HttpOnly", "SameSite=strict", "Path=/v1/auth"):
        assert word in said
    assert "Secure" not in said  # development speaks http
    assert answer.json()["refresh_token"] is None
    assert kind(await client.post("/v1/auth/refresh", json={})) == (403, "csrf")
    again = await client.post("/v1/auth/refresh", json={}, headers={"X-CSRF": "1"})
    assert again.status_code == 200
    assert again.json()["refresh_token"] is None
    out = await client.post("/v1/auth/logout", json={}, headers={"X-CSRF": "1"})
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert (await client.get("/v1/me", headers=bearer(again.json()))).status_code == 401
    assert kind(await client.post("/v1/auth/refresh", json={})) == (401, "refresh")


async def test_in_production_the_cookie_is_secure(
    home: Path, yaml_file: Path, quick: Deployment, running: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTOTUM_SIGNING_KEYS", new_signing_key())
    monkeypatch.setenv("FACTOTUM_LOG_KEY", "6f0a9d2c4be1783355cfe8a19b7d20c46e5f81a3d9027bc4")
    production = quick.model_copy(update={"environment": "production"})
    _, client = await started(Service(home, [str(yaml_file)], production), running)
    answer = await client.post("/v1/auth/register", json={"email": "ann@example.org", "password": PASSWORD, "cookie": True})
    assert answer.headers["set-cookie"].startswith("__Secure-factotum-refresh=")
    assert "; Secure" in answer.headers["set-cookie"]


async def test_a_refresh_that_comes_twice_is_answered_twice(client: httpx.AsyncClient) -> None:
    entry = await entered(client)
    call = {"json": {"refresh_token": entry["refresh_token"]}, "headers": {"Idempotency-Key": "one-and-the-same"}}
    first, second = (await client.post("/v1/auth/refresh", **call)).json(), (await client.post("/v1/auth/refresh", **call)).json()  # type: ignore[arg-type]
    assert first["refresh_token"] == second["refresh_token"]
    bad = await client.post("/v1/auth/refresh", json={"refresh_token": "x"}, headers={"Idempotency-Key": "short"})
    assert kind(bad) == (400, "header")


async def test_telegram(client: httpx.AsyncClient) -> None:
    payload = widget()
    first = await client.post("/v1/auth/telegram", json={"widget": payload})
    assert first.status_code == 200
    assert kind(await client.post("/v1/auth/telegram", json={"widget": payload})) == (401, "telegram")
    second = await client.post("/v1/auth/telegram", json={"init_data": init_data()})
    assert second.json()["account_id"] == first.json()["account_id"]
    assert kind(await client.post("/v1/auth/telegram", json={"widget": widget() | {"hash": "0" * 64}})) == (401, "telegram")
    assert kind(await client.post("/v1/auth/telegram", json={"widget": payload, "init_data": "x"})) == (422, "invalid")
    assert kind(await client.post("/v1/auth/telegram", json={})) == (422, "invalid")
    entry = await entered(client)
    assert kind(await client.post("/v1/me/telegram", json={"widget": widget(first_name="B")}, headers=bearer(entry))) == (409, "taken")
    other = await client.post("/v1/me/telegram", json={"widget": widget(id=7)}, headers=bearer(entry))
    assert other.json() == {"done": True}
    erased = await client.request("DELETE", "/v1/me", json={"widget": widget(id=7, first_name="C")}, headers=bearer(entry))
    assert erased.status_code == 200


@pytest.mark.parametrize("path", ["/v1/me", "/v1/me/sessions", "/v1/me/links", "/v1/me/export"])
async def test_a_person_is_needed(gate: tuple[Service, httpx.AsyncClient], path: str) -> None:
    service, client = gate
    assert (await client.get(path)).status_code == 401
    _, raw = await service.accounts.keys.create("robot", ["users:read", "accounts:admin"])
    assert kind(await client.get(path, headers={"X-API-Key": raw})) == (403, "no-account")


async def test_nobody_ends_anothers_session(client: httpx.AsyncClient) -> None:
    mine, bobs = await entered(client), await entered(client, "bob@example.org")
    theirs = await client.delete(f"/v1/me/sessions/{bobs['session_id']}", headers=bearer(mine))
    nobodys = await client.delete(f"/v1/me/sessions/{'0' * 32}", headers=bearer(mine))
    assert kind(theirs) == kind(nobodys) == (404, "unknown-session")
    assert theirs.json()["detail"] == nobodys.json()["detail"]
    for rubbish in ("%00", "..%2f", "é", "x" * 500):
        assert (await client.delete(f"/v1/me/sessions/{rubbish}", headers=bearer(mine))).status_code == 404
    assert (await client.get("/v1/me", headers=bearer(bobs))).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("register", {"email": "ann@example.org", "password": "hunter2hunter2", "role": "admin"}),
        ("register", {"email": "ann@example.org", "password": "hunter2" * 200}),
        ("register", {"email": "ann@example.org", "password": ["hunter2hunter2"]}),
        ("register", {"email": "ann@example.org", "password": "hunter2"}),
        ("register", {"email": "hunter2hunter2", "password": PASSWORD}),
        ("login", {"email": 5, "password": "hunter2hunter2"}),
        ("password/reset/confirm", {"token": "hunter2" * 100, "new_password": PASSWORD}),
        ("refresh", {"refresh_token": "hunter2" * 100}),
        ("refresh", {"refresh_token": "x", "hunter": 2}),
    ],
)
async def test_what_is_wrong_is_refused_and_not_shown_again(client: httpx.AsyncClient, path: str, body: dict[str, object]) -> None:
    answer = await client.post(f"/v1/auth/{path}", json=body)
    assert answer.status_code == 422
    assert "hunter2" not in answer.text


async def test_json_that_breaks_off_is_not_shown_again(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/auth/login", content=b'{"email": "a@b.cc", "password": "hunter2', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "profile",
    [
        {"birth_date": "1987-02-30"},
        {"birth_date": "14.03.1987"},
        {"birth_date": "2999-01-01"},
        {"birth_date": "1812-01-01"},
        {"birth_time": "24:00"},
        {"birth_time": "4:37"},
        {"birth_city": ""},
        {"birth_city": "a\x00b"},
        {"language": "xx"},
        {"role": "admin"},
        {"subscription_status": "premium"},
        {"email": "other@example.org"},
    ],
)
async def test_a_profile_that_says_something_else(client: httpx.AsyncClient, profile: dict[str, object]) -> None:
    entry = await entered(client)
    assert kind(await client.patch("/v1/me", json=profile, headers=bearer(entry))) == (422, "invalid")


async def test_tries_are_counted_for_an_address_and_for_an_account(
    home: Path, yaml_file: Path, quick: Deployment, running: AsyncExitStack
) -> None:
    limits = quick.limits.model_copy(update={"credentials": 3})
    _, client = await started(Service(home, [str(yaml_file)], quick.model_copy(update={"limits": limits})), running)
    body = {"email": "ann@example.org", "password": "wrong password"}
    answers = [await client.post("/v1/auth/login", json=body) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert kind(await client.post("/v1/auth/password/reset", json={"email": "bob@example.org"})) == (429, "limit")
