"""Routes over HTTP: how many and which, for whom, why none; what a person said of stops and routes; and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio

from configs.deployment import Deployment
from configs.domain import Language
from features.itinerary.routes import broken_hop, route_id
from features.itinerary.wishes import Wishes
from serving.api.itinerary_bodies import WishesBody
from serving.itinerary import questionnaire
from serving.itinerary.choosing import Chosens
from serving.itinerary.current import Current
from serving.itinerary.scores import stop_scores
from serving.itinerary.searching import Joined, join
from serving.service import Service
from serving.storage.database import DatabaseAwayError, now_us
from tests.serving.callers import Person, machine, person
from tests.serving.conftest import started, unhurried
from tests.serving.itinerary_world import Season, season_timetable

pytestmark = pytest.mark.asyncio(loop_scope="module")

Seated = tuple[Service, httpx.AsyncClient]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, season: Season, season_yaml: Any) -> AsyncIterator[Seated]:
    """One service for all: each test makes people of its own."""
    home = tmp_path_factory.mktemp("routes")
    season.publish(home)
    words = {"limits": {"store": "file", "person": 100_000, "credentials": 100_000}}
    deployment = Deployment.model_validate(words)
    async with AsyncExitStack() as stack:
        service, client = await started(unhurried(home, season_yaml, deployment), stack)
        await service.itineraries.warmed()
        yield service, client


async def search(place: Seated, who: Person | None = None, **body: Any) -> dict[str, Any]:
    answer = await place[1].post("/v1/season/routes/search", json=body, headers=who.headers if who else {})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(route: dict[str, Any]) -> list[str]:
    return [str(stop) for stop in route["stops"]]


# ------------------------------------------------------------ how many, and which


async def test_the_count_is_that_of_all_sets_that_are_routes(place: Seated) -> None:
    timetable = season_timetable()
    concerts = [row for row, stop in enumerate(timetable.stops) if not stop.optional and stop.day == 1]
    chains = [
        rows for size in range(1, len(concerts) + 1) for rows in itertools.combinations(concerts, size) if not broken_hop(timetable, rows)
    ]
    found = await search(place, wishes={"days": ["2030-07-02"]}, k=100, objective="music")
    assert found["total"] == str(len(chains))
    assert found["exact"]
    assert {tuple(ids(route)) for route in found["routes"]} == {tuple(timetable.stops[row].id for row in rows) for rows in chains}


async def test_the_best_by_score_have_the_largest_sums_of_the_engines_scores(place: Seated) -> None:
    service, _ = place
    engine = service.standing("season").engine
    state = service.standing("season").people.state("client0")
    assert state is not None
    timetable = season_timetable()
    scores = stop_scores(engine, state, now_us(), timetable)
    mine = {engine.catalogue.ids.id(int(row)) for row in state.items}
    assert all(scores[timetable.rows[name]] == 1.0 for name in mine)
    found = await search(place, user_id="client0", k=20, wishes={"days": ["2030-07-01", "2030-07-02", "2030-07-03"]})
    sums = [sum(scores[timetable.rows[name]] for name in ids(route)) for route in found["routes"]]
    assert sums == sorted(sums, reverse=True)
    assert np.allclose(sums, [route["score"] for route in found["routes"]], atol=1e-4)
    there = {name for name in mine if name in ids(found["routes"][0])}
    assert there == mine  # a data set's client keeps the tickets that the data set says


async def test_scores_follow_the_order_of_the_engines_own_recommendations(place: Seated) -> None:
    service, client = place
    slate = await client.post("/v1/season/recommendations", json={"user_id": "client1", "k": 30})
    listed = [item["item_id"] for item in slate.json()["items"]]
    engine, state = service.standing("season").engine, service.standing("season").people.state("client1")
    assert state is not None
    timetable = season_timetable()
    scores = stop_scores(engine, state, now_us(), timetable)
    ours = [scores[timetable.rows[name]] for name in listed]
    assert ours == sorted(ours, reverse=True)
    assert len(set(ours)) > 5
    assert all(scores[timetable.rows[name]] == 0.0 for name in ("x1", "x2", "x3"))


async def test_a_route_says_where_when_how_and_why(place: Seated) -> None:
    body: dict[str, Any] = {"wishes": {"must": ["d1h0", "d1h1", "d1h4"], "most": 3, "days": ["2030-07-01"]}, "k": 1, "language": "ru"}
    found = await search(place, **body)
    (route,) = found["routes"]
    assert ids(route) == ["d1h0", "d1h1", "d1h4"]
    assert route["legs"] == [
        {"before": "d1h0", "after": "d1h1", "walk": 10, "wait": 5},
        {"before": "d1h1", "after": "d1h4", "walk": 0, "wait": 135},
    ]
    figures = {"concerts": 3, "days": 1, "music": 135, "walking": 10, "waiting": 140, "cost": 140_000, "changes": 1, "halls": 2}
    assert figures.items() <= route["portrait"].items()
    assert "Рекомендуют редакторы: «Концерт d1h4»." in route["why"]
    alone = await place[1].get(f"/v1/season/routes/{route['route_id']}")
    assert alone.json()["stops"] == [found["concerts"][name] for name in route["stops"]]
    whole = alone.json()["portrait"]
    assert figures.items() <= whole.items()
    assert whole["zone"] in ("comfort", "depth", "balance")
    assert (whole["recommended"], whole["family"], len(whole)) == (1, 1, 45)
    shared = set(route["portrait"]) & set(whole)
    assert {name: route["portrait"][name] for name in shared} == {name: whole[name] for name in shared}
    assert len(shared) == len(route["portrait"])


async def test_samples_are_drawn_by_their_seed(place: Seated) -> None:
    first, again, other = [await search(place, sample=True, seed=seed, k=30) for seed in (1, 1, 2)]
    assert [route["route_id"] for route in first["routes"]] == [route["route_id"] for route in again["routes"]]
    assert [route["route_id"] for route in first["routes"]] != [route["route_id"] for route in other["routes"]]
    assert all(route["score"] is None for route in first["routes"])


async def test_diversity_brings_routes_that_share_less(place: Seated) -> None:
    def common(found: dict[str, Any]) -> float:
        sets = [set(ids(route)) for route in found["routes"]]
        pairs = list(itertools.combinations(sets, 2))
        return sum(len(a & b) / len(a | b) for a, b in pairs) / len(pairs)

    near, far = [await search(place, k=4, diversity=strength, objective="music") for strength in (0.0, 1.0)]
    assert common(far) < common(near)
    assert far["total"] == near["total"]


@pytest.mark.parametrize("objective", ["depth", "comfort", "balance", "composers", "cheapest", "least_walking", "popular", "editors"])
async def test_every_objective_answers(place: Seated, objective: str) -> None:
    found = await search(place, objective=objective, k=3)
    assert (found["objective"], len(found["routes"])) == (objective, 3)
    assert found["exact"] or found["within"] is not None


async def test_alternatives_say_what_is_gained_and_lost(place: Seated) -> None:
    name = route_id(season_timetable(), [season_timetable().rows[stop] for stop in ("d1h0", "d1h1")])
    answer = await place[1].post(f"/v1/season/routes/{name}/alternatives", json={"objective": "music", "k": 3})
    said = answer.json()
    assert said["score"] == 90.0
    assert len(said["alternatives"]) == 3
    for one in said["alternatives"]:
        assert len(one["stops"]) <= 2  # an alternative is much like the route, unless wishes say otherwise
        kept = {"d1h0", "d1h1"} - {stop["id"] for stop in one["lost"]}
        assert set(one["stops"]) == kept | {stop["id"] for stop in one["gained"]}
        assert one["score_by"] == one["score"] - 90.0 == one["music_by"]


async def test_endorsement_knows_experts_concerts_and_routes(place: Seated) -> None:
    service, client = place
    timetable = season_timetable()
    mine = route_id(timetable, [timetable.rows[stop] for stop in ("d1h3", "d1h4")])
    experts = route_id(timetable, [timetable.rows[stop] for stop in ("d1h4", "d2h0")])
    admin = await person(service, "admin")
    body = {"of": "route", "target": experts}
    assert (await client.put("/v1/season/admin/labels", json=body, headers=admin.headers)).status_code == 200
    said = (await client.get(f"/v1/season/routes/{mine}/endorsement")).json()
    assert (said["share"], said["concerts"], said["recommended"], said["agreement"]) == (0.5, ["d1h4"], False, 0.5)
    assert said["routes"] == [{"route_id": experts, "likeness": 0.3333, "common": ["d1h4"]}]
    assert (await client.get(f"/v1/season/routes/{experts}/endorsement")).json()["agreement"] == 1.0


# ------------------------------------------------------------ why none


async def test_overlapping_must_haves_are_named(place: Seated) -> None:
    found = await search(place, wishes={"must": ["d1h0", "clash"]})
    assert (found["total"], found["routes"], sorted(found["clash"])) == ("0", [], ["clash", "d1h0"])
    assert "clash" in found["notes"][-1]


async def test_an_impossible_budget_says_which_limit_binds(place: Seated) -> None:
    found = await search(place, wishes={"price_limit": 5})
    assert (found["total"], found["binding"], found["clash"]) == ("0", ["price_limit"], [])
    assert "the cheapest costs 30000" in found["notes"][-1]


@pytest.mark.parametrize(
    ("body", "where", "said"),
    [
        ({"wishes": {"halls": {"only": ["Bigg"]}}}, "wishes.halls.only", "did you mean 'Big'?"),
        ({"wishes": {"must": ["d1h9"]}}, "wishes.must", "there is no stop 'd1h9'"),
        ({"wishes": {"days": ["2030-07-09"]}}, "wishes.days", "there is no day"),
        ({"wishes": {"fewest": 3, "most": 2}}, "wishes.fewest", "fewest may not be more than most"),
        ({"wishes": {"arrival": "25:00"}}, "wishes.arrival", "expected a time such as 09:30 or 23:15"),
        ({"wishes": {"hals": {}}}, "wishes.hals", "unknown key"),
        ({"objective": "joy"}, "objective", "Input should be 'score'"),
        ({"k": 101}, "k", "less than or equal to 100"),
        ({"diversity": 1.5}, "diversity", "less than or equal to 1"),
    ],
)
async def test_wishes_that_mean_nothing_are_refused_with_what_is_allowed(
    place: Seated, body: dict[str, Any], where: str, said: str
) -> None:
    answer = await place[1].post("/v1/season/routes/search", json=body)
    assert answer.status_code == 422, answer.text
    fault = answer.json()["errors"][0]
    assert (fault["where"], said in fault["what"]) == (where, True)


async def test_an_unknown_wish_is_refused_with_the_wishes_there_are(place: Seated) -> None:
    answer = await place[1].post("/v1/season/routes/search", json={"wishes": {"hals": {}}})
    assert answer.json()["errors"][0]["allowed"] == list(WishesBody.model_fields)
    answer = await place[1].post("/v1/season/routes/search", json={"wishes": {"halls": {"some": ["Big"], "never": []}}})
    assert answer.json()["errors"][0]["allowed"] == ["only", "some", "none"]


async def test_a_body_that_is_too_long_is_not_read(place: Seated) -> None:
    answer = await place[1].post("/v1/season/routes/search", content=b'{"wishes": "' + b"x" * 66_000 + b'"}')
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nonsense", "is no route id"),
        ("0123456789abcdef~d1h0", "belongs to the timetable 0123456789abcdef"),
        ("{v}~d1h0~d1h9", "no stop 'd1h9'"),
        ("{v}~clash~d1h0", "cannot be reached in time"),
        ("{v}~x1", "it has no concert"),
        ("{v}~d1h1~d1h0", "not sorted"),
    ],
)
@pytest.mark.parametrize("what", ["", "/availability", "/description", "/ics", "/pdf", "/summary", "/rank-history", "/endorsement"])
async def test_a_broken_route_id_is_refused_by_every_route(place: Seated, what: str, name: str, said: str) -> None:
    answer = await place[1].get(f"/v1/season/routes/{name.format(v=season_timetable().version)}{what}")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:factotum:problem:unknown-route"
    assert said in answer.json()["detail"]


# ------------------------------------------------------------ a person


async def choose(place: Seated, who: Person, choice: str, *targets: str, of: str = "stop") -> dict[str, Any]:
    body = {"choice": choice, "of": of, "targets": list(targets)}
    answer = await place[1].post("/v1/season/users/me/choices", json=body, headers=who.headers)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def test_what_a_person_said_shapes_routes_at_once_and_can_be_taken_back(place: Seated) -> None:
    service, client = place
    me = await person(service)
    assert (await choose(place, me, "yes", "d2h3"))["added"] == ["d2h3"]
    await choose(place, me, "no", "d1h1", "d1h2")
    await choose(place, me, "bought", "clash")
    found = await search(place, me, user_id="me", k=5)
    assert found["notes"] == ["counted in: 1 of your tickets, 1 you surely want, 2 you do not want"]
    for route in found["routes"]:
        assert {"d2h3", "clash"} <= set(ids(route))
        assert not {"d1h0", "d1h1", "d1h2"} & set(ids(route))  # d1h0 clashes with the ticket
    assert "It keeps your tickets: «Концерт clash»." in found["routes"][0]["why"]
    plain = await search(place, me, user_id="me", personal=False)
    assert int(plain["total"]) > int(found["total"])

    assert (await client.delete("/v1/season/users/me/choices/no/stop/d1h1", headers=me.headers)).json() == {"removed": True}
    assert (await client.delete("/v1/season/users/me/choices/no/stop/d1h1", headers=me.headers)).json() == {"removed": False}
    again = await search(place, me, user_id="me")
    assert int(again["total"]) > int(found["total"])
    listed = (await client.get("/v1/season/users/me/choices", headers=me.headers)).json()
    assert [(one["choice"], one["target"]) for one in listed["choices"]] == [("yes", "d2h3"), ("no", "d1h2"), ("bought", "clash")]
    assert listed["bought"] == ["clash"]


async def test_a_sold_out_ticket_of_ones_own_is_kept(place: Seated) -> None:
    service, _ = place
    me = await person(service)
    await choose(place, me, "bought", "d3h0")
    service.itineraries.seated("season", await service.itineraries.stored.put_free("season", {"d3h0": 0}))
    try:
        found = await search(place, me, user_id="me", k=3)
        assert all("d3h0" in ids(route) for route in found["routes"])
        assert found["total"] != "0"
    finally:
        service.itineraries.seated("season", await service.itineraries.stored.put_free("season", {"d3h0": 50}))


async def test_a_favourite_weighs_more_and_the_engine_learns_of_it(place: Seated) -> None:
    service, _ = place
    me = await person(service)
    await choose(place, me, "favourite", "d1h3")
    state = service.standing("season").people.state(me.user)
    assert state is not None
    assert [service.standing("season").engine.catalogue.ids.id(int(row)) for row in state.positives] == ["d1h3"]
    found = await search(place, me, user_id="me", k=1, wishes={"days": ["2030-07-01"], "most": 1})
    assert ids(found["routes"][0]) == ["d1h3"]
    assert found["routes"][0]["why"][0] == "It has your favourites: «Концерт d1h3»."


async def test_taking_one_choice_back_leaves_what_else_was_said_of_the_stop(place: Seated) -> None:
    service, client = place
    me = await person(service)
    await choose(place, me, "bought", "d1h3")
    await choose(place, me, "favourite", "d1h3")
    await client.delete("/v1/season/users/me/choices/favourite/stop/d1h3", headers=me.headers)
    listed = (await client.get("/v1/season/users/me/choices", headers=me.headers)).json()
    assert listed["bought"] == ["d1h3"]
    await client.delete("/v1/season/users/me/choices/bought/stop/d1h3", headers=me.headers)
    assert (await client.get("/v1/season/users/me/choices", headers=me.headers)).json()["bought"] == []
    state = service.standing("season").people.state(me.user)
    assert state is not None
    assert len(state.positives) == 0


async def test_tickets_are_imported_once_and_clashing_ones_are_told(place: Seated) -> None:
    service, client = place
    me = await person(service)
    tickets = [{"concert_id": "d1h0", "sold_at": "2030-05-01T10:00:00+05:00"}, {"concert_id": "clash"}, {"concert_id": "d2h1"}]
    first = await client.post("/v1/season/users/me/tickets", json={"tickets": tickets}, headers=me.headers)
    assert first.json()["imported"] == 3
    assert [sorted(pair) for pair in first.json()["clashing"]] == [["clash", "d1h0"]]
    again = await client.post("/v1/season/users/me/tickets", json={"tickets": tickets[:1]}, headers=me.headers)
    assert (again.json()["imported"], again.json()["repeated"]) == (0, 1)
    found = await search(place, me, user_id="me", k=2)
    assert found["total"] != "0"  # tickets that nobody can use together do not leave a person without a route
    assert "bought for several people?" in found["notes"][0]
    bad = [{"concert_id": "d1h7"}, {"concert_id": "d1h1", "sold_at": "yesterday"}]
    refused = await client.post("/v1/season/users/me/tickets", json={"tickets": bad}, headers=me.headers)
    assert [fault["where"] for fault in refused.json()["errors"]] == ["tickets[0].concert_id", "tickets[1].sold_at"]


async def test_favourite_routes_are_kept(place: Seated) -> None:
    service, client = place
    me = await person(service)
    name = (await search(place, k=1))["routes"][0]["route_id"]
    await choose(place, me, "favourite", name, of="route")
    listed = (await client.get("/v1/season/users/me/choices", headers=me.headers)).json()["choices"]
    assert [(one["of"], one["target"]) for one in listed] == [("route", name)]
    assert (await client.delete(f"/v1/season/users/me/choices/favourite/route/{name}", headers=me.headers)).json()["removed"]
    body = {"choice": "favourite", "of": "route", "targets": ["x"]}
    refused = await client.post("/v1/season/users/me/choices", json=body, headers=me.headers)
    assert refused.status_code == 422


async def test_somebody_elses_choices_are_neither_read_nor_written(place: Seated) -> None:
    service, client = place
    me, other = await person(service), await person(service)
    await choose(place, me, "favourite", "d1h3")
    body = {"choice": "favourite", "targets": ["d1h4"]}
    for who, status in ((other.headers, 403), ({}, 401)):
        address = f"/v1/season/users/{me.user}"
        assert (await client.get(f"{address}/choices", headers=who)).status_code == status
        assert (await client.post(f"{address}/choices", json=body, headers=who)).status_code == status
        assert (await client.delete(f"{address}/choices/favourite/stop/d1h3", headers=who)).status_code == status
        assert (await client.post(f"{address}/tickets", json={"tickets": []}, headers=who)).status_code == status
        found = await client.post("/v1/season/routes/search", json={"user_id": me.user}, headers=who)
        assert found.status_code == status
        answered = await client.post("/v1/season/questionnaire", json={"answers": {}, "user_id": me.user}, headers=who)
        assert answered.status_code == status
    reader = await machine(service, "users:read")
    assert (await client.get(f"/v1/season/users/{me.user}/choices", headers=reader)).status_code == 200
    listed = (await client.get("/v1/season/users/me/choices", headers=me.headers)).json()["choices"]
    assert [one["target"] for one in listed] == ["d1h3"]


async def test_while_the_database_is_away_routes_are_found_without_what_a_person_chose(
    place: Seated, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, client = place
    me = await person(service)
    await choose(place, me, "no", "d1h1")

    async def away(*_: object) -> None:
        raise DatabaseAwayError("no")

    monkeypatch.setattr(service.choosing.stored, "told", away)
    answer = await client.post("/v1/season/routes/search", json={"user_id": "me"}, headers=me.headers)
    assert answer.status_code == 200
    assert answer.json()["degraded"] == ["database"]
    assert "could not be read" in answer.json()["notes"][0]
    assert answer.headers["degraded"] == "database"


# ------------------------------------------------------------ newcomers


async def test_a_questionnaire_becomes_wishes_that_a_search_takes(place: Seated) -> None:
    service, client = place
    questions = (await client.get("/v1/season/questionnaire?language=ru")).json()["questions"]
    assert {one["question"] for one in questions} == {"aim", "days", "pace", "budget", "genres", "children", "walking", "meal"}
    answers = {"aim": ["comfort"], "days": ["2030-07-01"], "pace": ["calm"], "children": ["yes"], "meal": ["yes"]}
    made = (await client.post("/v1/season/questionnaire", json={"answers": answers})).json()
    assert (made["objective"], made["stored"]) == ("comfort", False)
    found = await search(place, objective=made["objective"], wishes=made["wishes"], k=3)
    assert found["routes"]
    for route in found["routes"]:
        assert len(ids(route)) <= 2
        assert any("family" in found["concerts"][name]["labels"] for name in route["stops"])

    me = await person(service)
    kept = await client.post("/v1/season/questionnaire", json={"answers": answers, "user_id": "me"}, headers=me.headers)
    assert kept.json()["stored"]
    mine = await search(place, me, user_id="me", k=3)
    assert mine["objective"] == "comfort"
    assert [route["route_id"] for route in mine["routes"]] == [route["route_id"] for route in found["routes"]]
    other = await search(place, me, user_id="me", objective="music")
    assert other["objective"] == "music"


@pytest.mark.parametrize(
    ("answers", "where", "what"),
    [
        ({"colour": ["red"]}, "answers.colour", "there is no such question"),
        ({"pace": ["wild"]}, "answers.pace", "does not list this value"),
        ({"pace": ["calm", "full"]}, "answers.pace", "one value is allowed"),
        ({"pace": []}, "answers.pace", "a value is missing"),
    ],
)
async def test_answers_to_what_was_not_asked_are_refused(place: Seated, answers: dict[str, list[str]], where: str, what: str) -> None:
    refused = await place[1].post("/v1/season/questionnaire", json={"answers": answers})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["where"] == where
    assert what in refused.json()["errors"][0]["what"]


async def test_every_value_of_every_question_makes_a_profile(season: Season) -> None:
    words = season.domain.itinerary
    assert words is not None
    for one in questionnaire.questions(season.timetable, words, "en"):
        for value in one["values"]:
            made = questionnaire.profile(season.timetable, words, {one["question"]: [value["value"]]})
            assert made.objective


# ------------------------------------------------------------ joining alone


def joining(season: Season, person: Chosens, wishes: Wishes, language: Language) -> Joined:
    words = season.domain.itinerary
    assert words is not None
    return join(Current.of("b", season_timetable(), [], []), words, wishes, person, now_us(), language)


async def test_what_the_question_says_wins_over_what_was_said_before(season: Season) -> None:
    person = Chosens(bought=frozenset({"d1h0", "clash"}), yes=frozenset({"d1h1", "d2h0"}), no=frozenset({"d1h2", "d1h3"}))
    wishes = Wishes(days=("2030-07-01",), must=("d1h3",), must_not=("clash",))
    joined = joining(season, person, wishes, "en").wishes
    assert (joined.bought, joined.must, joined.must_not) == (("d1h0",), ("d1h3", "d1h1"), ("clash", "d1h2"))


async def test_what_is_surely_wanted_and_does_not_fit_is_told(season: Season) -> None:
    person = Chosens(bought=frozenset({"d1h0"}), yes=frozenset({"clash"}))
    joined = joining(season, person, Wishes(), "ru")
    assert joined.wishes.must == ()
    assert joined.notes[0].endswith("(пересекается, уже началось или недоступно): Концерт clash")
