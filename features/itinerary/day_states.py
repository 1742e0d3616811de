"""What the chains of one day used of each limit at each of its stops, merged, and how many chains that is: a graph of the day without its
edges, which are found anew each time they are walked.

States lie stop by stop in the order of time, those of the end of the day behind the last stop's. Numbers are residues (counting.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.itinerary.ahead import Ahead
from features.itinerary.expansion import DONE, FULL, TOO_MANY, mix
from features.itinerary.hops import I32, I64, Hops
from features.itinerary.limits import COUNT, FREE, MEAL_BIT, MONEY, NEED_BIT, U64, WAIT, WAIT_BIT, WALK, WALK_BIT, Limits

_ROOM = 1_024
#: What `_walked` does.
SPREAD, GATHER, FOLLOW = 0, 1, 2


class Day(NamedTuple):
    """One day among the others. first, last: its stops; least_before, most_before: money that the days before it cost; tokens_before,
    needs_before: bits that can be met there; lengths: whether the number of concerts is kept at the day's end."""

    number: int
    first: int
    last: int
    least_before: int
    most_before: int
    tokens_before: np.uint64
    needs_before: np.uint64
    lengths: bool


class States(NamedTuple):
    """(n,) tokens, money, used: as a vertex of expansion.py has them; counts: (n, residues) uint64, chains from the beginning of the day;
    begin: (stops + 2,) int64 the first state of each stop and of the end."""

    tokens: U64
    money: I64
    used: I64
    counts: U64
    begin: I64


class Backward(NamedTuple):
    """The hops into each stop v, pointer[v] .. pointer[v + 1]: where they come from, and which they are."""

    pointer: I64
    source: I32
    hop: I64


def spread(day: Day, back: Backward, hops: Hops, limits: Limits, ahead: Ahead, moduli: U64, most: int) -> States | None:
    """All states of the day; None beyond `most`."""
    at, slots = np.zeros(3, dtype=np.int64), np.empty(4 * _ROOM, dtype=np.int64)
    states = _room(_ROOM, len(moduli), None, 0, np.zeros(day.last - day.first + 2, dtype=np.int64))
    while True:
        said = _walked(SPREAD, at, day, back, hops, limits, ahead, moduli, states, slots, most, -1, -1, states.counts, at)
        if said == TOO_MANY:
            return None
        many, new = int(at[1]), int(at[2])
        if said == DONE:
            return States(states.tokens[:many], states.money[:many], states.used[:many], states.counts[:many], states.begin)
        states = _room(max(2 * many, many + new), len(moduli), states, many, states.begin)
        while len(slots) < 4 * new:
            slots = np.empty(2 * len(slots), dtype=np.int64)


def completions(day: Day, back: Backward, hops: Hops, limits: Limits, ahead: Ahead, moduli: U64, states: States, ends: U64) -> U64:
    """(states, residues): chains that go on from each state, each as often as `ends` (states of the end, residues) says of its own."""
    sums = np.zeros((len(states.tokens), len(moduli)), dtype=np.uint64)
    sums[states.begin[-2] :] = ends
    slots = np.empty(1 << int(2 * np.diff(states.begin).max() + 63).bit_length(), dtype=np.int64)
    none = np.zeros(3, dtype=np.int64)
    _walked(GATHER, none, day, back, hops, limits, ahead, moduli, states, slots, 0, -1, -1, sums, none)
    return sums


def following(
    day: Day, back: Backward, hops: Hops, limits: Limits, ahead: Ahead, moduli: U64, states: States, stop: int, state: int
) -> tuple[I64, I64]:
    """From a state of a stop (-1, -1: from the beginning of the day): the stops that may come next, ascending, then -1, the end; and the
    state there."""
    there, none = np.full(day.last - day.first + 1, -1, dtype=np.int64), np.zeros(3, dtype=np.int64)
    _walked(FOLLOW, none, day, back, hops, limits, ahead, moduli, states, there, 0, stop, state, states.counts, there)
    places = np.flatnonzero(there >= 0)
    return np.where(places < day.last - day.first, day.first + places, -1), there[places]


def _room(size: int, residues: int, before: States | None, many: int, begin: I64) -> States:
    none = np.empty(size, dtype=np.int64)
    made = States(none.astype(np.uint64), none, none.copy(), np.empty((size, residues), dtype=np.uint64), begin)
    if before is not None:
        for new, old in zip(made[:4], before[:4], strict=True):
            new[:many] = old[:many]
    return made


@compiled
def backward(pointer: I64, to: I32) -> tuple[I64, I32, I64]:
    """The fields of Backward."""
    stops = len(pointer) - 1
    back = np.zeros(stops + 1, dtype=np.int64)
    for e in range(len(to)):
        back[to[e] + 1] += 1
    for v in range(stops):
        back[v + 1] += back[v]
    source, hop, filled = np.empty(len(to), dtype=np.int32), np.empty(len(to), dtype=np.int64), back[:-1].copy()
    for u in range(stops):
        for e in range(pointer[u], pointer[u + 1]):
            at = filled[to[e]]
            source[at], hop[at] = u, e
            filled[to[e]] += 1
    return back, source, hop


@compiled
def _walked(
    mode: int,
    at: I64,
    day: Day,
    back: Backward,
    hops: Hops,
    limits: Limits,
    ahead: Ahead,
    moduli: U64,
    states: States,
    slots: I64,
    most_states: int,
    from_stop: int,
    from_state: int,
    sums: U64,
    there: I64,
) -> int:
    """Every step of every state of the day, place by place. SPREAD: makes the states, on from place at[0] with at[1] of them made; returns
    DONE, FULL where there is no room for at[2] more, or TOO_MANY. GATHER: backwards from the end, adds to `sums` of each state those of the
    states it leads to. FOLLOW: puts into `there`, (stops + 1,), which state of each place one state leads to.

    One function, because what one step does is the longest of it, and arrays handed to a function of its own would be counted as references
    at each step, which costs more than the step."""
    tokens, money, used, counts, begin = states
    pointer, source, hop = back
    walk, wait, meal = hops.walk, hops.wait, hops.meal
    start, end, start_meal, end_meal = hops.start, hops.end, hops.start_meal, hops.end_meal
    price, concert, bits_of, forbids, needs = limits.price, limits.concert, limits.tokens, limits.forbids, limits.needs
    needed, meal_needed = np.uint64(limits.needed), limits.meal
    most_walk, most_wait, fewest, most, most_money = limits.walk, limits.wait, limits.fewest, limits.most, limits.money
    live, low, high, come_tokens, come_needs = ahead.live, ahead.low, ahead.high, ahead.tokens, ahead.needs
    gate = day.number + 1
    gate_live, gate_tokens, gate_needs = ahead.gate_live[gate], ahead.gate_tokens[gate], ahead.gate_needs[gate]
    least_before, most_before, tokens_before, needs_before = day.least_before, day.most_before, day.tokens_before, day.needs_before
    may_skip, lengths = hops.skip[day.number], day.lengths
    first, stops, residues = day.first, day.last - day.first, len(moduli)
    mask, low_bits, meal_bit = np.uint64(len(slots) - 1), np.int64(2_047), np.int64(1) << MEAL_BIT
    place, many, onward = at[0], at[1], np.int64(1)
    if mode != SPREAD:
        many = begin[stops + 1]
    if mode == GATHER:
        place, onward = stops, np.int64(-1)
    while 0 <= place <= stops:
        is_end, v = place == stops, np.int64(-1) if place == stops else first + place
        origins = stops if is_end else pointer[v + 1] - pointer[v]
        size = np.uint64(63)
        if mode == SPREAD:
            begin[place] = many
            room = many + 1
            if not is_end:
                room = 1
                for b in range(pointer[v], pointer[v + 1]):
                    u = source[b] - first
                    room += begin[u + 1] - begin[u]
            if many + room > len(tokens) or 4 * room > len(slots):
                at[0], at[1], at[2] = place, many, room
                return FULL
            slots[:64] = -1
        elif mode == GATHER:
            while size < mask and size < np.uint64(2 * (begin[place + 1] - begin[place])):
                size = np.uint64(2) * size + np.uint64(1)
            _hashed(tokens, money, used, begin[place], begin[place + 1], slots, size)
        if not gate_live if is_end else not live[v]:
            place += onward
            continue
        for origin in range(0 if mode == GATHER else -1, origins):
            # Origin -1 is the beginning of the day.
            u, e, x_from, x_to = np.int64(-1), np.int64(-1), np.int64(0), np.int64(1)
            if origin >= 0:
                if is_end:
                    u = first + origin
                    if not end[u]:
                        continue
                else:
                    u, e = np.int64(source[pointer[v] + origin]), hop[pointer[v] + origin]
                x_from, x_to = begin[u - first], begin[u - first + 1]
            elif not (may_skip if is_end else start[v]):
                continue
            if mode == FOLLOW:
                if u != from_stop:
                    continue
                if u >= 0:
                    x_from, x_to = np.int64(from_state), np.int64(from_state + 1)
            for x in range(x_from, x_to):
                held, spent, had = np.uint64(0), 0, np.int64(0)
                if u >= 0:
                    held, spent, had = tokens[x], money[x], used[x]
                met, count, eaten = np.uint64(had >> NEED_BIT), had & low_bits, had & meal_bit
                if is_end:
                    if u >= 0 and (count < fewest or (meal_needed and not eaten and not end_meal[u])):
                        continue
                    if ((met | gate_needs | needs_before) & needed) != needed:
                        continue
                    held &= gate_tokens | tokens_before
                    had = (np.int64(met) << NEED_BIT) | (count if lengths else np.int64(0))
                else:
                    if forbids[v] & held:
                        continue
                    count += concert[v]
                    walked, waited = (had >> WALK_BIT) & low_bits, (had >> WAIT_BIT) & low_bits
                    if u < 0:
                        if start_meal[v]:
                            eaten = meal_bit
                    else:
                        walked += walk[e]
                        waited += wait[e]
                        if meal[e]:
                            eaten = meal_bit
                    if count + low[v, COUNT] > most or count + high[v, COUNT] < fewest:
                        continue
                    if walked + low[v, WALK] > most_walk or waited + low[v, WAIT] > most_wait:
                        continue
                    spent += price[v]
                    if spent + low[v, MONEY] + least_before > most_money:
                        continue
                    met |= needs[v]
                    if ((met | come_needs[v] | needs_before) & needed) != needed:
                        continue
                    # Of a limit that can no longer bind every amount is the same.
                    if count >= fewest and not lengths:
                        count = max(count, most - high[v, COUNT]) if most < FREE else np.int64(fewest)
                    walked = max(walked, most_walk - high[v, WALK]) if most_walk < FREE else np.int64(0)
                    waited = max(waited, most_wait - high[v, WAIT]) if most_wait < FREE else np.int64(0)
                    spent = max(spent, most_money - high[v, MONEY] - most_before) if most_money < FREE else 0
                    if not meal_needed:
                        eaten = np.int64(0)
                    held = (held | bits_of[v]) & (come_tokens[v] | tokens_before)
                    had = count | (walked << WALK_BIT) | (waited << WAIT_BIT) | eaten | (np.int64(met) << NEED_BIT)
                if mode == FOLLOW:
                    y = begin[place]
                    while not (tokens[y] == held and money[y] == spent and used[y] == had):
                        y += 1
                    there[place] = y
                    continue
                slot = mix(0, held, spent, had) & size
                y = slots[slot]
                while y >= 0 and not (tokens[y] == held and money[y] == spent and used[y] == had):
                    slot = (slot + np.uint64(1)) & size
                    y = slots[slot]
                if mode == GATHER:
                    for r in range(residues):
                        total = sums[x, r] + sums[y, r]
                        if moduli[r] and total >= moduli[r]:
                            total -= moduli[r]
                        sums[x, r] = total
                    continue
                if y >= 0:
                    for r in range(residues):
                        total = counts[y, r] + (np.uint64(1) if u < 0 else counts[x, r])
                        if moduli[r] and total >= moduli[r]:
                            total -= moduli[r]
                        counts[y, r] = total
                    continue
                if many == most_states:
                    return TOO_MANY
                y = many
                many += 1
                slots[slot] = y
                tokens[y], money[y], used[y] = held, spent, had
                for r in range(residues):
                    counts[y, r] = np.uint64(1) if u < 0 else counts[x, r]
                if np.uint64(2 * (many - begin[place])) > size and size < mask:
                    size = min(np.uint64(4) * size + np.uint64(3), mask)
                    _hashed(tokens, money, used, begin[place], many, slots, size)
        place += onward
    if mode == SPREAD:
        begin[place] = many
        at[0], at[1] = place, many
    return DONE


@compiled
def _hashed(tokens: U64, money: I64, used: I64, since: int, to: int, slots: I64, size: np.uint64) -> None:
    """Puts these states into the hash table of size + 1 slots."""
    slots[: np.int64(size) + 1] = -1
    for y in range(since, to):
        slot = mix(0, tokens[y], money[y], used[y]) & size
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & size
        slots[slot] = y


@compiled
def bits(day_pointer: I64, hops: Hops) -> NDArray[np.float64]:
    """(days,) log2 of 1 + the chains of each day under no limit: no number of them is larger."""
    pointer, to, start, end = hops.pointer, hops.to, hops.start, hops.end
    days = len(day_pointer) - 1
    out, of = np.zeros(days), np.empty(len(start))
    for d in range(days):
        whole = 0.0
        for u in range(day_pointer[d + 1] - 1, day_pointer[d] - 1, -1):
            most = 0.0
            for e in range(pointer[u], pointer[u + 1]):
                most = max(most, of[to[e]])
            those = 2.0**-most if end[u] else 0.0
            for e in range(pointer[u], pointer[u + 1]):
                those += 2.0 ** (of[to[e]] - most)
            of[u] = most + np.log2(those) if those > 0.0 else -np.inf
            if start[u] and those > 0.0:
                larger, less = max(whole, of[u]), min(whole, of[u])
                whole = larger + np.log2(1.0 + 2.0 ** (less - larger))
        out[d] = whole * (1.0 + 1e-9)
    return out
