"""The timetable as one looks things up in it, and what changes of it while it is served: on this replica at once, on others by the poll."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from configs.deployment import Deployment
from features.itinerary.timetable import Timetable
from serving.api.application import create_app
from serving.itinerary.current import Current
from serving.service import Service
from serving.storage.seats import Label, Seat
from tests.serving.callers import Person, person
from tests.serving.conftest import started, unhurried
from tests.serving.itinerary_world import Season, season_file, season_timetable

Seated = tuple[Service, httpx.AsyncClient]


async def got(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(f"/v1/season/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def put(client: httpx.AsyncClient, who: Person, path: str, body: dict[str, Any]) -> httpx.Response:
    return await client.put(f"/v1/season/admin/{path}", json=body, headers=who.headers)


async def test_concerts_stand_in_the_order_of_time_by_the_clock_of_the_place(seated: Seated) -> None:
    _, client = seated
    whole = await got(client, "concerts")
    assert (whole["total"], len(whole["concerts"]), whole["days"]) == (22, 22, ["2030-07-01", "2030-07-02", "2030-07-03"])
    assert [one["starts"] for one in whole["concerts"]] == sorted(one["starts"] for one in whole["concerts"])
    first = await got(client, "concerts/d1h1")
    assert first["starts"] == "2030-07-01T13:00:00+05:00"
    assert (first["begins"], first["until"], first["minutes"], first["hall"]) == ("13:00", "13:45", 45, "Small")
    assert (first["price"], first["currency"], first["labels"]) == (40_000, "RUB", ["family"])
    assert (first["free"], first["on_sale"], first["to_be_had"]) == (None, True, True)
    assert (await got(client, "concerts/x1"))["optional"] is True


async def test_concerts_are_filtered(seated: Seated) -> None:
    for query, wanted in {
        "day=2030-07-02&hall=Big": ["d2h0", "d2h3"],
        "genre=organ&day=2030-07-01": ["clash", "d1h2", "d1h5"],
        "label=family": ["d1h1", "d2h1", "d3h1"],
        "query=КОНЦЕРТ d3h2": ["d3h2"],
        "optional=true": ["x1", "x2", "x3"],
        "size=2&page=2": ["d1h1", "d1h2"],
        "to_be_had=false": [],
    }.items():
        assert [one["id"] for one in (await got(seated[1], f"concerts?{query}"))["concerts"]] == wanted, query


async def test_who_plays_what_where(seated: Seated) -> None:
    _, client = seated
    artists = await got(client, "artists")
    assert artists["total"] == 4
    assert {one["name"]: one["concerts"] for one in artists["artists"]} == {"Анна Ключ": 5, "Bob/Trio": 5, "Cid": 4, "Dee": 5}
    trio = await got(client, "artists/Bob%2FTrio/concerts")
    assert [one["id"] for one in trio["stops"]] == ["d1h1", "d1h5", "d2h3", "d3h1", "d3h5"]
    assert trio["days"] == ["2030-07-01", "2030-07-02", "2030-07-03"]
    verdi = await got(client, "composers/Verdi/concerts")
    assert [one["id"] for one in verdi["stops"]] == ["d1h5", "d2h5", "d3h5"]
    assert {one["name"] for one in (await got(client, "composers"))["composers"]} == {"Bach", "Лист", "Berio", "Verdi"}
    halls = {one["name"]: one for one in (await got(client, "halls"))["halls"]}
    assert halls["Court"]["walk"] == {"Big": None, "Small": 10}
    assert (halls["Big"]["seats"], halls["Court"]["seats"]) == (100, None)
    assert len((await got(client, "halls/Small/concerts"))["stops"]) == 7


async def test_what_there_is_not_is_refused_with_what_was_meant(seated: Seated) -> None:
    for path, kind, near in (
        ("concerts/D1H5", "unknown-item", "d1h5"),
        ("artists/Анна%20Ключь/concerts", "unknown-artist", "Анна Ключ"),
        ("composers/Bahc/concerts", "unknown-composer", "Bach"),
        ("halls/court/concerts", "unknown-hall", "Court"),
    ):
        answer = await seated[1].get(f"/v1/season/{path}")
        assert answer.status_code == 404
        assert answer.json()["type"] == f"urn:factotum:problem:{kind}"
        assert near in answer.json()["errors"][0]["allowed"]
    for query, where in (("hall=Bigg", "hall"), ("day=2030-07-09", "day"), ("label=old", "label"), ("x=1", "x")):
        answer = await seated[1].get(f"/v1/season/concerts?{query}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["where"] == where


def test_a_domain_without_an_itinerary_has_none_of_these_routes(tmp_path: Path, season_yaml: Path, yaml_file: Path) -> None:
    app = create_app(Service(tmp_path, [str(season_yaml), str(yaml_file)], Deployment.model_validate({"limits": {"store": "file"}})))
    paths = set(app.openapi()["paths"])
    assert "/v1/season/routes/search" in paths
    assert [path for path in paths if path.startswith("/v1/anime")] == []


# ------------------------------------------------------------ what changes while serving


async def everywhere(client: httpx.AsyncClient) -> set[str]:
    """Ids in every kind of answer that offers concerts to a newcomer."""
    shown: set[str] = set()
    slate = await client.post("/v1/season/recommendations", json={"k": 30})
    shown |= {item["item_id"] for item in slate.json()["items"]}
    similar = await client.get("/v1/season/items/d1h0/similar?k=30")
    shown |= {item["item_id"] for item in similar.json()["items"]}
    for also in ({"k": 100}, {"k": 20, "sample": True, "seed": 3}, {"objective": "depth", "k": 20}):
        routes = (await client.post("/v1/season/routes/search", json=also)).json()["routes"]
        shown |= {stop for route in routes for stop in route["stops"]}
    return shown


async def test_what_is_sold_out_or_off_sale_is_in_no_answer_from_the_next_request_on(seated: Seated) -> None:
    service, client = seated
    admin = await person(service, "admin")
    before = await everywhere(client)
    assert {"d1h1", "d2h4"} <= before
    total = int((await client.post("/v1/season/routes/search", json={})).json()["total"])

    assert (await put(client, admin, "on-sale", {"concerts": ["d2h4"], "on_sale": False})).status_code == 200
    written = await service.itineraries.stored.put_free("season", {"d1h1": 0})
    service.itineraries.seated("season", written)
    assert not {"d1h1", "d2h4"} & await everywhere(client)
    assert [one["id"] for one in (await got(client, "concerts?to_be_had=false"))["concerts"]] == ["d1h1", "d2h4"]
    less = int((await client.post("/v1/season/routes/search", json={})).json()["total"])
    assert less < total
    unasked = await client.post("/v1/season/routes/search", json={"wishes": {"party": None}})
    assert int(unasked.json()["total"]) == total  # who does not look at seats sees all there are

    assert (await put(client, admin, "on-sale", {"concerts": ["d2h4"], "on_sale": True})).status_code == 200
    assert "d2h4" in await everywhere(client)


async def test_a_party_needs_as_many_seats(seated: Seated) -> None:
    service, client = seated
    service.itineraries.seated("season", await service.itineraries.stored.put_free("season", {"d1h0": 2}))
    for party, held in ((2, True), (3, False)):
        body = {"wishes": {"party": party, "must": ["d1h0"]}}
        answer = (await client.post("/v1/season/routes/search", json=body)).json()
        assert (answer["total"] != "0") is held
    assert answer["clash"] == ["d1h0"]
    assert "'party' leaves it out" in answer["notes"][-1]


async def until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 (another replica's poll acts)
            await asyncio.sleep(0.02)


async def test_another_replica_follows_within_its_poll(
    seated: Seated, season_yaml: Path, quick: Deployment, running: AsyncExitStack
) -> None:
    here, client = seated
    there, _ = await started(unhurried(here.home, season_yaml, quick), running)
    admin = await person(here, "admin")
    await put(client, admin, "on-sale", {"concerts": ["d1h0"], "on_sale": False})
    await put(client, admin, "labels", {"of": "artist", "target": "Cid"})
    await until(lambda: there.itineraries.gone("season") == {"d1h0"})
    await until(lambda: "recommended" in _labels(there, "d1h2"))
    await put(client, admin, "labels", {"of": "artist", "target": "Cid", "present": False})
    await until(lambda: "recommended" not in _labels(there, "d1h2"))
    late, _ = await started(unhurried(here.home, season_yaml, quick), running)
    assert late.itineraries.gone("season") == {"d1h0"}  # known before its first answer


async def test_another_replica_of_the_home_knows_by_its_next_answer(
    tmp_path: Path, season: Season, quick: Deployment, running: AsyncExitStack
) -> None:
    season.publish(tmp_path / "home")
    yaml_file = season_file(tmp_path, seats_refresh_s=3_600.0)  # no poll comes in time
    here, client = await started(unhurried(tmp_path / "home", yaml_file, quick), running)
    there, other = await started(unhurried(tmp_path / "home", yaml_file, quick), running)
    await there.itineraries.warmed()
    admin = await person(here, "admin")
    await person(there)  # it has read everything before
    for on_sale in (False, True, False):
        assert (await put(client, admin, "on-sale", {"concerts": ["d1h0"], "on_sale": on_sale})).status_code == 200
        found = (await other.post("/v1/season/routes/search", json={"k": 100, "wishes": {"days": ["2030-07-01"]}})).json()
        assert any("d1h0" in route["stops"] for route in found["routes"]) is on_sale
        slate = (await other.post("/v1/season/recommendations", json={"k": 50})).json()
        assert ("d1h0" in [item["item_id"] for item in slate["items"]]) is on_sale
        listed = (await other.get("/v1/season/concerts?to_be_had=false")).json()
        assert [one["id"] for one in listed["concerts"]] == ([] if on_sale else ["d1h0"])
    best = (await other.post("/v1/season/routes/search", json={"k": 1, "objective": "editors", "wishes": {"most": 1}})).json()
    await put(client, admin, "labels", {"of": "stop", "target": "d2h3"})
    after = (await other.post("/v1/season/routes/search", json={"k": 1, "objective": "editors", "wishes": {"most": 1}})).json()
    assert after["routes"][0]["score"] == best["routes"][0]["score"] + 1.0
    assert "d2h3" in after["routes"][0]["stops"]


def _labels(service: Service, stop: str) -> tuple[str, ...]:
    timetable = service.itineraries.current("season").timetable
    return timetable.stops[timetable.rows[stop]].labels


async def test_a_bundle_without_a_timetable_says_so(tmp_path: Path, season_yaml: Path, quick: Deployment, running: AsyncExitStack) -> None:
    _, client = await started(unhurried(tmp_path / "home", season_yaml, quick), running)
    answer = await client.get("/v1/season/concerts")
    assert answer.status_code == 503
    assert "no bundle of season is in service" in answer.json()["detail"]


# ------------------------------------------------------------ the snapshot alone


def snapshot(seats: list[Seat], labels: list[Label]) -> tuple[Timetable, Current]:
    timetable = season_timetable()
    return timetable, Current.of("b", timetable, seats, labels)


def test_a_label_of_an_artist_is_on_every_stop_with_them_and_one_taken_from_a_stop_is_not() -> None:
    timetable, current = snapshot([], [Label("artist", "Dee", "recommended", True, 1), Label("stop", "d1h4", "recommended", False, 1)])
    marked = {stop.id for stop in current.timetable.stops if "recommended" in stop.labels}
    assert marked == {stop.id for stop in timetable.stops if "Dee" in stop.artists}
    assert current.timetable.version == timetable.version
    assert timetable.stops[timetable.rows["d1h4"]].labels == ("recommended",)  # the bundle's own stays as it was


def test_seats_of_stops_that_there_are_not_are_left_out() -> None:
    _, current = snapshot([Seat("gone", 3, True, 5), Seat("d1h0", 0, True, 7), Seat("d1h1", 9, False, 6)], [])
    assert current.gone == {"d1h0", "d1h1"}
    assert current.availability.as_of == 7
    assert not current.to_be_had(current.timetable.rows["d1h1"])
