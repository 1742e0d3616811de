"""The best routes where a concert's worth depends on the others: in the order of a sum that is never too small, until no later one can win.

The sum: a composer who is worth w once counts w (b + (1 - b) n) at n concerts, for any b in [0, 1] no less than w min(n, 1); a programme
that may not come twice adds m (1 - n), for any m >= 0 no less than nothing where n <= 1. The b and m are found by subgradient steps, so
that the heaviest route weighs as little as possible (Lagrangian bound; Fisher 1981). Then routes come heaviest first and each is judged as
it is. What the sum still counts twice becomes, one thing after the other, a bit of the graph's state, and the order starts anew with a
smaller bound (decremental state space relaxation; Righini and Salani 2008). The answer is exact as soon as the next bound is no larger
than the k-th value; at the deadline it says how far it can be from that. Of equally good routes any may be shown.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.itinerary import paths
from features.itinerary.dual import descend
from features.itinerary.graph import Graph, TooManyStatesError, build
from features.itinerary.hops import I32, I64, day_pointer
from features.itinerary.limits import Limits, Weights
from features.itinerary.objectives import (
    CHANGE_COST,
    COVERING,
    POINT,
    WAIT_COST,
    WALK_COST,
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
_BITS_AT_ONCE, _MOST_BITS = 3, 60
_STEPS, _FEWER_STEPS, _TRIED = 200, 60, 20
_MOST_VERTICES = 60_000  # of a graph with bits on demand: larger ones take longer than they save
_ENOUGH = 2_048  # routes after which it is better to correct the bound than to go on

Kept = dict[tuple[int, ...], int]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Problem:
    """of_stop: (stops, groups) float32, which stop belongs to which group: composers first, then programmes that are repeated.
    worth: (groups,) int64 points of a composer in the bound's unit, 0 of a programme; composers: how many groups are composers."""

    routes: Routes
    objective: Objective
    of_stop: NDArray[np.float32]
    points: I64  # of composers, in POINT
    gain: I64
    music: I64
    scales: tuple[float, float]
    composers: int

    @classmethod
    def of(cls, routes: Routes, objective: Objective) -> _Problem:
        timetable, repeats = routes.timetable, routes.narrowed.repeats
        programmes = np.arange(int(repeats.max(initial=-1)) + 1)
        of_programme = repeats[:, None] == programmes[None, :]
        stops = len(timetable.stops)
        if objective in COVERING:
            cover = covering(objective, timetable, routes.worth)
            of_stop, points, gain = np.hstack([cover.of_stop, of_programme]), cover.points, cover.gain
        else:
            of_stop, points, gain = of_programme, np.zeros(0, dtype=np.int64), np.zeros(stops, dtype=np.int64)
        both = scales(routes) if objective is Objective.BALANCE else (1.0, 1.0)
        return cls(routes, objective, of_stop.astype(np.float32), points, gain, music_minutes(timetable), both, len(points))

    def worth(self, share: float) -> I64:
        """(groups,) int64: what a composer is worth in the bound; of balance, where comfort has `share` of it."""
        out = np.zeros(self.of_stop.shape[1], dtype=np.int64)
        out[: self.composers] = np.ceil(self.points * self._per_point(share)).astype(np.int64)
        return out

    def weights(self, share: float) -> Weights:
        """The part of the bound that is a sum as it is."""
        none = np.zeros(64, dtype=np.int64)
        if self.objective not in COVERING:
            return additive(self.objective, self.routes.timetable, self.routes.worth, self.routes.narrowed.limits.price)
        gain = np.ceil(self.gain * self._per_point(share)).astype(np.int64)
        if self.objective is not Objective.BALANCE:
            return Weights(gain, 0, 0, 0, none)
        minute = share / self.scales[0] * POINT
        gain += np.ceil(self.music * minute).astype(np.int64)
        return Weights(gain, -int(WALK_COST * minute), -int(WAIT_COST * minute), -int(CHANGE_COST * minute), none)

    def _per_point(self, share: float) -> float:
        return (1.0 - share) / self.scales[1] if self.objective is Objective.BALANCE else 1.0

    def times(self, stops: I32) -> NDArray[np.float32]:
        """(n, groups) float32: at how many stops of each route a group is met."""
        chosen = np.zeros((len(stops), len(self.gain) + 1), dtype=np.float32)
        np.put_along_axis(chosen, stops.astype(np.int64), 1.0, axis=1)  # -1 is the last column
        return np.asarray(chosen[:, :-1] @ self.of_stop, dtype=np.float32)

    def judged(self, stops: I32, sums: I64, times: NDArray[np.float32]) -> tuple[I64, Bools]:
        """True worth of each route, and whether it plays no programme twice. sums: the weights without the multipliers."""
        allowed = np.asarray((times[:, self.composers :] < 1.5).all(axis=1), dtype=np.bool_)
        if self.objective not in COVERING:
            return sums, allowed
        met = (times[:, : self.composers] > 0.5).astype(np.int64)
        covered = met @ self.points + np.where(stops >= 0, np.append(self.gain, 0)[stops], 0).sum(axis=1)
        if self.objective is not Objective.BALANCE:
            return covered, allowed
        shares = np.minimum(comfort_minutes(self.routes, stops) / self.scales[0], covered / POINT / self.scales[1])
        return np.floor(shares * POINT).astype(np.int64), allowed


@dataclass
class _State:
    """share: of comfort in the bound of balance; multipliers: (groups,) int64; bits: groups that are bits of the graph's state."""

    share: float
    multipliers: I64
    bits: list[int] = field(default_factory=list)
    kept: Kept = field(default_factory=dict)


def best_by_bound(routes: Routes, objective: Objective, k: int, deadline: float) -> Best:
    """The k best of any objective under any wishes; see the head of this file. deadline: of time.monotonic."""
    problem = _Problem.of(routes, objective)
    state = _State(0.5 if objective is Objective.BALANCE else 0.0, np.zeros(problem.of_stop.shape[1], dtype=np.int64))
    unweighed = _graph(problem, state)
    if unweighed.sink < 0:
        return _answer(objective, {}, None)
    ceiling, steps, may_correct = 2**62, _STEPS, True
    while True:
        graph = _tightened(problem, state, unweighed, k, steps)
        ranking, batch, looked, over = paths.Ranking(graph), _FIRST, 0, Counter[int]()
        constant = _constant(problem, state)
        importance = problem.worth(state.share)
        importance[problem.composers :] = 2 * importance.max(initial=POINT)
        while True:
            stops, weights = ranking.more(batch)
            looked += len(weights)
            if len(weights):
                times = problem.times(stops)
                _keep(problem, state, stops, weights, times, k)
                excess = np.maximum(times - 1.0, 0.0).sum(axis=0) * importance
                excess[state.bits] = 0.0
                over.update({int(group): int(np.ceil(excess[group])) for group in np.flatnonzero(excess > 0)})
            bound = _rounded(objective, ranking.next_weight + constant)
            if ranking.exhausted or (len(state.kept) >= k and bound <= min(state.kept.values())):
                return _answer(objective, state.kept, None)
            if time.monotonic() > deadline or (may_correct and looked >= _ENOUGH and over):
                break
            batch = min(2 * batch, _MOST)
        ceiling = min(ceiling, bound)
        if time.monotonic() > deadline:
            return _answer(objective, state.kept, ceiling)
        more = [group for group, _ in over.most_common(_BITS_AT_ONCE)]
        before = list(state.bits)
        try:
            if len(before) + len(more) > _MOST_BITS:
                raise TooManyStatesError("no bits are left")
            state.bits = before + more
            state.multipliers[more] = 0
            unweighed, steps = _graph(problem, state), _FEWER_STEPS
        except TooManyStatesError:
            state.bits, may_correct, steps = before, False, 0  # looked through as it is, to the deadline


def _graph(problem: _Problem, state: _State, share: float | None = None) -> Graph:
    """Weighed without the multipliers, for that share of comfort (None: the state's)."""
    share = state.share if share is None else share
    routes, limits = problem.routes, problem.routes.narrowed.limits
    bits = np.zeros(len(problem.gain), dtype=np.uint64)
    forbids = bits.copy()
    by_token = np.zeros(64, dtype=np.int64)
    worth = problem.worth(share)
    for bit, group in enumerate(state.bits):
        rows = problem.of_stop[:, group] > 0
        bits[rows] |= np.uint64(1) << np.uint64(bit)
        if group >= problem.composers:
            forbids[rows] |= np.uint64(1) << np.uint64(bit)
        by_token[bit] = worth[group]
    weights = problem.weights(share)._replace(by_token=by_token)
    words: Limits = limits._replace(tokens=bits, forbids=forbids)
    most = min(_MOST_VERTICES, routes.most_vertices) if state.bits else routes.most_vertices
    return build(day_pointer(routes.timetable), routes.narrowed.hops, words, weights, most)


def _beside(problem: _Problem, state: _State) -> I64:
    """(stops,) int64: what the groups that are no bits add to the weight of each stop."""
    each = problem.worth(state.share) - state.multipliers
    each[state.bits] = 0
    return np.rint(problem.of_stop.astype(np.float64) @ each.astype(np.float64)).astype(np.int64)


def _constant(problem: _Problem, state: _State) -> int:
    return int(state.multipliers.sum())


def _keep(problem: _Problem, state: _State, stops: I32, weights: I64, times: NDArray[np.float32], k: int, reweighed: bool = True) -> None:
    """Puts the best of these routes among those kept. reweighed: whether the multipliers are in `weights`."""
    beside = np.append(_beside(problem, state), 0) * reweighed
    values, allowed = problem.judged(stops, weights - np.where(stops >= 0, beside[stops], 0).sum(axis=1), times)
    rows = np.flatnonzero(allowed)
    for row in rows[np.argsort(-values[rows], kind="stable")[:k]]:
        state.kept[tuple(int(stop) for stop in stops[row] if stop >= 0)] = int(values[row])
    state.kept = dict(sorted(state.kept.items(), key=_order)[:k])


def _tightened(problem: _Problem, state: _State, graph: Graph, k: int, steps: int) -> Graph:
    """The graph weighed with multipliers (left in `state`) that make its heaviest path as light as so many subgradient steps can."""
    balance = problem.objective is Objective.BALANCE
    if steps and (problem.composers or problem.of_stop.shape[1]):
        free = np.ones(problem.of_stop.shape[1], dtype=np.uint8)
        free[state.bits] = 0
        rows, groups = np.nonzero(problem.of_stop)
        pointer = np.searchsorted(rows, np.arange(len(problem.gain) + 1)).astype(np.int64)
        sums = graph.weight.astype(np.float64)
        comfort = np.zeros(len(sums))
        if balance:  # the two sums apart: the same graph, weighed by the one and by the other
            sums = _graph(problem, state, 0.0).weight.astype(np.float64)
            comfort = _graph(problem, state, 1.0).weight.astype(np.float64)
        least = max(state.kept.values()) if state.kept else -np.inf
        share, multipliers, met, _ = descend(
            graph.order,
            graph.first,
            graph.edges,
            graph.target,
            graph.stop_of[graph.place],
            graph.sink,
            sums,
            comfort,
            pointer,
            groups.astype(np.int32),
            problem.worth(0.0).astype(np.float64),
            free,
            problem.composers,
            balance,
            state.share,
            state.multipliers.astype(np.float64),
            float(least),
            steps,
        )
        state.share = share
        state.multipliers = np.rint(multipliers).astype(np.int64)
        state.multipliers[: problem.composers] = np.minimum(state.multipliers, problem.worth(share))[: problem.composers]
        state.multipliers[state.bits] = 0
        if balance:
            graph = _graph(problem, state, share)
        _try(problem, state, graph, met, k)
    return paths.reweighed(graph, _beside(problem, state))


def _try(problem: _Problem, state: _State, graph: Graph, met: I32, k: int) -> None:
    """Keeps the best of the routes that were met; of those that repeat a programme, what is left without the repeats, if that is one."""
    repeats = problem.routes.narrowed.repeats
    tried: dict[tuple[int, ...], int] = {}
    for row in met[-_TRIED:] if repeats.max(initial=-1) >= 0 else met:
        seen: set[int] = set()
        route = []
        for stop in row[row >= 0].tolist():
            if repeats[stop] < 0 or repeats[stop] not in seen:
                route.append(stop)
                seen.add(int(repeats[stop]))
        if route and tuple(route) not in tried:
            weight = paths.weight_of(graph, route)
            if weight is not None:
                tried[tuple(route)] = weight
    if not tried:
        return
    stops = np.full((len(tried), max(map(len, tried))), -1, dtype=np.int32)
    for place, rows in enumerate(tried):
        stops[place, : len(rows)] = rows
    _keep(problem, state, stops, np.array(list(tried.values()), dtype=np.int64), problem.times(stops), k, False)


def _answer(objective: Objective, kept: Kept, ceiling: int | None) -> Best:
    """ceiling: no route is worth more; None if these are known to be the best."""
    from features.itinerary.search import Best, Found

    found = tuple(Found(rows, _shown(objective, value)) for rows, value in sorted(kept.items(), key=_order))
    if ceiling is None:
        return Best(found, True, 0.0)
    if not found:
        return Best((), False, float("inf"))
    return Best(found, False, abs(_shown(objective, ceiling) - found[0].value) if ceiling > max(kept.values()) else 0.0)


def _rounded(objective: Objective, bound: int) -> int:
    """Composers are counted: nothing lies between two whole numbers."""
    return bound // POINT * POINT if objective is Objective.COMPOSERS else bound


def _shown(objective: Objective, value: int) -> float:
    return value / POINT if objective in COVERING else shown(objective, value)


def _order(found: tuple[tuple[int, ...], int]) -> tuple[int, tuple[float, ...]]:
    """Best first, equals as tuples padded with something larger than any row."""
    rows, value = found
    return -value, (*rows, float("inf"))


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
    """(C, D) of balance: the most minutes of comfort and the largest sum for depth (a composer counted at each concert) of all routes of
    the timetable, at least 1."""
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
    return kept
