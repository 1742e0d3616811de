"""What is wrong gets a problem+json that says what and where, and never a 5xx."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from configs.deployment import Deployment
from serving.service import Service
from serving.storage.slates import Slates
from tests.serving.callers import machine
from tests.serving.conftest import started
from tests.serving.small_world import SmallWorld

pytestmark = pytest.mark.asyncio(loop_scope="module")

GENERAL = "/v1/anime/recommendations"
EVENTS = "/v1/anime/events"
EVENT = {"event_id": "e", "user_id": "u", "item_id": "1001", "kind": "like"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(
    tmp_path_factory: pytest.TempPathFactory, world: SmallWorld, yaml_file: Path
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """One service for all of these: whatever is refused leaves nothing behind."""
    home = tmp_path_factory.mktemp("bad-input")
    world.publish(home)
    async with AsyncExitStack() as stack:
        yield await started(Service(home, [str(yaml_file)], Deployment()), stack)


@pytest.fixture
def service(both: tuple[Service, httpx.AsyncClient]) -> Service:
    return both[0]


@pytest.fixture
def client(both: tuple[Service, httpx.AsyncClient]) -> httpx.AsyncClient:
    return both[1]


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = answer.json()
    assert said["status"] == status
    assert said["type"].startswith("urn:factotum:problem:")
    assert said["title"]
    assert said["detail"]
    assert said["instance"] == answer.request.url.path
    return said


async def raw(client: httpx.AsyncClient, path: str, body: bytes, content_type: str = "application/json") -> httpx.Response:
    return await client.post(path, content=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"anime_id": 1, "top_n" = 10}', "line 1, column 25"),  # as the brief itself writes it
        (b'{\n "anime_id": 1,\n}', "line 2, column 15"),
        (b"", "line 1, column 1"),
        (b'{"anime_id": NaN}', "line 1, column 14"),
        (b'{"anime_id": Infinity}', "line 1, column 14"),
        (b'{"anime_id": 1e999}', "line 1, column 14"),
        (b'{"anime_id": "\\ud800"}', "line 1"),
        (b'{"anime_id": "\x01"}', "line 1"),
        (b"\xff\xfe", "line 1"),
        (b"[" * 60_000, "line 1"),
    ],
)
@pytest.mark.parametrize("path", ["/recommend_content_based", GENERAL, EVENTS])
async def test_broken_json_is_400_with_line_and_column(body: bytes, place: str, path: str, client: httpx.AsyncClient) -> None:
    said = problem(await raw(client, path, body), 400)
    assert said["errors"][0]["where"].startswith(place)


@pytest.mark.parametrize("path", ["/recommend_content_based", "/recommend_session_based", "/recommend_collaborative"])
@pytest.mark.parametrize("top_n", [0, -1, 10**9, 10**30, 1.5, "10", None, True, [], {}])
async def test_top_n_out_of_range_or_of_another_type(path: str, top_n: object, client: httpx.AsyncClient) -> None:
    key = "anime_id" if "content" in path else "user_id"
    said = problem(await client.post(path, json={key: 1001 if key == "anime_id" else 1, "top_n": top_n}), 422)
    assert said["errors"][0]["where"] == "top_n"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"k": 0}, "k"),
        ({"k": -1}, "k"),
        ({"k": 10**9}, "k"),
        ({"k": 101}, "k"),
        ({"k": "5"}, "k"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 201}, "user_id"),
        ({"user_id": "a\u0000b"}, "user_id"),
        ({"user_id": "a\u0085b"}, "user_id"),
        ({"user_id": ["1"]}, "user_id"),
        ({"user_id": "1", "history": ["1001"]}, "history"),
        ({"history": "1001"}, "history"),
        ({"history": [None]}, "history[0]"),
        ({"history": ["1001"] * 1_001}, "history"),
        ({"exclude": ["1001", {}]}, "exclude[1]"),
        ({"diversity": 1.1}, "diversity"),
        ({"diversity": "much"}, "diversity"),
        ({"explain": "yes"}, "explain"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"language": "de"}, "language"),
        ({"usr_id": 1}, "usr_id"),
        ({"filters": {"colour": "red"}}, "filters.colour"),
        ({"filters": {"genre": "Westerns"}}, "filters.genre"),
        ({"filters": {"genre": {"low": 1}}}, "filters.genre"),
        ({"filters": {"genre": []}}, "filters.genre"),
        ({"filters": {"episodes": "many"}}, "filters.episodes"),
        ({"filters": {"episodes": {"low": 5, "high": 1}}}, "filters.episodes"),
        ({"filters": {"episodes": {"from": 5}}}, "filters.episodes"),
        ({"filters": []}, "filters"),
        ({"profile": {"genre": ["Westerns"]}}, "profile.genre[0]"),
        ({"profile": {"episodes": ["5"]}}, "profile"),
        ({"profile": {"colour": ["red"]}}, "profile"),
        ([], "body"),
        ("text", "body"),
        (5, "body"),
        (None, "body"),
    ],
)
async def test_the_general_call_says_what_is_wrong_and_where(body: Any, where: str, client: httpx.AsyncClient) -> None:
    said = problem(await client.post(GENERAL, content=json.dumps(body), headers={"Content-Type": "application/json"}), 422)
    assert said["errors"][0]["where"].startswith(where)
    assert said["errors"][0]["what"]


async def test_what_is_allowed_is_listed(client: httpx.AsyncClient) -> None:
    unknown_key = problem(await client.post(GENERAL, json={"top_n": 3}), 422)["errors"][0]
    assert {"k", "user_id", "filters"} <= set(unknown_key["allowed"])
    unknown_word = problem(await client.post(GENERAL, json={"filters": {"genre": "Westerns"}}), 422)["errors"][0]
    assert unknown_word["allowed"] == ["Action", "Comedy", "Drama", "Horror"]
    too_many = problem(await client.post(GENERAL, json={"k": 101}), 422)["errors"][0]
    assert too_many["allowed"] == {"ge": 1, "le": 100}
    unknown_domain = problem(await client.post("/v1/opera/recommendations", json={}), 404)["errors"][0]
    assert unknown_domain["allowed"] == ["anime"]
    unknown_kind = problem(await client.post(EVENTS, json={**EVENT, "kind": "stared"}), 422)["errors"][0]
    assert "like" in unknown_kind["allowed"]


@pytest.mark.parametrize("path", ["/recommend_session_based", "/recommend_collaborative"])
@pytest.mark.parametrize("user", [999_999, -1, "nobody", "日本\u202e"])
async def test_an_unknown_user_is_404_for_the_old_calls(path: str, user: object, client: httpx.AsyncClient) -> None:
    said = problem(await client.post(path, json={"user_id": user}), 404)
    assert said["errors"][0]["where"] == "user_id"


async def test_an_unknown_title_is_404(client: httpx.AsyncClient, service: Service) -> None:
    said = problem(await client.post("/recommend_content_based", json={"anime_id": 77}), 404)
    assert said["errors"][0] == {"where": "anime_id", "what": "unknown title", "got": 77}
    problem(await client.get("/v1/anime/items/77"), 404)
    problem(await client.get("/v1/anime/items/77/similar"), 404)
    assert len(problem(await client.post(GENERAL, json={"history": ["a", "b"]}), 404)["errors"]) == 2
    problem(await client.get("/v1/anime/users/nobody", headers=await machine(service, "users:read")), 404)
    problem(await client.get("/v1/anime/slates/none"), 404)
    problem(await client.get("/v1/anime/slates/%00"), 404)


async def test_missing_and_unknown_keys_of_the_old_calls(client: httpx.AsyncClient) -> None:
    assert problem(await client.post("/recommend_content_based", json={}), 422)["errors"][0]["what"] == "is missing"
    said = problem(await client.post("/recommend_content_based", json={"anime_id": 1001, "user_id": 1}), 422)["errors"][0]
    assert (said["where"], said["what"], said["allowed"]) == ("user_id", "unknown key", ["anime_id", "top_n"])


async def test_a_body_over_64_kb_is_413(client: httpx.AsyncClient) -> None:
    many = json.dumps({"history": [str(n) for n in range(100_000)]}).encode()
    for path in (GENERAL, EVENTS, "/recommend_content_based"):
        said = problem(await raw(client, path, many), 413)
        assert "65536" in said["detail"]
    just = json.dumps({"history": ["1001"]}).encode()
    assert (await raw(client, GENERAL, just.ljust(65_536))).status_code == 200
    problem(await raw(client, GENERAL, just.ljust(65_537)), 413)


async def test_a_content_length_that_lies_does_not_help(client: httpx.AsyncClient) -> None:
    body = b'{"history": ["1001"]}'.ljust(70_000)
    lying = await client.post(GENERAL, content=body, headers={"Content-Type": "application/json", "Content-Length": "20"})
    problem(lying, 413)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
async def test_another_content_type_is_415(content_type: str, client: httpx.AsyncClient) -> None:
    said = problem(await raw(client, GENERAL, b"{}", content_type), 415)
    assert said["errors"][0]["allowed"] == ["application/json"]


async def test_json_with_a_charset_is_json(client: httpx.AsyncClient) -> None:
    assert (await raw(client, GENERAL, b"{}", "Application/JSON; charset=utf-8")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/recommend_content_based", "POST"),
        ("POST", "/top", "GET"),
        ("DELETE", "/v1/anime/items", "GET, POST"),
        ("PUT", EVENTS, "POST"),
        ("BREW", "/healthz", "GET"),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_are_right(method: str, path: str, allowed: str, client: httpx.AsyncClient) -> None:
    answer = await client.request(method, path)
    problem(answer, 405)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/v2", "/v1/anime/nothing", "/top/", "/v1/anime/items/1001/similar/more", "/%00", "/v1/%ff"])
async def test_an_unknown_address_is_404(path: str, client: httpx.AsyncClient) -> None:
    problem(await client.get(path), 404)


@pytest.mark.parametrize(
    "query", ["page=0", "page=-1", "page=x", "page=99999999", "size=101", "size=0", "sort=title", f"query={'x' * 201}"]
)
async def test_a_bad_query_is_422(query: str, client: httpx.AsyncClient) -> None:
    said = problem(await client.get(f"/v1/anime/items?{query}"), 422)
    assert said["errors"][0]["where"] == query.partition("=")[0]


async def test_a_bad_k_of_similar(client: httpx.AsyncClient) -> None:
    for k in ("0", "-1", "101", "1000000000", "ten"):
        problem(await client.get(f"/v1/anime/items/1001/similar?k={k}"), 422)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"item_id": "nothing"}, "item_id"),
        ({"kind": "stared"}, "kind"),
        ({"value": 11}, "value"),
        ({"value": 0}, "value"),
        ({"value": "9"}, "value"),
        ({"time": "2126-01-01T00:00:00Z"}, "time"),
        ({"time": "1066-10-14T09:00:00Z"}, "time"),
        ({"time": "2026-01-01T00:00:00"}, "time"),  # no offset
        ({"time": "yesterday"}, "time"),
        ({"time": 1_700_000_000}, "time"),
        ({"event_id": None}, "event_id"),
        ({"event_id": "a\nb"}, "event_id"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_one_bad_event_refuses_all_and_is_named(
    change: dict[str, Any], where: str, client: httpx.AsyncClient, service: Service
) -> None:
    events = [{**EVENT, "event_id": "good"}, {**EVENT, **change}]
    said = problem(await client.post(EVENTS, json=events), 422)
    assert said["errors"][0]["where"] == f"[1].{where}"
    problem(await client.get("/v1/anime/users/u", headers=await machine(service, "users:read")), 404)  # not even the good one was stored
    assert problem(await client.post(EVENTS, json=events[1]), 422)["errors"][0]["where"] == where


async def test_no_events_or_too_many(client: httpx.AsyncClient) -> None:
    problem(await client.post(EVENTS, json=[]), 422)
    many = [{"event_id": n, "user_id": 1, "item_id": 1001, "kind": "click"} for n in range(501)]
    said = problem(await client.post(EVENTS, json=many), 422)
    assert said["errors"][0]["allowed"] == {"min_length": 1, "max_length": 500}


async def test_what_came_is_shown_again_harmlessly(client: httpx.AsyncClient) -> None:
    said = problem(await client.post(EVENTS, json={**EVENT, "item_id": "\u202eevil \U0001f600" + "z" * 150}), 422)["errors"][0]
    assert said["got"].startswith("\\u202eevil 😀")
    assert len(said["got"]) < 100


async def test_items_need_the_scope(client: httpx.AsyncClient, service: Service) -> None:
    item = {"item_id": "9", "title": "Nine"}
    good = (await machine(service, "items:write"))["X-API-Key"]
    for headers in ({}, {"X-API-Key": ""}, {"X-API-Key": "wrong"}, {"X-API-Key": good[:-1]}, {"X-API-Key": good + "2"}):
        answer = await client.post("/v1/anime/items", json=item, headers=headers)
        problem(answer, 401)
        assert "ApiKey" in answer.headers["www-authenticate"]
    said = problem(await client.post("/v1/anime/items", json=item, headers=await machine(service, "users:read", "events:write")), 403)
    assert said["errors"][0]["allowed"] == ["items:write"]
    problem(await client.get("/v1/anime/items/9"), 404)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"title": ""}, "title"),
        ({"title": "a\u0000"}, "title"),
        ({"attributes": {"colour": "red"}}, "attributes.colour"),
        ({"attributes": {"episodes": "many"}}, "attributes.episodes"),
        ({"attributes": {"episodes": -1}}, "attributes.episodes"),
        ({"attributes": {"rating": 11}}, "attributes.rating"),
        ({"attributes": {"genre": 5}}, "attributes.genre"),
        ({"attributes": {"type": ["TV"]}}, "attributes.type"),
        ({"attributes": {"type": True}}, "attributes.type"),
        ({"available": "yes"}, "available"),
        ({"item_id": "x" * 201}, "item_id"),
    ],
)
async def test_a_bad_item_is_refused(change: dict[str, Any], where: str, client: httpx.AsyncClient, service: Service) -> None:
    key = await machine(service, "items:write")
    answer = await client.post("/v1/anime/items", json={"item_id": "9", "title": "Nine", **change}, headers=key)
    assert problem(answer, 422)["errors"][0]["where"].startswith(where)
    assert await service.interactions.items_since("anime", 0) == []


async def test_a_fault_of_ours_says_nothing_of_the_inside(
    client: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Slates, domain: str, slate: str) -> None:
        raise ZeroDivisionError("the secret inside")

    monkeypatch.setattr(Slates, "find", broken)
    answer = await client.get("/v1/anime/slates/abc", headers={"X-Request-ID": "r-77"})
    said = problem(answer, 500)
    assert "r-77" in said["detail"]
    assert "secret" not in answer.text
    assert service.metrics.registry.get_sample_value("factotum_errors_total", {"part": "api"}) == 1
