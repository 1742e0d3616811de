"""Tiny timetables with known answers, for every test about routes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from features.itinerary.timetable import IMPASSABLE, Planned, Timetable

ZONE = "Asia/Yekaterinburg"
SIX = 360
FIRST = date(2030, 7, 1)


def instant(clock: str, day: int = 0, zone: str = ZONE, first: date = FIRST) -> int:
    """Microseconds UTC of a local clock time "HH:MM" on the calendar day `day` after the first."""
    hour, minute = clock.split(":")
    moment = datetime.combine(first + timedelta(days=day), time(int(hour), int(minute)), ZoneInfo(zone))
    return int(moment.timestamp()) * 1_000_000


def stop(
    name: str, clock: str, minutes: int = 45, hall: int = 0, day: int = 0, zone: str = ZONE, first: date = FIRST, **more: Any
) -> Planned:
    """One stop; what is not said is empty."""
    title = more.pop("title", f"Concert {name}")
    return Planned(id=name, title=title, starts_at=instant(clock, day, zone, first), minutes=minutes, hall=hall, **more)


def timetable(
    stops: Sequence[Planned],
    walk: Sequence[Sequence[int]] | NDArray[np.integer[Any]] = ((0,),),
    zone: str = ZONE,
    seats: Sequence[int] = (),
    days: Sequence[str] = (),
    day_begins: int = SIX,
) -> Timetable:
    """Halls are called h0, h1 ...; of each 100 seats unless said."""
    count = len(walk)
    return Timetable.build(zone, day_begins, [f"h{i}" for i in range(count)], list(seats) or [100] * count, walk, stops, days)


def three_in_a_row() -> Timetable:
    """a 13:00-13:45 and b 14:00-14:45 in h0, c 15:00-15:45 in h1, 10 minutes away. Seven routes: every non-empty set."""
    return timetable([stop("a", "13:00"), stop("b", "14:00"), stop("c", "15:00", hall=1)], ((0, 10), (10, 0)))


def two_days() -> Timetable:
    """Day 1: a 13:00, b 14:00 (both h0), x 13:30 (h1) clashes with both. Day 2: c 13:00 (h0, repeats a), d 14:00 (h1).

    Day 1 has the routes a, b, ab, x: 4. Day 2 has c, d, cd: 3. All days: 5 * 4 - 1 = 19; 19 less those with a and c = 19 - 2 * 2 = 15
    without a programme twice."""
    return timetable(
        [
            stop("a", "13:00", programme="p", price=200, genre="chamber", artists=("Ann",), composers=("Bach",), labels=("family",)),
            stop("b", "14:00", price=300, genre="choir", artists=("Bob",), composers=("Liszt", "Bach")),
            stop("x", "13:30", hall=1, price=500, genre="organ", artists=("Ann", "Cid"), composers=("Berio",), labels=("recommended",)),
            stop("c", "13:00", day=1, programme="p", price=200, genre="chamber", artists=("Ann",), composers=("Bach",)),
            stop("d", "14:00", hall=1, day=1, price=100, genre="organ", composers=("Verdi",)),
        ],
        ((0, 10), (10, 0)),
    )


def not_transitive() -> Timetable:
    """a (h0) 13:00-13:30, then m (h1, five minutes) 13:35-13:40, then c (h2) 13:45. The way h0 -> h2 takes 60 minutes, over h1 5 and 5.

    Routes: a, m, c, am, mc, amc; not ac: six. Maximal: amc alone."""
    stops = [stop("a", "13:00", 30), stop("m", "13:35", 5, hall=1), stop("c", "13:45", 30, hall=2)]
    return timetable(stops, ((0, 5, 60), (5, 0, 5), (60, 5, 0)))


def one_way() -> Timetable:
    """a in h0, then b in h1: there is a way from h0 to h1 and none back. c in h0 follows both by the clock. Routes: a, b, c, ab, ac."""
    return timetable([stop("a", "13:00"), stop("b", "14:00", hall=1), stop("c", "15:00")], ((0, 5), (IMPASSABLE, 0)))


def many(stops_a_day: int, days: int = 1) -> Timetable:
    """So many five-minute stops a day, each after the other in one hall: 2^n - 1 routes a day."""
    planned = []
    for day in range(days):
        for number in range(stops_a_day):
            minute = 6 * 60 + number * 10
            planned.append(stop(f"s{day}-{number:03}", f"{minute // 60 % 24:02}:{minute % 60:02}", 5, day=day + minute // 1_440))
    return timetable(planned)
