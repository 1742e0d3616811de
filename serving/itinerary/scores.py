"""What each stop of a timetable is worth to a person: the ranking of the engine that also answers recommendations, on a scale whose sum
over a route means something.

A ranker's scores are known up to a shift: their sum would say nothing of routes of different lengths. So they are told by how many standard
deviations they lie above the middle of this person's, and squeezed by the logistic function: 0 to 1, 0.5 for a stop like any other. The
order of stops stays the engine's.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.itinerary.timetable import Timetable
from features.state import UserState
from serving.engine import Engine
from serving.slate import Question

FAVOURITE = 0.5  # what a person's favourite is worth above its score
_FRESH_US = 60_000_000  # a score is as of a moment; it changes slowly
_MOST = 2_000  # people whose scores are kept


def places(engine: Engine, timetable: Timetable) -> NDArray[np.int64]:
    """(stops,) int64 row of each in the engine's catalogue, -1 for what is not in it (events beside the programme)."""
    rows = (engine.catalogue.row(stop.id) for stop in timetable.stops)
    return np.array([-1 if row is None else row for row in rows], dtype=np.int64)


def stop_scores(
    engine: Engine, state: UserState, now: int, timetable: Timetable, user: str | None = None, rows: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """(stops,) float64 in [0, 1]. 1 for what the person has bought (it needs no recommendation), 0 for what they refused, for what is not
    in the catalogue, and for what cannot be had. `now`: microseconds UTC; `rows`: their `places`, where somebody has them."""
    scores = engine.scores(Question(state, len(engine.catalogue), now, user=user))
    if rows is None:
        rows = places(engine, timetable)
    worth = np.where(rows >= 0, scores[rows], np.nan)
    known, out = np.isfinite(worth), on_scale(worth)
    bought = np.isin(rows, state.positives) & np.isin(rows, state.excluded) & ~known
    out[bought] = 1.0
    return out


def on_scale(worth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Any scores of one person, NaN where there is none -> the same order in [0, 1], 0.0 where there was none."""
    known = np.isfinite(worth)
    out = np.zeros(len(worth))
    if known.any():
        spread = float(worth[known].std())
        out[known] = 1.0 / (1.0 + np.exp(-(worth[known] - worth[known].mean()) / spread)) if spread > 0 else 0.5
    return out


def stop_popularity(engine: Engine, timetable: Timetable) -> NDArray[np.float64]:
    """(stops,) float64 in [0, 1]: how many people took each, by the most taken."""
    takers = engine.bundle.statistics.for_items(len(engine.catalogue)).takers.astype(np.float64)
    rows = places(engine, timetable)
    found = np.where(rows >= 0, takers[rows], 0.0)
    return found / max(1.0, float(found.max(initial=0.0)))


class Scores:
    """Keeps the scores of those who ask: they are as of the engine, what the person did, and the minute. Any thread may ask. Arrays are
    (stops,) float64, read-only. `state`: None for somebody of whom nothing is known."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str | None, _Kept] = OrderedDict()
        self._changing = threading.Lock()
        self._places: tuple[Engine, str, NDArray[np.int64]] | None = None  # of the engine and the timetable that were asked about last

    def kept(self, engine: Engine, user: str | None, state: UserState | None, now: int, timetable: Timetable) -> NDArray[np.float64] | None:
        """None where there are none that are still good."""
        with self._changing:
            kept = self._kept.get(None if state is None else user)
        return kept.scores if kept is not None and kept.fits(engine, _did(state), timetable.version, now) else None

    def make(self, engine: Engine, user: str | None, state: UserState | None, now: int, timetable: Timetable) -> NDArray[np.float64]:
        """Asks the engine: milliseconds."""
        name = None if state is None else user
        known = self._places
        if known is None or known[0] is not engine or known[1] != timetable.version:
            known = self._places = (engine, timetable.version, places(engine, timetable))
        made = stop_scores(engine, UserState.empty(engine.kinds) if state is None else state, now, timetable, name, known[2])
        made.flags.writeable = False
        with self._changing:
            self._kept[name] = _Kept(engine, _did(state), timetable.version, now, made)
            self._kept.move_to_end(name)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return made


def _did(state: UserState | None) -> bytes:
    return b"" if state is None else state.items.tobytes() + state.kinds.tobytes() + state.times.tobytes()


@dataclass(frozen=True)
class _Kept:
    engine: Engine
    did: bytes
    timetable: str
    at: int
    scores: NDArray[np.float64]

    def fits(self, engine: Engine, did: bytes, timetable: str, now: int) -> bool:
        return self.engine is engine and self.did == did and self.timetable == timetable and now - self.at < _FRESH_US
