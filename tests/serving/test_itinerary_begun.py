"""What has begun is in no route that is found, but for tickets; what the YAML says against that; and a timetable that is over."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from configs.deployment import Deployment
from features.itinerary.routes import route_id
from serving.service import Service
from tests.serving.callers import person
from tests.serving.conftest import started, unhurried
from tests.serving.itinerary_world import Season, season_file, season_timetable
from tests.serving.test_itinerary_fitting import at

#: Of a whole day 48 sets of concerts can be attended, the empty one among them: all but those with both h2 and h3, between which there is
#: no way. On the first day `clash` may stand in place of d1h0: 72. Without h0: 24.
WHOLE = 72 * 48 * 48 - 1
Seated = tuple[Service, httpx.AsyncClient]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what a search takes for now: local time."""
    return lambda text: monkeypatch.setattr("serving.api.routes.now_us", lambda: at(text))


async def search(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    headers = body.pop("headers", None)
    answer = await client.post("/v1/season/routes/search", json={"objective": "music", **body}, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stops(found: dict[str, Any]) -> set[str]:
    return {str(stop) for route in found["routes"] for stop in route["stops"]}


async def test_a_search_leaves_out_what_has_begun_at_its_moment(seated: Seated, clock: Any) -> None:
    _, client = seated
    clock("2030-07-01T11:59")
    found = await search(client)
    assert (found["total"], found["notes"]) == (str(WHOLE), [])
    clock("2030-07-02T12:00")  # to the minute: d2h0 begins
    found = await search(client, k=100)
    assert found["total"] == str(24 * 48 - 1)
    assert {name[:2] for name in stops(found)} == {"d2", "d3"}
    assert "d2h0" not in stops(found)
    assert found["notes"][0].startswith("left out, because it has begun: 8 concerts: «Концерт ")
    drawn = await search(client, sample=True, seed=1, k=100)
    assert drawn["total"] == found["total"]
    assert not {name for name in stops(drawn) if name.startswith("d1")} | {"d2h0"} & stops(drawn)
    of_the_day = await search(client, wishes={"days": ["2030-07-02"]})
    assert of_the_day["total"] == "23"
    assert of_the_day["notes"] == ["left out, because it has begun: 1 concert: «Концерт d2h0»"]
    none = await search(client, wishes={"days": ["2030-07-01"]})
    assert (none["total"], none["binding"]) == ("0", ["days", "begun"])
    asked_for = await search(client, wishes={"must": ["d1h0"]})
    assert (asked_for["total"], asked_for["clash"], asked_for["binding"]) == ("0", ["d1h0"], ["begun"])


async def test_who_has_a_ticket_for_what_has_begun_keeps_it(seated: Seated, clock: Any) -> None:
    service, client = seated
    me = await person(service)
    url = "/v1/season/users/me/choices"
    assert (await client.post(url, json={"choice": "bought", "targets": ["d2h0"]}, headers=me.headers)).status_code == 200
    assert (await client.post(url, json={"choice": "yes", "targets": ["d1h0"]}, headers=me.headers)).status_code == 200
    clock("2030-07-02T12:10")
    found = await search(client, user_id="me", headers=me.headers)
    assert found["total"] == str(24 * 48)
    assert all("d2h0" in route["stops"] for route in found["routes"])
    surely = "of what you surely want, this could not be counted in, because it clashes, has begun or cannot be had: Концерт d1h0"
    assert found["notes"][:2] == [surely, "counted in: 1 of your tickets, 0 you surely want, 0 you do not want"]
    assert found["notes"][2].startswith("left out, because it has begun: 6 concerts")  # of eight one is held, and of one it was told


async def test_alternatives_agree_with_the_search(seated: Seated, clock: Any) -> None:
    _, client = seated
    rows = season_timetable().rows
    name = route_id(season_timetable(), [rows["d2h0"], rows["d2h3"]])
    clock("2030-07-02T13:00")
    answer = await client.post(f"/v1/season/routes/{name}/alternatives", json={"objective": "music", "k": 10})
    found = [set(one["stops"]) for one in answer.json()["alternatives"]]
    assert found == [{"d2h0", "d2h2"}, {"d2h0", "d2h4"}, {"d2h0", "d2h5"}, {"d2h0"}]
    assert answer.json()["notes"][0].startswith("left out, because it has begun: 1 concert")


async def test_a_timetable_that_is_over_is_shown_whole(seated: Seated, clock: Any) -> None:
    _, client = seated
    clock("2031-01-01T00:00")
    found = await search(client)
    assert found["total"] == str(WHOLE)
    assert found["notes"] == ["everything in this timetable has begun already; it is shown as it was"]


async def test_a_domain_may_want_what_has_begun_marked(
    tmp_path: Path, season: Season, quick: Deployment, running: AsyncExitStack, clock: Any
) -> None:
    season.publish(tmp_path / "home")
    service, client = await started(unhurried(tmp_path / "home", season_file(tmp_path, begun="marked"), quick), running)
    await service.itineraries.warmed()
    clock("2030-07-01T12:30")
    found = await search(client, wishes={"must": ["d1h0"]}, k=1)
    assert found["total"] == str(24 * 48 * 48)
    assert found["notes"] == ["this has begun already: 1 concert: «Концерт d1h0»"]
