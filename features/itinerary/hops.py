"""Which stop can follow which, and where a day may begin and end: the wishes that can be judged from one stop or two stops in a row.

A hop u -> v is possible when ends[u] + walk + buffer <= begins[v], on the same day: consecutive pairs decide, nothing is assumed
to be transitive. Stops are sorted by time, so every chain ascends, and "stop m is in the chain" means that no hop jumps over m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.itinerary.timetable import IMPASSABLE, Timetable

NOTHING = -1
_FAR = 2**40

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]


class Hops(NamedTuple):
    """For each stop the stops that can follow: hop e of stop u is one of pointer[u] .. pointer[u + 1], ascending by `to`.

    walk, wait: minutes; change: 1 where the hall changes; meal: 1 where the break fits in. start, end: (stops,) whether a day's
    chain may begin, end there; start_meal, end_meal: whether the break fits before, after. skip: (days,) whether the day may stay empty."""

    pointer: I64
    to: I32
    walk: I32
    wait: I32
    change: U8
    meal: U8
    start: U8
    end: U8
    start_meal: U8
    end_meal: U8
    skip: U8


@dataclass(frozen=True, eq=False)
class HopLimits:
    """What hops are held to. allowed, required: (stops,) uint8; minutes: buffer, longest walk, wait and gap of one hop, length of the meal
    break (NOTHING = no limit); meal_from, meal_to: (days,) minutes of the day; skip: (days,) days that may stay empty."""

    allowed: U8
    required: U8
    buffer: int
    longest_walk: int
    longest_wait: int
    longest_gap: int
    meal: int
    meal_from: I64
    meal_to: I64
    skip: U8
    maximal: bool


def pairs(timetable: Timetable) -> tuple[I64, I32, I32, I32, U8]:
    """Every possible pair without any wish (pointer, to, walk, wait, change), kept with the timetable."""
    kept = timetable._kept.get("pairs")
    if kept is None:
        kept = _pairs(timetable.day, timetable.begins, timetable.ends, timetable.hall, timetable.walk)
        timetable._kept["pairs"] = kept
    return kept


def day_pointer(timetable: Timetable) -> I64:
    """(days + 1,) int64: the stops of day d are day_pointer[d] .. day_pointer[d + 1]."""
    kept = timetable._kept.get("day_pointer")
    if kept is None:
        kept = np.searchsorted(timetable.day, np.arange(len(timetable.days) + 1)).astype(np.int64)
        timetable._kept["day_pointer"] = kept
    return kept


def hops(timetable: Timetable, limits: HopLimits) -> Hops:
    """The pairs that the limits leave."""

    def most(minutes: int) -> int:
        return _FAR if minutes == NOTHING else minutes

    core = np.where(timetable.optional, 0, limits.allowed).astype(np.uint8)
    arrays = _narrowed(
        day_pointer(timetable),
        timetable.begins,
        timetable.ends,
        *pairs(timetable),
        limits.allowed,
        limits.required,
        core,
        limits.buffer,
        most(limits.longest_walk),
        most(limits.longest_wait),
        most(limits.longest_gap),
        limits.meal,
        limits.meal_from,
        limits.meal_to,
        limits.skip,
        limits.maximal,
    )
    return Hops(*arrays)


@compiled
def _pairs(day: I32, begins: I32, ends: I32, hall: I32, walk: I32) -> tuple[I64, I32, I32, I32, U8]:
    stops = len(day)
    pointer = np.zeros(stops + 1, dtype=np.int64)
    for u in range(stops):
        found = 0
        for v in range(u + 1, stops):
            if day[v] != day[u]:
                break
            minutes = walk[hall[u], hall[v]]
            if minutes != IMPASSABLE and ends[u] + minutes <= begins[v]:
                found += 1
        pointer[u + 1] = pointer[u] + found
    to = np.empty(pointer[stops], dtype=np.int32)
    walks = np.empty(pointer[stops], dtype=np.int32)
    waits = np.empty(pointer[stops], dtype=np.int32)
    change = np.empty(pointer[stops], dtype=np.uint8)
    for u in range(stops):
        e = pointer[u]
        for v in range(u + 1, stops):
            if day[v] != day[u]:
                break
            minutes = walk[hall[u], hall[v]]
            if minutes != IMPASSABLE and ends[u] + minutes <= begins[v]:
                to[e], walks[e] = v, minutes
                waits[e] = begins[v] - ends[u] - minutes
                change[e] = 1 if hall[u] != hall[v] else 0
                e += 1
    return pointer, to, walks, waits, change


@compiled
def _narrowed(
    day_pointer: I64,
    begins: I32,
    ends: I32,
    pointer: I64,
    to: I32,
    walk: I32,
    wait: I32,
    change: U8,
    allowed: U8,
    required: U8,
    core: U8,
    buffer: int,
    longest_walk: int,
    longest_wait: int,
    longest_gap: int,
    meal: int,
    meal_from: I64,
    meal_to: I64,
    skip: U8,
    maximal: bool,
) -> tuple[I64, I32, I32, I32, U8, U8, U8, U8, U8, U8, U8]:
    stops, days, many = len(begins), len(day_pointer) - 1, len(to)
    out_pointer = np.zeros(stops + 1, dtype=np.int64)
    out_to = np.empty(many, dtype=np.int32)
    out_walk = np.empty(many, dtype=np.int32)
    out_wait = np.empty(many, dtype=np.int32)
    out_change = np.empty(many, dtype=np.uint8)
    out_meal = np.zeros(many, dtype=np.uint8)
    start = np.zeros(stops, dtype=np.uint8)
    end = np.zeros(stops, dtype=np.uint8)
    start_meal = np.zeros(stops, dtype=np.uint8)
    end_meal = np.zeros(stops, dtype=np.uint8)
    may_skip = skip.copy()
    found = 0
    for d in range(days):
        first, last = day_pointer[d], day_pointer[d + 1]
        next_required = last  # of the stops before the one looked at: the hop from it may not jump over this one
        after = np.empty(last - first, dtype=np.int64)
        for v in range(last - 1, first - 1, -1):
            after[v - first] = next_required
            if required[v]:
                next_required = v
                may_skip[d] = 0
        for u in range(first, last):
            if allowed[u]:
                start[u] = 1 if u <= next_required else 0
                end[u] = 1 if after[u - first] == last else 0
                if meal > 0:
                    start_meal[u] = 1 if min(meal_to[d], begins[u]) - meal_from[d] >= meal else 0
                    end_meal[u] = 1 if meal_to[d] - max(meal_from[d], ends[u]) >= meal else 0
                for e in range(pointer[u], pointer[u + 1]):
                    v = to[e]
                    if not allowed[v] or v > after[u - first] or wait[e] < buffer or walk[e] > longest_walk or wait[e] > longest_wait:
                        continue
                    if wait[e] + walk[e] > longest_gap:
                        continue
                    out_to[found], out_walk[found], out_wait[found], out_change[found] = v, walk[e], wait[e], change[e]
                    if meal > 0:  # eating here and then walking, or there after walking
                        here = min(meal_to[d], begins[v] - walk[e]) - max(meal_from[d], ends[u])
                        there = min(meal_to[d], begins[v]) - max(meal_from[d], ends[u] + walk[e])
                        out_meal[found] = 1 if max(here, there) >= meal else 0
                    found += 1
            out_pointer[u + 1] = found
    if not maximal:
        return (
            out_pointer,
            out_to[:found].copy(),
            out_walk[:found].copy(),
            out_wait[:found].copy(),
            out_change[:found].copy(),
            out_meal[:found].copy(),
            start,
            end,
            start_meal,
            end_meal,
            may_skip,
        )
    # Nothing may fit between, before or after: successors as bits, so that a pair is judged in a few words.
    words = (stops + 63) // 64
    follows = np.zeros((stops, words), dtype=np.uint64)
    precedes = np.zeros((stops, words), dtype=np.uint64)
    for u in range(stops):
        for e in range(out_pointer[u], out_pointer[u + 1]):
            v = out_to[e]
            if core[v]:
                follows[u, v >> 6] |= np.uint64(1) << np.uint64(v & 63)
            if core[u]:
                precedes[v, u >> 6] |= np.uint64(1) << np.uint64(u & 63)
    for u in range(stops):
        for word in range(words):
            if follows[u, word]:
                end[u] = 0
            if precedes[u, word]:
                start[u] = 0
    kept = 0
    new_pointer = np.zeros(stops + 1, dtype=np.int64)
    for u in range(stops):
        for e in range(out_pointer[u], out_pointer[u + 1]):
            v = out_to[e]
            fits = False
            for word in range(words):
                if follows[u, word] & precedes[v, word]:
                    fits = True
                    break
            if not fits:
                out_to[kept], out_walk[kept], out_wait[kept], out_change[kept], out_meal[kept] = (
                    v,
                    out_walk[e],
                    out_wait[e],
                    out_change[e],
                    out_meal[e],
                )
                kept += 1
        new_pointer[u + 1] = kept
    return (
        new_pointer,
        out_to[:kept].copy(),
        out_walk[:kept].copy(),
        out_wait[:kept].copy(),
        out_change[:kept].copy(),
        out_meal[:kept].copy(),
        start,
        end,
        start_meal,
        end_meal,
        may_skip,
    )
