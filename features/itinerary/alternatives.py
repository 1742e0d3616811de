"""Routes beside a route: what else could be done instead of one of its concerts, and routes that differ from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from features.itinerary import paths
from features.itinerary.objectives import COVERING, additive, shown
from features.itinerary.search import DEADLINE_S, Best, Found, Routes, Rows
from features.itinerary.timetable import IMPASSABLE, Timetable
from features.itinerary.wishes import Objective

_POOL = 1_000


@dataclass(frozen=True)
class Alternative:
    """Another route, and what changes: rows gained and lost; value in the objective's unit; differences (other less given) of price in
    minor units and of minutes of music, walking and waiting."""

    stops: Rows
    gained: Rows
    lost: Rows
    value: float
    price_by: int
    music_by: int
    walking_by: int
    waiting_by: int


def alternatives(routes: Routes, route: Sequence[int], objective: Objective, k: int = 5) -> list[Alternative]:
    """For each concert of `route` (rows) that need not be there: the best routes that keep all others and do without it, under the same
    wishes.

    At most k, those that lose least first, then the better ones. Of all others kept, what fills the gap comes from the whole timetable.
    What of `route` has begun (Wishes.begun) is as if it were bought: it stays, and is paid already.
    Raises ValueError for an unknown row, or k below 1."""
    timetable, given = routes.timetable, tuple(sorted(route))
    if k < 1:
        raise ValueError(f"k is {k}: 1 or more is allowed")
    if any(not 0 <= row < len(timetable.stops) for row in given):
        raise ValueError(f"a route is made of rows 0 to {len(timetable.stops) - 1}")
    before = figures(timetable, given)
    found: dict[Rows, Alternative] = {}
    begun = () if routes.wishes.begun is None else (row for row in given if timetable.starts_at[row] <= routes.wishes.begun)
    bought = tuple(dict.fromkeys((*routes.wishes.bought, *(timetable.stops[row].id for row in begun))))
    kept = {*routes.wishes.must, *bought}
    for row in given:
        name = timetable.stops[row].id
        if name in kept:
            continue
        others = tuple(timetable.stops[other].id for other in given if other != row)
        must, must_not = (*routes.wishes.must, *others), (*routes.wishes.must_not, name)
        wishes = replace(routes.wishes, must=must, must_not=must_not, bought=bought)
        there = routes.under(wishes)
        for other in there.best(objective, k).routes:
            after = figures(timetable, other.stops)
            found[other.stops] = Alternative(
                other.stops,
                tuple(sorted(set(other.stops) - set(given))),
                tuple(sorted(set(given) - set(other.stops))),
                other.value,
                *(new - old for new, old in zip(after, before, strict=True)),
            )
    sign = 1.0 if objective in (Objective.CHEAPEST, Objective.LEAST_WALKING) else -1.0
    # What only leaves a concert out comes after what puts another in its place.
    ordered = sorted(found.values(), key=lambda one: (not one.gained, sign * one.value, one.stops))
    return ordered[:k]


def figures(timetable: Timetable, route: Sequence[int]) -> tuple[int, int, int, int]:
    """(price in minor units, minutes of music, of walking, of waiting) of a route's rows, ascending."""
    rows = sorted(route)
    price = sum(timetable.stops[row].price or 0 for row in rows)
    music = sum(timetable.stops[row].minutes for row in rows if not timetable.stops[row].optional)
    walking = waiting = 0
    for one, other in pairwise(rows):
        a, b = timetable.stops[one], timetable.stops[other]
        if a.day == b.day:
            walk = int(timetable.walk[a.hall, b.hall])
            walk = 0 if walk == IMPASSABLE else walk
            walking += walk
            waiting += b.begins - a.ends - walk
    return price, music, walking, waiting


def different(routes: Routes, objective: Objective, k: int, strength: float, deadline_s: float = DEADLINE_S) -> Best:
    """k good routes that differ. strength: 0 (the k best) to 1 (a concert that was shown counts for nothing the next time).

    The first is the best. Of sums each next one is the best where every concert is worth less the more often it was shown (solved
    anew, exactly); of the rest the one, among the first thousand, of the best mix of worth and difference (maximal marginal relevance,
    Carbonell and Goldstein 1998; difference = 1 - Jaccard). Only the first is sure to be what it is for its worth (`within` says how far
    from the best it can be), so that `exact` is false for any strength but 0. Raises ValueError for a strength outside 0 to 1."""
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"the strength of difference is {strength}: 0 to 1 is allowed")
    if not strength:
        return routes.best(objective, k, deadline_s)
    if objective in COVERING or routes.wishes.no_programme_twice:
        pool = routes.best(objective, max(k, _POOL), deadline_s)
        return Best(tuple(_marginal(pool.routes, k, strength)), len(pool.routes) == 0 and pool.exact, pool.within)
    limits = routes.narrowed.limits
    weights = additive(objective, routes.timetable, routes.worth, limits.price)
    graph = routes.graph(weights, limits)
    first, _ = paths.Ranking(graph).more(1)
    if not len(first):
        return Best((), True, 0.0)
    chosen = [tuple(int(row) for row in first[0] if row >= 0)]
    unit = float(np.abs(weights.gain[list(chosen[0])]).mean()) + 45.0 * abs(weights.per_walk)
    times = np.zeros(len(routes.timetable.stops), dtype=np.float64)
    while len(chosen) < k:
        times[list(chosen[-1])] += 1.0
        ranking = paths.Ranking(paths.reweighed(graph, -np.rint(strength * unit * times).astype(np.int64)))
        new = None
        while new is None and not ranking.exhausted:
            stops, _ = ranking.more(4)
            those = [tuple(int(row) for row in one if row >= 0) for one in stops]
            new = next((one for one in those if one not in chosen), None)
        if new is None:
            break
        chosen.append(new)
    return Best(tuple(Found(one, shown(objective, paths.weight_of(graph, one) or 0)) for one in chosen), False, 0.0)


def _marginal(pool: Sequence[Found], k: int, strength: float) -> list[Found]:
    if not pool or not strength:
        return list(pool[:k])
    most = max(max(found.stops) for found in pool) + 1
    sets = np.zeros((len(pool), most), dtype=np.float32)
    for place, found in enumerate(pool):
        sets[place, list(found.stops)] = 1.0
    values = np.array([found.value for found in pool])
    worth = np.abs(values - values[-1]) / max(abs(values[0] - values[-1]), 1e-12)
    sizes = sets.sum(axis=1)
    nearest = np.zeros(len(pool))
    chosen: list[int] = []
    while len(chosen) < min(k, len(pool)):
        marginal = (1.0 - strength) * worth - strength * nearest
        marginal[chosen] = -np.inf
        new = 0 if not chosen else int(np.argmax(marginal))
        chosen.append(new)
        shared = sets @ sets[new]
        nearest = np.maximum(nearest, shared / (sizes + sizes[new] - shared))
    return [pool[place] for place in chosen]
