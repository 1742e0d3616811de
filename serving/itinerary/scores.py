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


def stop_scores(engine: Engine, state: UserState, now: int, timetable: Timetable, user: str | None = None) -> NDArray[np.float64]:
    """(stops,) float64 in [0, 1]. 1 for what the person has bought (it needs no recommendation), 0 for what they refused, for what is not
    in the catalogue (events beside the programme), and for what cannot be had. `now`: microseconds UTC."""
    scores = engine.scores(Question(state, len(engine.catalogue), now, user=user))
    rows = np.array([row if (row := engine.catalogue.row(stop.id)) is not None else -1 for stop in timetable.stops], dtype=np.int64)
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
    rows = [engine.catalogue.row(stop.id) for stop in timetable.stops]
    found = np.array([0.0 if row is None else takers[row] for row in rows])
    return found / max(1.0, float(found.max(initial=0.0)))


class Scores:
    """Keeps the scores of those who ask: they are as of the engine, what the person did, and the minute. Any thread may ask. Arrays are
    (stops,) float64, read-only. `state`: None for somebody of whom nothing is known."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str | None, _Kept] = OrderedDict()
        self._changing = threading.Lock()

    def kept(self, engine: Engine, user: str | None, state: UserState | None, now: int, timetable: Timetable) -> NDArray[np.float64] | None:
        """None where there are none that are still good."""
        with self._changing:
            kept = self._kept.get(None if state is None else user)
        return kept.scores if kept is not None and kept.fits(engine, _did(state), timetable.version, now) else None

    def make(self, engine: Engine, user: str | None, state: UserState | None, now: int, timetable: Timetable) -> NDArray[np.float64]:
        """Asks the engine: milliseconds."""
        name = None if state is None else user
        made = stop_scores(engine, UserState.empty(engine.kinds) if state is None else state, now, timetable, name)
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
