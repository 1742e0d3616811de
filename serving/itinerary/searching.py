"""A question about routes, answered: what a person said joins the wishes, the kernel searches, and what it found is put into plain values.

Pure: no clock but the deadline's, no storage. Everything in here may run in a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from configs.domain import Itinerary, Language
from features.itinerary.alternatives import Alternative, alternatives, different
from features.itinerary.objectives import Worth
from features.itinerary.routes import broken_hop
from features.itinerary.search import DEADLINE_S, Routes, Rows
from features.itinerary.wishes import Objective, Wishes
from serving.itinerary.choosing import Chosens
from serving.itinerary.current import Current
from serving.itinerary.fitting import Advice, begun
from serving.itinerary.fitting import kept as usable

_LEFT_OUT: dict[str, dict[Language, str]] = {
    "clash": {
        "en": "tickets that clash with others (bought for several people?) are not counted in: {stops}",
        "ru": "билеты, которые пересекаются с другими (куплены на нескольких?), не учтены: {stops}",
    },
    "yes": {
        "en": "of what you surely want, this could not be counted in, because it clashes, has begun or cannot be had: {stops}",
        "ru": "из того, что вы точно хотите, не удалось учесть (пересекается, уже началось или недоступно): {stops}",
    },
    "counted": {
        "en": "counted in: {bought} of your tickets, {yes} you surely want, {no} you do not want",
        "ru": "учтено: ваших билетов {bought}, точно «да» {yes}, точно «нет» {no}",
    },
}


@dataclass(frozen=True)
class Asked:
    """`k`: how many routes; `diversity`: 0 to 1; `sample`: drawn evenly by `seed` instead of the best."""

    objective: Objective
    wishes: Wishes
    k: int
    diversity: float = 0.0
    sample: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """`routes`: rows of the timetable and the worth of each, None where they were drawn. `within`: how much better than the first shown the
    best may be, where `exact` is false (0.0: the first is the best, and the rest were chosen to differ from it). `clash`: ids of
    must-haves that stand against each other or against a wish; `binding`: wishes of which any one, given up, gives routes; `why`: the same
    in words. `late`: whether time was too short for the best."""

    total: int
    routes: tuple[tuple[Rows, float | None], ...]
    exact: bool = True
    within: float | None = None
    clash: tuple[str, ...] = ()
    binding: tuple[str, ...] = ()
    why: str = ""
    late: bool = False


@dataclass(frozen=True)
class Joined:
    """Wishes with what the person said and what the hour says, and what has to be told of it."""

    wishes: Wishes
    notes: tuple[str, ...]
    advice: Advice

    def told(self, shown: Collection[str]) -> tuple[str, ...]:
        """The notes of an answer that shows these stops."""
        return (*self.notes, *self.advice.notes(shown))


def join(current: Current, words: Itinerary, wishes: Wishes, person: Chosens, now: int, language: Language) -> Joined:
    """What the question itself says wins: a stop that it does not want is not kept, and one that it wants is not left out. `now`:
    microseconds UTC; what has begun by then is left out where the domain wants that and the timetable is not over, but for tickets."""
    timetable = current.timetable
    days = set(timetable.days if wishes.days is None else wishes.days)
    late = words.begun == "left_out" and not timetable.over(now)

    def here(names: frozenset[str]) -> list[int]:
        rows = (timetable.rows[name] for name in names if name not in wishes.must_not)
        return sorted(row for row in rows if timetable.days[timetable.stops[row].day] in days)

    bought = here(person.bought | frozenset(name for name in wishes.bought if name in timetable.rows))
    kept = usable(timetable, bought)
    clashing = [row for row in bought if row not in kept]
    wanted: list[int] = []
    refused: list[int] = []
    required = [*kept, *(timetable.rows[name] for name in wishes.must if name in timetable.rows)]
    for row in here(person.yes):
        if row in required:
            continue
        to_be_had = current.to_be_had(row, wishes.party) if wishes.party is not None else True
        to_be_had = to_be_had and not (late and timetable.stops[row].starts_at <= now)
        if to_be_had and broken_hop(timetable, tuple(sorted([*required, *wanted, row]))) is None:
            wanted.append(row)
        else:
            refused.append(row)
    no = [name for name in sorted(person.no) if name not in (*wishes.must, *wishes.must_not, *wishes.bought)]
    notes = []
    if clashing:
        notes.append(_LEFT_OUT["clash"][language].format(stops=_named(current, clashing)))
    if refused:
        notes.append(_LEFT_OUT["yes"][language].format(stops=_named(current, refused)))
    counted = len(kept), len(wanted), len(no)
    if any(counted):
        notes.append(_LEFT_OUT["counted"][language].format(bought=counted[0], yes=counted[1], no=counted[2]))
    unknown = tuple(name for name in wishes.bought if name not in timetable.rows)
    ids = [stop.id for stop in timetable.stops]
    joined = replace(
        wishes,
        bought=(*(ids[row] for row in kept), *unknown),
        must=tuple(dict.fromkeys((*wishes.must, *(ids[row] for row in wanted)))),
        must_not=tuple(dict.fromkeys((*wishes.must_not, *no))),
        begun=now if late else None,
    )
    passed = begun(current, person, now, {*kept, *refused})
    here_begun = tuple(name for name in passed.begun if timetable.days[timetable.stops[timetable.rows[name]].day] in days)
    return Joined(joined, tuple(notes), Advice(replace(passed, begun=here_begun), current, words, language))


def _named(current: Current, rows: Sequence[int]) -> str:
    return ", ".join(current.timetable.stops[row].title for row in rows[:5]) + (" …" if len(rows) > 5 else "")


def search(current: Current, worth: Worth, asked: Asked, deadline_s: float = DEADLINE_S) -> Outcome:
    """Raises ValueError for wishes that the timetable cannot understand, and for more of them together than can be answered."""
    began = time.monotonic()
    routes = Routes(current.timetable, asked.wishes, current.availability, worth)
    total = routes.count()
    if not total:
        nothing = routes.why_nothing()
        if nothing is not None:
            return Outcome(0, (), clash=nothing.stops, binding=nothing.wishes, why=nothing.message)
    if asked.sample:
        drawn = routes.sample(min(asked.k, total), asked.seed)
        return Outcome(total, tuple((rows, None) for rows in dict.fromkeys(drawn)))
    left_s = max(0.001, deadline_s - (time.monotonic() - began))
    if asked.diversity > 0.0:
        best = different(routes, asked.objective, asked.k, asked.diversity, left_s)
        late = best.within > 0.0
    else:
        best = routes.best(asked.objective, asked.k, left_s)
        late = not best.exact
    within = None if best.exact or not best.routes else best.within
    return Outcome(total, tuple((found.stops, found.value) for found in best.routes), best.exact, within, late=late)


@dataclass(frozen=True)
class Others:
    """What could be taken in place of a route, best first. `value`: of the route itself, by the same objective."""

    value: float | None
    routes: tuple[Alternative, ...]


def others(current: Current, worth: Worth, asked: Asked, route: Rows) -> Others:
    """Routes that keep all but one of a route's stops, under the wishes. Raises ValueError as `search` does."""
    timetable = current.timetable
    found = alternatives(Routes(timetable, asked.wishes, current.availability, worth), route, asked.objective, asked.k)
    ids = tuple(timetable.stops[row].id for row in route)
    rest = tuple(stop.id for stop in timetable.stops if stop.id not in ids)
    bought = tuple(name for name in asked.wishes.bought if name in ids)
    alone = Routes(timetable, Wishes(must=ids, must_not=rest, bought=bought, optional=True), None, worth)
    own = alone.best(asked.objective, 1).routes
    return Others(own[0].value if own else None, tuple(found))


def worth_of(scores: NDArray[np.float64], popular: NDArray[np.float64], favourites: Sequence[int], bonus: float) -> Worth:
    """`scores`, `popular`: (stops,) float64; `favourites`: rows that are worth `bonus` more."""
    mine = scores.copy()
    mine[list(favourites)] += bonus
    return Worth(score=mine, popular=popular)
