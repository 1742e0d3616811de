"""A route's own name, and a route beside the timetable it belongs to.

An id is the timetable's version and the sorted ids of its stops, `1f0c...~12~26~69`: it can be read without any table, stays what it is
when ranks change, and stands in an address as it is. Signs other than letters, digits, `_` and `-` are written as `.XX` (UTF-8,
hexadecimal).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from features.itinerary.timetable import IMPASSABLE, Timetable

_SAFE = re.compile(rb"[A-Za-z0-9_-]")
_ID = re.compile(r"[0-9a-f]{16}(~(?:[A-Za-z0-9_-]|\.[0-9A-F]{2})+)+")
LONGEST_ID = 8_192


def route_id(timetable: Timetable, stops: Iterable[int]) -> str:
    """Of rows of the timetable, in any order."""
    return "~".join([timetable.version, *(_written(name) for name in sorted(timetable.stops[row].id for row in stops))])


def read_id(text: str) -> tuple[str, tuple[str, ...]]:
    """(version of the timetable, stop ids) of a route id. Raises ValueError that says what an id looks like."""
    if len(text) > LONGEST_ID or not _ID.fullmatch(text):
        short = text if len(text) <= 60 else text[:57] + "..."
        raise ValueError(f"{short!r} is no route id: 16 hexadecimal digits and stop ids are needed, separated by ~")
    version, *names = text.split("~")
    try:
        ids = tuple(_read(name) for name in names)
    except UnicodeDecodeError:
        raise ValueError(f"{text[:60]!r} is no route id: a stop id in it is not UTF-8") from None
    if list(ids) != sorted(set(ids)):
        raise ValueError("this is no route id: its stop ids are not sorted, or one stands twice")
    return version, ids


def rows_of(timetable: Timetable, text: str) -> tuple[int, ...]:
    """The rows of a route id, ascending. Raises ValueError if it is broken, of another timetable, or no route of this one."""
    version, names = read_id(text)
    if version != timetable.version:
        raise ValueError(f"this route belongs to the timetable {version}, and {timetable.version} is the one in force")
    unknown = [name for name in names if name not in timetable.rows]
    if unknown:
        raise ValueError(f"there is no stop {unknown[0]!r} in this timetable")
    rows = tuple(sorted(timetable.rows[name] for name in names))
    wrong = broken_hop(timetable, rows)
    if wrong is not None:
        one, other = (timetable.stops[row] for row in wrong)
        raise ValueError(f"this is no route: {other.id!r} cannot be reached in time from {one.id!r}")
    if all(timetable.stops[row].optional for row in rows):
        raise ValueError("this is no route: it has no concert")
    return rows


def broken_hop(timetable: Timetable, rows: tuple[int, ...]) -> tuple[int, int] | None:
    """The first pair of consecutive stops of a day that cannot be done, None if all can. Rows ascend."""
    for one, other in pairwise(rows):
        if timetable.day[one] != timetable.day[other]:
            continue
        walk = int(timetable.walk[timetable.hall[one], timetable.hall[other]])
        if walk == IMPASSABLE or timetable.ends[one] + walk > timetable.begins[other]:
            return one, other
    return None


def _written(name: str) -> str:
    return "".join(chr(byte) if _SAFE.fullmatch(bytes([byte])) else f".{byte:02X}" for byte in name.encode())


def _read(text: str) -> str:
    data = re.sub(rb"\.([0-9A-F]{2})", lambda found: bytes([int(found.group(1), 16)]), text.encode())
    return data.decode()
