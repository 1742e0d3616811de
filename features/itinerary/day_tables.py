"""What days have in common, put together: sets of programmes of which no two may share one, money that adds up, what must be met on one of
them, concerts that are counted. See counting.py."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from features.compiled import compiled
from features.itinerary.day_states import States
from features.itinerary.expansion import mix
from features.itinerary.graph import TooManyStatesError, too_many
from features.itinerary.hops import I64
from features.itinerary.limits import FREE, NEED_BIT, U64, Limits

#: Cells of a table of all subsets.
_MOST_SUBSETS = 2**23
#: Cells of a table, and pairs of sets of programmes, for each vertex that a graph might have.
_CELLS, _PAIRS = 8, 100


class Outside(NamedTuple):
    """Of the days that are not in a table: least and most money they cost, the programmes they play, what can be met there."""

    least: int
    most: int
    tokens: np.uint64
    needs: np.uint64


class Ends(NamedTuple):
    """How a day can end, by its programmes: tokens: (groups,); of group g the ends first[g] .. first[g + 1], of each its kind, its counts
    (ends, residues) and its number among the day's states; used, money: (kinds,)."""

    tokens: U64
    first: I64
    kind: I64
    counts: U64
    state: I64
    used: I64
    money: I64


class Table(NamedTuple):
    """Some days together. tokens: (rows,) what other days may not play; used, money: (kinds,); counts: (rows, kinds, residues) uint64."""

    tokens: U64
    used: I64
    money: I64
    counts: U64


def no_day(moduli: U64) -> Table:
    """The table of no days: one way, which uses nothing."""
    none = np.zeros(1, dtype=np.int64)
    return Table(none.astype(np.uint64), none, none, np.ones((1, 1, len(moduli)), dtype=np.uint64))


def ends_of(states: States) -> Ends:
    """The ends of a day."""
    at = int(states.begin[-2])
    tokens, money, used = states.tokens[at:], states.money[at:], states.used[at:]
    group, groups = _numbered(tokens, np.zeros_like(money))
    kind, kinds = _numbered(used.view(np.uint64), money)
    order = np.argsort(group, kind="stable")
    first = np.zeros(len(groups) + 1, dtype=np.int64)
    np.cumsum(np.bincount(group, minlength=len(groups)), out=first[1:])
    return Ends(tokens[groups], first, kind[order], states.counts[at:][order], at + order, used[kinds], money[kinds])


def joined(table: Table, ends: Ends, outside: Outside, limits: Limits, moduli: U64, most_vertices: int) -> Table:
    """The table with one day more. Raises TooManyStatesError."""
    pairs = max(len(table.tokens) * len(ends.tokens) // _PAIRS, len(table.used) * len(ends.used) // _CELLS)
    if pairs > most_vertices:
        raise TooManyStatesError(too_many(limits, f"{_PAIRS * most_vertices:,} pairs of days"))
    becomes, used, money = together(table.used, table.money, ends.used, ends.money, outside, limits)
    order = np.lexsort((ends.tokens, ends.tokens & outside.tokens))
    rows = _rows(table.tokens, ends.tokens[order], outside.tokens)
    if len(rows) * len(used) * len(moduli) > _CELLS * most_vertices:
        raise TooManyStatesError(too_many(limits, f"{_CELLS * most_vertices:,} states between days"))
    counts = np.zeros((len(rows), len(used), len(moduli)), dtype=np.uint64)
    _add_up(table, ends, order, outside.tokens, becomes, moduli, rows, counts)
    return Table(rows, used, money, counts)


# ------------------------------------------------------------------ compiled


@compiled
def _numbered(one: U64, other: I64) -> tuple[I64, I64]:
    """(n,) the number of each pair among the different ones, in the order in which they come; where each comes first."""
    size = 64
    while size < 2 * len(one):
        size *= 2
    slots, mask = np.full(size, -1, dtype=np.int64), np.uint64(size - 1)
    number, first, found = np.empty(len(one), dtype=np.int64), np.empty(len(one), dtype=np.int64), 0
    for n in range(len(one)):
        slot = mix(0, one[n], other[n], np.int64(0)) & mask
        while slots[slot] >= 0 and not (one[first[slots[slot]]] == one[n] and other[first[slots[slot]]] == other[n]):
            slot = (slot + np.uint64(1)) & mask
        if slots[slot] < 0:
            slots[slot], first[found] = found, n
            found += 1
        number[n] = slots[slot]
    return number, first[:found].copy()


@compiled
def together(used: I64, money: I64, other_used: I64, other_money: I64, outside: Outside, limits: Limits) -> tuple[I64, I64, I64]:
    """(kinds, other kinds) number of the kind that two make together, -1 where that is too much or not enough; used and money of those."""
    most, needed = limits.money, np.uint64(limits.needed)
    low_bits = (np.int64(1) << NEED_BIT) - 1
    both_used, both_money = np.empty(len(used) * len(other_used), dtype=np.int64), np.empty(len(used) * len(other_used), dtype=np.int64)
    becomes, filled = np.full((len(used), len(other_used)), -1, dtype=np.int64), 0
    for i in range(len(used)):
        for j in range(len(other_used)):
            spent = money[i] + other_money[j]
            met = np.uint64((used[i] | other_used[j]) >> NEED_BIT)
            if spent + outside.least > most or ((met | outside.needs) & needed) != needed:
                continue
            both_used[filled] = (np.int64(met) << NEED_BIT) | ((used[i] & low_bits) + (other_used[j] & low_bits))
            both_money[filled] = max(spent, most - outside.most) if most < FREE else 0
            becomes[i, j] = filled
            filled += 1
    number, first = _numbered(both_used[:filled].view(np.uint64), both_money[:filled])
    for i in range(len(used)):
        for j in range(len(other_used)):
            if becomes[i, j] >= 0:
                becomes[i, j] = number[becomes[i, j]]
    return becomes, both_used[first], both_money[first]


@compiled
def _rows(held: U64, tokens: U64, live: np.uint64) -> U64:
    """What matters still of any two that have nothing in common, ascending. tokens: ascending by what matters still."""
    out, slots, found = np.empty(1_024, dtype=np.uint64), np.full(4_096, -1, dtype=np.int64), 0
    mask = np.uint64(len(slots) - 1)
    for g in range(len(held)):
        f = 0
        while f < len(tokens):
            part, fits = tokens[f] & live, False
            while f < len(tokens) and tokens[f] & live == part:
                fits = fits or not held[g] & tokens[f]
                f += 1
            if not fits:
                continue
            row = (held[g] | part) & live
            slot = mix(0, row, 0, np.int64(0)) & mask
            while slots[slot] >= 0 and out[slots[slot]] != row:
                slot = (slot + np.uint64(1)) & mask
            if slots[slot] >= 0:
                continue
            if found == len(out):
                out, slots = _wider(out)
                mask = np.uint64(len(slots) - 1)
                slot = mix(0, row, 0, np.int64(0)) & mask
                while slots[slot] >= 0:
                    slot = (slot + np.uint64(1)) & mask
            slots[slot], out[found] = found, row
            found += 1
    return np.sort(out[:found])


@compiled
def _wider(rows: U64) -> tuple[U64, I64]:
    """Room for four times as many rows, and a hash table of those that are there."""
    out, slots = np.empty(4 * len(rows), dtype=np.uint64), np.full(16 * len(rows), -1, dtype=np.int64)
    mask = np.uint64(len(slots) - 1)
    for n in range(len(rows)):
        out[n] = rows[n]
        slot = mix(0, rows[n], 0, np.int64(0)) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = n
    return out, slots


@compiled
def _add_up(table: Table, ends: Ends, order: I64, live: np.uint64, becomes: I64, moduli: U64, rows: U64, out: U64) -> None:
    held, _, _, before = table
    tokens, first, kind, counts, _, _, _ = ends
    residues, groups, kinds = len(moduli), len(tokens), becomes.shape[1]
    sums, touched = np.zeros((kinds, residues), dtype=np.uint64), np.zeros(kinds, dtype=np.int64)
    is_touched, mine = np.zeros(kinds, dtype=np.uint8), np.zeros(before.shape[1], dtype=np.int64)
    for g in range(len(held)):
        own = 0
        for i in range(before.shape[1]):
            for r in range(residues):
                if before[g, i, r]:
                    mine[own] = i
                    own += 1
                    break
        if not own:
            continue
        f = 0
        while f < groups:
            part, met = tokens[order[f]] & live, 0
            # All sets of the day that leave the same: their chains first add up among themselves.
            while f < groups and tokens[order[f]] & live == part:
                group = order[f]
                if not held[g] & tokens[group]:
                    for p in range(first[group], first[group + 1]):
                        j = kind[p]
                        if not is_touched[j]:
                            is_touched[j], touched[met] = 1, j
                            met += 1
                        for r in range(residues):
                            total = sums[j, r] + counts[p, r]
                            if moduli[r] and total >= moduli[r]:
                                total -= moduli[r]
                            sums[j, r] = total
                f += 1
            if not met:
                continue
            row = np.searchsorted(rows, (held[g] | part) & live)
            for m in range(met):
                j = touched[m]
                for n in range(own):
                    k = becomes[mine[n], j]
                    if k >= 0:
                        for r in range(residues):
                            total = out[row, k, r] + before[g, mine[n], r] * sums[j, r]
                            out[row, k, r] = total % moduli[r] if moduli[r] else total
                is_touched[j] = 0
                for r in range(residues):
                    sums[j, r] = np.uint64(0)


@compiled
def _squeezed(tokens: np.uint64, bits: U64) -> np.int64:
    """Those of the bits that are set, side by side."""
    out = np.int64(0)
    for place in range(len(bits)):
        if tokens & bits[place]:
            out |= np.int64(1) << place
    return out


@compiled
def _of_subsets(rows: U64, counts: U64, bits: U64, moduli: U64) -> U64:
    """(2 ** bits, kinds, residues): the sum of all rows whose tokens lie within each set (zeta transform; Yates 1937)."""
    kinds, residues = counts.shape[1], len(moduli)
    out = np.zeros((1 << len(bits), kinds, residues), dtype=np.uint64)
    for row in range(len(rows)):
        own = _squeezed(rows[row], bits)
        for j in range(kinds):
            for r in range(residues):
                out[own, j, r] = counts[row, j, r]
    for place in range(len(bits)):
        bit = np.int64(1) << place
        for one in range(len(out)):
            if one & bit:
                for j in range(kinds):
                    for r in range(residues):
                        total = out[one, j, r] + out[one ^ bit, j, r]
                        if moduli[r] and total >= moduli[r]:
                            total -= moduli[r]
                        out[one, j, r] = total
    return out


@compiled
def beside(ends: Ends, held: np.uint64, table: Table, becomes: I64, moduli: U64) -> U64:
    """(ends, residues): in how many ways the days of the table go with each end of a day, where the programmes `held` are out as well.
    becomes: as `together` has it, of the kinds of the ends and of the table."""
    tokens, first, kind, _, _, _, _ = ends
    rows, _, _, counts = table
    residues, kinds = len(moduli), counts.shape[1]
    out = np.zeros((len(kind), residues), dtype=np.uint64)
    sums = np.zeros((kinds, residues), dtype=np.uint64)
    any_row, many = np.uint64(0), 0
    for row in range(len(rows)):
        any_row |= rows[row]
    bits = np.zeros(64, dtype=np.uint64)
    for place in range(64):
        bit = np.uint64(1) << np.uint64(place)
        if any_row & bit:
            bits[many] = bit
            many += 1
    # Either every end is held against every row, or sums over all subsets are made once.
    by_subsets = many < 32 and (many << many) < len(rows) * len(tokens) and (kinds * residues) << many < _MOST_SUBSETS
    subsets = _of_subsets(rows, counts, bits[:many], moduli) if by_subsets else counts
    for group in range(len(tokens)):
        if held & tokens[group]:
            continue
        if by_subsets:
            one = _squeezed(~(held | tokens[group]), bits[:many])
            for j in range(kinds):
                for r in range(residues):
                    sums[j, r] = subsets[one, j, r]
        else:
            sums[:] = 0
            for row in range(len(rows)):
                if not rows[row] & (held | tokens[group]):
                    for j in range(kinds):
                        for r in range(residues):
                            total = sums[j, r] + counts[row, j, r]
                            if moduli[r] and total >= moduli[r]:
                                total -= moduli[r]
                            sums[j, r] = total
        for p in range(first[group], first[group + 1]):
            for j in range(kinds):
                if becomes[kind[p], j] >= 0:
                    for r in range(residues):
                        total = out[p, r] + sums[j, r]
                        if moduli[r] and total >= moduli[r]:
                            total -= moduli[r]
                        out[p, r] = total
    return out
