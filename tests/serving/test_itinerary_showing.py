"""What a list of routes says of each, against the stops themselves."""

from __future__ import annotations

from itertools import pairwise

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from features.itinerary.chains import fitting
from features.itinerary.routes import route_id, rows_of
from serving.itinerary.current import Current
from serving.itinerary.showing import core, legs, route_document
from tests.serving.itinerary_world import season_timetable

CURRENT = Current.of("b", season_timetable(), [], [])
ROWS = range(len(CURRENT.timetable.stops))


def a_route(wanted: list[int]) -> list[int]:
    """As many of the rows as fit beside those before them."""
    route: list[int] = []
    for row in wanted:
        if fitting(CURRENT.timetable, route)[row]:
            route = sorted([*route, row])
    return route


@settings(max_examples=80)
@given(st.lists(st.sampled_from(ROWS), min_size=1, max_size=12))
def test_the_core_of_a_portrait_is_counted_from_the_stops(wanted: list[int]) -> None:
    timetable, rows = CURRENT.timetable, a_route(wanted)
    stops = [timetable.stops[row] for row in rows]
    concerts = [stop for stop in stops if not stop.optional]
    hops = [(one, other) for one, other in pairwise(stops) if one.day == other.day]
    walks = [int(timetable.walk[one.hall, other.hall]) for one, other in hops]
    assert core(timetable, rows) == {
        "days": len({stop.day for stop in stops}),
        "concerts": len(concerts),
        "events": len(stops) - len(concerts),
        "halls": len({stop.hall for stop in concerts}),
        "genres": len({stop.genre for stop in concerts if stop.genre is not None}),
        "composers": len({name for stop in concerts for name in stop.composers}),
        "music": sum(stop.minutes for stop in concerts),
        "walking": sum(walks),
        "waiting": sum(other.begins - one.ends for one, other in hops) - sum(walks),
        "cost": sum(stop.price or 0 for stop in stops),
        "changes": sum(one.hall != other.hall for one, other in hops),
    }


@settings(max_examples=40)
@given(st.lists(st.sampled_from(ROWS), min_size=1, max_size=12))
def test_a_listed_route_has_its_own_id_and_ways(wanted: list[int]) -> None:
    timetable, rows = CURRENT.timetable, a_route(wanted)
    said = orjson.loads(orjson.dumps(route_document(CURRENT, rows, 1.5, ["why"])))
    assert said["route_id"] == route_id(timetable, rows)
    if any(not timetable.stops[row].optional for row in rows):
        assert list(rows_of(timetable, said["route_id"])) == rows
    assert said["stops"] == [timetable.stops[row].id for row in rows]
    assert said["legs"] == legs(timetable, rows)
    assert (said["score"], said["why"], said["portrait"]) == (1.5, ["why"], core(timetable, rows))
