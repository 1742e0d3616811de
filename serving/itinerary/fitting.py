"""Which stops are no use to somebody: those that do not fit beside what they hold, and those that have begun. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from configs.domain import Itinerary, Language
from features.itinerary.chains import fitting
from features.itinerary.routes import broken_hop
from features.itinerary.timetable import Timetable
from serving.itinerary.choosing import Chosens
from serving.itinerary.current import Current
from serving.itinerary.telling import counted

_NAMED = 3
AWAY: dict[Language, str] = {
    "en": "what this person chose could not be read: the database is away",
    "ru": "выбор этого человека прочитать не удалось: база данных недоступна",
}
_SAID: dict[str, dict[Language, str]] = {
    "clashing left_out": {
        "en": "left out, because of your tickets or what you surely want there would be no time for it: {stops}",
        "ru": "не показано, потому что не успеть рядом с вашими билетами или тем, что вы точно хотите: {stops}",
    },
    "clashing marked": {
        "en": "beside your tickets or what you surely want there would be no time for this: {stops}",
        "ru": "рядом с вашими билетами или тем, что вы точно хотите, на это не будет времени: {stops}",
    },
    "begun left_out": {"en": "left out, because it has begun: {stops}", "ru": "не показано, потому что уже началось: {stops}"},
    "begun marked": {"en": "this has begun already: {stops}", "ru": "это уже началось: {stops}"},
    "over": {
        "en": "everything in this timetable has begun already; it is shown as it was",
        "ru": "всё в этом расписании уже началось; оно показано как было",
    },
}


@dataclass(frozen=True)
class Unfit:
    """Ids of stops, in the order of time. `clashing`: of those that have not begun. `over`: everything has begun; then `begun` is empty."""

    clashing: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    over: bool = False


@dataclass(frozen=True)
class Advice:
    """What is no use to somebody, in the words of the domain. `away`: what they chose could not be read."""

    unfit: Unfit
    current: Current
    words: Itinerary
    language: Language
    away: bool = False

    @property
    def left_out(self) -> tuple[str, ...]:
        """Ids of what the domain wants not to be recommended."""
        clashing = self.unfit.clashing if self.words.clashing == "left_out" else ()
        return (*clashing, *(self.unfit.begun if self.words.begun == "left_out" else ()))

    def notes(self, shown: Collection[str]) -> tuple[str, ...]:
        """What the person is told. `shown`: ids of the answer; of these a mark is told, and none of them was left out."""
        said = []
        for what, stops, wanted in (("clashing", self.unfit.clashing, self.words.clashing), ("begun", self.unfit.begun, self.words.begun)):
            about = tuple(stop for stop in stops if (stop in shown) == (wanted == "marked"))
            if about:
                named = _named(self.current, self.words, about, self.language)
                said.append(_SAID[f"{what} {wanted}"][self.language].format(stops=named))
        if self.unfit.over:
            said.append(_SAID["over"][self.language])
        return (*said, *([AWAY[self.language]] if self.away else []))


def unfit(current: Current, words: Itinerary, person: Chosens, now: int) -> Unfit:
    """`now`: microseconds UTC. What cannot be had, what the person holds and what they do not want is in neither list."""
    timetable = current.timetable
    held = holds(timetable, person)
    passed = begun(current, person, now, held)
    if not held:
        return passed
    closed = ~fitting(timetable, held, words.buffer_minutes) & (passed.over | (timetable.starts_at > now))
    return replace(passed, clashing=_of_use(current, person, held, np.flatnonzero(closed)))


def begun(current: Current, person: Chosens, now: int, held: Collection[int] = ()) -> Unfit:
    """What of it only has to do with the clock. `held`: rows of which nothing has to be said."""
    if current.timetable.over(now):
        return Unfit(over=True)
    return Unfit(begun=_of_use(current, person, held, np.flatnonzero(current.timetable.starts_at <= now)))


def _of_use(current: Current, person: Chosens, held: Collection[int], rows: Iterable[int]) -> tuple[str, ...]:
    """Ids of those that could be offered but for the reason that they are looked at."""
    stops = current.timetable.stops
    apart = current.gone | person.bought | person.no
    return tuple(stops[row].id for row in rows if not stops[row].optional and stops[row].id not in apart and row not in held)


def holds(timetable: Timetable, person: Chosens) -> list[int]:
    """Rows of the route that a person will surely walk, ascending: their tickets, without those that clash with an earlier one (bought for
    several people), and what they surely want, as far as it fits beside them."""
    held = kept(timetable, sorted(timetable.rows[name] for name in person.bought))
    for row in sorted(timetable.rows[name] for name in person.yes - person.bought):
        wider = sorted([*held, row])
        if broken_hop(timetable, tuple(wider)) is None:
            held = wider
    return held


def kept(timetable: Timetable, tickets: Sequence[int]) -> list[int]:
    """Of tickets (rows, ascending) those that one person can use: each that can be reached from the one before."""
    out: list[int] = []
    for row in tickets:
        if not out or broken_hop(timetable, (out[-1], row)) is None:
            out.append(row)
    return out


def _named(current: Current, words: Itinerary, stops: Sequence[str], language: Language) -> str:
    """ "3 concerts: «A», «B», «C»"; of many the first few."""
    timetable = current.timetable
    titles = ", ".join(f"«{timetable.stops[timetable.rows[stop]].title}»" for stop in stops[:_NAMED])
    more = f" (+{len(stops) - _NAMED})" if len(stops) > _NAMED else ""
    return f"{counted(len(stops), words, 'stop', language)}: {titles}{more}"
