"""What a route can still weigh at most after each stop, where limits may be broken for a price a unit (Lagrangian bound; Fisher 1981).

Of one limit a day, walking or else waiting, the bound is exact to a step: it is a table over what is left of it. Of the others what is
left is worth its price: money over all days, waiting and concerts on each day. Any prices >= 0 give a bound; those that make the bound of
the whole as small as can be are found by subgradient steps (Polyak's length, halved when it stops helping).

Everything is in whole numbers, shifted to the left so that prices are fine enough: the bound never fails by rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.itinerary.hops import I64, Hops
from features.itinerary.limits import COUNT, FREE, MONEY, WAIT, WALK, Limits, Weights

F64 = NDArray[np.float64]

#: The weight of what leads nowhere, and what no true weight goes below, shifted.
_NOWHERE, _DEAD = -(2**61), -(2**60)
_BITS, _MOST_SHIFT = 54, 40
_NO_LEVEL = 41  # FREE shifted by so much is 0
_LEVELS = 64
_STEPS, _MORE_STEPS = 24, 6


class Completion(NamedTuple):
    """after_stop: (stops, levels) int64, by what is left of a day's walking (or waiting: of_wait) >> level_shift; after_gate: (days + 1,)
    int64; per: (days + 1, 4) int64, the price of a unit of COUNT, WALK, WAIT on a day and of MONEY, that has still to be added for what
    is left; all shifted to the left by `shift`."""

    after_stop: I64
    after_gate: I64
    per: I64
    of_wait: bool
    level_shift: int
    shift: int


class Bounded(NamedTuple):
    """completion; at_most: no route weighs more (None: there is no route). reached: the weight of one that keeps what was priced, None if
    none was met (it may still lack a meal, or what a route must have). apart: ascending, what the heaviest route of the bound would
    lose, at each of its stops, by each other way to go on."""

    completion: Completion
    at_most: int | None
    reached: int | None
    apart: I64


def nothing_known(stops: int, days: int) -> Completion:
    """By which no path is left out."""
    per = np.zeros((days + 1, 4), dtype=np.int64)
    return Completion(np.zeros((stops, 1), dtype=np.int64), np.zeros(days + 1, dtype=np.int64), per, False, _NO_LEVEL, 0)


def bounded(pointer: I64, hops: Hops, limits: Limits, weights: Weights) -> Bounded | None:
    """None where nothing limits a sum, or where weights are too large to be shifted, or tokens have a weight."""
    limited = np.array([limits.most < FREE, limits.walk < FREE, limits.wait < FREE, limits.money < FREE], dtype=np.bool_)
    stops, days = len(limits.price), len(pointer) - 1
    a_day = 2 * 1_440 * (abs(weights.per_walk) + abs(weights.per_wait))
    largest = float(np.abs(weights.gain).sum()) + days * a_day + stops * abs(weights.per_change)
    if not limited.any() or weights.by_token.any() or largest >= 2.0**_BITS:
        return None
    shift = min(_MOST_SHIFT, _BITS - int(largest).bit_length())
    most = np.array([limits.most, limits.walk, limits.wait, limits.money], dtype=np.float64)
    largest_use = np.maximum([2_048.0, 2_048.0, 2_048.0, float(limits.price.sum())], np.where(limited, most, 1.0))
    caps = np.where(limited, 2.0**_BITS / (4 * days + 1) / largest_use, 0.0)
    prices = np.zeros((days + 1, 4))
    at_most, least, apart = 0, _NOWHERE, np.empty(0, dtype=np.int64)
    dense = limits.walk < FREE or limits.wait < FREE
    gate, per = np.zeros(days + 1, dtype=np.int64), np.zeros((days + 1, 4), dtype=np.int64)
    level_shift, of_wait, levels = _NO_LEVEL, False, 1
    table = np.empty((stops, 1), dtype=np.int64)
    if not dense or limited.sum() > 1:
        at_most, least, apart = _descended(
            pointer, hops, limits, weights, shift, caps, prices, 1, _NO_LEVEL, False, _STEPS, least, table, gate, per
        )
    if dense:
        of_wait = limits.walk >= FREE
        of_level = limits.wait if of_wait else limits.walk
        level_shift = max(0, (of_level + 1).bit_length() - _LEVELS.bit_length() + 1)
        levels = (of_level >> level_shift) + 1
        caps[WAIT if of_wait else WALK] = 0.0
        prices[:, WAIT if of_wait else WALK] = 0.0
        table = np.empty((stops, levels), dtype=np.int64)
        steps = _MORE_STEPS if caps.any() else 0
        at_most, least, apart = _descended(
            pointer, hops, limits, weights, shift, caps, prices, levels, level_shift, of_wait, steps, least, table, gate, per
        )
    found = Completion(table, gate, per, of_wait, level_shift, shift)
    if at_most <= _DEAD:
        return Bounded(found, None, None, apart)
    apart.sort()
    reached = None if least <= _DEAD else least >> shift
    return Bounded(found, (at_most >> shift) + 1, reached, apart >> shift)


@compiled
def _filled(
    day_pointer: I64,
    hops: Hops,
    limits: Limits,
    sums: I64,
    first: I64,
    per: I64,
    levels: int,
    level_shift: int,
    of_wait: bool,
    table: I64,
    gate: I64,
) -> int:
    """Puts the bound under these prices into `table` and `gate`; returns that of the whole. sums, first: what a stop adds after a hop, and
    as the first of its day."""
    pointer, to, walk, wait, start, end, skip = hops.pointer, hops.to, hops.walk, hops.wait, hops.start, hops.end, hops.skip
    price, concert, days = limits.price, limits.concert, len(gate) - 1
    used = wait if of_wait else walk
    gate[days] = 0
    for d in range(days - 1, -1, -1):
        a_concert, a_walk, a_wait, a_coin = per[d, COUNT], per[d, WALK], per[d, WAIT], per[d, MONEY]
        for u in range(day_pointer[d + 1] - 1, day_pointer[d] - 1, -1):
            row = table[u]
            row[:] = gate[d + 1] if end[u] else _NOWHERE
            for e in range(pointer[u], pointer[u + 1]):
                v, use = to[e], np.int64(used[e]) >> level_shift
                worth = sums[e] - a_walk * walk[e] - a_wait * wait[e] - a_concert * concert[v] - a_coin * price[v]
                other = table[v]
                for left in range(levels - use):
                    row[use + left] = max(row[use + left], other[left] + worth)
        best = gate[d + 1] if skip[d] else np.int64(_NOWHERE)
        whole = a_concert * limits.most + a_walk * limits.walk + a_wait * limits.wait
        for v in range(day_pointer[d], day_pointer[d + 1]):
            if start[v]:
                best = max(best, table[v, levels - 1] + first[v] - a_concert * concert[v] - a_coin * price[v] + whole)
        gate[d] = best if best > _DEAD else np.int64(_NOWHERE)
    return gate[0] + per[days, MONEY] * limits.money


@compiled
def _descended(
    day_pointer: I64,
    hops: Hops,
    limits: Limits,
    weights: Weights,
    shift: int,
    caps: F64,
    prices: F64,
    levels: int,
    level_shift: int,
    of_wait: bool,
    steps: int,
    least: int,
    table: I64,
    gate: I64,
    per: I64,
) -> tuple[int, int, I64]:
    """So many steps from `prices` (days + 1, 4), which are left at the best that were met, as `table`, `gate` and `per` are. caps: (4,) the
    highest prices, 0 of what has none. least: what some route reaches. Returns (bound, what some route reaches, `apart`)."""
    pointer, to, walk, wait, change = hops.pointer, hops.to, hops.walk, hops.wait, hops.change
    start, end, skip, price, concert, gain = hops.start, hops.end, hops.skip, limits.price, limits.concert, weights.gain
    days, stops = len(day_pointer) - 1, len(price)
    first, sums = gain << shift, np.empty(len(to), dtype=np.int64)
    for e in range(len(to)):
        worth = gain[to[e]] + weights.per_walk * walk[e] + weights.per_wait * wait[e] + weights.per_change * change[e]
        sums[e] = worth << shift
    used = np.empty((days + 1, 4), dtype=np.int64)
    slack = np.empty((days + 1, 4), dtype=np.float64)
    apart = np.empty(len(to) + 2 * stops + days, dtype=np.int64)
    most = (float(limits.most), float(limits.walk), float(limits.wait), float(limits.money))
    chosen, lowest, pace, since, step = prices.copy(), np.int64(2**62), 1.0, 0, 0
    while True:
        for d in range(days + 1):
            for one in range(4):
                per[d, one] = np.int64(prices[d, one]) if one != MONEY else np.int64(prices[days, MONEY])
        bound = _filled(day_pointer, hops, limits, sums, first, per, levels, level_shift, of_wait, table, gate)
        # ---- the heaviest route of this bound: what it uses, and what every other way would lose
        used[:] = 0
        slack[:] = 0.0
        value, others = np.int64(0), 0
        for d in range(days):
            if gate[0] <= _DEAD:
                break
            whole = per[d, COUNT] * limits.most + per[d, WALK] * limits.walk + per[d, WAIT] * limits.wait
            left, u, chose = levels - 1, -1, False
            if skip[d]:
                chose = gate[d] == gate[d + 1]
                if not chose:
                    apart[others] = gate[d] - gate[d + 1]
                    others += 1
            empty = chose
            for v in range(day_pointer[d], day_pointer[d + 1]):
                if start[v]:
                    loss = gate[d] - (table[v, left] + first[v] - per[d, COUNT] * concert[v] - per[d, MONEY] * price[v] + whole)
                    if loss == 0 and not chose:
                        chose, u = True, v
                        value += first[v]
                        used[d, COUNT] += concert[v]
                        used[days, MONEY] += price[v]
                    elif loss < -_DEAD:
                        apart[others] = loss
                        others += 1
            while u >= 0:
                here, after, chose = table[u, left], -1, False
                if end[u]:
                    chose = here == gate[d + 1]
                    if not chose and gate[d + 1] > _DEAD:
                        apart[others] = here - gate[d + 1]
                        others += 1
                for e in range(pointer[u], pointer[u + 1]):
                    v = to[e]
                    use = np.int64(wait[e] if of_wait else walk[e]) >> level_shift
                    if use > left:
                        continue
                    loss = here - (table[v, left - use] + sums[e] - per[d, COUNT] * concert[v] - per[d, MONEY] * price[v])
                    loss += per[d, WALK] * walk[e] + per[d, WAIT] * wait[e]
                    if loss == 0 and not chose:
                        chose, after = True, e
                    elif loss < -_DEAD:
                        apart[others] = loss
                        others += 1
                u = -1
                if after >= 0:
                    u = np.int64(to[after])
                    left -= np.int64(wait[after] if of_wait else walk[after]) >> level_shift
                    value += sums[after]
                    used[d, COUNT] += concert[u]
                    used[d, WALK] += walk[after]
                    used[d, WAIT] += wait[after]
                    used[days, MONEY] += price[u]
            if not empty:
                for one in range(3):
                    slack[d, one] = most[one] - used[d, one] if caps[one] > 0 else 0.0
        slack[days, MONEY] = most[MONEY] - used[days, MONEY] if caps[MONEY] > 0 else 0.0
        if step > steps or bound <= _DEAD:
            break
        if bound < lowest:
            lowest, since = bound, 0
            chosen[:] = prices
        else:
            since += 1
            if since == 3:
                pace, since = pace / 2, 0
        # ---- against what it uses
        norm, kept = 0.0, True
        for d in range(days + 1):
            for one in range(4):
                kept = kept and slack[d, one] >= 0
                if slack[d, one] < 0 or prices[d, one] > 0:
                    norm += (slack[d, one] / max(most[one], 1.0)) ** 2
        if kept:
            least = max(least, value)
        step += 1
        if step >= steps or norm == 0.0 or bound <= least:
            step = steps + 1  # once more at the best, which leaves the tables as they are then
            prices[:] = chosen
            if bound == lowest:
                break
            continue
        goal = float(least) if least > _DEAD else float(lowest) - 0.05 * abs(float(lowest))
        gap = max(float(bound) - goal, 1e-4 * abs(float(bound)))
        for d in range(days + 1):
            for one in range(4):
                moved = prices[d, one] - pace * gap / norm * slack[d, one] / max(most[one], 1.0) ** 2
                prices[d, one] = min(max(moved, 0.0), caps[one])
    return bound, least, apart[:others].copy()
