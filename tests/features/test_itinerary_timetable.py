"""The timetable: minutes from instants, the version, what is refused; and the edge cases of time."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest

from features.itinerary.search import Routes
from features.itinerary.timetable import IMPASSABLE, Availability, Timetable
from features.itinerary.wishes import Meal, Wishes, Words
from tests import itinerary_worlds as worlds


def _count(made: Timetable, wishes: Wishes | None = None) -> int:
    return Routes(made, wishes).count()


def test_known_worlds() -> None:
    assert _count(worlds.three_in_a_row()) == 7
    assert _count(worlds.two_days()) == 19
    assert _count(worlds.two_days(), Wishes(no_programme_twice=True)) == 15
    assert _count(worlds.not_transitive()) == 6
    assert _count(worlds.not_transitive(), Wishes(maximal=True)) == 1
    assert _count(worlds.one_way()) == 5


def test_no_gap_in_the_same_hall_is_in_time_and_one_minute_late_is_not() -> None:
    assert _count(worlds.timetable([worlds.stop("a", "13:00", 45), worlds.stop("b", "13:45")])) == 3
    assert _count(worlds.timetable([worlds.stop("a", "13:00", 46), worlds.stop("b", "13:45")])) == 2
    way = ((0, 15), (15, 0))
    assert _count(worlds.timetable([worlds.stop("a", "13:00", 45), worlds.stop("b", "14:00", hall=1)], way)) == 3
    assert _count(worlds.timetable([worlds.stop("a", "13:00", 46), worlds.stop("b", "14:00", hall=1)], way)) == 2


def test_stops_that_begin_together_are_never_on_one_route() -> None:
    made = worlds.timetable([worlds.stop(name, "13:00", hall=place) for place, name in enumerate("abc")], np.zeros((3, 3), dtype=np.int32))
    assert _count(made) == 3


def test_past_midnight_belongs_to_the_evening_before() -> None:
    made = worlds.timetable([worlds.stop("late", "23:30", 30), worlds.stop("night", "00:15", day=1), worlds.stop("next", "06:00", day=1)])
    assert made.days == ("2030-07-01", "2030-07-02")
    assert [(stop.id, stop.day, stop.begins) for stop in made.stops] == [("late", 0, 1_050), ("night", 0, 1_095), ("next", 1, 0)]
    assert Routes(made, Wishes(days=("2030-07-01",))).count() == 3
    assert Routes(made, Wishes(leaving=30)).count() == 3  # half past midnight is the night's: "night" ends at one


@pytest.mark.parametrize(("first", "between"), [(date(2030, 3, 31), 60), (date(2030, 10, 27), 180)])
def test_a_change_of_the_clocks_shifts_nothing(first: date, between: int) -> None:
    """Berlin: from 01:00 to 04:00 there are two hours in March and four in October; a day here begins at midnight."""
    zone = "Europe/Berlin"
    stops = [worlds.stop("a", "01:00", 60, zone=zone, first=first), worlds.stop("b", "04:00", 60, zone=zone, first=first)]
    made = worlds.timetable(stops, zone=zone, day_begins=0)
    assert made.stops[1].begins - made.stops[0].ends == between
    assert made.minute(0, 4 * 60) == made.stops[1].begins
    assert _count(made, Wishes(waiting_a_hop=between)) == 3
    assert _count(made, Wishes(waiting_a_hop=between - 1)) == 2


def test_a_count_beyond_64_bits_and_more_than_64_stops_a_day_are_exact() -> None:
    made = worlds.many(100, 2)
    assert len(made.stops) == 200
    routes = Routes(made)
    assert routes.count() == 2**200 - 1
    assert sum(routes.by_length().values()) == 2**200 - 1
    assert routes.by_length()[1] == 200
    assert routes.rank(routes.unrank(2**199 + 12_345)) == 2**199 + 12_345
    assert len(routes.sample(3, 1)) == 3


def test_an_empty_day_and_an_empty_timetable() -> None:
    made = worlds.timetable([worlds.stop("a", "13:00")], days=("2030-07-02", "2030-07-03"))
    assert made.days == ("2030-07-01", "2030-07-02", "2030-07-03")
    assert _count(made) == 1
    assert Routes(made).by_day() == {"2030-07-01": {1: 1}, "2030-07-02": {}, "2030-07-03": {}}
    assert _count(worlds.timetable([])) == 0
    assert _count(made, Wishes(every_day=True)) == 0


def test_all_sold_out() -> None:
    made = worlds.two_days()
    sold_out = Availability(np.zeros(5, dtype=np.int32), np.ones(5, dtype=np.bool_), 0)
    assert Routes(made, Wishes(), sold_out).count() == 19  # nobody asked about seats
    nothing = Routes(made, Wishes(party=1), sold_out)
    assert nothing.count() == 0
    why = nothing.why_nothing()
    assert why is not None
    assert why.wishes == ("party",)
    assert Routes(made, Wishes(party=1, bought=("a",)), sold_out).count() == 1  # who has a ticket goes


def test_json_gives_the_same_back_and_the_version_is_of_what_decides() -> None:
    made = worlds.two_days()
    document = json.loads(json.dumps(made.to_json()))
    assert Timetable.of_json(document).to_json() == made.to_json()
    dearer = [replace(stop, price=1, title="x", labels=()) for stop in _planned(made)]
    assert worlds.timetable(dearer, made.walk, seats=(1, 2)).version == made.version
    later = [replace(stop, starts_at=stop.starts_at + 60_000_000) for stop in _planned(made)]
    assert worlds.timetable(later, made.walk).version != made.version
    assert worlds.timetable(_planned(made), ((0, 11), (10, 0))).version != made.version


def _planned(made: Timetable) -> list[Any]:
    from features.itinerary.timetable import Planned

    return [Planned(**{name: getattr(stop, name) for name in Planned.__dataclass_fields__}) for stop in made.stops]


def test_availability_outlives_a_timetable() -> None:
    made = worlds.three_in_a_row()
    said = Availability(np.array([3, 0, -1], dtype=np.int32), np.array([True, True, False]), 7).to_json(made)
    again = Availability.of_json({**said, "stops": {**said["stops"], "gone": [1, True]}}, made)
    assert (again.free.tolist(), again.on_sale.tolist(), again.as_of) == ([3, 0, -1], [True, True, False], 7)
    with pytest.raises(ValueError, match="the availability is broken: KeyError"):
        Availability.of_json({}, made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zone": "Mars/Base"}, "no time zone 'Mars/Base': names of the IANA data base are allowed, such as Asia/Yekaterinburg"),
        ({"day_begins": 1_440}, "an itinerary's day begins at minute 1440 after midnight: 0 to 1439 is allowed"),
        ({"walk": [[0, -2], [10, 0]]}, "the way from 'h0' to 'h1' takes -2 minutes: 0 or more is allowed, or -1 for no way"),
        ({"walk": [[3, 2], [10, 0]]}, "the way from 'h0' to itself takes 3 minutes: only 0 is allowed"),
        ({"walk": [[0]]}, "2 halls need 2 x 2 walking minutes"),
        ({"halls": [{"name": "h", "seats": 1}, {"name": "h", "seats": 1}]}, "hall 'h' stands twice"),
        ({"version": "0" * 16}, "the timetable says version '0000000000000000' and is "),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        Timetable.of_json({**worlds.two_days().to_json(), **change})
    assert str(refused.value).startswith(message)


def test_stops_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="stop 'a' takes 0 minutes: 1 or more is allowed"):
        worlds.timetable([worlds.stop("a", "13:00", 0)])
    with pytest.raises(ValueError, match="stop 'a' is in hall 3: 0 to 0 is allowed"):
        worlds.timetable([worlds.stop("a", "13:00", hall=3)])
    with pytest.raises(ValueError, match="stop 'a' stands twice"):
        worlds.timetable([worlds.stop("a", "13:00"), worlds.stop("a", "14:00")])
    late = r"stop 'a' of 2030-07-01 ends after the itinerary's next day has begun \(06:00\): choose another hour"
    with pytest.raises(ValueError, match=late):
        worlds.timetable([worlds.stop("a", "05:30", 45, day=1)])
    with pytest.raises(ValueError, match=r"a timetable needs version, .* stops is missing"):
        Timetable.of_json({name: value for name, value in worlds.two_days().to_json().items() if name != "stops"})


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(halls=Words(only=("h9",))), "halls.only: there is no hall 'h9'; did you mean 'h1' or 'h0'?"),
        (Wishes(artists=Words(none=("Bobb",))), "artists.none: there is no artist 'Bobb'; did you mean 'Bob'?"),
        (Wishes(genres=Words(some=("q",))), "genres.some: there is no genre 'q'; allowed: 'chamber', 'choir', 'organ'"),
        (Wishes(must=("zz",)), "must: there is no stop 'zz'; allowed: 'a', 'b', 'c', 'd', 'x'"),
        (Wishes(days=("2030-07-09",)), "days: there is no day '2030-07-09'; did you mean '2030-07-02' or '2030-07-01'?"),
        (Wishes(price_limit=-1), "price_limit is -1: a whole number of 0 or more is allowed"),
        (Wishes(fewest=3, most=2), "fewest is 3 and most is 2: fewest may not be more than most"),
        (Wishes(meal=Meal(0, 700, 800)), "meal.minutes is 0: a whole number of 1 or more is allowed"),
        (Wishes(arrival=1_440), "arrival is 1440: minutes after midnight, 0 to 1439, are allowed"),
    ],
)
def test_a_wish_that_cannot_be_understood_is_named_with_what_is_allowed(wishes: Wishes, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        Routes(worlds.two_days(), wishes)
    assert str(refused.value) == message


def test_no_way_is_no_way() -> None:
    made = worlds.timetable([worlds.stop("a", "08:00"), worlds.stop("b", "20:00", hall=1)], ((0, IMPASSABLE), (5, 0)))
    assert _count(made) == 2
