"""Whether one person can attend all of these stops, and what else would still fit. A chain is judged by consecutive pairs: end + walk
<= begin, on the same day."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.itinerary.timetable import IMPASSABLE, Timetable


def clashing(timetable: Timetable, rows: Sequence[int], buffer: int = 0) -> list[tuple[int, int]]:
    """Neighbours in time of which the second cannot be reached from the first, as pairs of rows; none: the rows are a route."""
    ordered = sorted(rows)  # stops stand by day and beginning
    return [(one, other) for one, other in pairwise(ordered) if not follows(timetable, one, other, buffer)]


def follows(timetable: Timetable, one: int, other: int, buffer: int = 0) -> bool:
    """Whether `other` can come right after `one`; on another day it always can, if it is a later one."""
    if timetable.day[one] != timetable.day[other]:
        return bool(timetable.day[one] < timetable.day[other])
    walk = int(timetable.walk[timetable.hall[one], timetable.hall[other]])
    return walk != IMPASSABLE and int(timetable.ends[one]) + walk + buffer <= int(timetable.begins[other])


def fitting(timetable: Timetable, rows: Sequence[int], buffer: int = 0) -> NDArray[np.bool_]:
    """(stops,) bool: which could be put into the route `rows` (empty: none yet) so that it stays one; its own are False."""
    ordered = sorted(rows)
    after = _after(timetable, buffer)
    everything = np.arange(len(timetable.stops))
    place = np.searchsorted(ordered, everything)
    fits = ~np.isin(everything, ordered)
    bounded = np.array([*ordered, -1], dtype=np.int64)
    before, behind = bounded[place - 1], bounded[place]
    fits &= (place == 0) | after[before, everything]
    fits &= (place == len(ordered)) | after[everything, behind]
    return np.asarray(fits)


def _after(timetable: Timetable, buffer: int) -> NDArray[np.bool_]:
    """(stops, stops) whether the second can come right after the first; kept with the timetable."""
    kept = timetable._kept.get(("after", buffer))
    if kept is None:
        day, hall = timetable.day, timetable.hall
        walk = timetable.walk[hall[:, None], hall[None, :]]
        reached = (walk != IMPASSABLE) & (timetable.ends[:, None] + walk + buffer <= timetable.begins[None, :])
        kept = np.where(day[:, None] == day[None, :], reached, day[:, None] < day[None, :])
        timetable._kept["after", buffer] = kept
    return np.asarray(kept)
