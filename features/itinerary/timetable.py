"""A timetable as routes see it: stops with their minutes, halls, and the way between halls.

Minutes are counted from the beginning of an itinerary's day (06:00 by default, local time), from absolute instants: a concert at half past
midnight belongs to the evening before, and a change of the clocks shifts nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

#: No way from one hall to another.
IMPASSABLE = -1
MINUTE_US = 60_000_000
_LISTS = ("tags", "artists", "composers", "works", "labels")


@dataclass(frozen=True)
class Planned:
    """A stop as a source gives it, before days and minutes are known.

    starts_at: microseconds UTC; minutes: how long it takes, >= 1; hall: index into the halls; price: minor units, None = unknown
    (counts as nothing); programme: concerts with the same one repeat each other; optional: off-programme."""

    id: str
    title: str
    starts_at: int
    minutes: int
    hall: int
    price: int | None = None
    genre: str | None = None
    tags: tuple[str, ...] = ()
    artists: tuple[str, ...] = ()
    composers: tuple[str, ...] = ()
    works: tuple[str, ...] = ()
    programme: str | None = None
    labels: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class Stop(Planned):
    """One timed item: a concert, or an off-programme event.

    day: index into Timetable.days; begins, ends: minutes from the beginning of that day. Arrival at exactly `begins` is in time."""

    day: int = 0
    begins: int = 0
    ends: int = 0


@dataclass(frozen=True, eq=False)
class Timetable:
    """Halls, the way between them and all stops, sorted by (day, begins, id). `build` and `of_json` make one; both raise ValueError.

    version: 16 hexadecimal digits of a SHA-256 over what decides which routes exist (ids, instants, minutes, halls, walking, zone,
    beginning of a day, what is optional), not over seats, labels, titles or prices.
    days: ISO dates, ascending. seats: (halls,) int32, 0 = unknown.
    walk: (halls, halls) int32 minutes, IMPASSABLE where there is no way, 0 on the diagonal. day_begins: minutes after local midnight."""

    version: str
    zone: str
    day_begins: int
    days: tuple[str, ...]
    halls: tuple[str, ...]
    seats: NDArray[np.int32]
    walk: NDArray[np.int32]
    stops: tuple[Stop, ...]
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)  # what searches derive from it once

    @classmethod
    def build(
        cls,
        zone: str,
        day_begins: int,
        halls: Sequence[str],
        seats: Sequence[int],
        walk: Sequence[Sequence[int]] | NDArray[np.integer[Any]],
        planned: Sequence[Planned],
        days: Sequence[str] = (),
    ) -> Timetable:
        """From absolute instants. `days`: ISO dates that are days of it even if nothing takes place on them.

        Raises ValueError that names what is wrong and what is allowed."""
        place = _zone(zone)
        if not 0 <= day_begins < 1_440:
            raise ValueError(f"an itinerary's day begins at minute {day_begins} after midnight: 0 to 1439 is allowed")
        _check_halls(halls, seats, walk)
        seen: set[str] = set()
        dates = {date.fromisoformat(day) for day in days}
        of_stop = []
        for stop in planned:
            _check_stop(stop, len(halls), seen)
            local = datetime.fromtimestamp(stop.starts_at / 1e6, UTC).astimezone(place)
            moved = local.replace(tzinfo=None) - timedelta(minutes=day_begins)
            of_stop.append(moved.date())
        dates |= set(of_stop)
        ordered = sorted(dates)
        index = {day: number for number, day in enumerate(ordered)}
        begins_at = {day: _instant(day, day_begins, place) for day in dates}
        stops = []
        for stop, day in zip(planned, of_stop, strict=True):
            begins = (stop.starts_at - begins_at[day]) // MINUTE_US
            longest = (_instant(day + timedelta(days=1), day_begins, place) - begins_at[day]) // MINUTE_US
            if begins + stop.minutes > longest:
                clock = f"{day_begins // 60:02}:{day_begins % 60:02}"
                raise ValueError(f"stop {stop.id!r} of {day} ends after the itinerary's next day has begun ({clock}): choose another hour")
            fields = {name: getattr(stop, name) for name in Planned.__dataclass_fields__}
            stops.append(Stop(**fields, day=index[day], begins=int(begins), ends=int(begins + stop.minutes)))
        stops.sort(key=lambda stop: (stop.day, stop.begins, stop.id))
        ways = np.ascontiguousarray(walk, dtype=np.int32).reshape(len(halls), len(halls))
        version = _version(zone, day_begins, halls, ways, stops)
        names = tuple(day.isoformat() for day in ordered)
        return cls(version, zone, day_begins, names, tuple(halls), np.asarray(seats, dtype=np.int32), ways, tuple(stops))

    # ------------------------------------------------------------------ arrays, one entry a stop

    @cached_property
    def day(self) -> NDArray[np.int32]:
        """(stops,) int32 index into days."""
        return np.array([stop.day for stop in self.stops], dtype=np.int32)

    @cached_property
    def begins(self) -> NDArray[np.int32]:
        """(stops,) int32 minutes of the itinerary's day."""
        return np.array([stop.begins for stop in self.stops], dtype=np.int32)

    @cached_property
    def ends(self) -> NDArray[np.int32]:
        """(stops,) int32 minutes of the itinerary's day."""
        return np.array([stop.ends for stop in self.stops], dtype=np.int32)

    @cached_property
    def starts_at(self) -> NDArray[np.int64]:
        """(stops,) int64 microseconds UTC."""
        return np.array([stop.starts_at for stop in self.stops], dtype=np.int64)

    @cached_property
    def hall(self) -> NDArray[np.int32]:
        """(stops,) int32 index into halls."""
        return np.array([stop.hall for stop in self.stops], dtype=np.int32)

    @cached_property
    def price(self) -> NDArray[np.int64]:
        """(stops,) int64 minor units; an unknown price is 0."""
        return np.array([stop.price or 0 for stop in self.stops], dtype=np.int64)

    @cached_property
    def optional(self) -> NDArray[np.bool_]:
        """(stops,) bool: off-programme."""
        return np.array([stop.optional for stop in self.stops], dtype=np.bool_)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Stop id -> index into stops."""
        return {stop.id: row for row, stop in enumerate(self.stops)}

    def minute(self, day: int, clock: int) -> int:
        """Minutes of the day `day` at the local clock time `clock` (minutes after midnight, 0 to 1439). Times before the day's
        beginning are those of the night after it; of a time that there is twice the first, of one that there is not the moment after."""
        place = _zone(self.zone)
        on = date.fromisoformat(self.days[day])
        later = on + timedelta(days=1) if clock < self.day_begins else on
        return int((_instant(later, clock, place) - _instant(on, self.day_begins, place)) // MINUTE_US)

    def over(self, now: int) -> bool:
        """Whether everything has begun at an instant (microseconds UTC). False of a timetable without stops."""
        return bool(self.stops) and now >= int(self.starts_at.max())

    def clock(self, instant: int) -> str:
        """Local time of an instant (microseconds UTC) as HH:MM."""
        return datetime.fromtimestamp(instant / 1e6, UTC).astimezone(_zone(self.zone)).strftime("%H:%M")

    # ------------------------------------------------------------------ JSON

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `of_json` gives the same timetable back."""
        stops = []
        for stop in self.stops:
            row: dict[str, Any] = {name: getattr(stop, name) for name in Planned.__dataclass_fields__}
            row.update({name: list(row[name]) for name in _LISTS})
            stops.append(row)
        halls = [{"name": name, "seats": int(seats)} for name, seats in zip(self.halls, self.seats, strict=True)]
        return {
            "version": self.version,
            "zone": self.zone,
            "day_begins": self.day_begins,
            "days": list(self.days),
            "halls": halls,
            "walk": self.walk.tolist(),
            "stops": stops,
        }

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> Timetable:
        """What `to_json` wrote, checked anew. Raises ValueError that names what is missing, wrong or of another version."""
        wanted = ("version", "zone", "day_begins", "days", "halls", "walk", "stops")
        if not isinstance(document, Mapping) or any(name not in document for name in wanted):
            missing = [name for name in wanted if not isinstance(document, Mapping) or name not in document]
            raise ValueError(f"a timetable needs {', '.join(wanted)}; {', '.join(missing)} is missing")
        try:
            planned = [_planned(row, place) for place, row in enumerate(document["stops"])]
            halls = [str(hall["name"]) for hall in document["halls"]]
            seats = [int(hall["seats"]) for hall in document["halls"]]
            walk = [[int(minutes) for minutes in row] for row in document["walk"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"the timetable is broken: {type(error).__name__}: {error}") from None
        made = cls.build(str(document["zone"]), int(document["day_begins"]), halls, seats, walk, planned, document["days"])
        if made.version != document["version"]:
            raise ValueError(f"the timetable says version {document['version']!r} and is {made.version!r}: it was changed by hand")
        return made


@dataclass(frozen=True, eq=False)
class Availability:
    """What changes while serving. free: (stops,) int32 seats left, -1 = unknown; on_sale: (stops,) bool; as_of: microseconds UTC."""

    free: NDArray[np.int32]
    on_sale: NDArray[np.bool_]
    as_of: int

    @classmethod
    def unknown(cls, timetable: Timetable, as_of: int = 0) -> Availability:
        """Everything on sale, no number of seats known."""
        stops = len(timetable.stops)
        return cls(np.full(stops, -1, dtype=np.int32), np.ones(stops, dtype=np.bool_), as_of)

    def to_json(self, timetable: Timetable) -> dict[str, Any]:
        """By stop id, so that it outlives a timetable to which stops were added."""
        rows = {stop.id: [int(self.free[row]), bool(self.on_sale[row])] for row, stop in enumerate(timetable.stops)}
        return {"as_of": self.as_of, "stops": rows}

    @classmethod
    def of_json(cls, document: Mapping[str, Any], timetable: Timetable) -> Availability:
        """Stops that are not named are on sale with an unknown number of seats. Raises ValueError for what is not of that form."""
        made = cls.unknown(timetable)
        try:
            for name, (free, on_sale) in document["stops"].items():
                row = timetable.rows.get(name)
                if row is not None:
                    made.free[row], made.on_sale[row] = int(free), bool(on_sale)
            return cls(made.free, made.on_sale, int(document["as_of"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the availability is broken: {type(error).__name__}: {error}") from None


# ------------------------------------------------------------------ checks


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"no time zone {name!r}: names of the IANA data base are allowed, such as Asia/Yekaterinburg") from None


def _instant(day: date, minutes: int, place: ZoneInfo) -> int:
    """Microseconds UTC of `minutes` after local midnight by the clock."""
    moment = datetime.combine(day, time(minutes // 60, minutes % 60), place)
    return int(moment.timestamp()) * 1_000_000


def _check_halls(halls: Sequence[str], seats: Sequence[int], walk: Sequence[Sequence[int]] | NDArray[np.integer[Any]]) -> None:
    count = len(halls)
    if len(set(halls)) != count:
        twice = next(name for place, name in enumerate(halls) if name in halls[:place])
        raise ValueError(f"hall {twice!r} stands twice")
    if len(seats) != count or any(seat < 0 for seat in seats):
        raise ValueError(f"{count} halls need {count} numbers of seats >= 0 (0 = unknown), found {list(seats)!r}")
    if len(walk) != count or any(len(row) != count for row in walk):
        raise ValueError(f"{count} halls need {count} x {count} walking minutes")
    for place, row in enumerate(walk):
        for other, minutes in enumerate(row):
            if place == other and minutes != 0:
                raise ValueError(f"the way from {halls[place]!r} to itself takes {minutes} minutes: only 0 is allowed")
            if minutes < 0 and minutes != IMPASSABLE:
                way = f"the way from {halls[place]!r} to {halls[other]!r}"
                raise ValueError(f"{way} takes {minutes} minutes: 0 or more is allowed, or {IMPASSABLE} for no way")


def _check_stop(stop: Planned, halls: int, seen: set[str]) -> None:
    if not stop.id:
        raise ValueError(f"a stop ({stop.title!r}) has no id")
    if stop.id in seen:
        raise ValueError(f"stop {stop.id!r} stands twice")
    seen.add(stop.id)
    if stop.minutes < 1:
        raise ValueError(f"stop {stop.id!r} takes {stop.minutes} minutes: 1 or more is allowed")
    if not 0 <= stop.hall < halls:
        raise ValueError(f"stop {stop.id!r} is in hall {stop.hall}: 0 to {halls - 1} is allowed")
    if stop.price is not None and stop.price < 0:
        raise ValueError(f"stop {stop.id!r} costs {stop.price}: 0 or more is allowed")


def _planned(row: Mapping[str, Any], place: int) -> Planned:
    unknown = set(row) - set(Planned.__dataclass_fields__)
    if unknown:
        raise ValueError(f"stop {place} of the timetable has unknown words: {', '.join(sorted(unknown))}")
    fields = dict(row)
    for name in _LISTS:
        fields[name] = tuple(str(value) for value in fields.get(name, ()))
    for name in ("starts_at", "minutes", "hall"):
        if type(fields.get(name)) is not int:
            raise ValueError(f"stop {place} of the timetable: {name} is {fields.get(name)!r}, a whole number is needed")
    return Planned(**fields)


def _version(zone: str, day_begins: int, halls: Sequence[str], walk: NDArray[np.int32], stops: Sequence[Stop]) -> str:
    chosen = [zone, day_begins, list(halls), walk.tolist(), [[s.id, s.starts_at, s.minutes, s.hall, s.optional] for s in stops]]
    text = json.dumps(chosen, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
