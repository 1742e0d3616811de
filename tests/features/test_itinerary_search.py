"""Every question about all routes gives what a brute force over all sets of stops gives, on a thousand random small festivals."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.itinerary.bounding import scales
from features.itinerary.objectives import CHANGE_COST, RECOMMENDED_POINTS, WAIT_COST, WALK_COST, Worth, composers, rarity
from features.itinerary.search import Routes, Rows
from features.itinerary.timetable import IMPASSABLE, Availability, Timetable
from features.itinerary.wishes import WORDS, Meal, Objective, Wishes, Words
from tests import itinerary_worlds as worlds

CLOCKS = ("13:00", "13:30", "13:45", "14:00", "14:20", "14:45", "15:00", "15:30", "16:00", "23:30", "00:15")
ADDITIVE = (
    Objective.SCORE,
    Objective.MUSIC,
    Objective.CHEAPEST,
    Objective.LEAST_WALKING,
    Objective.COMFORT,
    Objective.POPULAR,
    Objective.EDITORS,
)
#: What adds up along a route or over the days, where states multiply.
LIMITS = ("price_limit", "walking_a_day", "waiting_a_day", "fewest", "most", "meal", "no_programme_twice")
MORE = 10_000


def festival(chance: random.Random, most_a_day: int = 7) -> Timetable:
    """One to three days of up to `most_a_day` stops in up to three halls, short and long, on a walk that may be one-way, forbidden or
    longer than the way round."""
    halls = chance.randint(1, 3)
    walk = [[0 if a == b else chance.choice((0, 1, 5, 15, 15, 40, IMPASSABLE)) for b in range(halls)] for a in range(halls)]
    stops = []
    days = chance.randint(1, 3)
    for day in range(days):
        for number in range(chance.randint(0, most_a_day if days < 3 else 4)):
            clock = chance.choice(CLOCKS)
            stops.append(
                worlds.stop(
                    f"{day}{number}",
                    clock,
                    chance.choice((5, 15, 15, 30, 45)),
                    chance.randrange(halls),
                    day + (clock < "06:00"),
                    price=chance.choice((None, 0, 100, 200, 200, 300)),
                    genre=chance.choice((None, "g0", "g1")),
                    artists=tuple(chance.sample(("a0", "a1", "a2"), chance.randint(0, 2))),
                    composers=tuple(chance.sample(("c0", "c1", "c2", "c3"), chance.randint(0, 3))),
                    tags=tuple(chance.sample(("t0", "t1"), chance.randint(0, 1))),
                    labels=tuple(chance.sample(("family", "star", "recommended"), chance.randint(0, 2))),
                    programme=chance.choice((None, "p0", "p1", "p2")),
                    optional=chance.random() < 0.15,
                )
            )
    return worlds.timetable(stops, walk)


def wished(chance: random.Random, timetable: Timetable, mixed: bool, limits: bool) -> Wishes:
    """One filter, or a mix of several; `limits`: of all that adds up, and any other one."""
    ids = [stop.id for stop in timetable.stops]

    def some(names: list[str] | tuple[str, ...], most: int = 2) -> tuple[str, ...]:
        return tuple(chance.sample(list(names), min(len(names), chance.randint(1, most))))

    vocabulary = {
        "halls": timetable.halls,
        "artists": sorted({name for stop in timetable.stops for name in stop.artists}),
        "composers": sorted({name for stop in timetable.stops for name in stop.composers}),
        "genres": sorted({stop.genre for stop in timetable.stops if stop.genre}),
        "labels": sorted({name for stop in timetable.stops for name in stop.labels}),
        "tags": sorted({name for stop in timetable.stops for name in stop.tags}),
    }

    def words(name: str) -> Words:
        known = list(vocabulary[name])
        kind = chance.choice(("only", "some", "none"))
        return Words(**{kind: some(known)}) if known else Words()

    fewest = chance.randint(1, 3)
    every: dict[str, Callable[[], Any]] = {
        "days": lambda: some(timetable.days),
        "every_day": lambda: True,
        "must": lambda: some(ids) if ids else (),
        "must_not": lambda: some(ids) if ids else (),
        "bought": lambda: some(ids) if ids else (),
        **{name: partial(words, name) for name in WORDS},
        "price_limit": lambda: chance.choice((0, 150, 300, 400, 700)),
        "walking_a_day": lambda: chance.choice((0, 5, 15, 20)),
        "walking_a_hop": lambda: chance.choice((0, 5, 14, 15)),
        "waiting_a_day": lambda: chance.choice((0, 15, 30, 60)),
        "waiting_a_hop": lambda: chance.choice((0, 15, 30)),
        "fewest": lambda: fewest,
        "most": lambda: fewest + chance.randint(0, 1),
        "meal": lambda: Meal(chance.choice((20, 45)), chance.choice((780, 800)), chance.choice((900, 930))),
        "no_programme_twice": lambda: True,
        "party": lambda: chance.choice((1, 3)),
        "arrival": lambda: chance.choice((810, 825, 840)),
        "leaving": lambda: chance.choice((900, 945, 15)),
        "buffer": lambda: chance.choice((5, 15)),
        "longest_gap": lambda: chance.choice((15, 30, 60)),
        "maximal": lambda: True,
        "optional": lambda: True,
        "begun": lambda: worlds.instant(chance.choice(CLOCKS), chance.randint(0, 1)),
    }
    names = chance.sample(sorted(every), chance.randint(2, 6) if mixed else 1)
    if limits:
        names = sorted({names[0], *(name for name in LIMITS if chance.random() < 0.7)})
    chosen: dict[str, Any] = {name: every[name]() for name in names}
    return Wishes(**chosen)


class BruteForce:
    """All routes by definition: every set of stops, judged pair by pair and as a whole."""

    def __init__(self, timetable: Timetable, wishes: Wishes, availability: Availability) -> None:
        self.timetable, self.wishes, self.availability = timetable, wishes, availability
        self.scales = scales(Routes(timetable))
        self.rarity = rarity(timetable).tolist()
        self.allowed = [row for row in range(len(timetable.stops)) if self._stop(row)]
        self.routes = sorted(self._all(), key=lambda rows: (*rows, MORE))

    def _has(self, row: int, name: str, values: tuple[str, ...]) -> bool:
        stop = self.timetable.stops[row]
        own: tuple[str | None, ...]
        own = (self.timetable.halls[stop.hall],) if name == "halls" else (stop.genre,) if name == "genres" else getattr(stop, name)
        return any(value in own for value in values)

    def _stop(self, row: int) -> bool:
        stop, wishes = self.timetable.stops[row], self.wishes
        if wishes.days is not None and self.timetable.days[stop.day] not in wishes.days:
            return False
        if stop.optional and not wishes.optional and stop.id not in (*wishes.must, *wishes.bought):
            return False
        if stop.id in wishes.must_not:
            return False
        if wishes.party is not None and not stop.optional and stop.id not in wishes.bought:
            free = self.availability.free[row]
            if not self.availability.on_sale[row] or 0 <= free < wishes.party:
                return False
        if wishes.begun is not None and stop.id not in wishes.bought and stop.starts_at <= wishes.begun:
            return False
        if wishes.arrival is not None and stop.begins < self.timetable.minute(stop.day, wishes.arrival):
            return False
        if wishes.leaving is not None and stop.ends > self.timetable.minute(stop.day, wishes.leaving):
            return False
        for name in WORDS:
            words: Words = getattr(wishes, name)
            if words.only and not stop.optional and not self._has(row, name, words.only):
                return False
            if words.none and self._has(row, name, words.none):
                return False
        return True

    def walk(self, a: int, b: int) -> int:
        return int(self.timetable.walk[self.timetable.hall[a], self.timetable.hall[b]])

    def wait(self, a: int, b: int) -> int:
        return self.timetable.stops[b].begins - self.timetable.stops[a].ends - self.walk(a, b)

    def _hop(self, a: int, b: int) -> bool:
        wishes, one, other = self.wishes, self.timetable.stops[a], self.timetable.stops[b]
        if one.day != other.day or self.walk(a, b) == IMPASSABLE or self.wait(a, b) < wishes.buffer:
            return False
        if wishes.walking_a_hop is not None and self.walk(a, b) > wishes.walking_a_hop:
            return False
        if wishes.waiting_a_hop is not None and self.wait(a, b) > wishes.waiting_a_hop:
            return False
        return wishes.longest_gap is None or other.begins - one.ends <= wishes.longest_gap

    def _fits(self, chain: Rows) -> bool:
        for row in self.allowed:
            if self.timetable.stops[row].optional or row in chain or self.timetable.day[row] != self.timetable.day[chain[0]]:
                continue
            if self._hop(row, chain[0]) or self._hop(chain[-1], row):
                return True
            if any(self._hop(a, row) and self._hop(row, b) for a, b in itertools.pairwise(chain)):
                return True
        return False

    def _meal(self, chain: Rows) -> bool:
        meal = self.wishes.meal
        assert meal is not None
        stops, day = [self.timetable.stops[row] for row in chain], int(self.timetable.day[chain[0]])
        begin, end = self.timetable.minute(day, meal.earliest), self.timetable.minute(day, meal.latest)
        free = [(begin, stops[0].begins), (stops[-1].ends, end)]
        for a, b in itertools.pairwise(chain):
            one, other = self.timetable.stops[a], self.timetable.stops[b]
            free += [(one.ends, other.begins - self.walk(a, b)), (one.ends + self.walk(a, b), other.begins)]
        return any(min(to, end) - max(since, begin) >= meal.minutes for since, to in free)

    def _chain(self, chain: Rows) -> bool:
        wishes = self.wishes
        if not all(self._hop(a, b) for a, b in itertools.pairwise(chain)):
            return False
        concerts = sum(not self.timetable.stops[row].optional for row in chain)
        if concerts < max(1, wishes.fewest or 1) or (wishes.most is not None and concerts > wishes.most):
            return False
        walked = sum(self.walk(a, b) for a, b in itertools.pairwise(chain))
        waited = sum(self.wait(a, b) for a, b in itertools.pairwise(chain))
        if wishes.walking_a_day is not None and walked > wishes.walking_a_day:
            return False
        if wishes.waiting_a_day is not None and waited > wishes.waiting_a_day:
            return False
        if wishes.meal is not None and not self._meal(chain):
            return False
        return not (wishes.maximal and self._fits(chain))

    def _all(self) -> Iterator[Rows]:
        timetable, wishes = self.timetable, self.wishes
        by_day: list[list[Rows]] = []
        for day in range(len(timetable.days)):
            rows = [row for row in self.allowed if timetable.day[row] == day]
            chains = [chain for size in range(1, len(rows) + 1) for chain in itertools.combinations(rows, size) if self._chain(chain)]
            asked = wishes.days is None or timetable.days[day] in wishes.days
            by_day.append(chains if wishes.every_day and asked else [(), *chains])
        held = {timetable.rows[name] for name in (*wishes.must, *wishes.bought)}
        for parts in itertools.product(*by_day):
            route = tuple(sorted(row for part in parts for row in part))
            stops = [timetable.stops[row] for row in route]
            if not any(not stop.optional for stop in stops) or not held <= set(route):
                continue
            spent = sum(stop.price or 0 for stop in stops if stop.id not in wishes.bought)
            if wishes.price_limit is not None and spent > wishes.price_limit:
                continue
            programmes = Counter(stop.programme for stop in stops if stop.programme is not None and not stop.optional)
            if wishes.no_programme_twice and max(programmes.values(), default=0) > 1:
                continue
            if all(
                not getattr(wishes, name).some
                or any(self._has(row, name, getattr(wishes, name).some) for row in route if not timetable.stops[row].optional)
                for name in WORDS
            ):
                yield route

    def value(self, objective: Objective, route: Rows, worth: Worth) -> float:
        timetable = self.timetable
        stops = [timetable.stops[row] for row in route]
        concerts = [row for row in route if not timetable.stops[row].optional]
        hops = [(a, b) for a, b in itertools.pairwise(route) if timetable.day[a] == timetable.day[b]]
        music = sum(timetable.stops[row].minutes for row in concerts)
        walked, waited = sum(self.walk(a, b) for a, b in hops), sum(self.wait(a, b) for a, b in hops)
        changes = sum(timetable.hall[a] != timetable.hall[b] for a, b in hops)
        names, of_stop = composers(timetable)
        met = [column for column in range(len(names)) if any(of_stop[row, column] for row in concerts)]
        comfort = float(music - WALK_COST * walked - WAIT_COST * waited - CHANGE_COST * changes)
        points = sum("recommended" in timetable.stops[row].labels for row in concerts)
        depth = float(sum(self.rarity[column] for column in met)) + RECOMMENDED_POINTS * points
        match objective:
            case Objective.SCORE:
                assert worth.score is not None
                return float(sum(worth.score[row] for row in route))
            case Objective.POPULAR:
                assert worth.popular is not None
                return float(sum(worth.popular[row] for row in route))
            case Objective.EDITORS:
                return float(sum("recommended" in stop.labels for stop in stops))
            case Objective.MUSIC:
                return float(music)
            case Objective.CHEAPEST:
                return float(sum(stop.price or 0 for stop in stops if stop.id not in self.wishes.bought))
            case Objective.LEAST_WALKING:
                return float(walked)
            case Objective.COMFORT:
                return comfort
            case Objective.COMPOSERS:
                return float(len(met))
            case Objective.DEPTH:
                return depth
            case Objective.BALANCE:
                return min(comfort / self.scales[0], depth / self.scales[1])

    def ordered(self, objective: Objective, worth: Worth) -> list[tuple[float, Rows]]:
        """All routes, best first; among the cheapest and least walked most music first; equals as tuples padded with more."""
        sign = 1.0 if objective in (Objective.CHEAPEST, Objective.LEAST_WALKING) else -1.0

        def key(route: Rows) -> tuple[float, float, tuple[int, ...]]:
            second = -self.value(Objective.MUSIC, route, worth) if sign > 0 else 0.0
            return round(sign * self.value(objective, route, worth), 6), second, (*route, MORE)

        return [(self.value(objective, route, worth), route) for route in sorted(self.routes, key=key)]


def _world(seed: int, mixed: bool, limits: bool) -> tuple[random.Random, Timetable, Wishes, Availability, Worth]:
    chance = random.Random(seed)
    timetable = festival(chance)
    stops = len(timetable.stops)
    availability = Availability(
        np.array([chance.choice((-1, 0, 1, 2, 50)) for _ in range(stops)], dtype=np.int32),
        np.array([chance.random() < 0.9 for _ in range(stops)], dtype=np.bool_),
        0,
    )
    # Quarters: sums are exact, and there are ties.
    worth = Worth(
        np.array([chance.randint(-3, 8) / 4 for _ in range(stops)], dtype=np.float64),
        np.array([float(chance.randint(0, 3)) for _ in range(stops)], dtype=np.float64),
    )
    return chance, timetable, wished(chance, timetable, mixed, limits), availability, worth


def _agrees(seed: int, mixed: bool, limits: bool = False) -> None:
    chance, timetable, wishes, availability, worth = _world(seed, mixed, limits)
    brute = BruteForce(timetable, wishes, availability)
    routes = Routes(timetable, wishes, availability, worth)
    assert routes.count() == len(brute.routes)
    concerts = [sum(not timetable.stops[row].optional for row in route) for route in brute.routes]
    assert routes.by_length() == dict(sorted(Counter(concerts).items()))
    objective = chance.choice(ADDITIVE)
    expected, k = brute.ordered(objective, worth), chance.choice((1, 3, 40))
    best = routes.best(objective, k, deadline_s=30.0)
    assert best.exact
    if not wishes.no_programme_twice:  # else any of equally good routes may be shown
        assert [found.stops for found in best.routes] == [route for _, route in expected[:k]]
    assert {found.stops for found in best.routes} <= set(brute.routes)
    assert [found.value for found in best.routes] == pytest.approx([value for value, _ in expected[:k]], abs=1e-4)
    covering = chance.choice((Objective.COMPOSERS, Objective.DEPTH, Objective.BALANCE))
    far = routes.best(covering, k, deadline_s=30.0)
    assert far.exact
    assert [found.value for found in far.routes] == pytest.approx([value for value, _ in brute.ordered(covering, worth)[:k]], abs=1e-4)
    assert [brute.value(covering, found.stops, worth) for found in far.routes] == pytest.approx([f.value for f in far.routes], abs=1e-4)
    assert len({found.stops for found in far.routes}) == len(far.routes)
    assert routes.exist is bool(brute.routes)
    assert (routes.why_nothing() is None) is bool(brute.routes)
    for number in range(0, len(brute.routes), max(1, len(brute.routes) // 7)):
        assert routes.unrank(number) == brute.routes[number]
        assert routes.rank(brute.routes[number]) == number
    through = Counter(row for route in brute.routes for row in route)
    losses = {loss.row: loss for loss in routes.losses(objective)}
    assert {row: loss.routes for row, loss in losses.items()} == dict(through)
    for row in list(through)[:3]:
        left = [value for value, route in expected if row not in route]
        worse = abs(expected[0][0] - left[0]) if left else None
        if wishes.maximal:  # what could not be maximal beside the stop is so without it: the best may get better
            without = replace(wishes, must_not=(*wishes.must_not, timetable.stops[row].id))
            left = [value for value, _ in BruteForce(timetable, without, availability).ordered(objective, worth)]
            sign = -1.0 if objective in (Objective.CHEAPEST, Objective.LEAST_WALKING) else 1.0
            worse = sign * (expected[0][0] - left[0]) if left else None
        assert losses[row].worse_by == (None if worse is None else pytest.approx(worse, abs=1e-4))
    if brute.routes:
        assert set(routes.sample(5, seed)) <= set(brute.routes)


RANDOM = settings(max_examples=500, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@RANDOM
@given(st.integers(0, 2**63))
def test_each_filter_alone_equals_brute_force(seed: int) -> None:
    _agrees(seed, mixed=False)


@RANDOM
@given(st.integers(0, 2**63))
def test_mixes_of_filters_equal_brute_force(seed: int) -> None:
    _agrees(seed, mixed=True)


@RANDOM
@given(st.integers(0, 2**63))
def test_all_limits_together_equal_brute_force(seed: int) -> None:
    _agrees(seed, mixed=False, limits=True)
