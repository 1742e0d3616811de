"""All chains of a day, whole and in ranges, and their core portraits, against what they are by definition."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.itinerary.core_portraits import core_portraits
from features.itinerary.enumeration import Chains, day, shards
from features.itinerary.portrait import portrait
from features.itinerary.search import Routes
from features.itinerary.timetable import Timetable
from features.itinerary.wishes import Wishes
from tests import itinerary_worlds as worlds
from tests.features.test_itinerary_search import festival

RANDOM = settings(max_examples=120, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def _by_search(made: Timetable, number: int, chains: Chains) -> set[tuple[int, ...]]:
    wishes = Wishes(
        days=(made.days[number],),
        buffer=chains.buffer,
        longest_gap=chains.longest_gap,
        maximal=chains.maximal,
        optional=chains.optional,
    )
    routes = Routes(made, wishes)
    return {routes.unrank(place) for place in range(routes.count())}


@RANDOM
@given(st.integers(0, 2**63))
def test_chains_and_their_ranges_are_those_of_the_search(seed: int) -> None:
    chance = random.Random(seed)
    made = festival(chance)
    chains = Chains(chance.choice((0, 5)), chance.choice((None, 30)), chance.random() < 0.4)
    for number in range(len(made.days)):
        whole = day(made, number, chains, chance.choice((0, 1, 3, 10, 10_000)))
        masks = whole.masks()
        listed = whole.decoded(masks)
        assert len(set(listed)) == whole.total
        assert set(listed) == _by_search(made, number, chains)
        assert sum(whole.by_length().values()) == whole.total
        lo = chance.randint(0, whole.total)
        hi = chance.randint(lo, whole.total)
        assert whole.masks(lo, hi).tolist() == masks[:, lo:hi].tolist()
        if whole.total:
            place = chance.randrange(whole.total)
            assert whole.route(place) == listed[place]


@RANDOM
@given(st.integers(0, 2**63))
def test_core_portraits_are_those_of_each_route(seed: int) -> None:
    chance = random.Random(seed)
    made = festival(chance)
    for number in range(len(made.days)):
        whole = day(made, number, Chains(maximal=chance.random() < 0.3), chance.choice((0, 2, 10_000)))
        core = core_portraits(whole)
        columns = core.columns()
        lo = chance.randint(0, whole.total)
        assert all(part.tolist() == columns[name][lo:].tolist() for name, part in core.columns(lo).items())
        for place, route in enumerate(whole.decoded(whole.masks())):
            one = portrait(made, route).to_json()
            assert {name: int(column[place]) for name, column in columns.items()} == {name: one[name] for name in columns}


def test_more_than_64_stops_a_day_and_more_than_64_composers() -> None:
    """70 at noon and 70 at two: 140 chains of one and 4,900 of two; three words a mask, two of composers."""
    halls = 70
    both = itertools.product(("12:00", "14:00"), range(halls))
    stops = [worlds.stop(f"{clock[:2]}-{hall:02}", clock, hall=hall, composers=(f"c{hall}",)) for clock, hall in both]
    made = worlds.timetable(stops, np.where(np.eye(halls, dtype=bool), 0, 5))
    for base in (0, 100, 100_000):
        whole = day(made, 0, None, base)
        assert (whole.words, whole.total, whole.by_length()) == (3, 5_040, {1: 140, 2: 4_900})
        listed = whole.decoded(whole.masks())
        assert set(listed) == {(row,) for row in range(140)} | set(itertools.product(range(70), range(70, 140)))
        columns = core_portraits(whole).columns()
        assert columns["composers"].tolist() == [len({made.stops[row].composers for row in route}) for route in listed]
        assert columns["halls"].tolist() == [len({made.stops[row].hall for row in route}) for route in listed]


def test_known_worlds() -> None:
    made = worlds.not_transitive()
    assert set(day(made, 0).decoded(day(made, 0).masks())) == {(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)}
    only = day(made, 0, Chains(maximal=True))
    assert only.decoded(only.masks()) == [(0, 1, 2)]


def test_a_buffer_and_a_gap() -> None:
    """a to b has 15 minutes, b to c five beside the walk, a to c an hour and five."""
    made = worlds.three_in_a_row()
    assert day(made, 0, Chains(buffer=6)).by_length() == {1: 3, 2: 2}
    assert day(made, 0, Chains(longest_gap=15)).by_length() == {1: 3, 2: 2, 3: 1}
    assert day(made, 0, Chains(longest_gap=14)).by_length() == {1: 3}


def test_shards_are_even_and_leave_nothing_out() -> None:
    assert shards(10, 4) == [(0, 3), (3, 6), (6, 10)]
    assert shards(0, 4) == []
    sizes = {hi - lo for lo, hi in shards(10**9 + 1, 2**22)}
    assert max(sizes) <= 2**22
    assert max(sizes) - min(sizes) <= 1


def test_what_cannot_be_listed_is_refused() -> None:
    made = worlds.many(100)
    with pytest.raises(ValueError, match=r"has 2\*\*62 chains or more: they can be counted and searched, not listed"):
        day(made, 0)
    small = day(worlds.three_in_a_row(), 0)
    with pytest.raises(ValueError, match="chains 3 to 8 are asked for: 0 to 7 are there"):
        small.masks(3, 8)
    with pytest.raises(ValueError, match="there is no day 1: 0 to 0 are there"):
        day(worlds.three_in_a_row(), 1)
