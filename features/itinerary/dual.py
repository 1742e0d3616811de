"""Subgradient steps on the multipliers of a bound: each weighs the graph anew, takes the heaviest path, and moves every multiplier against
what that path does (Polyak's step length, halved when it stops helping). All in floating point: the caller rounds what it gets, and a bound
is a bound for any multipliers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.itinerary.hops import I32, I64, U8

F64 = NDArray[np.float64]


@compiled
def descend(
    order: I32,
    first: I64,
    edges: I32,
    target: I32,
    stop: I32,
    sink: int,
    covered: F64,
    comfort: F64,
    pointer: I64,
    groups: I32,
    worth: F64,
    free: U8,
    composers: int,
    balance: bool,
    share: float,
    multipliers: F64,
    least: float,
    steps: int,
) -> tuple[float, F64, I32, float]:
    """stop: (vertices,) row or -1. covered, comfort: (edges,) the sums of the bound, of `balance` (1 - share) and share of them. pointer,
    groups: which groups each stop is of, composers first, then programmes; worth: (groups,) of a composer at each stop (0 of a programme,
    and of what is a bit: not `free`). least: a worth that some route surely has. Returns (share, multipliers, (steps, longest) rows of the
    paths met, padded with -1, the least bound)."""
    many, number = len(order), len(worth)
    longest = 1
    steps_to = np.zeros(len(first), dtype=np.int64)
    for at in range(many - 1, -1, -1):
        x = order[at]
        for e in range(first[x], first[x] + edges[x]):
            steps_to[x] = max(steps_to[x], 1 + steps_to[target[e]])
    longest = steps_to[0] + 1
    met = np.full((steps, longest), -1, dtype=np.int32)
    best, edge = np.empty(len(first)), np.empty(len(first), dtype=np.int64)
    times = np.zeros(number)
    each = np.zeros(len(pointer) - 1)
    chosen_share, chosen, lowest = share, multipliers.copy(), np.inf
    at_share, held = share, multipliers.copy()
    pace, since, likely = 1.0, 0, -np.inf
    for step in range(steps):
        rest = 1.0 - at_share if balance else 1.0
        constant = 0.0
        for g in range(number):
            constant += held[g]
        for u in range(len(each)):
            total = 0.0
            for p in range(pointer[u], pointer[u + 1]):
                g = groups[p]
                if free[g]:
                    total += rest * worth[g] - held[g]
            each[u] = total
        best[:] = -np.inf
        best[sink] = 0.0
        for at in range(many - 1, -1, -1):
            x = order[at]
            for e in range(first[x], first[x] + edges[x]):
                y = target[e]
                value = best[y] + rest * covered[e]
                if balance:
                    value += at_share * comfort[e]
                if stop[y] >= 0:
                    value += each[stop[y]]
                if value > best[x]:
                    best[x], edge[x] = value, e
        bound = best[0] + constant
        times[:] = 0.0
        x, length, comforts, covers = 0, 0, 0.0, 0.0
        while x != sink:
            e = edge[x]
            comforts += comfort[e]
            covers += covered[e]
            x = target[e]
            if stop[x] >= 0:
                met[step, length] = stop[x]
                length += 1
                for p in range(pointer[stop[x]], pointer[stop[x] + 1]):
                    times[groups[p]] += 1.0
        if bound < lowest - 1e-9 * abs(lowest) or step == 0:
            lowest, chosen_share, since = bound, at_share, 0
            chosen[:] = held
        else:
            since += 1
            if since == 5:
                pace, since = pace / 2, 0
        once, sums, fine = covers, covers, True
        norm, slope = 0.0, 0.0
        for g in range(number):
            if free[g]:
                sums += worth[g] * times[g]
                once += worth[g] * min(times[g], 1.0)
                fine = fine and (g < composers or times[g] < 1.5)
                slack = 1.0 - times[g]
                # A multiplier that would leave its interval does not move.
                full = g < composers and held[g] >= worth[g] * rest * (1.0 - 1e-12)
                if not ((slack > 0 and held[g] <= 0.0) or (slack < 0 and full)):
                    norm += slack * slack
        value = min(comforts, once) if balance else once
        if fine and value > least:
            least = value
        likely = max(likely, value if fine else value - 0.1 * abs(value))
        if balance:
            slope = comforts - sums
            scale = max(abs(comforts), abs(sums), 1.0)
            slope /= scale
            norm += slope * slope
        gap = max(bound - max(least, likely), 1e-3 * abs(bound))
        if norm <= 0.0 or bound <= least:
            break
        length_of_step = pace * gap / norm
        if balance:
            at_share = min(1.0, max(0.0, at_share - length_of_step * slope / scale))
        for g in range(number):
            if free[g]:
                most = worth[g] * (1.0 - at_share if balance else 1.0)
                held[g] = max(0.0, held[g] - length_of_step * (1.0 - times[g]))
                if g < composers:
                    held[g] = min(held[g], most)
    return chosen_share, chosen, met, lowest
