"""Stops, artists and halls as plain JSON values: times by the clock on the wall, prices in minor units, seats as they are now."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from configs.domain import Itinerary
from features.itinerary.portrait import Recommended, portrait
from features.itinerary.routes import route_id
from features.itinerary.timetable import MINUTE_US, Stop, Timetable
from serving.itinerary.current import Current
from serving.storage.seats import UNKNOWN


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def local(timetable: Timetable, instant: int) -> datetime:
    """An instant (microseconds UTC) by the clock of the timetable's zone."""
    return datetime.fromtimestamp(instant // 1_000_000, UTC).astimezone(zone(timetable.zone))


def ends_at(stop: Stop) -> int:
    """Microseconds UTC."""
    return stop.starts_at + (stop.ends - stop.begins) * MINUTE_US


def stop_document(current: Current, words: Itinerary, row: int) -> dict[str, Any]:
    """One stop. `free`: seats left, null where nobody knows; `price` in minor units of `currency`, null where it is not known."""
    timetable = current.timetable
    stop = timetable.stops[row]
    starts, ends = local(timetable, stop.starts_at), local(timetable, ends_at(stop))
    free = int(current.availability.free[row])
    return {
        "id": stop.id,
        "title": stop.title,
        "day": timetable.days[stop.day],
        "starts": starts.isoformat(),
        "ends": ends.isoformat(),
        "begins": starts.strftime("%H:%M"),
        "until": ends.strftime("%H:%M"),
        "minutes": stop.ends - stop.begins,
        "hall": timetable.halls[stop.hall],
        "price": stop.price,
        "currency": words.currency,
        "genre": stop.genre,
        "tags": stop.tags,
        "artists": stop.artists,
        "composers": stop.composers,
        "works": stop.works,
        "programme": stop.programme,
        "labels": stop.labels,
        "optional": stop.optional,
        "free": None if free == UNKNOWN else free,
        "on_sale": bool(current.availability.on_sale[row]),
        "to_be_had": current.to_be_had(row),
    }


def days_of(current: Current, rows: Iterable[int]) -> list[str]:
    """ISO dates, ascending."""
    timetable = current.timetable
    return [timetable.days[day] for day in sorted({timetable.stops[row].day for row in rows})]


def free_of(current: Current, rows: Iterable[int]) -> int | None:
    """Free seats of several stops together, of those on sale; None where of none of them the number is known."""
    known = [int(current.availability.free[row]) for row in rows if current.availability.on_sale[row]]
    counted = [free for free in known if free != UNKNOWN]
    return sum(counted) if counted else None


def nearest(name: str, known: Sequence[str], most: int = 5) -> list[str]:
    """What was probably meant, or the first there are."""
    folded = {word.casefold(): word for word in known}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=most, cutoff=0.5)
    found = [folded[word] for word in near] or [word for word in known if name.casefold() in word.casefold()][:most]
    return found or list(known[:most])


def money(minor: int, words: Itinerary) -> str:
    """ "1 250.50 RUB"; whole units without the fraction."""
    whole, rest = divmod(minor, words.minor_units)
    digits = len(str(words.minor_units - 1))
    said = f"{whole:,}".replace(",", " ")
    return f"{said}.{rest:0{digits}} {words.currency}" if rest else f"{said} {words.currency}"


def stop_json(current: Current, words: Itinerary, row: int) -> orjson.Fragment:
    """`stop_document`, written once for each snapshot: a search shows the same stops many times."""
    written = current.shown.get(row)
    if written is None:
        written = current.shown[row] = orjson.dumps(stop_document(current, words, row))
    return orjson.Fragment(written)


def route_document(current: Current, rows: Sequence[int], value: float | None, why: Sequence[str]) -> dict[str, Any]:
    """A route in a list of many: its stops by their ids, the way between them, the core of its portrait."""
    facts = _facts(current.timetable)
    return {
        "route_id": "~".join([current.timetable.version, *(facts.written[row] for row in sorted(rows, key=facts.place.__getitem__))]),
        "score": value,
        "stops": [facts.ids[row] for row in rows],
        "legs": [facts.leg(one, other).said for one, other in pairwise(rows) if facts.day[one] == facts.day[other]],
        "portrait": core(current.timetable, rows),
        "why": list(why),
    }


def whole_route(current: Current, words: Itinerary, rows: Sequence[int]) -> dict[str, Any]:
    """One route with whole stops and every figure of its portrait, for which a sample of all routes is drawn once a timetable: not for an
    event loop."""
    timetable = current.timetable
    return {
        "route_id": route_id(timetable, rows),
        "timetable": timetable.version,
        "stops": [stop_json(current, words, row) for row in rows],
        "legs": legs(timetable, rows),
        "portrait": portrait(timetable, rows, _recommended(current)).to_json(),
    }


def _recommended(current: Current) -> Recommended:
    """By the labels of concerts, and what administrators marked themselves."""
    of = Recommended.of(current.timetable)
    return Recommended(of.concerts, of.artists | current.targets("artist"), of.works | current.targets("work"))


def core(timetable: Timetable, rows: Sequence[int]) -> dict[str, Any]:
    """The figures that every list of routes shows, named as in features/itinerary/portrait.py: minutes, minor units, counts."""
    facts = _facts(timetable)
    day, hall, concert = facts.day, facts.hall, facts.concert
    concerts = [row for row in rows if concert[row]]
    days = halls = genres = composers = 0
    for row in rows:
        days |= 1 << day[row]
    for row in concerts:
        halls |= 1 << hall[row]
        genres |= facts.genre[row]
        composers |= facts.composers[row]
    way = [facts.leg(one, other) for one, other in pairwise(rows) if day[one] == day[other]]
    return {
        "days": days.bit_count(),
        "concerts": len(concerts),
        "events": len(rows) - len(concerts),
        "halls": halls.bit_count(),
        "genres": genres.bit_count(),
        "composers": composers.bit_count(),
        "music": sum([facts.minutes[row] for row in concerts]),
        "walking": sum([leg.walk for leg in way]),
        "waiting": sum([leg.wait for leg in way]),
        "cost": sum([facts.price[row] for row in rows]),
        "changes": sum([leg.changes for leg in way]),
    }


def legs(timetable: Timetable, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Minutes on the way and of waiting between consecutive stops of a day."""
    facts, stops = _facts(timetable), timetable.stops
    return [
        {"before": stops[one].id, "after": stops[other].id, "walk": leg.walk, "wait": leg.wait}
        for one, other in pairwise(rows)
        if stops[one].day == stops[other].day
        for leg in (facts.leg(one, other),)
    ]


@dataclass(frozen=True, slots=True)
class _Leg:
    """From one stop to the next of the day. `said`: the leg as JSON; `changes`: whether the hall is another."""

    walk: int
    wait: int
    changes: bool
    said: orjson.Fragment


class _Facts:
    """What a list of routes says of each stop, by row: looked up many times for every route, so it is taken out of the stops once a
    timetable. Sets are bits of an integer."""

    def __init__(self, timetable: Timetable) -> None:
        stops = timetable.stops
        genres: dict[str | None, int] = {None: 0}
        names: dict[str, int] = {}
        for stop in stops:
            genres.setdefault(stop.genre, 1 << len(genres))
            for name in stop.composers:
                names.setdefault(name, 1 << len(names))
        self._timetable, self._legs = timetable, dict[tuple[int, int], _Leg]()
        self._walk: list[list[int]] = timetable.walk.tolist()
        self.ids = [stop.id for stop in stops]
        self.written = [route_id(timetable, [row]).partition("~")[2] for row in range(len(stops))]
        self.place = {row: place for place, row in enumerate(sorted(range(len(stops)), key=self.ids.__getitem__))}
        self.day = [int(stop.day) for stop in stops]
        self.hall = [int(stop.hall) for stop in stops]
        self.concert = [not stop.optional for stop in stops]
        self.minutes = [stop.minutes for stop in stops]
        self.price = [stop.price or 0 for stop in stops]
        self.genre = [genres[stop.genre] for stop in stops]
        self.composers = [sum(names[name] for name in set(stop.composers)) for stop in stops]

    def leg(self, one: int, other: int) -> _Leg:
        made = self._legs.get((one, other))
        if made is None:
            before, after = self._timetable.stops[one], self._timetable.stops[other]
            walk = self._walk[before.hall][after.hall]
            wait = after.begins - before.ends - walk
            said = orjson.Fragment(orjson.dumps({"before": before.id, "after": after.id, "walk": walk, "wait": wait}))
            made = self._legs[one, other] = _Leg(walk, wait, before.hall != after.hall, said)
        return made


def _facts(timetable: Timetable) -> _Facts:
    facts: _Facts | None = timetable._kept.get("facts")
    if facts is None:
        facts = timetable._kept["facts"] = _Facts(timetable)
    return facts
