"""Stops, artists and halls as plain JSON values: times by the clock on the wall, prices in minor units, seats as they are now."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
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
    timetable = current.timetable
    way = legs(timetable, rows)
    return {
        "route_id": route_id(timetable, rows),
        "score": value,
        "stops": [timetable.stops[row].id for row in rows],
        "legs": way,
        "portrait": core(timetable, rows, way),
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


def core(timetable: Timetable, rows: Sequence[int], way: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures that every list of routes shows, named as in features/itinerary/portrait.py: minutes, minor units, counts. `way`: the
    route's legs."""
    stops = [timetable.stops[row] for row in rows]
    concerts = [stop for stop in stops if not stop.optional]
    halls = [(stop.day, stop.hall) for stop in stops]
    return {
        "days": len({stop.day for stop in stops}),
        "concerts": len(concerts),
        "events": len(stops) - len(concerts),
        "halls": len({stop.hall for stop in concerts}),
        "genres": len({stop.genre for stop in concerts if stop.genre is not None}),
        "composers": len({name for stop in concerts for name in stop.composers}),
        "music": sum(stop.minutes for stop in concerts),
        "walking": sum(leg["walk"] for leg in way),
        "waiting": sum(leg["wait"] for leg in way),
        "cost": sum(stop.price or 0 for stop in stops),
        "changes": sum(one[0] == other[0] and one[1] != other[1] for one, other in pairwise(halls)),
    }


def legs(timetable: Timetable, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Minutes on the way and of waiting between consecutive stops of a day."""
    ways: list[list[int]] | None = timetable._kept.get("ways")
    if ways is None:
        ways = timetable._kept["ways"] = timetable.walk.tolist()  # a list of lists is quicker to look into than an array
    out = []
    for one, other in pairwise(rows):
        before, after = timetable.stops[one], timetable.stops[other]
        if before.day == after.day:
            walk = ways[before.hall][after.hall]
            out.append({"before": before.id, "after": after.id, "walk": walk, "wait": after.begins - before.ends - walk})
    return out
