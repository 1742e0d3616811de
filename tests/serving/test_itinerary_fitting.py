"""What is no use to recommend: what clashes with what a person holds, and what has begun."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import configs
from configs.deployment import Deployment
from configs.domain import Itinerary
from features.itinerary.routes import broken_hop
from serving.itinerary.choosing import Chosens
from serving.itinerary.current import Current
from serving.itinerary.fitting import Advice, holds, unfit
from serving.service import Service
from serving.storage.seats import Seat
from tests.serving.callers import person
from tests.serving.conftest import started, unhurried
from tests.serving.itinerary_world import ZONE, Season, season_file, season_timetable

CURRENT = Current.of("b", season_timetable(), [], [])
STOPS = [stop.id for stop in CURRENT.timetable.stops if not stop.optional]


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp()) * 1_000_000


BEFORE = at("2030-06-01T12:00")


@pytest.fixture(scope="module")
def words() -> Itinerary:
    domain = configs.load("festival")
    assert domain.itinerary is not None
    return domain.itinerary


def of(*bought: str, yes: frozenset[str] = frozenset(), no: frozenset[str] = frozenset()) -> Chosens:
    return Chosens(bought=frozenset(bought), yes=yes, no=no)


def test_what_cannot_be_reached_from_a_ticket_or_before_it_is_of_no_use(words: Itinerary) -> None:
    assert unfit(CURRENT, words, of(), BEFORE).clashing == ()
    assert unfit(CURRENT, words, of("d1h0"), BEFORE).clashing == ("clash",)  # at the same time
    assert unfit(CURRENT, words, of("d1h2"), BEFORE).clashing == ("d1h3",)  # no way leads from its hall to that of the next
    assert unfit(CURRENT, words, of(yes=frozenset({"d1h0"})), BEFORE).clashing == ("clash",)
    assert unfit(CURRENT, words, of("d1h0", no=frozenset({"clash"})), BEFORE).clashing == ()
    gone = CURRENT.with_seats([Seat("clash", 0, True, 1)])
    assert unfit(gone, words, of("d1h0"), BEFORE).clashing == ()  # sold out: it is in no answer for another reason
    spare = words.model_copy(update={"buffer_minutes": 10})
    assert unfit(CURRENT, spare, of("d1h0"), BEFORE).clashing == ("clash", "d1h1")  # 45 minutes, 10 on foot, 10 to spare


def test_of_tickets_bought_for_several_people_the_earlier_one_counts() -> None:
    timetable = CURRENT.timetable
    earlier, later = sorted(("d1h0", "clash"), key=lambda name: timetable.rows[name])
    assert [timetable.stops[row].id for row in holds(timetable, of("d1h0", "clash", "d1h1"))] == [earlier, "d1h1"]
    assert [timetable.stops[row].id for row in holds(timetable, of(later, yes=frozenset({earlier})))] == [later]


def test_what_has_begun_is_of_no_use_until_everything_has(words: Itinerary) -> None:
    found = unfit(CURRENT, words, of(), at("2030-07-01T13:00"))
    assert (set(found.begun), found.over) == ({"d1h0", "clash", "d1h1"}, False)
    beside = unfit(CURRENT, words, of("d1h0"), at("2030-07-01T13:00"))
    assert (beside.begun, beside.clashing) == (("clash", "d1h1"), ())  # what clashes and has begun is told once
    over = unfit(CURRENT, words, of("d1h0"), at("2031-01-01T12:00"))
    assert (over.begun, over.over, over.clashing) == ((), True, ("clash",))


@settings(max_examples=60)
@given(bought=st.sets(st.sampled_from(STOPS), max_size=6), yes=st.sets(st.sampled_from(STOPS), max_size=4), hour=st.integers(0, 80))
def test_what_is_left_fits_beside_what_is_held_and_has_not_begun(bought: set[str], yes: set[str], hour: int) -> None:
    domain = configs.load("festival")
    assert domain.itinerary is not None
    timetable = CURRENT.timetable
    chosens = Chosens(bought=frozenset(bought), yes=frozenset(yes))
    now = at("2030-07-01T00:00") + hour * 3_600_000_000
    found, held = unfit(CURRENT, domain.itinerary, chosens, now), holds(timetable, chosens)
    assert broken_hop(timetable, tuple(held)) is None
    for name in STOPS:
        row = timetable.rows[name]
        fits = broken_hop(timetable, tuple(sorted({*held, row}))) is None
        if name in bought or row in held:
            assert name not in found.clashing
        elif found.over or timetable.stops[row].starts_at > now:
            assert (name in found.clashing) == (not fits and bool(held))
        else:
            assert name in found.begun


def test_notes_say_what_is_left_out_and_of_marks_those_that_are_shown(words: Itinerary) -> None:
    found = unfit(CURRENT, words, of("d1h2"), at("2030-07-01T12:30"))
    advice = Advice(found, CURRENT, words, "en")
    assert set(advice.left_out) == {"d1h3", "d1h0", "clash"}
    tickets = "left out, because of your tickets or what you surely want there would be no time for it: 1 concert: «Концерт d1h3»"
    assert advice.notes([])[0] == tickets
    assert advice.notes([])[1].startswith("left out, because it has begun: 2 concerts: «Концерт ")
    marking = Advice(found, CURRENT, words.model_copy(update={"clashing": "marked", "begun": "marked"}), "ru")
    assert (marking.left_out, marking.notes([])) == ((), ())
    assert marking.notes(["d1h3"]) == (
        "рядом с вашими билетами или тем, что вы точно хотите, на это не будет времени: 1 концерт: «Концерт d1h3»",
    )
    away = Advice(unfit(CURRENT, words, of(), at("2031-01-01T12:00")), CURRENT, words, "en", away=True)
    assert away.notes([]) == (
        "everything in this timetable has begun already; it is shown as it was",
        "what this person chose could not be read: the database is away",
    )


# ------------------------------------------------------------ over HTTP


async def recommended(client: httpx.AsyncClient, **body: Any) -> tuple[list[str], list[str]]:
    """Ids and notes."""
    answer = await client.post("/v1/season/recommendations", json={"k": 50, **body}, headers=body.pop("headers", None))
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]], answer.json()["notes"]


async def test_recommendations_leave_out_what_clashes_with_tickets(seated: tuple[Service, httpx.AsyncClient]) -> None:
    service, client = seated
    me = await person(service)
    url = "/v1/season/users/me/choices"
    assert (await client.post(url, json={"choice": "bought", "targets": ["d1h2"]}, headers=me.headers)).status_code == 200

    async def mine() -> tuple[list[str], list[str]]:
        answer = await client.post("/v1/season/recommendations", json={"user_id": "me", "k": 50}, headers=me.headers)
        return [item["item_id"] for item in answer.json()["items"]], answer.json()["notes"]

    shown, notes = await mine()
    assert "d1h3" not in shown
    assert "d1h4" in shown
    assert any("d1h3" in note for note in notes)
    assert (await client.delete(f"{url}/bought/stop/d1h2", headers=me.headers)).json() == {"removed": True}
    shown, notes = await mine()
    assert {"d1h2", "d1h3"} <= set(shown)
    assert not any("tickets" in note for note in notes)
    shown, notes = await recommended(client, history=["d1h2"])
    assert "d1h3" not in shown
    assert any("d1h3" in note for note in notes)
    shown, notes = await recommended(client)
    assert len(shown) == 19
    assert not any("tickets" in note for note in notes)


async def test_recommendations_leave_out_what_has_begun(seated: tuple[Service, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = seated
    monkeypatch.setattr("serving.service.now_us", lambda: at("2030-07-02T12:10"))
    shown, notes = await recommended(client)
    assert {name[:2] for name in shown} == {"d2", "d3"}
    assert "d2h0" not in shown
    assert any(note.startswith("left out, because it has begun: 8 concerts") for note in notes)
    monkeypatch.setattr("serving.service.now_us", lambda: at("2031-01-01T00:00"))
    shown, notes = await recommended(client)
    assert len(shown) == 19
    assert "everything in this timetable has begun already; it is shown as it was" in notes


async def test_a_domain_may_want_them_marked(tmp_path: Path, season: Season, quick: Deployment, running: AsyncExitStack) -> None:
    season.publish(tmp_path / "home")
    _, client = await started(unhurried(tmp_path / "home", season_file(tmp_path, clashing="marked"), quick), running)
    shown, notes = await recommended(client, history=["d1h2"])
    assert "d1h3" in shown
    assert any(note.startswith("beside your tickets") and "«Концерт d1h3»" in note for note in notes)
