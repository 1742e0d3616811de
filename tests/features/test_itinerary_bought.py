"""Chains that one person can attend, what fits beside them, and the routes that tickets make from day to day: small ones with known
answers, and brute force."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.itinerary.bought import SEVERAL, BoughtRoutes, Change, bought_routes
from features.itinerary.chains import clashing, fitting
from features.itinerary.timetable import IMPASSABLE, Planned, Timetable

DAY = 1_440 * 60_000_000
START = 1_751_600_400_000_000  # 2025-07-04, 03:40 UTC


def table(stops: list[tuple[int, int, int, int]], walk: list[list[int]]) -> Timetable:
    """Stops as (day, minute, minutes, hall); ids in the order given."""
    planned = [
        Planned(f"s{place}", f"S{place}", START + day * DAY + minute * 60_000_000, minutes, hall)
        for place, (day, minute, minutes, hall) in enumerate(stops)
    ]
    return Timetable.build("UTC", 0, [f"H{hall}" for hall in range(len(walk))], [0] * len(walk), walk, planned)


#: Two halls ten minutes apart, back there is no way: s0 13:40-14:25 and so on.
SMALL = table(
    [(0, 0, 45, 0), (0, 55, 45, 1), (0, 54, 30, 1), (0, 110, 30, 0), (0, 100, 20, 1), (1, 0, 45, 1)],
    [[0, 10], [IMPASSABLE, 0]],
)


def rows(*ids: str) -> list[int]:
    return [SMALL.rows[name] for name in ids]


def test_arrival_at_the_beginning_is_in_time_and_a_minute_late_is_not() -> None:
    assert clashing(SMALL, rows("s0", "s1")) == []
    assert clashing(SMALL, rows("s0", "s2")) == [tuple(rows("s0", "s2"))]
    assert clashing(SMALL, rows("s0", "s1"), buffer=1) == [tuple(rows("s0", "s1"))]
    assert clashing(SMALL, rows("s1", "s3")) == [tuple(rows("s1", "s3"))]  # no way back
    assert clashing(SMALL, rows("s1", "s4")) == []  # no gap, the same hall
    assert clashing(SMALL, rows("s0", "s5")) == []  # another day
    assert clashing(SMALL, []) == []


def fits(*ids: str) -> list[str]:
    return [SMALL.stops[row].id for row in np.flatnonzero(fitting(SMALL, rows(*ids)))]


def test_what_fits_beside_a_route() -> None:
    assert fits("s0") == ["s1", "s4", "s3", "s5"]
    assert fits("s0", "s3") == ["s5"]
    assert fits("s1") == ["s0", "s4", "s5"]
    assert len(fits()) == 6


@st.composite
def timetables(draw: st.DrawFn) -> Timetable:
    halls = draw(st.integers(1, 3))
    way = st.sampled_from([IMPASSABLE, 0, 5, 30])
    walk = [[0 if one == other else draw(way) for other in range(halls)] for one in range(halls)]
    stop = st.tuples(
        st.integers(0, 1), st.integers(0, 24).map(lambda five: five * 5), st.sampled_from([5, 20, 45]), st.integers(0, halls - 1)
    )
    return table(draw(st.lists(stop, min_size=1, max_size=9)), walk)


def attended(timetable: Timetable, chosen: list[int]) -> bool:
    """By the definition, pair after pair."""
    for one, other in pairwise(sorted(chosen)):
        first, second = timetable.stops[one], timetable.stops[other]
        if first.day == second.day:
            walk = int(timetable.walk[first.hall, second.hall])
            if walk == IMPASSABLE or first.ends + walk > second.begins:
                return False
    return True


@settings(max_examples=200)
@given(timetables(), st.data())
def test_fitting_is_what_trying_each_says(timetable: Timetable, data: st.DataObject) -> None:
    count = len(timetable.stops)
    chosen = sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=4)))
    assert (not clashing(timetable, chosen)) == attended(timetable, chosen)
    if attended(timetable, chosen):
        found = fitting(timetable, chosen)
        assert found.tolist() == [row not in chosen and attended(timetable, [*chosen, row]) for row in range(count)]


# ------------------------------------------------------------------ tickets

DATES = ("2025-05-01", "2025-05-02", "2025-05-03")


def person(*changes: tuple[int, tuple[str, ...]]) -> list[Change]:
    return [Change(date, tuple(sorted(rows(*ids)))) for date, ids in changes]


@pytest.fixture
def bought() -> BoughtRoutes:
    people = [
        person((0, ("s0",)), (1, ("s0", "s1"))),  # leaves one route for a longer one
        person((0, ("s0",))),
        person((1, ("s0", "s1"))),
        person((1, ("s0", "s1", "s5"))),  # of two days
        person((0, ("s0", "s2"))),  # clashes: for two people
        person((2, ("s5",))),
        person((0, ("s4",)), (2, ())),  # gave the ticket back
    ]
    return bought_routes(SMALL, DATES, people)


def test_a_person_leaves_a_route_for_a_longer_one(bought: BoughtRoutes) -> None:
    holders = {(int(day), ids): bought.holders[row].tolist() for row, (day, ids) in enumerate(zip(bought.day, bought.stops, strict=True))}
    assert holders == {
        (0, ("s0",)): [2, 1, 1],
        (0, ("s4",)): [1, 1, 0],
        (0, ("s0", "s1")): [0, 3, 3],
        (1, ("s5",)): [0, 1, 2],
        (SEVERAL, ("s0", "s1", "s5")): [0, 1, 1],
    }
    assert bought.people.tolist() == [5, 2, 1]
    assert bought.clashing.tolist() == [1, 0, 0]


def test_ranks_by_day_and_by_length(bought: BoughtRoutes) -> None:
    assert bought.history(("s0",)) == [
        {"date": DATES[0], "holders": 2, "rank_of_day": 1, "rank_of_length": 1},
        {"date": DATES[1], "holders": 1, "rank_of_day": 2, "rank_of_length": 1},
        {"date": DATES[2], "holders": 1, "rank_of_day": 2, "rank_of_length": 2},
    ]
    assert bought.history(("s1", "s0"))[0] == {"date": DATES[1], "holders": 3, "rank_of_day": 1, "rank_of_length": 1}
    assert bought.history(("s4",))[-1] == {"date": DATES[2], "holders": 0, "rank_of_day": None, "rank_of_length": None}
    assert bought.history(("s1",)) == []
    assert [bought.stops[row] for row in bought.popular("day", 0, 5)] == [("s0", "s1"), ("s0",)]
    assert [bought.stops[row] for row in bought.popular("length", 2, 5)] == [("s5",), ("s0",)]
    assert [bought.stops[row] for row in bought.popular("length", 3 * 2 + 1, 5)] == [("s0", "s1", "s5")]


def test_exactly_this_route_or_more(bought: BoughtRoutes) -> None:
    assert (bought.exactly(("s0", "s1")), bought.holding(("s0", "s1"))) == (3, 3)
    assert (bought.exactly(("s0",)), bought.holding(("s0",))) == (1, 4)
    assert (bought.exactly(("s1",)), bought.holding(("s1",))) == (0, 3)
    assert (bought.holding(("s1", "s5")), bought.holding(("s2",)), bought.holding(())) == (1, 0, 0)


def test_bought_routes_survive_json(bought: BoughtRoutes) -> None:
    document = json.loads(json.dumps(bought.to_json()))
    back = BoughtRoutes.of_json(document)
    assert back.to_json() == document
    assert (back.stops, back.dates, back.version) == (bought.stops, bought.dates, SMALL.version)
    assert np.array_equal(back.holders, bought.holders)
    assert np.array_equal(back.ranks("length"), bought.ranks("length"))
    for broken in ({}, {**document, "routes": [{"day": 0}]}, {**document, "dates": 5}):
        with pytest.raises(ValueError, match="the bought routes are broken"):
            BoughtRoutes.of_json(broken)


def test_nothing_was_bought() -> None:
    nothing = bought_routes(SMALL, (), ())
    assert (nothing.popular("day", 0, 3), nothing.history(("s0",)), nothing.exactly(("s0",)), nothing.holding(("s0",))) == ([], [], 0, 0)
    assert BoughtRoutes.of_json(nothing.to_json()).to_json() == nothing.to_json()
