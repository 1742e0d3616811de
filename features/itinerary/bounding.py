"""The best routes where a concert's worth depends on the others: in the order of a sum that is never too small, until no later one can win.

Bound and check, with what the bound gets wrong corrected on demand: routes come heaviest bound first, each is looked at as it is. Where the
bound counts something twice (a composer at two concerts, a programme played again), that one thing becomes a bit of the graph's state
and the order starts anew with a tighter bound (decremental state space relaxation, Righini and Salani 2008). Without no-programme-twice the
answer is exact as soon as the next bound is no larger than the k-th value; at the deadline it says how far it can be from that.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.itinerary import paths
from features.itinerary.graph import Limits, TooManyStatesError, Weights
from features.itinerary.hops import I32, I64
from features.itinerary.objectives import (
    CHANGE_COST,
    COVERING,
    POINT,
    WAIT_COST,
    WALK_COST,
    Covering,
    Worth,
    additive,
    covering,
    music_minutes,
    shown,
)
from features.itinerary.wishes import Objective, Wishes

if TYPE_CHECKING:
    from features.itinerary.search import Best, Routes

_FIRST, _MOST = 64, 8_192  # routes that are looked at together
_BITS_AT_ONCE = 4
_MOST_VERTICES = 150_000  # of a graph with bits on demand: larger ones take longer than they save


_Tally = Counter[int]


@dataclass
class _Tokens:
    """What is a bit of the state: numbers of programmes (forbidden a second time) and of composers (worth nothing a second time)."""

    programmes: list[int] = field(default_factory=list)
    composers: list[int] = field(default_factory=list)


class _Problem:
    """One objective: the graph of its bound for given tokens, and the true worth of routes (whole numbers, as the bound's)."""

    def __init__(self, routes: Routes, objective: Objective) -> None:
        self.routes, self.objective = routes, objective
        self.covering: Covering | None = covering(objective, routes.timetable, routes.worth) if objective in COVERING else None
        self.share = 0.5  # of comfort in the bound of balance
        self.scales = scales(routes) if objective is Objective.BALANCE else (1.0, 1.0)
        self.music = music_minutes(routes.timetable)

    def graph(self, tokens: _Tokens) -> paths.Graph:
        timetable, limits = self.routes.timetable, self.routes.narrowed.limits
        bits = np.zeros(len(timetable.stops), dtype=np.uint64)
        forbids = bits.copy()
        by_token = np.zeros(64, dtype=np.int64)
        for bit, programme in enumerate(tokens.programmes):
            rows = self.routes.narrowed.repeats == programme
            bits[rows] |= np.uint64(1) << np.uint64(bit)
            forbids[rows] |= np.uint64(1) << np.uint64(bit)
        if self.covering is None:
            weights = replace(additive(self.objective, timetable, self.routes.worth, limits.price), by_token=by_token)
        else:
            points = self.covering.points.copy()
            by = self._coverage_scale()
            for bit, composer in enumerate(tokens.composers, start=len(tokens.programmes)):
                bits[self.covering.of_stop[:, composer]] |= np.uint64(1) << np.uint64(bit)
                by_token[bit] = int(np.ceil(points[composer] * by))
                points[composer] = 0
            left = Covering(self.covering.of_stop, points, self.covering.gain).bound()
            gain = np.ceil(left * by).astype(np.int64)
            weights = Weights(gain, 0, 0, 0, by_token)
            if self.objective is Objective.BALANCE:
                minute = self.share / self.scales[0] * POINT
                weights = Weights(
                    gain + np.ceil(self.music * minute).astype(np.int64),
                    -int(WALK_COST * minute),
                    -int(WAIT_COST * minute),
                    -int(CHANGE_COST * minute),
                    by_token,
                )
        words: Limits = replace(limits, tokens=bits, forbids=forbids)
        return self._built(weights, words, bool(tokens.programmes or tokens.composers))

    def _built(self, weights: Weights, limits: Limits, corrected: bool) -> paths.Graph:
        from features.itinerary.graph import build
        from features.itinerary.hops import day_pointer

        most = min(_MOST_VERTICES, self.routes.most_vertices) if corrected else self.routes.most_vertices
        return build(day_pointer(self.routes.timetable), self.routes.narrowed.hops, limits, weights, most)

    def _coverage_scale(self) -> float:
        """Points of the bound for a point of coverage."""
        return (1.0 - self.share) / self.scales[1] if self.objective is Objective.BALANCE else 1.0

    def values(self, stops: I32, bounds: I64) -> tuple[I64, I64]:
        """True worth of each, and the minutes of comfort (of balance only)."""
        if self.covering is None:
            return bounds, bounds
        covered = self.covering.value(stops)
        if self.objective is not Objective.BALANCE:
            return covered, covered
        comfort = comfort_minutes(self.routes, stops)
        shares = np.minimum(comfort / self.scales[0], covered / POINT / self.scales[1])
        return np.floor(shares * POINT).astype(np.int64), comfort


def best_by_bound(routes: Routes, objective: Objective, k: int, deadline: float) -> Best:
    """The k best of any objective under any wishes; see the head of this file. deadline: of time.monotonic."""
    problem = _Problem(routes, objective)
    if objective is Objective.BALANCE:
        problem.share = _best_share(problem)
    tokens = _Tokens()
    kept: dict[tuple[int, ...], int] = {}
    graph = problem.graph(tokens)
    ceiling = None
    may_correct = True
    while True:
        ranking, batch, over_programmes, over_composers = paths.Ranking(graph), _FIRST, _Tally(), _Tally()
        bound = ranking.next_weight if not ranking.exhausted else paths.DEAD
        looked = 0
        while not ranking.exhausted:
            stops, bounds = ranking.more(batch)
            looked += len(bounds)
            worth, _ = problem.values(stops, bounds)
            allowed = _no_programme_twice(routes, stops, over_programmes)
            if problem.covering is not None:
                _count_twice(problem.covering, stops, tokens.composers, over_composers)
            for row in np.flatnonzero(allowed)[:k] if problem.covering is None else _top(worth, allowed, k):
                kept[tuple(int(stop) for stop in stops[row] if stop >= 0)] = int(worth[row])
            kept = _first(kept, k)
            bound = ranking.next_weight
            least = min(kept.values()) if len(kept) >= k else None
            if ranking.exhausted or (least is not None and bound <= least):
                return _answer(objective, kept, None)
            if time.monotonic() > deadline:
                break
            # Few routes are enough to see what the bound gets wrong; the later ones are looked at once nothing more can be corrected.
            if may_correct and looked >= 1_024 and (over_programmes or over_composers):
                break
            batch = min(2 * batch, _MOST)
        if ranking.exhausted:  # nothing that these tokens leave
            return _answer(objective, kept, None)
        ceiling = bound if ceiling is None else min(ceiling, bound)
        if time.monotonic() > deadline:
            break
        wider = _Tokens(
            tokens.programmes + [number for number, _ in over_programmes.most_common(_BITS_AT_ONCE)],
            tokens.composers + [number for number, _ in over_composers.most_common(_BITS_AT_ONCE)],
        )
        if len(wider.programmes) + len(wider.composers) > 64:
            may_correct = False
            continue
        try:
            graph = problem.graph(wider)
            tokens = wider
        except TooManyStatesError:
            may_correct = False  # the graph of before is looked through to the deadline
    return _answer(objective, kept, ceiling)


def _answer(objective: Objective, kept: dict[tuple[int, ...], int], ceiling: int | None) -> Best:
    """ceiling: no route is worth more; None if these are known to be the best."""
    from features.itinerary.search import Best, Found

    found = tuple(Found(rows, _shown(objective, value)) for rows, value in sorted(kept.items(), key=_order))
    if ceiling is None:
        return Best(found, True, 0.0)
    if not found:
        return Best((), False, float("inf"))
    return Best(found, False, max(0.0, abs(_shown(objective, ceiling) - found[0].value) if ceiling > max(kept.values()) else 0.0))


def comfort_minutes(routes: Routes, stops: I32) -> I64:
    """(n,) int64 music - 2 walking - waiting - 5 changes of routes given as (n, length) rows padded with -1."""
    timetable, music = routes.timetable, music_minutes(routes.timetable)
    out = np.zeros(len(stops), dtype=np.int64)
    for place in range(stops.shape[1]):
        here = stops[:, place]
        there = here >= 0
        out[there] += music[here[there]]
        if place == 0:
            continue
        before = stops[:, place - 1]
        both = there & (timetable.day[before] == timetable.day[here])
        a, b = before[both], here[both]
        walk = timetable.walk[timetable.hall[a], timetable.hall[b]].astype(np.int64)
        wait = timetable.begins[b] - timetable.ends[a] - walk
        out[both] -= WALK_COST * walk + WAIT_COST * wait + CHANGE_COST * (timetable.hall[a] != timetable.hall[b])
    return out


def scales(routes: Routes) -> tuple[float, float]:
    """(C, D) of balance: the most minutes of comfort and the largest bound of depth of all routes of the timetable, at least 1."""
    from features.itinerary.search import Routes as All

    timetable, worth = routes.timetable, routes.worth
    key = ("scales", None if worth.editors is None else worth.editors.tobytes())
    kept = timetable._kept.get(key)
    if kept is None:
        everything = All(timetable, Wishes(), None, Worth(editors=worth.editors))
        comfort = everything.best(Objective.COMFORT, 1).routes
        bound = covering(Objective.DEPTH, timetable, worth).bound()
        weights = Weights(bound, 0, 0, 0, np.zeros(64, dtype=np.int64))
        best, _ = paths.heaviest(everything.graph(weights, everything.narrowed.limits))
        depth = int(best[0]) / POINT if len(best) and best[0] > 0 else 0.0
        kept = (max(1.0, comfort[0].value if comfort else 0.0), max(1.0, depth))
        timetable._kept[key] = kept
    return kept  # type: ignore[no-any-return]


def _best_share(problem: _Problem) -> float:
    """The share of comfort for which the bound of balance is least: halving, by which side the heaviest route is richer on."""
    low, high = 0.0, 1.0
    assert problem.covering is not None
    for _ in range(7):
        problem.share = (low + high) / 2
        stops, bounds = paths.Ranking(problem.graph(_Tokens())).more(1)
        if not len(bounds):
            break
        comfort = comfort_minutes(problem.routes, stops)[0] / problem.scales[0]
        depth = problem.covering.value(stops)[0] / POINT / problem.scales[1]
        if comfort < depth:
            low = problem.share
        else:
            high = problem.share
    return (low + high) / 2


def _shown(objective: Objective, value: int) -> float:
    return value / POINT if objective in COVERING else shown(objective, value)


def _no_programme_twice(routes: Routes, stops: I32, over: _Tally) -> NDArray[np.bool_]:
    """(n,) bool: which play no programme twice (all, where nobody asked); counts in `over` what the others repeat."""
    repeats = routes.narrowed.repeats
    if repeats.max(initial=-1) < 0:
        return np.ones(len(stops), dtype=np.bool_)
    programmes = np.where(stops >= 0, np.append(repeats, np.int32(-1))[stops], np.int32(-1))
    programmes.sort(axis=1)
    again = (programmes[:, 1:] == programmes[:, :-1]) & (programmes[:, 1:] >= 0)
    over.update(programmes[:, 1:][again].tolist())
    return ~again.any(axis=1)


def _count_twice(covering: Covering, stops: I32, known: list[int], over: _Tally) -> None:
    """Counts in `over` by how much (in points) each composer that is no bit yet is counted too often."""
    chosen = np.zeros((len(stops), len(covering.gain) + 1), dtype=np.float32)
    np.put_along_axis(chosen, stops.astype(np.int64), 1.0, axis=1)
    times = chosen[:, :-1] @ covering.of_stop.astype(np.float32)
    excess = np.maximum(times - 1.0, 0.0).sum(axis=0) * (covering.points / POINT)
    excess[known] = 0.0
    for composer in np.flatnonzero(excess > 0):
        over[int(composer)] += int(np.ceil(excess[composer]))


def _top(worth: I64, allowed: NDArray[np.bool_], k: int) -> I64:
    rows = np.flatnonzero(allowed)
    return np.asarray(rows[np.argsort(-worth[rows], kind="stable")[:k]], dtype=np.int64)


def _order(found: tuple[tuple[int, ...], int]) -> tuple[int, tuple[float, ...]]:
    """Best first, equals as tuples padded with something larger than any row."""
    rows, value = found
    return -value, (*rows, float("inf"))


def _first(kept: dict[tuple[int, ...], int], k: int) -> dict[tuple[int, ...], int]:
    return dict(sorted(kept.items(), key=_order)[:k])
