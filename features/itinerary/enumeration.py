"""Every chain of a day, listed at the speed of memory, whole or any range of them.

Let S(c) be all chains that begin with concert c: each successor's chains with c's bit set, the latest successor first, then {c} alone. The
slabs of the last concerts, as many as fit into a processor's cache, are laid out once, latest concert first; since the successors of a
concert mostly follow one another in time, S(c) is a few contiguous stretches of earlier slabs OR-ed with c's bit. Beyond that, a prefix
of early concerts is OR-ed with those stretches, so that a chain costs one load from the cache and one store.

The order is one and only: chain number r is the r-th of S(first ones last), and any [lo, hi) is made by itself, which is how shards are
even. A chain is a mask: bit i of word i // 64 is the i-th concert of `Day.rows`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.itinerary.hops import I32, I64, NOTHING, U8, HopLimits, day_pointer, hops
from features.itinerary.preorder import ALONE, DEEPER, SLAB, beginning, step
from features.itinerary.timetable import Timetable

U64 = NDArray[np.uint64]

#: Chains whose slabs are kept: 8 bytes each a word, so that they stay in a core's own cache.
BASE_CHAINS = 16_384


@dataclass(frozen=True)
class Chains:
    """What a chain is held to: minutes to spare at each hop, longest gap between end and begin (None = any), only those into which nothing
    fits any more, whether off-programme events are stops of it."""

    buffer: int = 0
    longest_gap: int | None = None
    maximal: bool = False
    optional: bool = False


@dataclass(frozen=True, eq=False)
class Day:
    """One day, ready to be listed. rows: (n,) int32 rows of the timetable, by time; total: how many chains.

    pointer, to: successors (indices into rows) ascending; walk, wait: minutes of each hop, change: of halls; size: (n,) int64 chains in
    S(c); start, end: where a chain may begin and end; base_from: S(c) for c >= base_from are laid out in `base` (words, chains) from
    base_at[c]."""

    timetable: Timetable
    number: int
    rows: I32
    pointer: I64
    to: I32
    walk: I32
    wait: I32
    change: U8
    start: U8
    end: U8
    size: I64
    total: int
    base_from: int
    base_at: I64
    base: U64

    @property
    def words(self) -> int:
        """64-bit words of a mask."""
        return len(self.base)

    def masks(self, lo: int = 0, hi: int | None = None) -> U64:
        """(words, hi - lo) uint64: chains lo .. hi. Raises ValueError outside 0 .. total."""
        hi = self.total if hi is None else hi
        if not 0 <= lo <= hi <= self.total:
            raise ValueError(f"chains {lo} to {hi} are asked for: 0 to {self.total} are there")
        out = np.empty((self.words, hi - lo), dtype=np.uint64)
        _listed(self.pointer, self.to, self.start, self.end, self.size, self.base_from, self.base_at, self.base, lo, hi, out)
        return out

    def route(self, number: int) -> tuple[int, ...]:
        """Rows of the timetable of chain `number`."""
        return self.decoded(self.masks(number, number + 1))[0]

    def decoded(self, masks: U64) -> list[tuple[int, ...]]:
        """Rows of the timetable of each mask (words, n)."""
        bits = np.unpackbits(np.ascontiguousarray(masks.T).astype("<u8").view(np.uint8), axis=1, bitorder="little")
        return [tuple(int(row) for row in self.rows[np.flatnonzero(line[: len(self.rows)])]) for line in bits]

    def by_length(self) -> dict[int, int]:
        """Number of stops -> number of chains, without listing them."""
        table = _by_length(self.pointer, self.to, self.start, self.end)[-1]
        return {length: count for length, count in enumerate(table.tolist()) if count}


def day(timetable: Timetable, number: int, chains: Chains | None = None, base_chains: int = BASE_CHAINS) -> Day:
    """Day `number` of the timetable. Raises ValueError for a day with 2**62 chains and more: ask about it instead (search.py)."""
    chains = chains or Chains()
    days = len(timetable.days)
    if not 0 <= number < days:
        raise ValueError(f"there is no day {number}: 0 to {days - 1} are there")
    on_it = timetable.day == number
    allowed = (on_it & (~timetable.optional | chains.optional)).astype(np.uint8)
    none = np.zeros(days, dtype=np.int64)
    gap = NOTHING if chains.longest_gap is None else chains.longest_gap
    limits = HopLimits(
        allowed,
        np.zeros(len(allowed), dtype=np.uint8),
        chains.buffer,
        NOTHING,
        NOTHING,
        gap,
        0,
        none,
        none,
        np.ones(days, dtype=np.uint8),
        chains.maximal,
    )
    found = hops(timetable, limits)
    rows = np.flatnonzero(allowed).astype(np.int32)
    index = np.full(len(allowed), -1, dtype=np.int32)
    index[rows] = np.arange(len(rows), dtype=np.int32)
    first, last = (int(at) for at in day_pointer(timetable)[number : number + 2])
    lo, hi = int(found.pointer[first]), int(found.pointer[last])
    pointer = np.append(found.pointer[rows], hi) - lo
    to = index[found.to[lo:hi]]
    start, end = found.start[rows], found.end[rows]
    size = _sizes(pointer, to, end)
    if len(size) and size.min(initial=0) < 0:
        raise ValueError(f"{timetable.days[number]} has 2**62 chains or more: they can be counted and searched, not listed")
    base_from, held = len(rows), 0
    while base_from > 0 and held + int(size[base_from - 1]) <= base_chains:
        base_from -= 1
        held += int(size[base_from])
    base_at = np.zeros(len(rows), dtype=np.int64)
    for place in range(len(rows) - 2, base_from - 1, -1):
        base_at[place] = base_at[place + 1] + size[place + 1]
    words = max(1, (len(rows) + 63) // 64)
    base = np.zeros((words, held), dtype=np.uint64)
    _lay_out(pointer, to, end, base_from, base_at, size, base)
    return Day(
        timetable,
        number,
        rows,
        pointer,
        to,
        found.walk[lo:hi],
        found.wait[lo:hi],
        found.change[lo:hi],
        start,
        end,
        size,
        int(size[start > 0].sum()),
        base_from,
        base_at,
        base,
    )


def shards(total: int, most: int) -> list[tuple[int, int]]:
    """Ranges of at most `most` chains, all as large as each other (to one)."""
    number = max(1, -(-total // most))
    edges = [total * place // number for place in range(number + 1)]
    return [(lo, hi) for lo, hi in pairwise(edges) if hi > lo]


def report(made: Day) -> dict[str, Any]:
    """{day, stops, total, by_length} with counts as strings of digits."""
    lengths = {str(length): str(count) for length, count in made.by_length().items()}
    return {"day": made.timetable.days[made.number], "stops": len(made.rows), "total": str(made.total), "by_length": lengths}


# ------------------------------------------------------------------ compiled


@compiled
def _sizes(pointer: I64, to: I32, end: U8) -> I64:
    """(n,) chains that begin with each; -1 all over if one has 2**62 or more."""
    size = np.zeros(len(end), dtype=np.int64)
    most = np.int64(2) ** 62
    together = 0.0
    for c in range(len(end) - 1, -1, -1):
        total, rough = np.int64(end[c]), 0.0
        for e in range(pointer[c], pointer[c + 1]):
            total += size[to[e]]
            rough += float(size[to[e]])
        together += rough
        if rough >= float(most) or together >= float(most):
            size[:] = -1
            return size
        size[c] = total
    return size


@compiled
def _by_length(pointer: I64, to: I32, start: U8, end: U8) -> I64:
    many = len(end)
    table = np.zeros((many + 1, many + 2), dtype=np.int64)
    for c in range(many - 1, -1, -1):
        table[c, 1] += end[c]
        for e in range(pointer[c], pointer[c + 1]):
            for length in range(1, many + 1):
                table[c, length + 1] += table[to[e], length]
        if start[c]:
            table[many] += table[c]
    return table


@compiled
def _lay_out(pointer: I64, to: I32, end: U8, base_from: int, base_at: I64, size: I64, base: U64) -> None:
    for c in range(len(end) - 1, base_from - 1, -1):
        at = base_at[c]
        for e in range(pointer[c + 1] - 1, pointer[c] - 1, -1):
            v = to[e]
            for word in range(len(base)):
                bit = np.uint64(1) << np.uint64(c & 63) if word == c >> 6 else np.uint64(0)
                source = base[word, base_at[v] : base_at[v] + size[v]]
                goal = base[word, at : at + size[v]]
                for i in range(len(source)):
                    goal[i] = source[i] | bit
            at += size[v]
        if end[c]:
            base[c >> 6, at] = np.uint64(1) << np.uint64(c & 63)


@compiled
def _listed(
    pointer: I64, to: I32, start: U8, end: U8, size: I64, base_from: int, base_at: I64, base: U64, lo: int, hi: int, out: U64
) -> None:
    """The prefix's mask by depth; a stretch of the base is OR-ed with it."""
    words = len(base)
    path, edge, place = beginning(len(end))
    prefix = np.zeros((len(end) + 2, words), dtype=np.uint64)
    done = 0
    while True:
        kind, depth, v, _, first, last = step(pointer, to, start, end, size, base_from, base_at, lo, hi, True, path, edge, place)
        if kind == SLAB:
            for word in range(words):
                bits = prefix[depth, word]
                source = base[word, first:last]
                goal = out[word, done : done + last - first]
                for i in range(len(source)):
                    goal[i] = source[i] | bits
            done += last - first
        elif kind == DEEPER:
            for word in range(words):
                prefix[depth, word] = prefix[depth - 1, word]
            prefix[depth, v >> 6] |= np.uint64(1) << np.uint64(v & 63)
        elif kind == ALONE:
            for word in range(words):
                out[word, done] = prefix[depth, word]
            done += 1
        else:
            return
