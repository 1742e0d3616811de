"""How many routes there are, which is number n, and how many hold each stop, under any mix of wishes and without a graph of all days.

Days share little: programmes that are played more than once, money, what must be met on one of them and, where it is asked for, the number
of concerts. So each day is counted by itself (day_states.py), and the ways its chains end are put together with those of the other days
(day_tables.py): a sum over pairs of sets of programmes, not over all states of one day behind all of another.

Numbers are residues: modulo 2^64 where the product of the days, which no count exceeds, is smaller; else modulo as many primes below 2^31
as it takes, put together at the end (Chinese remainder theorem). So they are exact whatever their size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from math import prod

import numpy as np

from features.itinerary.ahead import ahead
from features.itinerary.day_states import Backward, Day, States, backward, bits, completions, following, spread
from features.itinerary.day_tables import Ends, Outside, Table, beside, ends_of, joined, no_day, together
from features.itinerary.graph import TooManyStatesError, too_many
from features.itinerary.hops import I64, Hops
from features.itinerary.limits import FREE, NEED_BIT, U64, Limits

#: States of one day for each vertex that a graph might have: they take a quarter of its memory.
_STATES = 4
#: Of one day, beginnings (what the days before it used) whose numbers are kept.
_KEPT = 64
_LENGTH = (1 << NEED_BIT) - 1

#: What the days so far used: tokens, used, money.
_Held = tuple[int, int, int]
_NOTHING: _Held = (0, 0, 0)


@dataclass(frozen=True)
class _Step:
    """From one state of a day: the stops that may come next (-1: the end of the day), their states, and how many routes go there and to all
    before."""

    stops: tuple[int, ...]
    states: tuple[int, ...]
    upto: tuple[int, ...]


class Counting:
    """All routes under limits, counted. pointer: (days + 1,) int64, the first stop of each day. Questions raise TooManyStatesError where
    the answer takes more memory than a graph of `most_vertices`, or far more time."""

    def __init__(self, pointer: I64, hops: Hops, limits: Limits, most_vertices: int, lengths: bool = False) -> None:
        self._pointer, self._hops, self._most, self._lengths = pointer, hops, most_vertices, lengths
        self._ahead = ahead(pointer, hops, limits)
        gates = self._ahead
        self._days = len(pointer) - 1
        self._none = not self._days or not gates.gate_live[0] or int(gates.gate_low[0]) > limits.money
        self._limits = limits._replace(money=FREE) if int(gates.gate_high[0]) <= limits.money else limits
        self._moduli = _moduli(float(bits(pointer, hops).sum()))
        self._back = Backward(*backward(hops.pointer, hops.to))
        self._spread: dict[int, tuple[Day, States, Ends]] = {}
        self._from: dict[tuple[int, _Held], tuple[U64, dict[int, _Step]]] = {}

    @cached_property
    def total(self) -> int:
        """How many routes there are."""
        return sum(self.by_length().values())

    def by_length(self) -> dict[int, int]:
        """Number of concerts -> number of routes, ascending; all of them at 0 where lengths are not asked for."""
        if self._none:
            return {}
        table = self._after[0]
        out: dict[int, int] = {}
        for kind, number in enumerate(self._numbers(table.counts[0]) if len(table.tokens) else ()):
            if number:
                length = int(table.used[kind]) & _LENGTH
                out[length] = out.get(length, 0) + number
        return dict(sorted(out.items()))

    def unrank(self, number: int) -> tuple[int, ...]:
        """Route number `number`, 0 .. total - 1, in the order of rows."""
        left, held, out = number, _NOTHING, list[int]()
        for day in range(self._days):
            stop, state = -1, -1
            while True:
                step = self._step(day, held, stop, state)
                place = bisect_right(step.upto, left)
                left -= step.upto[place - 1] if place else 0
                stop, state = step.stops[place], step.states[place]
                if stop < 0:
                    break
                out.append(stop)
            held = self._and_then(day, held, state)
        return tuple(out)

    def rank(self, rows: Sequence[int]) -> int | None:
        """The number of the route of these rows, ascending; None where it is none."""
        number, place, held = 0, 0, _NOTHING
        if self._none or not self.total:
            return None
        for day in range(self._days):
            stop, state = -1, -1
            while True:
                step = self._step(day, held, stop, state)
                wanted = rows[place] if place < len(rows) and rows[place] < self._pointer[day + 1] else -1
                if wanted not in step.stops:
                    return None
                at = step.stops.index(wanted)
                before = step.upto[at - 1] if at else 0
                if step.upto[at] == before:
                    return None
                number += before
                stop, state = wanted, step.states[at]
                if stop < 0:
                    break
                place += 1
            held = self._and_then(day, held, state)
        return number if place == len(rows) else None

    def through(self) -> dict[int, int]:
        """Row of a stop -> number of routes that hold it, ascending; those that none holds are left out."""
        out: dict[int, int] = {}
        for number in range(0 if self._none else self._days):
            others = [other for other in range(self._days) if other != number]
            day, states, _ = self._of(number)
            table = self._together(others)
            ways = self._completions(number, _NOTHING, table)
            products = states.counts * ways
            for stop in range(day.first, day.last):
                begin, end = states.begin[stop - day.first], states.begin[stop - day.first + 1]
                if self._moduli[0]:
                    sums = (products[begin:end] % self._moduli).sum(axis=0) % self._moduli  # below 2^31 each
                else:
                    sums = products[begin:end].sum(axis=0)
                (routes,) = self._numbers(sums[None])
                if routes:
                    out[stop] = routes
        return out

    # ------------------------------------------------------------------ days

    def _of(self, number: int) -> tuple[Day, States, Ends]:
        if number not in self._spread:
            first, last = int(self._pointer[number]), int(self._pointer[number + 1])
            before = self._outside(range(number, self._days))
            day = Day(number, first, last, before.least, before.most, before.tokens, before.needs, self._lengths)
            most = _STATES * self._most
            states = spread(day, self._back, self._hops, self._limits, self._ahead, self._moduli, most)
            if states is None:
                raise TooManyStatesError(too_many(self._limits, f"{most:,} states a day"))
            self._spread[number] = day, states, ends_of(states)
        return self._spread[number]

    def _outside(self, days: Iterable[int]) -> Outside:
        """What the other days than these can do."""
        gates, inside = self._ahead, set(days)
        least, most, tokens, needs = 0, 0, np.uint64(0), np.uint64(0)
        for day in range(self._days):
            if day not in inside:
                least += int(gates.gate_low[day] - gates.gate_low[day + 1])
                most += int(gates.gate_high[day] - gates.gate_high[day + 1])
                those = slice(int(self._pointer[day]), int(self._pointer[day + 1]))
                live = gates.live[those] > 0
                tokens |= np.bitwise_or.reduce(self._limits.tokens[those][live], initial=np.uint64(0))
                needs |= np.bitwise_or.reduce(self._limits.needs[those][live], initial=np.uint64(0))
        return Outside(least, most, tokens, needs)

    def _together(self, days: Sequence[int]) -> Table:
        table = no_day(self._moduli)
        for place, day in enumerate(days, start=1):
            table = joined(table, self._of(day)[2], self._outside(days[:place]), self._limits, self._moduli, self._most)
        return table

    @cached_property
    def _after(self) -> list[Table]:
        """Of each day, it and all that follow; behind them no day at all."""
        tables = [no_day(self._moduli)]
        for day in range(self._days - 1, -1, -1):
            outside = self._outside(range(day, self._days))
            tables.append(joined(tables[-1], self._of(day)[2], outside, self._limits, self._moduli, self._most))
        return tables[::-1]

    def _completions(self, number: int, held: _Held, table: Table) -> U64:
        """(states, residues): ways that lead on from each state of a day and through the days of the table, `held` used before."""
        day, states, ends = self._of(number)
        tokens, used, money = held
        before = np.array([used], dtype=np.int64)
        outside = self._outside(range(self._days))
        becomes = np.full((len(ends.used), len(table.used)), -1, dtype=np.int64)
        for kind in range(len(ends.used)):
            both = ends.used[kind : kind + 1] | before & ~_LENGTH
            becomes[kind] = together(both, ends.money[kind : kind + 1] + money, table.used, table.money, outside, self._limits)[0][0]
        ways = beside(ends, np.uint64(tokens), table, becomes, self._moduli)
        at = int(states.begin[-2])
        of_end = np.zeros((len(states.tokens) - at, len(self._moduli)), dtype=np.uint64)
        of_end[ends.state - at] = ways
        return completions(day, self._back, self._hops, self._limits, self._ahead, self._moduli, states, of_end)

    def _step(self, number: int, held: _Held, stop: int, state: int) -> _Step:
        key = (number, held)
        if key not in self._from:
            while len(self._from) >= _KEPT:
                del self._from[next(iter(self._from))]
            self._from[key] = self._completions(number, held, self._after[number + 1]), {}
        ways, steps = self._from[key]
        if state not in steps:
            day, states, _ = self._of(number)
            stops, there = following(day, self._back, self._hops, self._limits, self._ahead, self._moduli, states, stop, state)
            upto = accumulate(self._numbers(ways[there]))
            steps[state] = _Step(tuple(stops.tolist()), tuple(there.tolist()), tuple(upto))
        return steps[state]

    def _and_then(self, number: int, held: _Held, end: int) -> _Held:
        """What was used when the day is over, of what matters still."""
        _, states, _ = self._of(number)
        outside = self._outside(range(number + 1))
        tokens, used, money = held
        spent = money + int(states.money[end])
        if self._limits.money < FREE:
            spent = max(spent, self._limits.money - outside.most)
        met = (used | int(states.used[end])) & ~_LENGTH
        return (tokens | int(states.tokens[end])) & int(outside.tokens), met, spent

    def _numbers(self, residues: U64) -> list[int]:
        """(n, residues) -> n whole numbers."""
        if not self._moduli[0]:
            return [int(number) for number in residues[:, 0].tolist()]
        primes = tuple(self._moduli.tolist())
        whole, basis = _basis(primes)
        return [sum(part * one for part, one in zip(row, basis, strict=True)) % whole for row in residues.tolist()]


def _moduli(size: float) -> U64:
    """(residues,) of numbers below 2^size: 0 stands for 2^64."""
    if size < 63:
        return np.zeros(1, dtype=np.uint64)
    return np.array(_primes(int(size / 30.9) + 2), dtype=np.uint64)


@cache
def _primes(many: int) -> tuple[int, ...]:
    """The largest below 2^31."""
    divisors = np.arange(3, 46_341, 2)
    out: list[int] = []
    candidate = 2**31 - 1
    while len(out) < many:
        if (candidate % divisors).all():
            out.append(candidate)
        candidate -= 2
    return tuple(out)


@cache
def _basis(primes: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Their product, and for each prime a number that is 1 modulo it and 0 modulo the others."""
    whole = prod(primes)
    return whole, tuple(whole // prime * pow(whole // prime, -1, prime) for prime in primes)
