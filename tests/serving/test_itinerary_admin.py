"""What administrators change of a timetable: by their role only, the same for the same seed, and in the audit."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from features.itinerary.routes import route_id
from serving.api.timetable_admin import drawn
from serving.itinerary.current import Current
from serving.service import Service
from tests.serving.callers import Person, machine, person
from tests.serving.itinerary_world import SEATS, season_timetable

Seated = tuple[Service, httpx.AsyncClient]


async def put(client: httpx.AsyncClient, who: Person, path: str, body: dict[str, Any]) -> httpx.Response:
    return await client.put(f"/v1/season/admin/{path}", json=body, headers=who.headers)


async def test_only_who_may_write_the_catalogue_changes_it(seated: Seated) -> None:
    service, client = seated
    writer = await machine(service, "items:write")
    reader = await machine(service, "users:read")
    bodies: dict[str, dict[str, Any]] = {
        "on-sale": {"concerts": ["d1h0"], "on_sale": False},
        "free-seats": {"seed": 1},
        "labels": {"of": "stop", "target": "d1h0"},
    }
    for path, body in bodies.items():
        address = f"/v1/season/admin/{path}"
        assert (await client.put(address, json=body)).status_code == 401
        for role in ("user", "analyst"):
            assert (await put(client, await person(service, role), path, body)).status_code == 403
        assert (await client.put(address, json=body, headers=reader)).status_code == 403
    assert service.itineraries.gone("season") == frozenset()
    assert (await client.put("/v1/season/admin/on-sale", json=bodies["on-sale"], headers=writer)).status_code == 200
    assert service.itineraries.gone("season") == {"d1h0"}


async def test_random_free_seats_are_the_seeds_and_within_the_hall(seated: Seated) -> None:
    service, client = seated
    admin = await person(service, "admin")
    first, again, other = [(await put(client, admin, "free-seats", {"seed": seed})).json() for seed in (7, 7, 8)]
    assert first["concerts"] == again["concerts"] != other["concerts"]
    assert first["changed"] == 13  # in the court nobody knows how many seats there are
    timetable = season_timetable()
    for one in first["concerts"]:
        assert 0 <= one["free"] <= SEATS[timetable.stops[timetable.rows[one["id"]]].hall]
    few = (await put(client, admin, "free-seats", {"seed": 7, "concerts": ["d1h0"]})).json()["concerts"]
    assert few == [one for one in first["concerts"] if one["id"] == "d1h0"]
    sold = (await put(client, admin, "free-seats", {"seed": 7, "low": 0, "high": 0, "concerts": ["d1h1"]})).json()
    assert sold["concerts"][0]["free"] == 0
    assert "d1h1" in service.itineraries.gone("season")
    shown = (await client.get("/v1/season/concerts/d1h0")).json()
    assert shown["free"] == few[0]["free"]
    halls = (await client.get("/v1/season/halls")).json()["halls"]
    assert next(hall for hall in halls if hall["name"] == "Court")["free"] is None


async def test_labels_are_put_and_taken_back(seated: Seated) -> None:
    service, client = seated
    admin = await person(service, "admin")
    route = route_id(season_timetable(), [season_timetable().rows["d1h0"]])
    targets = {"stop": "d1h0", "artist": "Bob/Trio", "composer": "Лист", "work": "Work 3", "route": route}
    for of, target in targets.items():
        said = await put(client, admin, "labels", {"of": of, "target": target})
        assert said.json() == {"of": of, "target": target, "label": "recommended", "present": True}
    assert "recommended" in (await client.get("/v1/season/concerts/d1h3")).json()["labels"]  # of the work
    assert (await client.get("/v1/season/artists/Bob%2FTrio/concerts")).json()["labels"] == ["recommended"]
    found = await client.post("/v1/season/routes/search", json={"wishes": {"labels": {"only": ["recommended"]}}, "k": 1})
    assert found.json()["total"] != "0"
    for of, target in targets.items():
        assert not (await put(client, admin, "labels", {"of": of, "target": target, "present": False})).json()["present"]
    current = service.itineraries.current("season")
    assert {stop.id for stop in current.timetable.stops if "recommended" in stop.labels} == {"d1h4"}  # the bundle's own


async def test_what_there_is_not_is_refused_and_nothing_is_changed(seated: Seated) -> None:
    service, client = seated
    admin = await person(service, "admin")
    bad: list[tuple[str, dict[str, Any], str]] = [
        ("on-sale", {"concerts": ["d1h0", "d1h9"], "on_sale": False}, "concerts[1]"),
        ("on-sale", {"concerts": ["d1h0"], "on_sale": "no"}, "on_sale"),
        ("free-seats", {"seed": 1, "low": 0.5, "high": 0.2}, "low"),
        ("free-seats", {"seed": -1}, "seed"),
        ("labels", {"of": "artist", "target": "Bob"}, "target"),
        ("labels", {"of": "route", "target": "x"}, "target"),
        ("labels", {"of": "stop", "target": "d1h0", "label": "golden"}, "label"),
        ("labels", {"of": "day", "target": "x"}, "of"),
    ]
    for path, body, where in bad:
        refused = await put(client, admin, path, body)
        assert (refused.status_code, refused.json()["errors"][0]["where"]) == (422, where)
    assert service.itineraries.gone("season") == frozenset()


async def test_each_change_is_in_the_audit(seated: Seated) -> None:
    service, client = seated
    admin = await person(service, "admin")
    await put(client, admin, "on-sale", {"concerts": ["d1h0"], "on_sale": False})
    await put(client, admin, "labels", {"of": "stop", "target": "d1h0"})
    other = await person(service)
    await put(client, other, "free-seats", {"seed": 1})
    changes = await audited(client, admin, admin, "UPDATE", 2)
    assert changes == {("PUT", "/v1/season/admin/on-sale", 200), ("PUT", "/v1/season/admin/labels", 200)}
    assert await audited(client, admin, other, "REFUSED", 1) == {("PUT", "/v1/season/admin/free-seats", 403)}


async def audited(client: httpx.AsyncClient, admin: Person, who: Person, kind: str, count: int) -> set[tuple[str, str, int]]:
    """What the audit has of somebody, once it has so many: entries are written behind the answers."""
    async with asyncio.timeout(120.0):
        while True:
            found = await client.get(f"/v1/admin/audit?person={who.account}&event_type={kind}", headers=admin.headers)
            entries = {(entry["method"], entry["endpoint"], entry["response_status"]) for entry in found.json()["entries"]}
            if len(entries) >= count:
                return entries
            await asyncio.sleep(0.1)


def test_each_stop_has_a_chance_of_its_own() -> None:
    current = Current.of("b", season_timetable(), [], [])
    everything = drawn(current, list(current.timetable.rows), 3, 0.0, 1.0)
    assert drawn(current, ["d2h0"], 3, 0.0, 1.0) == {"d2h0": everything["d2h0"]}
    assert len(set(everything.values())) > 5
