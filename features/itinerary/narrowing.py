"""Wishes -> arrays: which stops are left, which must be there, and every limit in minutes of the timetable's day and bits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.itinerary.hops import NOTHING, HopLimits, Hops, hops
from features.itinerary.limits import FREE, Limits
from features.itinerary.timetable import Availability, Timetable
from features.itinerary.wishes import WORDS, Wishes, Words

#: Bits of `needs`: that there is a concert at all, then one for each of the Words.
_CONCERT = 1
_A_DAY = 2_000  # minutes: no day is longer, a limit beyond it is none

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Narrowed:
    """What the wishes leave. dropped: stop row -> the wish that left it out (the first that did). required: rows of must and bought,
    ascending. repeats: (stops,) int32 number of the programme among those that are played more than once, -1 = never mind."""

    hop_limits: HopLimits
    hops: Hops
    limits: Limits
    required: tuple[int, ...]
    bought: tuple[int, ...]
    dropped: dict[int, str] = field(repr=False)
    repeats: NDArray[np.int32]


def narrow(timetable: Timetable, wishes: Wishes, availability: Availability | None) -> Narrowed:
    """Raises ValueError for wishes that the timetable cannot understand."""
    wishes.check(timetable)
    stops, days = len(timetable.stops), len(timetable.days)
    bought = sorted({timetable.rows[name] for name in wishes.bought})
    required = sorted({timetable.rows[name] for name in wishes.must} | set(bought))
    allowed = np.ones(stops, dtype=np.bool_)
    dropped: dict[int, str] = {}

    def drop(rows: Bools, why: str) -> None:
        if required:
            for row in required:
                if rows[row] and allowed[row]:
                    dropped.setdefault(row, why)
        np.logical_and(allowed, ~rows, out=allowed)

    if wishes.days is not None:
        chosen = np.array([day in wishes.days for day in timetable.days], dtype=np.bool_)
        drop(~chosen[timetable.day], "days")
    else:
        chosen = np.ones(days, dtype=np.bool_)
    if not wishes.optional:
        off = timetable.optional.copy()
        off[required] = False
        drop(off, "optional")
    if wishes.must_not:
        rows = np.zeros(stops, dtype=np.bool_)
        rows[[timetable.rows[name] for name in wishes.must_not]] = True
        drop(rows, "must_not")
    if wishes.party is not None and availability is not None:
        free, on_sale = availability.free, availability.on_sale
        lacking = ((free >= 0) & (free < wishes.party)) | ~on_sale
        lacking[bought] = False
        drop(lacking & ~timetable.optional, "party")
    if wishes.begun is not None:
        begun = timetable.starts_at <= wishes.begun
        begun[bought] = False
        drop(begun, "begun")
    if wishes.arrival is not None:
        earliest = np.array([timetable.minute(day, wishes.arrival) for day in range(days)], dtype=np.int64)
        drop(timetable.begins < earliest[timetable.day], "arrival")
    if wishes.leaving is not None:
        latest = np.array([timetable.minute(day, wishes.leaving) for day in range(days)], dtype=np.int64)
        drop(timetable.ends > latest[timetable.day], "leaving")
    needs = np.where(timetable.optional, 0, _CONCERT).astype(np.uint64)
    needed = _CONCERT
    for number, name in enumerate(WORDS, start=1):
        words: Words = getattr(wishes, name)
        if words.only:
            drop(~_having(timetable, name, words.only) & ~timetable.optional, f"{name}.only")
        if words.none:
            drop(_having(timetable, name, words.none), f"{name}.none")
        if words.some:
            needs |= (_having(timetable, name, words.some) & ~timetable.optional).astype(np.uint64) << np.uint64(number)
            needed |= 1 << number
    meal_from, meal_to = np.zeros(days, dtype=np.int64), np.zeros(days, dtype=np.int64)
    if wishes.meal is not None:
        for day in range(days):
            meal_from[day] = timetable.minute(day, wishes.meal.earliest)
            meal_to[day] = timetable.minute(day, wishes.meal.latest)
    skip = np.where(chosen, not wishes.every_day, True).astype(np.uint8)
    held = np.zeros(stops, dtype=np.uint8)
    held[required] = 1
    hop_limits = HopLimits(
        allowed.astype(np.uint8),
        held,
        wishes.buffer,
        _or(wishes.walking_a_hop, NOTHING),
        _or(wishes.waiting_a_hop, NOTHING),
        _or(wishes.longest_gap, NOTHING),
        wishes.meal.minutes if wishes.meal else 0,
        meal_from,
        meal_to,
        skip,
        wishes.maximal,
    )
    price = timetable.price
    if bought:
        price = price.copy()
        price[bought] = 0
    nothing = np.zeros(stops, dtype=np.uint64)
    limits = Limits(
        _or(wishes.price_limit, FREE),
        _a_day(wishes.walking_a_day),
        _a_day(wishes.waiting_a_day),
        wishes.fewest or 1,
        _a_day(wishes.most),
        wishes.meal is not None,
        price,
        (~timetable.optional).astype(np.int64),
        nothing,
        nothing,
        needs,
        needed,
    )
    repeats = _repeats(timetable, allowed) if wishes.no_programme_twice else np.full(stops, -1, dtype=np.int32)
    return Narrowed(hop_limits, hops(timetable, hop_limits), limits, tuple(required), tuple(bought), dropped, repeats)


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _a_day(value: int | None) -> int:
    return FREE if value is None or value >= _A_DAY else value


def _having(timetable: Timetable, name: str, values: tuple[str, ...]) -> Bools:
    """(stops,) bool: which have at least one of the values."""
    kept: dict[Any, Bools] = timetable._kept.setdefault(f"having {name}", {})
    if not kept:
        for row, stop in enumerate(timetable.stops):
            match name:
                case "halls":
                    own: tuple[str, ...] = (timetable.halls[stop.hall],)
                case "genres":
                    own = () if stop.genre is None else (stop.genre,)
                case _:
                    own = getattr(stop, name)
            for value in own:
                kept.setdefault(value, np.zeros(len(timetable.stops), dtype=np.bool_))[row] = True
    none = np.zeros(len(timetable.stops), dtype=np.bool_)
    out = none.copy()
    for value in values:
        out |= kept.get(value, none)
    return out


def _repeats(timetable: Timetable, allowed: Bools) -> NDArray[np.int32]:
    """Programmes of which two concerts are left, numbered by their first one."""
    rows: dict[str, list[int]] = {}
    for row, stop in enumerate(timetable.stops):
        if allowed[row] and stop.programme is not None and not stop.optional:
            rows.setdefault(stop.programme, []).append(row)
    out = np.full(len(timetable.stops), -1, dtype=np.int32)
    for number, those in enumerate([those for those in rows.values() if len(those) > 1]):
        out[those] = number
    return out
