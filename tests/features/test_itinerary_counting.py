"""Counts, numbers and samples under limits that add up over days and programmes that may not come twice: worlds with known answers."""

from __future__ import annotations

from math import comb

import pytest

from features.itinerary.graph import TooManyStatesError
from features.itinerary.search import Routes
from features.itinerary.timetable import Timetable
from features.itinerary.wishes import Wishes
from tests import itinerary_worlds as worlds


def test_a_budget_over_two_days_and_no_programme_twice_by_hand() -> None:
    """Day 1: nothing, a 200, b 300, ab 500, x 500; day 2: nothing, c 200, d 100, cd 300; a and c are one programme. Of the pairs within
    500, those with a and c left out: 3 beside nothing, a and ad, b and bc and bd, ab, x: ten."""
    made = worlds.two_days()
    tight = Routes(made, Wishes(no_programme_twice=True, price_limit=500))
    assert tight.by_length() == {1: 5, 2: 5}
    assert tight.count() == 10
    listed = [tuple(made.stops[row].id for row in tight.unrank(number)) for number in range(10)]
    assert sorted("".join(names) for names in listed) == sorted(["a", "b", "ab", "x", "c", "d", "cd", "ad", "bc", "bd"])
    assert [tight.rank([made.rows[name] for name in names]) for names in listed] == list(range(10))
    assert not tight.holds([made.rows["a"], made.rows["c"]])
    assert {made.stops[loss.row].id: loss.routes for loss in tight.losses()} == {"a": 3, "b": 4, "x": 1, "c": 3, "d": 4}
    # Without a minute on foot there is no cd.
    assert Routes(made, Wishes(no_programme_twice=True, price_limit=500, walking_a_day=0)).by_length() == {1: 5, 2: 4}


def _long_days() -> Timetable:
    """Two days of 70 stops at one price, each after the other in one hall; the first of both days is the same programme."""
    planned = []
    for day in range(2):
        for number in range(70):
            minute = 6 * 60 + number * 10
            clock = f"{minute // 60:02}:{minute % 60:02}"
            planned.append(worlds.stop(f"{day}-{number:02}", clock, 5, day=day, price=1, programme=None if number else "p"))
    return worlds.timetable(planned)


def test_a_count_of_several_words_under_a_budget_and_no_programme_twice() -> None:
    """Any set of at most 100 of 140 stops but none, less those that hold both of two."""
    made = _long_days()
    expected = sum(comb(140, size) - (comb(138, size - 2) if size > 1 else 0) for size in range(1, 101))
    routes = Routes(made, Wishes(no_programme_twice=True, price_limit=100))
    assert expected > 2**128
    assert routes.count() == expected
    assert routes.by_length()[100] == comb(140, 100) - comb(138, 98)
    through = {loss.row: loss.routes for loss in routes.losses()}
    assert through[1] == sum(comb(139, size) - (comb(137, size - 2) if size > 1 else 0) for size in range(100))
    assert through[0] == sum(comb(138, size) for size in range(100))
    for number in (0, expected // 3, expected - 1):
        assert routes.rank(routes.unrank(number)) == number
    assert routes.unrank(expected - 1) == (139,)
    assert all(routes.holds(route) for route in routes.sample(3, 1))


def test_what_takes_too_much_memory_is_refused_with_what_to_leave_out() -> None:
    with pytest.raises(TooManyStatesError, match=r"more than 8 states a day: leave out or widen one of price_limit$"):
        Routes(_long_days(), Wishes(price_limit=100), most_vertices=2).count()
