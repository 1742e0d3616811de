"""The portrait's core for every chain of a day: eleven columns, made as the chains are listed, in the same order.

What adds up stop by stop or hop by hop (minutes, money, changes) is a number to add to a stretch of a slab; what counts different things
(halls, genres, composers) is a set of bits to OR, of which the ones are counted at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.itinerary.enumeration import U64, Day
from features.itinerary.hops import I32, I64, U8
from features.itinerary.preorder import ALONE, DEEPER, SLAB, beginning, step

U16 = NDArray[np.uint16]

#: Name and dtype of each column: counts, minutes, minor units, minutes of the itinerary's day.
COLUMNS = (
    ("concerts", np.uint8),
    ("music", np.uint16),
    ("walking", np.uint16),
    ("waiting", np.uint16),
    ("cost", np.int32),
    ("changes", np.uint8),
    ("halls", np.uint8),
    ("genres", np.uint8),
    ("composers", np.uint8),
    ("begins", np.uint16),
    ("ends", np.uint16),
)
_SUMS = 6  # of which the first so many add up


@dataclass(frozen=True, eq=False)
class CorePortraits:
    """Ready for any range of a day. of_stop: (6, n) int32 what each stop adds; of_hop: (6, hops) int32; bits: (words, n) uint64, those of
    halls, genres and composers one after the other; parts: (4,) where each begins and ends."""

    day: Day
    of_stop: I32
    of_hop: I32
    bits: U64
    parts: I64
    base_sums: I32
    base_ends: U16
    base_bits: U64

    def columns(self, lo: int = 0, hi: int | None = None) -> dict[str, NDArray[np.generic]]:
        """Column name -> (hi - lo,) array, in the order of Day.masks. Raises ValueError outside 0 .. total."""
        hi = self.day.total if hi is None else hi
        if not 0 <= lo <= hi <= self.day.total:
            raise ValueError(f"chains {lo} to {hi} are asked for: 0 to {self.day.total} are there")
        out: dict[str, Any] = {name: np.empty(hi - lo, dtype=kind) for name, kind in COLUMNS}
        made = self.day
        rows = made.rows
        _portrayed(
            made.pointer,
            made.to,
            made.start,
            made.end,
            made.size,
            made.base_from,
            made.base_at,
            made.timetable.begins[rows].astype(np.uint16),
            made.timetable.ends[rows].astype(np.uint16),
            self.of_stop,
            self.of_hop,
            self.bits,
            self.parts,
            self.base_sums[0].astype(np.uint8),
            self.base_sums[1].astype(np.uint16),
            self.base_sums[2].astype(np.uint16),
            self.base_sums[3].astype(np.uint16),
            self.base_sums[4],
            self.base_sums[5].astype(np.uint8),
            self.base_ends,
            self.base_bits,
            lo,
            hi,
            out["concerts"],
            out["music"],
            out["walking"],
            out["waiting"],
            out["cost"],
            out["changes"],
            out["halls"],
            out["genres"],
            out["composers"],
            out["begins"],
            out["ends"],
        )
        return out


def core_portraits(made: Day) -> CorePortraits:
    """Of a day. Raises ValueError where a column could overflow: a day of more than 255 concerts in one chain, or dearer than int32
    holds."""
    timetable, rows = made.timetable, made.rows
    stops = [timetable.stops[row] for row in rows]
    concert = np.array([not stop.optional for stop in stops], dtype=np.int32)
    of_stop = np.zeros((_SUMS, len(rows)), dtype=np.int32)
    of_stop[0] = concert
    of_stop[1] = concert * (timetable.ends[rows] - timetable.begins[rows])
    price = timetable.price[rows]
    if int(price.sum()) >= 2**31 or (len(rows) > 0 and max(made.by_length(), default=0) > 255):
        raise ValueError("a chain of this day may cost 2**31 minor units or hold 256 stops: its core portraits have no room for that")
    of_stop[4] = price
    of_hop = np.zeros((_SUMS, len(made.to)), dtype=np.int32)
    of_hop[2], of_hop[3], of_hop[5] = made.walk, made.wait, made.change
    halls = [(timetable.halls[stop.hall],) if not stop.optional else () for stop in stops]
    genres = [(stop.genre,) if stop.genre is not None and not stop.optional else () for stop in stops]
    composers = [stop.composers if not stop.optional else () for stop in stops]
    parts, sets = [0], []
    for values in (halls, genres, composers):
        sets.append(_bits(values))
        parts.append(parts[-1] + len(sets[-1]))
    bits = np.vstack(sets)
    held = made.base.shape[1]
    base_sums = np.zeros((_SUMS, held), dtype=np.int32)
    base_bits = np.zeros((len(bits), held), dtype=np.uint64)
    base_ends = np.zeros(held, dtype=np.uint16)
    _lay_out(
        made.pointer,
        made.to,
        made.end,
        made.base_from,
        made.base_at,
        made.size,
        timetable.ends[rows].astype(np.uint16),
        of_stop,
        of_hop,
        bits,
        base_sums,
        base_bits,
        base_ends,
    )
    return CorePortraits(made, of_stop, of_hop, bits, np.array(parts), base_sums, base_ends, base_bits)


def _bits(values: Sequence[Sequence[str]]) -> U64:
    """(words, n) uint64: one bit a different value, at least one word."""
    number: dict[str, int] = {}
    for those in values:
        for value in those:
            number.setdefault(value, len(number))
    out = np.zeros((max(1, (len(number) + 63) // 64), len(values)), dtype=np.uint64)
    for place, those in enumerate(values):
        for value in those:
            out[number[value] >> 6, place] |= np.uint64(1) << np.uint64(number[value] & 63)
    return out


@compiled
def _ones(x: np.uint64) -> np.uint64:
    x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@compiled
def _lay_out(
    pointer: I64,
    to: I32,
    end: U8,
    base_from: int,
    base_at: I64,
    size: I64,
    ends: U16,
    of_stop: I32,
    of_hop: I32,
    bits: U64,
    base_sums: I32,
    base_bits: U64,
    base_ends: U16,
) -> None:
    for c in range(len(end) - 1, base_from - 1, -1):
        at = base_at[c]
        for e in range(pointer[c + 1] - 1, pointer[c] - 1, -1):
            v = to[e]
            for i in range(size[v]):
                source, goal = base_at[v] + i, at + i
                for column in range(len(of_stop)):
                    base_sums[column, goal] = base_sums[column, source] + of_stop[column, c] + of_hop[column, e]
                for word in range(len(bits)):
                    base_bits[word, goal] = base_bits[word, source] | bits[word, c]
                base_ends[goal] = base_ends[source]
            at += size[v]
        if end[c]:
            for column in range(len(of_stop)):
                base_sums[column, at] = of_stop[column, c]
            for word in range(len(bits)):
                base_bits[word, at] = bits[word, c]
            base_ends[at] = ends[c]


@compiled
def _added_u8(goal: U8, source: U8, amount: int) -> None:
    more = np.uint8(amount)
    for i in range(len(goal)):
        goal[i] = np.uint8(source[i] + more)


@compiled
def _added_u16(goal: U16, source: U16, amount: int) -> None:
    more = np.uint16(amount)
    for i in range(len(goal)):
        goal[i] = np.uint16(source[i] + more)


@compiled
def _added_i32(goal: I32, source: I32, amount: int) -> None:
    more = np.int32(amount)
    for i in range(len(goal)):
        goal[i] = np.int32(source[i] + more)


@compiled
def _counted(goal: U8, source: U64, bits: np.uint64) -> None:
    for i in range(len(goal)):
        goal[i] = np.uint8(_ones(source[i] | bits))


@compiled
def _counted_more(goal: U8, source: U64, bits: np.uint64) -> None:
    for i in range(len(goal)):
        goal[i] += np.uint8(_ones(source[i] | bits))


@compiled
def _portrayed(
    pointer: I64,
    to: I32,
    start: U8,
    end: U8,
    size: I64,
    base_from: int,
    base_at: I64,
    stop_begins: U16,
    stop_ends: U16,
    of_stop: I32,
    of_hop: I32,
    bits: U64,
    parts: I64,
    base_concerts: U8,
    base_music: U16,
    base_walking: U16,
    base_waiting: U16,
    base_cost: I32,
    base_changes: U8,
    base_ends: U16,
    base_bits: U64,
    lo: int,
    hi: int,
    concerts: U8,
    music: U16,
    walking: U16,
    waiting: U16,
    cost: I32,
    changes: U8,
    halls: U8,
    genres: U8,
    composers: U8,
    begins: U16,
    ends: U16,
) -> None:
    """Slab by slab: what a hop adds differs from successor to successor."""
    words, columns = len(bits), len(of_stop)
    path, edge, place = beginning(len(end))
    sums = np.zeros((len(end) + 2, columns), dtype=np.int64)
    sets = np.zeros((len(end) + 2, words), dtype=np.uint64)
    now = np.zeros(columns, dtype=np.int64)
    done = 0
    while True:
        kind, depth, v, e, first, last = step(pointer, to, start, end, size, base_from, base_at, lo, hi, False, path, edge, place)
        if kind == SLAB:
            for column in range(columns):
                now[column] = sums[depth, column]
                if depth > 0:
                    now[column] += of_hop[column, e]
            stop = done + last - first
            _added_u8(concerts[done:stop], base_concerts[first:last], now[0])
            _added_u16(music[done:stop], base_music[first:last], now[1])
            _added_u16(walking[done:stop], base_walking[first:last], now[2])
            _added_u16(waiting[done:stop], base_waiting[first:last], now[3])
            _added_i32(cost[done:stop], base_cost[first:last], now[4])
            _added_u8(changes[done:stop], base_changes[first:last], now[5])
            _counted(halls[done:stop], base_bits[0, first:last], sets[depth, 0])
            for word in range(1, parts[1]):
                _counted_more(halls[done:stop], base_bits[word, first:last], sets[depth, word])
            _counted(genres[done:stop], base_bits[parts[1], first:last], sets[depth, parts[1]])
            for word in range(parts[1] + 1, parts[2]):
                _counted_more(genres[done:stop], base_bits[word, first:last], sets[depth, word])
            _counted(composers[done:stop], base_bits[parts[2], first:last], sets[depth, parts[2]])
            for word in range(parts[2] + 1, parts[3]):
                _counted_more(composers[done:stop], base_bits[word, first:last], sets[depth, word])
            begins[done:stop] = stop_begins[v] if depth == 0 else stop_begins[path[1]]
            ends[done:stop] = base_ends[first:last]
            done = stop
        elif kind == DEEPER:
            for column in range(columns):
                sums[depth, column] = sums[depth - 1, column] + of_stop[column, v]
                if depth > 1:
                    sums[depth, column] += of_hop[column, e]
            for word in range(words):
                sets[depth, word] = sets[depth - 1, word] | bits[word, v]
        elif kind == ALONE:
            concerts[done], music[done], walking[done] = sums[depth, 0], sums[depth, 1], sums[depth, 2]
            waiting[done], cost[done], changes[done] = sums[depth, 3], sums[depth, 4], sums[depth, 5]
            halls[done], genres[done], composers[done] = 0, 0, 0
            for word in range(words):
                ones = np.uint8(_ones(sets[depth, word]))
                if word < parts[1]:
                    halls[done] += ones
                elif word < parts[2]:
                    genres[done] += ones
                else:
                    composers[done] += ones
            begins[done], ends[done] = stop_begins[path[1]], stop_ends[v]
            done += 1
        else:
            return
