"""What makes a route good, in formulas. Sums run over the concerts of the route unless said otherwise; off-programme stops count where
said.

Additive (exact and fast under any mix of wishes):
- score: sum of the person's score of each stop; popular: sum of what was bought of each; editors: sum of the editors' points of each.
- music: minutes of the concerts.
- cheapest: least money still to be spent; among equals most music. least_walking: fewest minutes on foot; among equals most music.
- comfort = music - 2 walking - waiting - 5 changes of hall, in minutes: a minute on foot costs two of music, one of waiting one, and every
  other hall five. (The portrait's `comfort` is the same as a share: music / (music + 2 walking + waiting + 5 changes).)

Not additive (a concert's worth depends on the others), bounded from above by a sum:
- composers: how many different ones.
- depth = sum of rarity(c) over the different composers + half a point for each concert that the editors recommend;
  rarity(c) = 1 - (concerts of c - 1) / (concerts of the most played composer - 1): 1 for who is played once, 0 for who is played most.
- balance = min(comfort / C, depth / D), C and D the largest of all routes of the timetable without any wish (D: of its bound, which counts
  a composer at each concert). Since min(a, b) <= w a + (1 - w) b for every w in [0, 1], it is bounded by a sum too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.itinerary.hops import I64
from features.itinerary.limits import Weights
from features.itinerary.timetable import Timetable
from features.itinerary.wishes import Objective

#: Weights are whole numbers: so many are one point.
POINT = 2**20
#: What the first of two aims outweighs the second by: more than the minutes of any itinerary.
FIRST_AIM = 2**17
WALK_COST, WAIT_COST, CHANGE_COST = 2, 1, 5
RECOMMENDED_POINTS = 0.5
#: Labels by which editors recommend, where no points are given.
EDITORS_LABELS = ("recommended", "main")
COVERING = (Objective.COMPOSERS, Objective.DEPTH, Objective.BALANCE)

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Worth:
    """(stops,) float64 each, what only others can know: score of this person, popularity, points of the editors (None: one for each of the
    labels `recommended` and `main`). Raises ValueError on use if one is needed and missing, not finite or beyond a million."""

    score: F64 | None = None
    popular: F64 | None = None
    editors: F64 | None = None


@dataclass(frozen=True, eq=False)
class Covering:
    """Different composers count once. of_stop: (stops, composers) bool; points: (composers,) int64; gain: (stops,) int64, additive."""

    of_stop: NDArray[np.bool_]
    points: I64
    gain: I64

    def bound(self) -> I64:
        """(stops,) int64: what a concert is worth at most."""
        return self.gain + self.of_stop.astype(np.int64) @ self.points


def additive(objective: Objective, timetable: Timetable, worth: Worth, price: I64) -> Weights:
    """Weights of an additive objective. price: (stops,) int64, what a stop still costs."""
    none = np.zeros(64, dtype=np.int64)
    music = music_minutes(timetable)
    match objective:
        case Objective.SCORE:
            return Weights(_points("score", worth.score, timetable), 0, 0, 0, none)
        case Objective.POPULAR:
            return Weights(_points("popular", worth.popular, timetable), 0, 0, 0, none)
        case Objective.EDITORS:
            return Weights(_points("editors", editors_points(timetable, worth), timetable), 0, 0, 0, none)
        case Objective.MUSIC:
            return Weights(music, 0, 0, 0, none)
        case Objective.CHEAPEST:
            return Weights(music - price * FIRST_AIM, 0, 0, 0, none)
        case Objective.LEAST_WALKING:
            return Weights(music, -FIRST_AIM, 0, 0, none)
        case Objective.COMFORT:
            return Weights(music, -WALK_COST, -WAIT_COST, -CHANGE_COST, none)
        case _:
            raise ValueError(f"{objective} is not a sum over stops")


def shown(objective: Objective, weight: int) -> float:
    """The value that people are shown, in the objective's own unit (minor units, minutes, points), of a route's whole weight."""
    match objective:
        case Objective.CHEAPEST | Objective.LEAST_WALKING:
            return float(-(weight // FIRST_AIM))
        case Objective.MUSIC | Objective.COMFORT:
            return float(weight)
        case _:
            return weight / POINT


def covering(objective: Objective, timetable: Timetable, worth: Worth) -> Covering:
    """The part of `composers` and `depth` (which is also that of `balance`) that counts once."""
    names, of_stop = composers(timetable)
    if objective is Objective.COMPOSERS:
        return Covering(of_stop, np.full(len(names), POINT, dtype=np.int64), np.zeros(len(of_stop), dtype=np.int64))
    recommended = (editors_points(timetable, worth) > 0) & ~timetable.optional
    gain = np.where(recommended, int(RECOMMENDED_POINTS * POINT), 0).astype(np.int64)
    return Covering(of_stop, np.rint(rarity(timetable) * POINT).astype(np.int64), gain)


def music_minutes(timetable: Timetable) -> I64:
    """(stops,) int64 minutes of each concert, 0 off the programme."""
    return np.where(timetable.optional, 0, timetable.ends - timetable.begins).astype(np.int64)


def editors_points(timetable: Timetable, worth: Worth) -> F64:
    """(stops,) float64: what was given, else one for each of EDITORS_LABELS."""
    if worth.editors is not None:
        return worth.editors
    kept: dict[Any, Any] = timetable._kept
    if "editors" not in kept:
        kept["editors"] = np.array([sum(label in EDITORS_LABELS for label in stop.labels) for stop in timetable.stops], dtype=np.float64)
    return kept["editors"]  # type: ignore[no-any-return]


def composers(timetable: Timetable) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Names, sorted, and (stops, composers) bool: who is played at which concert."""
    kept: dict[Any, Any] = timetable._kept
    if "composers" not in kept:
        names = tuple(sorted({name for stop in timetable.stops if not stop.optional for name in stop.composers}))
        column = {name: number for number, name in enumerate(names)}
        of_stop = np.zeros((len(timetable.stops), len(names)), dtype=np.bool_)
        for row, stop in enumerate(timetable.stops):
            if not stop.optional:
                of_stop[row, [column[name] for name in stop.composers]] = True
        kept["composers"] = names, of_stop
    return kept["composers"]  # type: ignore[no-any-return]


def rarity(timetable: Timetable) -> F64:
    """(composers,) float64 in [0, 1]: 1 for who is played at one concert, 0 for who is played at most of them."""
    kept: dict[Any, Any] = timetable._kept
    if "rarity" not in kept:
        played = composers(timetable)[1].sum(axis=0)
        most = int(played.max(initial=1))
        kept["rarity"] = np.ones(len(played)) if most == 1 else np.asarray(1.0 - (played - 1) / (most - 1), dtype=np.float64)
    return kept["rarity"]  # type: ignore[no-any-return]


def _points(name: str, values: F64 | None, timetable: Timetable) -> I64:
    if values is None:
        raise ValueError(f"the objective {name!r} needs a value for every stop, and none is known here")
    if values.shape != (len(timetable.stops),) or not np.isfinite(values).all() or np.abs(values).max(initial=0) > 1e6:
        raise ValueError(f"the objective {name!r} needs {len(timetable.stops)} finite values of at most a million, found {values.shape}")
    return np.rint(values * POINT).astype(np.int64)
