"""What somebody wants of a route: every filter there is, and what is to be made as large as possible. Checked against the timetable."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum

from features.itinerary.timetable import Timetable


class Objective(StrEnum):
    """What the best route has most of. Additive ones are exact under any mix of wishes; DEPTH, BALANCE and COMPOSERS are exact where that
    ends in time, else the answer says how far from the best it can be. features/itinerary/objectives.py holds the formulas."""

    SCORE = "score"
    DEPTH = "depth"
    COMFORT = "comfort"
    BALANCE = "balance"
    COMPOSERS = "composers"
    MUSIC = "music"
    CHEAPEST = "cheapest"
    LEAST_WALKING = "least_walking"
    POPULAR = "popular"
    EDITORS = "editors"


@dataclass(frozen=True)
class Words:
    """only: a concert that has none of these is left out; some: the route has at least one concert with at least one of these;
    none: a concert that has one of these is left out. Empty = not asked."""

    only: tuple[str, ...] = ()
    some: tuple[str, ...] = ()
    none: tuple[str, ...] = ()


@dataclass(frozen=True)
class Meal:
    """At least `minutes` in one place, free of concerts and of walking, between two local clock times (minutes after midnight), on every
    day that has a concert. Time before the day's first and after its last stop is free too."""

    minutes: int
    earliest: int
    latest: int


@dataclass(frozen=True)
class Wishes:
    """All filters at once; the default asks for nothing. A route must fulfil every one.

    days: ISO dates, None = all; every_day: none of them may stay empty. must, must_not, bought: stop ids; a bought stop is kept whatever
    its seats, and is paid already: it does not count against price_limit. halls ... labels: see Words. price_limit: minor units for one
    person over all days; an unknown price counts as nothing. walking_*, waiting_*: minutes at most, per day and per hop (the way from a
    stop to the next; waiting is the gap less the walk). fewest, most: concerts on each day that has any. party: so many seats must be free
    (unknown counts as free) and the concert on sale; None = seats are not looked at. arrival: nothing that begins before this local
    clock time; leaving: nothing that ends after it (minutes after midnight; times before the itinerary's day begins are those of
    the night). buffer: minutes to spare at every hop. longest_gap: minutes between end and next begin at most. maximal: only
    chains of a day into which no concert that these wishes allow fits any more. optional: off-programme stops may be visited. begun: an
    instant (microseconds UTC); nothing that begins then or earlier, but for what is bought: who has a ticket may be sitting in it.
    """

    days: tuple[str, ...] | None = None
    every_day: bool = False
    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()
    bought: tuple[str, ...] = ()
    halls: Words = Words()
    artists: Words = Words()
    composers: Words = Words()
    genres: Words = Words()
    labels: Words = Words()
    tags: Words = Words()
    price_limit: int | None = None
    walking_a_day: int | None = None
    walking_a_hop: int | None = None
    waiting_a_day: int | None = None
    waiting_a_hop: int | None = None
    fewest: int | None = None
    most: int | None = None
    meal: Meal | None = None
    no_programme_twice: bool = False
    party: int | None = None
    arrival: int | None = None
    leaving: int | None = None
    buffer: int = 0
    longest_gap: int | None = None
    maximal: bool = False
    optional: bool = False
    begun: int | None = None

    def check(self, timetable: Timetable) -> None:
        """Raises ValueError that names the value, where it stands and what is allowed (of names the nearest)."""
        for name in ("price_limit", "walking_a_day", "walking_a_hop", "waiting_a_day", "waiting_a_hop", "buffer", "longest_gap"):
            _whole(name, getattr(self, name), 0)
        for name in ("fewest", "most", "party"):
            _whole(name, getattr(self, name), 1)
        for name in ("arrival", "leaving"):
            _clock(name, getattr(self, name))
        if self.begun is not None and not 0 <= self.begun < 2**62:
            raise ValueError(f"begun is {self.begun!r}: microseconds since 1970, UTC, are allowed")
        if self.fewest is not None and self.most is not None and self.fewest > self.most:
            raise ValueError(f"fewest is {self.fewest} and most is {self.most}: fewest may not be more than most")
        if self.meal is not None:
            _whole("meal.minutes", self.meal.minutes, 1)
            _clock("meal.earliest", self.meal.earliest)
            _clock("meal.latest", self.meal.latest)
        allowed = vocabulary(timetable)
        for name in ("must", "must_not", "bought"):
            _known(name, getattr(self, name), timetable.rows, "stop")
        _known("days", self.days or (), timetable.days, "day")
        for name, singular in WORDS.items():
            words: Words = getattr(self, name)
            for place in fields(Words):
                _known(f"{name}.{place.name}", getattr(words, place.name), allowed[name], singular)


#: Fields of Wishes that hold Words, and what one of them is called in a message.
WORDS = {"halls": "hall", "artists": "artist", "composers": "composer", "genres": "genre", "labels": "label", "tags": "tag"}


def vocabulary(timetable: Timetable) -> dict[str, tuple[str, ...]]:
    """Every value that Words may name, by field, sorted."""
    kept = timetable._kept.get("vocabulary")
    if kept is None:
        stops = timetable.stops
        kept = {
            "halls": tuple(sorted(timetable.halls)),
            "artists": tuple(sorted({value for stop in stops for value in stop.artists})),
            "composers": tuple(sorted({value for stop in stops for value in stop.composers})),
            "genres": tuple(sorted({stop.genre for stop in stops if stop.genre is not None})),
            "labels": tuple(sorted({value for stop in stops for value in stop.labels})),
            "tags": tuple(sorted({value for stop in stops for value in stop.tags})),
        }
        timetable._kept["vocabulary"] = kept
    return dict(kept)


def _whole(name: str, value: int | None, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least or value >= 2**40):
        raise ValueError(f"{name} is {value!r}: a whole number of {least} or more is allowed")


def _clock(name: str, value: int | None) -> None:
    if value is not None and not 0 <= value < 1_440:
        raise ValueError(f"{name} is {value!r}: minutes after midnight, 0 to 1439, are allowed")


def _known(name: str, values: Iterable[str], allowed: Iterable[str], what: str) -> None:
    known = allowed if isinstance(allowed, dict | set) else set(allowed)
    for value in values:
        if value not in known:
            raise ValueError(f"{name}: there is no {what} {value!r}; {_nearest(value, sorted(known))}")


def _nearest(value: str, known: list[str]) -> str:
    if not known:
        return "this timetable has none"
    near = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
    if not near:
        near = [name for name in known if value.casefold() in name.casefold()][:3]
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    shown = ", ".join(repr(name) for name in known[:8])
    return f"allowed: {shown}" + (f" and {len(known) - 8} more" if len(known) > 8 else "")
