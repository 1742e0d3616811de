"""Questions about all routes under wishes, none of which is ever listed: how many, which are the best, a fair sample, which is number n,
and what is lost when a concert sells out.

A route is a tuple of rows of the timetable, ascending; over several days every day may be empty, not all. Everything here is exact unless
an answer says otherwise. Order of equals: as tuples padded with something larger than any row.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.itinerary import paths
from features.itinerary.clashes import clashing
from features.itinerary.counting import Counting
from features.itinerary.graph import Graph, TooManyStatesError, build
from features.itinerary.heaviest import heaviest
from features.itinerary.hops import day_pointer
from features.itinerary.limits import Limits, Weights
from features.itinerary.narrowing import Narrowed, narrow
from features.itinerary.objectives import COVERING, Worth, additive, shown
from features.itinerary.timetable import Availability, Timetable
from features.itinerary.wishes import Objective, Wishes

Rows = tuple[int, ...]

#: Vertices of one graph; about 200 bytes each with their edges.
MOST_VERTICES = 2_000_000
DEADLINE_S = 0.1


@dataclass(frozen=True)
class Found:
    """A route and its worth, in the objective's unit (score and popular: points; depth, editors: points; composers: how many; balance:
    share; comfort, music, least_walking: minutes; cheapest: minor units)."""

    stops: Rows
    value: float


@dataclass(frozen=True)
class Best:
    """routes: best first. exact: these are the best there are, in order; false too where they were chosen to differ (alternatives.py).
    within: the best of all is better than the first shown by no more than this (0.0 when exact, inf where none was found in time), in the
    objective's unit."""

    routes: tuple[Found, ...]
    exact: bool
    within: float


@dataclass(frozen=True)
class Loss:
    """What is lost when stop `row` is: routes that hold it, and by how much the best gets worse (None: no route is left). Of maximal chains
    it may get better, below 0: chains that were not maximal because of the stop are so without it."""

    row: int
    routes: int
    worse_by: float | None


@dataclass(frozen=True)
class Nothing:
    """Why there is no route. stops: ids of must-haves that clash (perhaps all of them together only) or are left out; wishes:
    names of those of which any one, given up, gives routes (empty if no single one does); message: the same as a sentence."""

    stops: tuple[str, ...]
    wishes: tuple[str, ...]
    message: str


class Routes:
    """All routes of a timetable under wishes. Cheap to make; each question builds what it needs. Not changed by any call.

    Raises ValueError for a wish the timetable cannot understand, naming the value and what is allowed; questions raise
    TooManyStatesError (a ValueError) where the wishes together are more than `most_vertices` can hold."""

    def __init__(
        self,
        timetable: Timetable,
        wishes: Wishes | None = None,
        availability: Availability | None = None,
        worth: Worth | None = None,
        most_vertices: int = MOST_VERTICES,
    ) -> None:
        self.timetable = timetable
        self.wishes = wishes or Wishes()
        self.availability = availability
        self.worth = worth or Worth()
        self.most_vertices = most_vertices
        self.narrowed: Narrowed = narrow(timetable, self.wishes, availability)

    def under(self, wishes: Wishes) -> Routes:
        """The routes of the same timetable under other wishes."""
        return Routes(self.timetable, wishes, self.availability, self.worth, self.most_vertices)

    # ------------------------------------------------------------------ how many

    def count(self) -> int:
        """How many routes there are; exact, of any size."""
        return self._counted.total

    def by_length(self) -> dict[int, int]:
        """Number of concerts -> number of routes, over all days together."""
        return self._counting(True).by_length()

    def by_day(self) -> dict[str, dict[int, int]]:
        """ISO date -> number of concerts -> number of chains on that day alone."""
        out = {}
        for day in self.timetable.days:
            if self.wishes.days is not None and day not in self.wishes.days:
                continue
            on_it = {stop.id for stop in self.timetable.stops if self.timetable.days[stop.day] == day}
            alone = replace(
                self.wishes,
                days=(day,),
                must=tuple(name for name in self.wishes.must if name in on_it),
                bought=tuple(name for name in self.wishes.bought if name in on_it),
            )
            out[day] = self.under(alone).by_length()
        return out

    # ------------------------------------------------------------------ the best

    def best(self, objective: Objective, k: int = 10, deadline_s: float = DEADLINE_S) -> Best:
        """The k best routes. k: 1 to 10,000. deadline_s: for what is not a sum (see objectives.py), when to stop and say `within`."""
        if not 1 <= k <= 10_000:
            raise ValueError(f"k is {k}: 1 to 10000 is allowed")
        if objective in COVERING or self.wishes.no_programme_twice:
            from features.itinerary.bounding import best_by_bound

            return best_by_bound(self, objective, k, time.monotonic() + deadline_s)
        sums = additive(objective, self.timetable, self.worth, self._limits.price)
        stops, weights = heaviest(day_pointer(self.timetable), self.narrowed.hops, self._limits, sums, k, self.most_vertices)
        return Best(tuple(Found(_rows(row), shown(objective, int(weight))) for row, weight in zip(stops, weights, strict=True)), True, 0.0)

    def losses(self, objective: Objective | None = None) -> list[Loss]:
        """For each stop on any route, what its loss would cost; worse_by is None without an objective (sums only) and where nothing is
        left."""
        through = self._counted.through()
        if objective is None or not through:
            return [Loss(row, routes, None) for row, routes in through.items()]
        weighed = self.graph(additive(objective, self.timetable, self.worth, self._limits.price), self._tight)
        best, edge = paths.heaviest(weighed)
        on_best = set(paths.follow(weighed, edge))
        place_of = {int(stop): place for place, stop in enumerate(weighed.stop_of) if stop >= 0}
        out = []
        sign = -1.0 if objective in (Objective.CHEAPEST, Objective.LEAST_WALKING) else 1.0
        for row, routes in through.items():
            worse: float | None = 0.0
            if self.wishes.maximal:
                after = self._best_without(row, objective)
                worse = None if after is None else sign * (shown(objective, int(best[0])) - after)
            elif row in on_best:
                left, _ = paths.heaviest(weighed, place_of[row])
                none = left[0] <= paths.DEAD
                worse = None if none else abs(shown(objective, int(best[0])) - shown(objective, int(left[0])))
            out.append(Loss(row, routes, worse))
        return out

    def _best_without(self, row: int, objective: Objective) -> float | None:
        """Of the routes that there would be if the stop were gone."""
        wishes = replace(self.wishes, must_not=(*self.wishes.must_not, self.timetable.stops[row].id))
        there = self.under(wishes)
        graph = there.graph(additive(objective, self.timetable, self.worth, there._limits.price), there._tight)
        best, _ = paths.heaviest(graph)
        return shown(objective, int(best[0])) if graph.sink >= 0 else None

    # ------------------------------------------------------------------ number n, and a fair sample

    def unrank(self, number: int) -> Rows:
        """Route number `number`, from 0, in the order of rows. Raises ValueError beyond the count."""
        total = self.count()
        if not 0 <= number < total:
            allowed = f"0 to {total - 1} are allowed" if total else "there is none under these wishes"
            raise ValueError(f"there is no route {number}: {allowed}")
        return self._counted.unrank(number)

    def rank(self, route: Sequence[int]) -> int:
        """The number of a route: unrank(rank(route)) is the route. Raises ValueError if it is none under these wishes."""
        number = self._counted.rank([int(row) for row in sorted(route)])
        if number is None:
            raise ValueError("this is no route under these wishes")
        return number

    def sample(self, n: int, seed: int) -> list[Rows]:
        """n routes, each one drawn from all with equal chance and given back. Raises ValueError if there is none."""
        total = self.count()
        if not total:
            raise ValueError("there is no route under these wishes")
        chance = random.Random(seed)
        return [self.unrank(chance.randrange(total)) for _ in range(n)]

    def holds(self, route: Sequence[int]) -> bool:
        """Whether a set of rows is a route under these wishes."""
        try:
            self.rank(route)
        except ValueError:
            return False
        return True

    # ------------------------------------------------------------------ why not

    def why_nothing(self) -> Nothing | None:
        """Why there is no route; None if there is one. Names must-haves that are left out by another wish or clash, else the wishes that
        bind."""
        if self.exist:
            return None
        stops = self.timetable.stops
        for row, why in sorted(self.narrowed.dropped.items()):
            name = stops[row].id
            return Nothing((name,), (why,), f"{name!r} must be there, and {why!r} leaves it out")
        required = self.narrowed.required
        for one, other in pairwise(required):
            a, b = stops[one], stops[other]
            if a.day != b.day:
                continue
            bare = Wishes(must=(a.id, b.id), optional=True, buffer=self.wishes.buffer)
            if not Routes(self.timetable, bare, None, self.worth).exist:
                said = f"{a.id!r} (until {self._clock(a.starts_at, a.minutes)}) and {b.id!r} (from {self._clock(b.starts_at)}) clash"
                return Nothing((a.id, b.id), (), f"{said} on {self.timetable.days[a.day]}: there is no way from one to the other in time")
        default, binding = Wishes(), []
        clash = clashing(self)
        for place in fields(Wishes):
            if getattr(self.wishes, place.name) != getattr(default, place.name):
                less = replace(self.wishes, **{place.name: getattr(default, place.name)})
                if self.under(less).exist:
                    binding.append(place.name)
        if clash:
            names = tuple(stops[row].id for row in clash)
            others = [name for name in binding if name not in ("must", "bought")]
            if len(names) == 1:
                message = f"no route under these wishes has {names[0]!r}"
            else:
                listed = f"{', '.join(map(repr, names[:-1]))} and {names[-1]!r}"
                message = f"no route under these wishes has {listed} together, though without any one of them there are some"
            return Nothing(names, tuple(binding), message + (f"; so there are without {' or without '.join(others)}" if others else ""))
        if not binding:
            return Nothing((), (), "no route fulfils these wishes, and giving up a single one of them is not enough")
        message = f"no route fulfils these wishes; without {' or without '.join(binding)} there are some"
        if "price_limit" in binding:
            free = self.under(replace(self.wishes, price_limit=None))
            message += f"; the cheapest costs {int(free.best(Objective.CHEAPEST, 1).routes[0].value)}"
        return Nothing((), tuple(binding), message)

    @cached_property
    def exist(self) -> bool:
        """Whether there is any route."""
        if self.wishes.no_programme_twice:  # one is found sooner than all are counted
            best = self.best(Objective.MUSIC, 1)
            if best.routes or best.exact:
                return bool(best.routes)
        return self.count() > 0

    # ------------------------------------------------------------------ graphs

    def graph(self, weights: Weights, limits: Limits) -> Graph:
        """All routes under `limits`, weighed."""
        return build(day_pointer(self.timetable), self.narrowed.hops, limits, weights, self.most_vertices)

    @property
    def _limits(self) -> Limits:
        return self.narrowed.limits

    @cached_property
    def _tight(self) -> Limits:
        """With every programme that is played more than once as a bit. Raises TooManyStatesError for more than 64 of them."""
        repeats = self.narrowed.repeats
        if int(repeats.max(initial=-1)) >= 64:
            raise TooManyStatesError("more than 64 programmes are played twice: name fewer days, or do without no programme twice")
        bits = np.where(repeats >= 0, np.uint64(1) << np.maximum(repeats, 0).astype(np.uint64), np.uint64(0)).astype(np.uint64)
        return self._limits._replace(tokens=bits, forbids=bits)

    def _counting(self, lengths: bool) -> Counting:
        return Counting(day_pointer(self.timetable), self.narrowed.hops, self._tight, self.most_vertices, lengths)

    @cached_property
    def _counted(self) -> Counting:
        return self._counting(False)

    def _clock(self, instant: int, minutes: int = 0) -> str:
        return self.timetable.clock(instant + minutes * 60_000_000)


def _rows(padded: NDArray[np.int32]) -> Rows:
    return tuple(int(row) for row in padded if row >= 0)


def warm() -> None:
    """Compiles (or reads from the cache) all that a question needs, so that no request waits for it."""
    from features.itinerary.timetable import Planned

    stops = [Planned(name, name, place * 3_600_000_000, 30, 0, 5, programme="p", composers=("c",)) for place, name in enumerate("abc")]
    small = Timetable.build("UTC", 0, ["hall"], [0], [[0]], stops)
    for wishes in (Wishes(), Wishes(price_limit=10, walking_a_day=10), Wishes(no_programme_twice=True)):
        routes = Routes(small, wishes)
        routes.best(Objective.MUSIC, 2)
        routes.best(Objective.COMPOSERS, 2)
        routes.sample(1, 0)
        routes.by_length()
        routes.losses(Objective.MUSIC)
