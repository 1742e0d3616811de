"""The gate behind a real socket: bad tokens, too many requests, forged headers, and what the log and the audit keep of it all."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import jwt
import orjson
import pytest
import pytest_asyncio
import sqlalchemy as sa
import uvicorn

from configs.deployment import Deployment
from serving import logs
from serving.access.origin import MARK_HEADER, PROXY_MARK
from serving.access.tokens import Tokens
from serving.api.application import create_app
from serving.logs import person as hashed
from serving.service import Service
from tests.serving.callers import machine, person
from tests.serving.conftest import started
from tests.serving.small_world import SmallWorld
from tests.serving.test_api_wire import exchange
from tests.serving.test_service import _Broken, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOT = f"123456789:{'A' * 35}"
ORIGIN = "https://app.example"
MARK = "0123456789abcdef"


@dataclass(frozen=True)
class Gateway:
    service: Service
    port: int
    client: httpx.AsyncClient


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, world: SmallWorld, yaml_file: Path) -> AsyncIterator[Gateway]:
    home = tmp_path_factory.mktemp("gate")
    world.publish(home)
    said = {
        "limits": {"store": "file", "anonymous": 5_000},
        "storage": {"poll_ms": 50},
        "access": {"origins": [ORIGIN]},
        "public_url": "https://factotum.example",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTOTUM_TELEGRAM_TOKEN", BOT)
        patch.setenv(PROXY_MARK, MARK)
        service = Service(home, [str(yaml_file)], Deployment.model_validate(said))
        config = uvicorn.Config(create_app(service), host="127.0.0.1", port=0, log_config=None, lifespan="on", proxy_headers=False)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve())
        while not server.started or not server.servers:
            assert not running.done(), "the server ended"
            await asyncio.sleep(0.02)
    port = int(server.servers[0].sockets[0].getsockname()[1])
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield Gateway(service, port, client)
    server.should_exit = True
    await running


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = answer.json()
    assert said["type"] == f"urn:factotum:problem:{kind}"
    return said


# ---------------------------------------------------------------- tokens


def forged(service: Service, how: str) -> str:
    account, session = secrets.token_hex(16), secrets.token_hex(16)
    good, _ = service.tokens.issue(account, session, "admin")
    head, body, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})
    own = service.secrets.signing[0]
    kid = {"kid": own.kid, "typ": "at+jwt"}

    def none(algorithm: str) -> str:
        header = base64.urlsafe_b64encode(orjson.dumps({"alg": algorithm, **kid})).rstrip(b"=").decode()
        return f"{header}.{body}."

    match how:
        case "another key":
            return jwt.encode(claims, secrets.token_bytes(32), "HS256", kid)
        case "another key, named":
            return jwt.encode(claims, secrets.token_bytes(32), "HS256", {**kid, "kid": "theirs"})
        case "none":
            return none("none")
        case "None":
            return none("None")
        case "no signature":
            return f"{head}.{body}."
        case "another algorithm":
            return jwt.encode(claims, own.key * 2, "HS512", kid)
        case "expired":
            return service.tokens.issue(account, session, "user", time.time() - 3_600)[0]
        case "not yet":
            return service.tokens.issue(account, session, "user", time.time() + 3_600)[0]
        case "another audience":
            elsewhere = service.deployment.access.model_copy(update={"audience": "another"})
            return Tokens(service.secrets, elsewhere).issue(account, session, "user")[0]
        case "another issuer":
            return jwt.encode({**claims, "iss": "another"}, own.key, "HS256", kid)
        case "another role":
            return f"{head}.{base64.urlsafe_b64encode(orjson.dumps({**claims, 'role': 'root'})).rstrip(b'=').decode()}.{signature}"
        case _:
            return how


BAD = ["another key", "another key, named", "none", "None", "no signature", "another algorithm", "expired", "not yet", "another audience"]
BAD += ["another issuer", "another role", "a.b.c", "Bearer", "." * 20, "x" * 7_000, "%00", "ab cd"]


@pytest.mark.parametrize("how", BAD)
async def test_a_bad_token_is_401_on_every_route(how: str, gateway: Gateway) -> None:
    for method, path in (("GET", "/v1"), ("POST", "/v1/anime/recommendations"), ("GET", "/nowhere"), ("GET", "/v1/anime/users/me")):
        answer = await gateway.client.request(method, path, headers={"Authorization": f"Bearer {forged(gateway.service, how)}"})
        said = problem(answer, 401, "token")
        assert answer.headers["www-authenticate"].startswith('Bearer realm="factotum"')
        assert "x" * 50 not in said["detail"]


async def test_why_a_token_is_refused_is_counted(gateway: Gateway) -> None:
    def count(why: str) -> float:
        return gateway.service.metrics.registry.get_sample_value("factotum_unauthorised_total", {"why": why}) or 0.0

    for how, why in (("expired", "expired"), ("none", "algorithm"), ("another audience", "audience"), ("not yet", "not-yet-valid")):
        before = count(why)
        await gateway.client.get("/v1", headers={"Authorization": f"Bearer {forged(gateway.service, how)}"})
        assert count(why) == before + 1


async def test_a_good_token_counts_until_its_session_ends(gateway: Gateway) -> None:
    one = await person(gateway.service)
    for _ in range(3):
        assert (await gateway.client.get("/v1", headers=one.headers)).status_code == 200
    gateway.service.ownership.note_revoked([one.session])
    assert "ended" in problem(await gateway.client.get("/v1", headers=one.headers), 401, "token")["detail"]
    other = await person(gateway.service)
    assert (await gateway.client.get("/v1", headers=other.headers)).status_code == 200
    await gateway.service.accounts.set_disabled(other.account, True)
    problem(await gateway.client.get("/v1", headers=other.headers), 401, "token")


async def test_a_token_that_was_checked_still_expires(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await person(gateway.service)
    assert (await gateway.client.get("/v1", headers=one.headers)).status_code == 200
    later = time.time() + 16 * 60
    monkeypatch.setattr("time.time", lambda: later)
    monkeypatch.setattr("jwt.api_jwt.datetime", _Later)
    assert "expired" in problem(await gateway.client.get("/v1", headers=one.headers), 401, "token")["detail"]


class _Later:
    @staticmethod
    def now(tz: Any = None) -> Any:
        from datetime import datetime, timedelta

        return datetime.fromtimestamp(time.time(), tz) + timedelta(0)


async def test_a_refresh_token_used_twice_ends_the_session(gateway: Gateway) -> None:
    register = {"email": f"{secrets.token_hex(6)}@example.org", "password": "a long enough passphrase 17"}
    first = (await gateway.client.post("/v1/auth/register", json=register)).json()
    second = (await gateway.client.post("/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})).json()
    assert (await gateway.client.get("/v1/me", headers={"Authorization": f"Bearer {second['access_token']}"})).status_code == 200
    reused = await gateway.client.post("/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert reused.status_code == 401
    assert (await gateway.client.post("/v1/auth/refresh", json={"refresh_token": second["refresh_token"]})).status_code == 401
    problem(await gateway.client.get("/v1/me", headers={"Authorization": f"Bearer {second['access_token']}"}), 401, "token")


@pytest.mark.parametrize("harm", ["signature", "id", "bot"])
async def test_a_forged_telegram_signature_opens_nothing(harm: str, gateway: Gateway) -> None:
    fields: dict[str, Any] = {"id": 4711, "first_name": "Eve", "auth_date": int(time.time())}
    bot = BOT if harm != "bot" else f"987654321:{'B' * 35}"
    said = "\n".join(f"{name}={fields[name]}" for name in sorted(fields)).encode()
    fields["hash"] = hmac.digest(hashlib.sha256(bot.encode()).digest(), said, "sha256").hex()
    if harm == "signature":
        fields["hash"] = secrets.token_hex(32)
    if harm == "id":
        fields["id"] = 4712
    answer = await gateway.client.post("/v1/auth/telegram", json={"widget": fields})
    assert answer.status_code == 401
    assert "access_token" not in answer.text


# ---------------------------------------------------------------- how often


async def test_of_51_requests_in_a_minute_the_last_is_refused(gateway: Gateway) -> None:
    one, other = await person(gateway.service), await person(gateway.service)
    told: list[int] = []
    for _ in range(50):
        answer = await gateway.client.get("/v1", headers=one.headers)
        assert answer.status_code == 200
        assert answer.headers["ratelimit-limit"] == "50"
        told.append(int(answer.headers["ratelimit-remaining"]))
    assert told == list(range(49, -1, -1))
    refused = await gateway.client.get("/v1/anime/users/me", headers=one.headers)
    problem(refused, 429, "limit")
    labels = {"route": "/v1/{domain}/users/{user_id}", "method": "GET", "status": "429"}
    assert gateway.service.metrics.registry.get_sample_value("factotum_requests_total", labels) == 1
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-remaining"] == "0"
    assert (await gateway.client.get("/v1", headers=other.headers)).status_code == 200
    for free in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        answer = await gateway.client.get(free, headers=one.headers)
        assert (answer.status_code, "ratelimit-limit" in answer.headers) == (200, False)


async def test_machines_and_addresses_have_counts_of_their_own(gateway: Gateway) -> None:
    key = await machine(gateway.service, "users:read")
    exempt = await machine(gateway.service, "users:read", "limits:exempt")
    assert (await gateway.client.get("/v1", headers=key)).headers["ratelimit-limit"] == "600"
    assert "ratelimit-limit" not in (await gateway.client.get("/v1", headers=exempt)).headers
    first, second = await gateway.client.get("/v1"), await gateway.client.get("/v1", headers={"X-Forwarded-For": "198.51.100.1"})
    assert int(second.headers["ratelimit-remaining"]) == int(first.headers["ratelimit-remaining"]) - 1  # the lie changed nothing
    own = {"X-Forwarded-For": "198.51.100.2", MARK_HEADER: MARK}
    assert (await gateway.client.get("/v1", headers=own)).headers["ratelimit-remaining"] == "4999"
    wrong = await gateway.client.get("/v1", headers={**own, MARK_HEADER: MARK[:-1] + "0"})
    assert int(wrong.headers["ratelimit-remaining"]) == int(second.headers["ratelimit-remaining"]) - 1


# ---------------------------------------------------------------- headers


async def test_anothers_id_in_a_path_is_403(gateway: Gateway) -> None:
    one, victim = await person(gateway.service), await person(gateway.service)
    problem(await gateway.client.get(f"/v1/anime/users/{victim.user}", headers=one.headers), 403, "not-yours")


async def test_a_body_of_65_kib_is_413(gateway: Gateway) -> None:
    one = await person(gateway.service)
    body = b'{"profile": {"genre": "' + b"x" * (65 * 1024) + b'"}}'
    headers = {**one.headers, "Content-Type": "application/json"}
    problem(await gateway.client.post("/v1/anime/recommendations", content=body, headers=headers), 413, "too-large")


HEAD = b"GET /v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"Authorization: Bearer TOKEN\r\nAuthorization: Bearer TOKEN\r\n",
        b"Authorization: Bearer TOKEN\r\nX-API-Key: fct_0_1\r\n",
        b"X-API-Key: a\r\nX-API-Key: b\r\n",
        b"X-API-Key: fct_\xe4\r\n",
        b"X-API-Key: a\tb\r\n",
        b"Authorization: Bearer TOKEN\x00\r\n",
        b"Authorization: Bearer TOKEN\rX-API-Key: b\r\n",
        b"X-Deadline-Ms: soon\r\n",
        b"X-Deadline-Ms: -1\r\n",
        b"Request-Timeout: 1e9\r\n",
        b"X-Deadline-Ms: 100\r\nX-Deadline-Ms: 100\r\n",
    ],
)
async def test_headers_that_may_be_read_in_two_ways_are_400(lines: bytes, gateway: Gateway) -> None:
    token = (await person(gateway.service)).headers["Authorization"].removeprefix("Bearer ").encode()
    answer = await exchange(gateway.port, HEAD + lines.replace(b"TOKEN", token) + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400"), answer[:200]
    assert b"domains" not in answer


async def test_an_injected_line_reaches_no_header_of_the_answer(gateway: Gateway) -> None:
    for path in ("/v1/%0d%0aSet-Cookie:%20a=b", "/v1/anime/items/%0d%0aSet-Cookie:%20a=b", "/v1/anime/users/%0d%0ax"):
        answer = await exchange(gateway.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        heading = answer.partition(b"\r\n\r\n")[0].lower()
        assert heading.split(b"\r\n")[0].split()[1] in (b"401", b"404")
        assert b"set-cookie" not in heading
    injected = HEAD + b"X-Request-ID: r1\r\n Set-Cookie: a=b\r\n\r\n"  # a line that goes on, as RFC 9112 forbids
    assert b"set-cookie" not in (await exchange(gateway.port, injected)).partition(b"\r\n\r\n")[0].lower().replace(b"x-request-id", b"")


async def test_what_a_browser_is_told(gateway: Gateway) -> None:
    page = await gateway.client.get("/docs")
    assert page.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    one = await person(gateway.service)
    personal = await gateway.client.get("/v1/anime/users/me", headers=one.headers)
    for answer in (page, personal, await gateway.client.get("/nowhere")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "max-age" in answer.headers["strict-transport-security"]
    assert personal.headers["cache-control"] == "no-store"
    assert "cache-control" not in (await gateway.client.get("/v1/anime/items/1001")).headers


async def test_pages_of_other_origins_may_call_only_if_they_are_named(gateway: Gateway) -> None:
    def asks(origin: str) -> dict[str, str]:
        return {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}

    allowed = await gateway.client.options("/v1/anime/recommendations", headers=asks(ORIGIN))
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    refused = await gateway.client.options("/v1/anime/recommendations", headers=asks("https://evil.example"))
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    unauthorised = await gateway.client.get("/v1", headers={"Origin": ORIGIN, "Authorization": "Bearer x"})
    assert (unauthorised.status_code, unauthorised.headers["access-control-allow-origin"]) == (401, ORIGIN)


async def test_without_named_origins_nothing_is_said_to_other_pages(home: Path, yaml_file: Path, quick: Deployment) -> None:
    async with AsyncExitStack() as stack:
        _, client = await started(Service(home, [str(yaml_file)], quick), stack)
        for method in ("GET", "OPTIONS"):
            answer = await client.request(method, "/v1", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET"})
            assert not [name for name in answer.headers if name.startswith("access-control")]


# ---------------------------------------------------------------- by when


async def test_a_clients_deadline_bounds_the_engines(home: Path, yaml_file: Path, quick: Deployment) -> None:
    async with AsyncExitStack() as stack:
        _, client = await started(Service(home, [str(yaml_file)], quick, _Broken(60.0)), stack)
        for header in ({"X-Deadline-Ms": "400"}, {"Request-Timeout": "0.4"}):
            answer = await client.post("/v1/anime/recommendations", json={}, headers=header)
            assert (answer.status_code, answer.json()["degraded"]) == (200, ["recommender"])


async def test_what_is_not_ready_in_time_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*_: Any) -> None:
        await asyncio.sleep(60.0)

    monkeypatch.setattr(gateway.service, "find_slate", slow)
    problem(await gateway.client.get("/v1/anime/slates/abc", headers={"X-Deadline-Ms": "100"}), 408, "deadline")


# ---------------------------------------------------------------- what is kept

LEAKS = {
    "query": "leak-query-1990-05-17",
    "path": "leak-path-1990-05-17",
    "user": "leak-user-1990-05-17",
    "profile": "leak-profile-1990-05-17",
    "password": "leak-password-1990-05-17",
    "key": "leak-key-1990-05-17",
    "token": "leak-token-1990-05-17",
    "cookie": "leak-cookie-1990-05-17",
    "agent": "leak-agent-1990-05-17",
    "referer": "leak-referer-1990-05-17",
    "method": "LEAKMETHOD",
    "birth": "1990-05-17",
}


async def test_neither_the_log_nor_the_audit_keeps_what_was_said(gateway: Gateway) -> None:
    out = StringIO()
    before = logging.getLogger("factotum").handlers[:]
    logs.setup(stream=out)
    one = await person(gateway.service)
    token = one.headers["Authorization"].removeprefix("Bearer ")
    try:
        send = gateway.client.request
        also = {"User-Agent": LEAKS["agent"], "Referer": LEAKS["referer"], "Cookie": f"a={LEAKS['cookie']}"}
        for headers in ({}, one.headers, {"Authorization": f"Bearer {LEAKS['token']}"}, {"X-API-Key": LEAKS["key"]}):
            whole = {**also, **headers}
            for path in ("/v1/anime/items", "/v1", "/nowhere"):
                await send("GET", path, params={"query": LEAKS["query"], "token": LEAKS["token"], "birth": LEAKS["birth"]}, headers=whole)
            for path in (
                f"/{LEAKS['path']}",
                f"/v1/{LEAKS['path']}",
                f"/v1/anime/users/{LEAKS['user']}",
                f"/v1/anime/items/{LEAKS['path']}",
            ):
                await send("GET", path, headers=whole)
            await send(LEAKS["method"], "/v1", headers=whole)
            for body in (
                {"user_id": LEAKS["user"], "profile": {LEAKS["profile"]: LEAKS["profile"]}},
                {"history": [LEAKS["user"]], LEAKS["profile"]: 1},
                {"email": "leak@example.org", "password": LEAKS["password"]},
            ):
                for path in ("/v1/anime/recommendations", "/v1/anime/events", "/v1/auth/login", "/v1/auth/register"):
                    await send("POST", path, json=body, headers=whole)
            await send("PATCH", "/v1/me", json={"birth_date": LEAKS["birth"], "birth_city": LEAKS["profile"]}, headers=whole)
    finally:
        logging.getLogger("factotum").handlers[:] = before
        logging.getLogger("factotum").propagate = True
    wanted = [*LEAKS.values(), one.account, token, token.split(".")[2], "leak@example.org"]
    lines = out.getvalue()
    assert lines.count('"logger":"factotum.access"') > 60
    assert [word for word in wanted if word.lower() in lines.lower()] == []
    entries = gateway.service.metrics.registry
    await until(lambda: entries.get_sample_value("factotum_audit_waiting") == 0)
    async with gateway.service.database.reading() as connection:
        rows = [tuple(row) for row in await connection.execute(sa.select(gateway.service.database.tables.audit_log))]
    assert len(rows) > 60
    assert [word for word in wanted if word.lower() in repr(rows).lower()] == []
    assert hashed(one.account) in repr(rows)
    assert f'"person":"{hashed(LEAKS["user"])}"' in lines


# ---------------------------------------------------------------- the audit and the administrators


async def test_the_audit_is_searched_page_by_page(gateway: Gateway) -> None:
    one, admin = await person(gateway.service), await person(gateway.service, "admin")
    for _ in range(5):
        await gateway.client.get("/v1/anime/users/me", headers=one.headers)
    await gateway.client.post("/v1/anime/recommendations", json={"user_id": "me"}, headers=one.headers)
    await gateway.client.post("/v1/anime/recommendations", json={"user_id": "1"})
    event = {"event_id": secrets.token_hex(4), "user_id": "me", "item_id": "1001", "kind": "like"}
    await gateway.client.post("/v1/anime/events", json=event, headers=one.headers)
    await gateway.client.get("/v1/admin/audit", headers=one.headers)
    await until(lambda: gateway.service.metrics.registry.get_sample_value("factotum_audit_waiting") == 0)
    search, found, cursor = {"person": one.account, "size": "3"}, list[dict[str, Any]](), ""
    while True:
        page = (
            await gateway.client.get("/v1/admin/audit", params={**search, **({"cursor": cursor} if cursor else {})}, headers=admin.headers)
        ).json()
        assert len(page["entries"]) <= 3
        found += page["entries"]
        if page["next"] is None:
            break
        cursor = page["next"]
    assert [entry["event_type"] for entry in found] == ["REFUSED", "CREATE", "READ", "READ", "READ", "READ", "READ", "READ"]
    assert {entry["person"] for entry in found} == {hashed(one.account)}
    assert {entry["caller"] for entry in found} == {"account"}
    assert found[0]["endpoint"] == "/v1/admin/audit"
    only = {
        "person": one.account,
        "event_type": "READ",
        "endpoint": "/v1/{domain}/users/{user_id}",
        "status": "404",
        "since": found[-1]["at"],
    }
    listed = (await gateway.client.get("/v1/admin/audit", params=only, headers=admin.headers)).json()
    assert len(listed["entries"]) == 5
    assert (await gateway.client.get("/v1/admin/audit", params={**only, "until": found[-1]["at"]}, headers=admin.headers)).json()[
        "entries"
    ] == []
    asked = (await gateway.client.get("/v1/admin/audit", params={"person": "1"}, headers=admin.headers)).json()["entries"]
    assert [(entry["caller"], entry["event_type"]) for entry in asked][:1] == [("anonymous", "READ")]
    for wrong in (
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"cursor": "x"},
        {"size": "501"},
        {"event_type": "read"},
        {"sort": "at"},
    ):
        problem(await gateway.client.get("/v1/admin/audit", params=wrong, headers=admin.headers), 422, "invalid")


async def test_what_an_administrator_does_is_audited_too(gateway: Gateway) -> None:
    one, admin = await person(gateway.service), await person(gateway.service, "admin")
    change = await gateway.client.patch(f"/v1/admin/accounts/{one.account}", json={"role": "analyst"}, headers=admin.headers)
    assert change.json()["role"] == "analyst"
    problem(
        await gateway.client.patch(f"/v1/admin/accounts/{admin.account}", json={"role": "user"}, headers=admin.headers), 409, "yourself"
    )
    answer = await gateway.client.patch(f"/v1/admin/accounts/{'0' * 32}", json={"role": "user"}, headers=admin.headers)
    assert answer.status_code == 404
    disabled = await gateway.client.patch(f"/v1/admin/accounts/{one.account}", json={"status": "disabled"}, headers=admin.headers)
    assert disabled.json()["status"] == "disabled"
    problem(await gateway.client.get("/v1", headers=one.headers), 401, "token")
    made = (await gateway.client.post("/v1/admin/keys", json={"name": "shop", "scopes": ["items:write"]}, headers=admin.headers)).json()
    listed = (await gateway.client.get("/v1/admin/keys", headers=admin.headers)).json()["keys"]
    assert [key["name"] for key in listed if key["key_id"] == made["key_id"]] == ["shop"]
    assert made["key"] not in str(listed)
    assert (await gateway.client.get("/v1", headers={"X-API-Key": made["key"]})).status_code == 200
    ended = (await gateway.client.delete(f"/v1/admin/keys/{made['key_id']}", headers=admin.headers)).json()
    assert ended["revoked"] is not None
    problem(await gateway.client.get("/v1", headers={"X-API-Key": made["key"]}), 401, "token")
    beyond = await gateway.client.post("/v1/admin/keys", json={"name": "bench", "scopes": ["limits:exempt"]}, headers=admin.headers)
    problem(beyond, 403, "scope")
    accounts = (await gateway.client.get("/v1/admin/accounts", params={"size": 1}, headers=admin.headers)).json()
    assert (len(accounts["accounts"]), accounts["next"]) == (1, accounts["accounts"][0]["account_id"])
    await until(lambda: gateway.service.metrics.registry.get_sample_value("factotum_audit_waiting") == 0)
    found = (await gateway.client.get("/v1/admin/audit", params={"person": admin.account}, headers=admin.headers)).json()["entries"]
    assert "unmatched" not in {entry["endpoint"] for entry in found}
    acts = [(entry["event_type"], entry["endpoint"], entry["response_status"]) for entry in found]
    assert ("UPDATE", "/v1/admin/accounts/{account_id}", 200) in acts
    assert ("CREATE", "/v1/admin/keys", 201) in acts
    assert ("DELETE", "/v1/admin/keys/{key_id}", 200) in acts
    assert ("REFUSED", "/v1/admin/keys", 403) in acts
