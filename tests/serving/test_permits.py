"""Nobody reads or writes what is another person's: every route of the OpenAPI document is walked over.

A route is either listed below as one that concerns nobody, or it is called here with somebody else's id in every place where one fits.
A new route that is neither fails the first test.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

import configs
from configs.deployment import Deployment
from features.itinerary.routes import route_id
from serving.service import Service
from tests.serving.callers import Person, machine, person
from tests.serving.conftest import started
from tests.serving.itinerary_world import Season
from tests.serving.small_world import SmallWorld

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Routes that say or change nothing about anybody in particular: catalogue, health, documents, and those by which one comes in.
NOBODYS = {
    ("get", "/v1"),
    ("get", "/v1/{domain}"),
    ("get", "/v1/{domain}/items"),
    ("get", "/v1/{domain}/items/{item_id}"),
    ("get", "/v1/{domain}/items/{item_id}/similar"),
    ("get", "/top"),
    ("post", "/recommend_content_based"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("post", "/v1/auth/register"),
    ("post", "/v1/auth/login"),
    ("post", "/v1/auth/telegram"),
    ("post", "/v1/auth/refresh"),
    ("post", "/v1/auth/logout"),
    ("post", "/v1/auth/password/reset"),
    ("post", "/v1/auth/password/reset/confirm"),
    *(
        ("get", f"/v1/season/{path}")
        for path in (
            "concerts",
            "concerts/{concert_id}",
            "artists",
            "artists/{artist_id}/concerts",
            "composers",
            "composers/{name}/concerts",
            "halls",
            "halls/{name}/concerts",
            "questionnaire",
            "routes/popular",
            "routes/{route_id}",
            *(f"routes/{{route_id}}/{what}" for what in ("availability", "description", "summary", "ics", "pdf")),
            *(f"routes/{{route_id}}/{what}" for what in ("rank-history", "endorsement")),
        )
    ),
}
#: Names of parameters and of a body's fields that may hold a person's id, or the id of something that is a person's.
PERSONS = re.compile(r"user|account|person|slate|session|notification|telegram|email|key_id")
SECRET = "1007"  # a title that the victim disliked
HIDDEN = "d3h4"  # a stop that the victim does not want


def _guarded(yaml_file: Path) -> Path:
    document = yaml.safe_load(yaml_file.read_text(encoding="utf-8"))
    path = yaml_file.parent / "guarded.yaml"
    path.write_text(yaml.safe_dump({**document, "name": "guarded", "calls": [], "auth": "token"}), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Place:
    service: Service
    client: httpx.AsyncClient
    victim: Person
    other: Person
    analyst: Person
    slates: dict[str, str]  # by domain
    route: str  # a route of the domain that has an itinerary


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(
    tmp_path_factory: pytest.TempPathFactory, world: SmallWorld, yaml_file: Path, season: Season, season_yaml: Path
) -> AsyncIterator[Place]:
    """An open domain, one that wants a token and one with an itinerary, and a victim with a history in each."""
    home = tmp_path_factory.mktemp("permits")
    world.publish(home)
    season.publish(home)
    closed = _guarded(yaml_file)
    replace(world, domain=configs.load(str(closed))).publish(home)
    deployment = Deployment.model_validate({"limits": {"store": "file", "person": 100_000}, "storage": {"poll_ms": 50}})
    async with AsyncExitStack() as stack:
        service, client = await started(Service(home, [str(yaml_file), str(closed), str(season_yaml)], deployment), stack)
        victim, other, analyst = await person(service), await person(service), await person(service, "analyst")
        slates: dict[str, str] = {}
        for domain in ("anime", "guarded"):
            event = {"event_id": f"v-{domain}", "user_id": "me", "item_id": SECRET, "kind": "dislike"}
            assert (await client.post(f"/v1/{domain}/events", json=event, headers=victim.headers)).status_code == 200
            served = await client.post(f"/v1/{domain}/recommendations", json={"user_id": "me"}, headers=victim.headers)
            slates[domain] = served.json()["slate"]
        chosen = {"choice": "no", "targets": [HIDDEN]}
        assert (await client.post("/v1/season/users/me/choices", json=chosen, headers=victim.headers)).status_code == 200
        ordered = await client.post("/v1/season/orders", json={"concerts": ["d1h0"], "note": HIDDEN}, headers=victim.headers)
        assert ordered.status_code == 201
        rows = season.timetable.rows
        route = route_id(season.timetable, [rows["d1h0"], rows["d1h1"]])
        yield Place(service, client, victim, other, analyst, slates, route)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            yield method, path, call


def fields(schema: dict[str, Any], document: dict[str, Any]) -> set[str]:
    """All names of properties that a schema has, at any depth."""
    if "$ref" in schema:
        return fields(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    found = set(schema.get("properties", ()))
    for part in [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]:
        found |= fields(part, document)
    return found


def named(call: dict[str, Any], document: dict[str, Any]) -> set[str]:
    """The names of everything that a route is told."""
    said = {parameter["name"] for parameter in call.get("parameters", ())}
    body = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    return said | (fields(body, document) if body else set())


async def test_a_route_that_is_told_a_persons_id_is_not_listed_as_nobodys(place: Place) -> None:
    document = (await place.client.get("/openapi.json")).json()
    for method, path, call in operations(document):
        if (method, path) in NOBODYS and not path.startswith("/v1/auth/"):
            assert not [name for name in named(call, document) if PERSONS.search(name)], f"{method} {path} is about a person"


def requests(method: str, path: str, call: dict[str, Any], document: dict[str, Any], place: Place) -> Iterator[tuple[str, Any]]:
    """Addresses and bodies of a route with the victim's ids in every place where one fits."""
    domains = ("anime", "guarded") if "{domain}" in path else ("anime",)
    for domain in domains:
        ids = {"domain": domain, "account_id": place.victim.account, "session_id": place.victim.session, "slate_id": place.slates[domain]}
        ids |= {"user_id": place.victim.user, "item_id": SECRET, "key_id": "0" * 16, "view": "people"}
        wanted = re.findall(r"{(\w+)}", path)
        ids |= {"route_id": place.route, "choice": "no", "of": "stop", "target": HIDDEN}
        address = path.format(**{name: ids.get(name, place.victim.account) for name in wanted})
        query = {
            parameter["name"]: place.victim.account
            for parameter in call.get("parameters", ())
            if parameter["in"] == "query" and PERSONS.search(parameter["name"])
        }
        if query:
            address += "?" + "&".join(f"{name}={value}" for name, value in query.items())
        body: dict[str, Any] | None = None
        if "requestBody" in call:
            schema = call["requestBody"]["content"]["application/json"]["schema"]
            body = {name: place.victim.user for name in fields(schema, document) if name == "user_id"}
            if path.endswith("/events"):
                body |= {"event_id": f"theft-{domain}", "item_id": "1001", "kind": "like"}
            if path.endswith("/items"):
                body = {"item_id": "9999", "title": "Stolen"}
            if path.endswith("/keys"):
                body = {"name": "theft", "scopes": ["users:read"]}
            if "/accounts/" in path:
                body = {"role": "admin"}
            if path.endswith("/choices"):
                body = {"choice": "yes", "targets": [HIDDEN]}
            if path.endswith("/tickets"):
                body = {"tickets": [{"concert_id": HIDDEN}]}
            if path.endswith("/questionnaire"):
                body |= {"answers": {}}
        yield address, body


#: Routes that answer a caller with what is their own, whoever that is: with another one's token they tell that one's.
OWN = re.compile(r"^/v1/(me|notifications)(/|$)|^/v1/auth/password$|^/v1/season/orders$|^/v1/season/routes/{route_id}/email$")


@pytest.mark.parametrize("who", ["nobody", "other", "analyst"])
async def test_with_anothers_token_or_none_nothing_of_a_person_is_read_or_written(who: str, place: Place) -> None:
    document = (await place.client.get("/openapi.json")).json()
    headers = {"nobody": {}, "other": place.other.headers, "analyst": place.analyst.headers}[who]
    walked = 0
    for method, path, call in operations(document):
        if (method, path) in NOBODYS:
            continue
        for address, body in requests(method, path, call, document, place):
            if OWN.match(path) and who != "nobody" and method != "get" and ("{" not in path or "season" in path):
                continue  # it would change what is the caller's own; see test_accounts
            answer = await place.client.request(method, address, json=body, headers=headers)
            walked += 1
            told = f"{who}: {method} {address} -> {answer.status_code} {answer.text[:200]}"
            if (OWN.match(path) and who != "nobody") or ("analytics" in path and who == "analyst"):
                assert answer.status_code in (200, 404, 422), told
            else:
                assert answer.status_code in (401, 403), told
            for secret in (SECRET, HIDDEN, place.victim.account, *place.slates.values()):
                if secret not in address:
                    assert secret not in answer.text, told
    assert walked > 10
    for domain in ("anime", "guarded"):
        mine = (await place.client.get(f"/v1/{domain}/users/me", headers=place.victim.headers)).json()
        assert (mine["events"], mine["disliked"]) == (1, [SECRET])
    assert (await place.service.accounts.find(place.victim.account)).role == "user"
    theirs = (await place.client.get("/v1/season/users/me/choices", headers=place.victim.headers)).json()
    assert [(one["choice"], one["target"]) for one in theirs["choices"]] == [("no", HIDDEN)]


async def test_the_owner_and_who_may_read_do(place: Place) -> None:
    reader = await machine(place.service, "users:read")
    admin = await person(place.service, "admin")
    for domain in ("anime", "guarded"):
        for headers in (place.victim.headers, reader, admin.headers):
            known = await place.client.get(f"/v1/{domain}/users/{place.victim.user}", headers=headers)
            assert known.json()["disliked"] == [SECRET]
            assert known.headers["cache-control"] == "no-store"
            slate = await place.client.get(f"/v1/{domain}/slates/{place.slates[domain]}", headers=headers)
            assert slate.json()["user_id"] == place.victim.user


async def test_somebody_who_exists_and_somebody_who_does_not_are_refused_alike(place: Place) -> None:
    for path in ("/v1/guarded/users/{}", "/v1/anime/users/{}"):
        answers = [
            await place.client.get(path.format(user), headers=place.other.headers)
            for user in (place.victim.user, "1", "nobody", "a-" + "0" * 32)
        ]
        said = [{**answer.json(), "instance": ""} for answer in answers]
        assert said[0]["type"] == "urn:factotum:problem:not-yours"
        assert all(one == said[0] for one in said)


async def test_an_open_domain_answers_for_those_whom_nobody_owns(place: Place) -> None:
    for headers in ({}, place.other.headers):
        assert (await place.client.post("/v1/anime/recommendations", json={"user_id": 1}, headers=headers)).status_code == 200
        assert (await place.client.post("/recommend_collaborative", json={"user_id": 1}, headers=headers)).status_code == 200
    slate = (await place.client.post("/v1/anime/recommendations", json={"history": ["1001"]})).json()["slate"]
    assert (await place.client.get(f"/v1/anime/slates/{slate}")).status_code == 200
    personal = (await place.client.post("/v1/anime/recommendations", json={"user_id": 1})).json()["slate"]
    assert (await place.client.get(f"/v1/anime/slates/{personal}")).status_code == 401


async def test_a_domain_that_wants_a_token_answers_nobody_without_one(place: Place) -> None:
    nothing: dict[str, object] = {}
    post = place.client.post
    refused = await post("/v1/guarded/recommendations", json=nothing)
    assert (refused.status_code, "Bearer" in refused.headers["www-authenticate"]) == (401, True)
    own = (await post("/v1/guarded/recommendations", headers=place.victim.headers, json=nothing)).json()["slate"]
    stored = (await place.client.get(f"/v1/guarded/slates/{own}", headers=place.victim.headers)).json()
    assert stored["user_id"] == place.victim.user  # who names nobody asks for themselves
    assert (await post("/v1/guarded/recommendations", headers=place.other.headers, json={"user_id": "1"})).status_code == 403
    for scope, status in (("recommend", 200), ("items:write", 403)):
        headers = await machine(place.service, scope)  # type: ignore[arg-type]
        assert (await post("/v1/guarded/recommendations", headers=headers, json={"user_id": "1"})).status_code == status
    unnamed = (await post("/v1/guarded/recommendations", headers=place.other.headers, json={"history": ["1001"]})).json()["slate"]
    assert (await place.client.get(f"/v1/guarded/slates/{unnamed}", headers=place.victim.headers)).status_code == 403


async def test_events_of_others_need_the_scope(place: Place) -> None:
    async def send(domain: str, headers: dict[str, str], *users: str | None) -> int:
        events = [
            {"event_id": f"{domain}-{users}-{n}", "item_id": "1002", "kind": "click"} | ({} if user is None else {"user_id": user})
            for n, user in enumerate(users)
        ]
        return (await place.client.post(f"/v1/{domain}/events", json=events, headers=headers)).status_code

    writer, mine = await machine(place.service, "events:write"), place.other.headers
    assert await send("anime", {}, "somebody") == 200
    assert await send("anime", {}, "somebody", place.victim.user) == 401
    assert await send("anime", mine, "somebody", place.victim.user) == 403
    assert await send("anime", {}, None) == 422
    assert await send("guarded", {}, "somebody") == 401
    assert await send("guarded", mine, "somebody") == 403
    assert await send("guarded", mine, None, "me", place.other.user) == 200
    assert await send("guarded", writer, "somebody", place.other.user) == 200
    assert await send("guarded", writer, None) == 422
    assert await send("guarded", writer, "me") == 403
    known = (await place.client.get("/v1/guarded/users/me", headers=mine)).json()
    assert known["kinds"] == {"click": 4}


async def test_as_long_as_it_is_not_known_who_owns_whom_nobody_is_shown_anybody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.service.ownership.stop()  # its next look would find out again, in the midst of what is asked here
    monkeypatch.setattr(place.service.ownership, "ready", False)
    asked = await place.client.post("/v1/anime/recommendations", json={"user_id": place.victim.user})
    assert asked.status_code == 200
    assert "answered as for a newcomer" in asked.json()["notes"][0]
    assert (await place.client.get("/v1/anime/users/1", headers=place.other.headers)).status_code == 503
    event = {"event_id": "n", "user_id": "1", "item_id": "1001", "kind": "like"}
    assert (await place.client.post("/v1/anime/events", json=event)).status_code == 503
