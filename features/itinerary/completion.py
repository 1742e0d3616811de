"""What a route can still weigh at most after each stop, where limits may be broken for a price a unit (Lagrangian bound; Fisher 1981).

Of one limit a day, walking or else waiting, the bound is exact to a step: it is a table over what is left of it. Whether a meal was had
is part of it. Of the others what is left is worth its price: money over all days, waiting and concerts on each day. Any prices >= 0 give
a bound; those that make the bound of the whole small are found one kind after the other, each exactly.

Everything is in whole numbers, shifted to the left so that prices are fine enough: the bound never fails by rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.itinerary.hops import I64, Hops
from features.itinerary.limits import COUNT, FEWEST, FREE, MONEY, WAIT, WALK, Limits, Weights

F64 = NDArray[np.float64]

#: The weight of what leads nowhere, and what no true weight goes below, shifted.
_NOWHERE, _DEAD = -(2**61), -(2**60)
_BITS, _MOST_SHIFT, _PRICE_BITS = 48, 40, 57  # of all weights together, by how much they are shifted, of all that is paid
_NO_LEVEL = 41  # FREE shifted by so much is 0
_COARSE, _FINE = 3, 6  # bits of a level
_TRIALS, _ENOUGH = 10, 2e-4  # of one price; what is left to gain that is not worth another


class Completion(NamedTuple):
    """after_stop: (stops, levels) int64, by what is left of a day's walking (or waiting: of_wait) >> level_shift, and where a meal is
    needed as many rows again, for chains that have not had it yet; after_gate: (days + 1,) int64; per: (days + 1, 4) int64, the price of a
    unit of COUNT, WALK, WAIT on a day and of MONEY. To the tables has to be added what is left of WALK, WAIT and MONEY times its price, and
    whole_count (days + 1,) less the concerts of the day times theirs (which is below 0 where concerts are lacking). All is shifted to the
    left by `shift`."""

    after_stop: I64
    after_gate: I64
    per: I64
    whole_count: I64
    of_wait: bool
    level_shift: int
    shift: int


class Bounded(NamedTuple):
    """completion; at_most: no route weighs more (None: there is no route). apart: ascending, what the heaviest route of the bound would
    lose, at each of its stops, by each other way to go on."""

    completion: Completion
    at_most: int | None
    apart: I64


def nothing_known(stops: int, days: int) -> Completion:
    """By which no path is left out."""
    per, none = np.zeros((days + 1, 4), dtype=np.int64), np.zeros(days + 1, dtype=np.int64)
    return Completion(np.zeros((stops, 1), dtype=np.int64), none, per, none, False, _NO_LEVEL, 0)


def bounded(pointer: I64, hops: Hops, limits: Limits, weights: Weights) -> Bounded | None:
    """None where no limit makes many states (concerts a day and a meal alone do not), where weights are too large to be shifted, or tokens
    have a weight."""
    stops, days = len(limits.price), len(pointer) - 1
    most = np.array([limits.most, limits.walk, limits.wait, limits.money, limits.fewest], dtype=np.float64)
    limited = most < FREE
    limited[FEWEST] = limits.fewest > 1
    a_day = 2 * 1_440 * (abs(weights.per_walk) + abs(weights.per_wait))
    largest = float(np.abs(weights.gain).sum()) + days * a_day + stops * abs(weights.per_change)
    if not limited[[WALK, WAIT, MONEY]].any() or weights.by_token.any() or largest >= 2.0**_BITS:
        return None
    shift = min(_MOST_SHIFT, _BITS - int(largest).bit_length())
    largest_use = np.maximum(np.where(limited, most, 1.0), 2_048.0)
    largest_use[MONEY] = max(largest_use[MONEY], float(limits.price.sum()))
    caps = np.where(limited, 2.0**_PRICE_BITS / (5 * days + 1) / largest_use, 0.0)
    prices = np.zeros((days + 1, 5))
    of_wait, of_level = limits.walk >= FREE, min(limits.walk, FREE)
    if of_wait:
        of_level = limits.wait
    if of_level < FREE:
        caps[WAIT if of_wait else WALK] = 0.0
    # Prices are found with a coarse table, and the table is then made fine.
    kinds = int((caps > 0).sum())
    for bits in (_COARSE, _FINE) if of_level < FREE and kinds else (_FINE,):
        level_shift = max(0, of_level.bit_length() - bits) if of_level < FREE else _NO_LEVEL
        table, gate = (
            np.empty((stops * (1 + limits.meal), (of_level >> level_shift) + 1), dtype=np.int64),
            np.empty(days + 1, dtype=np.int64),
        )
        per, whole_count = np.empty((days + 1, 4), dtype=np.int64), np.empty(days + 1, dtype=np.int64)
        found = Completion(table, gate, per, whole_count, of_wait, level_shift, shift)
        rounds = 0 if not kinds or (bits == _FINE and of_level < FREE) else min(kinds, 2)
        at_most, apart = _priced(pointer, hops, limits, weights, caps, rounds, prices, found)
        if at_most <= _DEAD:
            return Bounded(found, None, apart)
    apart.sort()
    return Bounded(found, (at_most >> shift) + 1, apart >> shift)


@compiled
def _filled(day_pointer: I64, hops: Hops, limits: Limits, sums: I64, first: I64, out: Completion) -> int:
    """Puts the bound under these prices into the tables of `out`; returns that of the whole. sums, first: what a stop adds after a hop,
    and as the first of its day."""
    table, gate, per, level_shift = out.after_stop, out.after_gate, out.per, out.level_shift
    pointer, to, walk, wait, start, end, skip = hops.pointer, hops.to, hops.walk, hops.wait, hops.start, hops.end, hops.skip
    price, concert, days, levels = limits.price, limits.concert, len(gate) - 1, table.shape[1]
    meal, start_meal, end_meal, stops, rows = hops.meal, hops.start_meal, hops.end_meal, len(price), len(table)
    row = np.empty(levels, dtype=np.int64)
    used = wait if out.of_wait else walk
    gate[days] = 0
    for d in range(days - 1, -1, -1):
        a_concert, a_walk, a_wait, a_coin = per[d, COUNT], per[d, WALK], per[d, WAIT], per[d, MONEY]
        for u in range(day_pointer[d + 1] - 1, day_pointer[d] - 1, -1):
            for hungry in range(rows // stops):
                row[:] = gate[d + 1] if end[u] and (not hungry or end_meal[u]) else _NOWHERE
                for e in range(pointer[u], pointer[u + 1]):
                    v, use = to[e], np.int64(used[e]) >> level_shift
                    worth = sums[e] - a_walk * walk[e] - a_wait * wait[e] - a_concert * concert[v] - a_coin * price[v]
                    after = v + (stops if hungry and not meal[e] else 0)
                    for left in range(use, levels):
                        row[left] = max(row[left], table[after, left - use] + worth)
                table[u + hungry * stops] = row
        best = gate[d + 1] if skip[d] else np.int64(_NOWHERE)
        whole = out.whole_count[d] + a_walk * limits.walk + a_wait * limits.wait
        for v in range(day_pointer[d], day_pointer[d + 1]):
            if start[v]:
                row_of = v + (stops if rows > stops and not start_meal[v] else 0)
                best = max(best, table[row_of, levels - 1] + first[v] - a_concert * concert[v] - a_coin * price[v] + whole)
        gate[d] = best if best > _DEAD else np.int64(_NOWHERE)
    return int(gate[0] + per[days, MONEY] * limits.money)


@compiled
def _followed(day_pointer: I64, hops: Hops, limits: Limits, sums: I64, first: I64, found: Completion, used: I64, apart: I64) -> int:
    """The heaviest route of the bound; returns how many of `apart` are filled. used: (days + 1, 5), what it
    uses of each limit; of a day that it leaves out COUNT is -1."""
    table, gate, per, level_shift = found.after_stop, found.after_gate, found.per, found.level_shift
    pointer, to, walk, wait, start, end, skip = hops.pointer, hops.to, hops.walk, hops.wait, hops.start, hops.end, hops.skip
    price, concert, days, most_left = limits.price, limits.concert, len(gate) - 1, table.shape[1] - 1
    meal, start_meal, end_meal, stops, needs_meal = hops.meal, hops.start_meal, hops.end_meal, len(price), limits.meal
    levels_of = wait if found.of_wait else walk
    used[:] = 0
    others = 0
    for d in range(days):
        whole = found.whole_count[d] + per[d, WALK] * limits.walk + per[d, WAIT] * limits.wait
        left, u, chose, hungry = most_left, np.int64(-1), False, np.int64(0)  # hungry: stops, the rows of those that lack the meal
        if skip[d]:
            chose = gate[d] == gate[d + 1]
            if chose:
                used[d, COUNT] = -1
            else:
                apart[others] = gate[d] - gate[d + 1]
                others += 1
        for v in range(day_pointer[d], day_pointer[d + 1]):
            if start[v]:
                row = v + (stops if needs_meal and not start_meal[v] else 0)
                loss = gate[d] - (table[row, left] + first[v] - per[d, COUNT] * concert[v] - per[d, MONEY] * price[v] + whole)
                if loss == 0 and not chose:
                    chose, u, hungry = True, np.int64(v), np.int64(row - v)
                    used[d, COUNT] += concert[v]
                    used[days, MONEY] += price[v]
                elif loss < -_DEAD:
                    apart[others] = loss
                    others += 1
        while u >= 0:
            here, after, chose = table[u + hungry, left], -1, False
            if end[u] and (hungry == 0 or end_meal[u]):
                chose = here == gate[d + 1]
                if not chose:
                    apart[others] = here - gate[d + 1]
                    others += 1
            for e in range(pointer[u], pointer[u + 1]):
                v = to[e]
                use = np.int64(levels_of[e]) >> level_shift
                if use > left:
                    continue
                still = np.int64(0) if meal[e] else hungry
                loss = here - (table[v + still, left - use] + sums[e] - per[d, COUNT] * concert[v] - per[d, MONEY] * price[v])
                loss += per[d, WALK] * walk[e] + per[d, WAIT] * wait[e]
                if loss == 0 and not chose:
                    chose, after = True, e
                elif loss < -_DEAD:
                    apart[others] = loss
                    others += 1
            u = np.int64(-1)
            if after >= 0:
                u = np.int64(to[after])
                hungry = np.int64(0) if meal[after] else hungry
                left -= np.int64(levels_of[after]) >> level_shift
                used[d, COUNT] += concert[u]
                used[d, WALK] += walk[after]
                used[d, WAIT] += wait[after]
                used[days, MONEY] += price[u]
    return others


@compiled
def _priced(
    day_pointer: I64, hops: Hops, limits: Limits, weights: Weights, caps: F64, rounds: int, prices: F64, out: Completion
) -> tuple[int, I64]:
    """Finds prices (days + 1, 5), from those given, and leaves them and the tables of `out` at the best. caps: (5,) the highest prices, 0
    of what has none.

    One kind of limit after the other, so many times round. Under fixed prices of the others the days are apart, so that the bound is, for
    each day (for money: for all together), convex in one price: the lines at a price that is too low and at one that is too high meet at
    the next. Returns (bound, `apart`)."""
    to, walk, wait, change = hops.to, hops.walk, hops.wait, hops.change
    gate, per, shift = out.after_gate, out.per, out.shift
    gain, days, stops = weights.gain, len(day_pointer) - 1, len(limits.price)
    first, sums = gain << shift, np.empty(len(to), dtype=np.int64)
    for e in range(len(to)):
        worth = gain[to[e]] + weights.per_walk * walk[e] + weights.per_wait * wait[e] + weights.per_change * change[e]
        sums[e] = worth << shift
    used = np.zeros((days + 1, 5), dtype=np.int64)
    apart = np.empty(len(to) + 2 * stops + days, dtype=np.int64)
    most = (limits.most, limits.walk, limits.wait, limits.money, limits.fewest)
    chosen = prices.copy()
    lines = np.zeros((days + 1, 2, 3))  # of each day (of all: the last row) too low and too high: price, bound, slope
    has, settled = np.zeros((days + 1, 2), dtype=np.uint8), np.zeros(days + 1, dtype=np.uint8)
    bound, lowest, others = 0, 2**62, 0
    # A price of money found while concerts a day are still free keeps theirs from being found.
    order = (COUNT, FEWEST, MONEY, WAIT, WALK) if limits.fewest > 1 else (MONEY, FEWEST, COUNT, WAIT, WALK)
    for turn in range(5 * rounds + 1):
        final = turn == 5 * rounds
        kind = order[turn % 5]
        if not final and caps[kind] <= 0:
            continue
        from_row, to_row = (days, days + 1) if kind == MONEY else (0, days)
        has[:] = 0
        settled[:] = 0
        for _ in range(_TRIALS):
            for d in range(days, -1, -1):
                for one in range(5 if final else 0):
                    prices[d, one] = chosen[d, one]
                per[d, WALK], per[d, WAIT] = np.int64(prices[d, WALK]), np.int64(prices[d, WAIT])
                per[d, MONEY] = np.int64(prices[days, MONEY])
                over, lacking = np.int64(prices[d, COUNT]), np.int64(prices[d, FEWEST])
                per[d, COUNT] = over - lacking
                out.whole_count[d] = over * limits.most - lacking * limits.fewest
            bound = _filled(day_pointer, hops, limits, sums, first, out)
            if gate[0] <= _DEAD:
                return int(gate[0]), apart[:0].copy()
            others = _followed(day_pointer, hops, limits, sums, first, out, used, apart)
            if bound < lowest:
                lowest = bound
                for d in range(days + 1):  # one by one: to compile a copy of a table takes many seconds
                    for one in range(5):
                        chosen[d, one] = prices[d, one]
            if final:
                break
            moving = False
            for row in range(from_row, to_row):
                if settled[row]:
                    continue
                price, uses = prices[row, kind], used[row, COUNT if kind == FEWEST else kind]
                here = float(bound) if kind == MONEY else float(gate[row] - gate[row + 1])
                slope = float(uses - most[kind] if kind == FEWEST else most[kind] - uses)
                if used[row, COUNT] < 0:  # the day is left out
                    slope = 0.0
                side = 1 if slope >= 0 else 0
                has[row, side] = 1
                lines[row, side, 0], lines[row, side, 1], lines[row, side, 2] = price, here, slope
                moved = 0.0
                if side == 1 and price == 0.0:
                    settled[row] = 1
                elif has[row, 0] and has[row, 1]:
                    low, high = lines[row, 0], lines[row, 1]
                    moved = (high[1] - high[2] * high[0] - low[1] + low[2] * low[0]) / (low[2] - high[2])
                    meets = low[1] + low[2] * (moved - low[0])
                    if min(low[1], high[1]) - meets <= _ENOUGH * abs(meets) or moved <= low[0] or moved >= high[0]:
                        settled[row] = 1
                        moved = low[0] if low[1] < high[1] else high[0]
                elif side == 0:
                    moved = min(caps[kind], 2.0 * price + abs(here) / (2.0 * max(1.0, float(max(uses, most[kind])))))
                    if price >= caps[kind]:
                        settled[row] = 1
                prices[row, kind] = moved
                moving = moving or not settled[row]
            if not moving:
                break
        for row in range(from_row, to_row):
            if not final and has[row, 0] and has[row, 1]:
                prices[row, kind] = lines[row, 0, 0] if lines[row, 0, 1] < lines[row, 1, 1] else lines[row, 1, 0]
    return bound, apart[:others].copy()
