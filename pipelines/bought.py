"""Tickets, as features hold them -> the routes that they make, day by day of the sale."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from features.itinerary.bought import BoughtRoutes, Change, bought_routes
from features.itinerary.timetable import Timetable
from features.state import Histories, Means
from pipelines.featurize import Features


def bought(features: Features, timetable: Timetable) -> BoughtRoutes:
    """Events that mean "owned" put a stop among a person's tickets, an undo takes the latest back. Where the source has no times there
    are no dates, and nothing to tell."""
    histories = features.histories
    owned = (histories.kinds_of.means[histories.kinds] & np.uint8(Means.OWNED)) != 0
    undone = (histories.kinds_of.means[histories.kinds] & np.uint8(Means.UNDO)) != 0
    kept = histories.where(owned | undone)
    if not kept.timed or not kept.events:
        return bought_routes(timetable, (), ())
    zone = ZoneInfo(timetable.zone)
    days, place = np.unique(_local_days(kept, zone), return_inverse=True)
    dates = [str(np.datetime64(int(day), "D")) for day in days]
    rows = np.array([timetable.rows.get(features.catalogue.ids.id(item), -1) for item in range(len(features.catalogue))], dtype=np.int64)
    return bought_routes(timetable, dates, _people(kept, rows[kept.items], place.ravel(), owned[owned | undone]))


def _local_days(histories: Histories, zone: ZoneInfo) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(events,) days since 1970 by the clock on the wall. The offset is looked up once an hour of the sale."""
    hours, place = np.unique(histories.times // 3_600_000_000, return_inverse=True)
    offsets = [datetime.fromtimestamp(int(hour) * 3_600, UTC).astimezone(zone).utcoffset() for hour in hours]
    shift = np.array([0 if offset is None else int(offset.total_seconds()) for offset in offsets], dtype=np.int64)
    seconds = histories.times // 1_000_000 + shift[place.ravel()]
    return np.asarray(seconds // 86_400, dtype=np.int64)


def _people(
    histories: Histories,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    dates: np.ndarray[tuple[int], np.dtype[np.int64]],
    owned: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> Iterator[list[Change]]:
    """One list a person, a change for each date on which their tickets became others."""
    for user in range(len(histories)):
        part = range(int(histories.indptr[user]), int(histories.indptr[user + 1]))
        had: list[int] = []
        changes: list[Change] = []
        for at in part:
            row = int(rows[at])
            if row < 0:
                continue
            if owned[at]:
                had.append(row)
            elif row in had:
                had.remove(row)
            change = Change(int(dates[at]), tuple(sorted(set(had))))
            if changes and changes[-1].date == change.date:
                changes.pop()
            changes.append(change)
        yield changes
