"""Which routes people's tickets make, and how the rank of each moved from day to day of the sale. Counts of people only: nobody is named.

On each date a person's tickets for one day make one route, all of their tickets together another one if they are of several days;
with the next ticket the person leaves it for a longer one. Tickets that nobody could use alone (they clash: bought for several people)
make no route; how many such people there are is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.itinerary.chains import clashing
from features.itinerary.timetable import Timetable

#: Stands where a route is of several days.
SEVERAL = -1
_MOST = 50_000  # routes kept, those with most holders

By = Literal["day", "length"]


@dataclass(frozen=True)
class Change:
    """Tickets that a person had from the end of a date on: rows of the timetable, all of them, ascending."""

    date: int  # index into dates
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class BoughtRoutes:
    """`version`: of the timetable. dates: (d,) ISO, local, ascending: those on which tickets were sold. stops: (r,) stop ids of each
    route in the order of time; day: (r,) int32 index into the timetable's days, SEVERAL for a route of several.
    holders: (r, d) int32 people whose tickets make exactly this route at the end of the date. people: (days + 1,) int32 persons with
    tickets for each day, last: for several days, at the end; clashing: (days + 1,) those among them whose tickets clash."""

    version: str
    dates: tuple[str, ...]
    stops: tuple[tuple[str, ...], ...]
    day: NDArray[np.int32]
    holders: NDArray[np.int32]
    people: NDArray[np.int32]
    clashing: NDArray[np.int32]

    @cached_property
    def rows(self) -> Mapping[frozenset[str], int]:
        """The stop ids of a route -> its row."""
        return {frozenset(ids): row for row, ids in enumerate(self.stops)}

    @cached_property
    def length(self) -> NDArray[np.int32]:
        """(r,) int32 stops of each route."""
        return np.array([len(ids) for ids in self.stops], dtype=np.int32)

    def groups(self, by: By) -> NDArray[np.int64]:
        """(r,) what a route is ranked among: those of the same day (of several days: one group), or of the same length, one day or
        several apart."""
        if by == "day":
            return self.day.astype(np.int64)
        return np.asarray(self.length.astype(np.int64) * 2 + (self.day == SEVERAL))

    def ranks(self, by: By) -> NDArray[np.int32]:
        """(r, d) int32: 1 = most holders in its group at the end of the date, equal ones share the better place; 0 = nobody holds it."""
        kept = self._ranks.get(by)
        if kept is None:
            kept = self._ranks[by] = _ranked(self.groups(by), self.holders)
        return kept

    @cached_property
    def _ranks(self) -> dict[By, NDArray[np.int32]]:
        return {}

    def popular(self, by: By, group: int, most: int) -> list[int]:
        """Rows of the routes of a group (see `groups`) that somebody holds now, most holders first, equal ones by their stops."""
        if not self.dates:
            return []
        now = self.holders[:, -1]
        inside = np.flatnonzero((self.groups(by) == group) & (now > 0))
        return sorted((int(row) for row in inside), key=lambda row: (-int(now[row]), self.stops[row]))[:most]

    def history(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        """How a route did at the end of each date, from the first on which somebody held it; empty for one that nobody ever held."""
        row = self.rows.get(frozenset(ids))
        if row is None:
            return []
        first = int(np.argmax(self.holders[row] > 0))
        by_day, by_length = self.ranks("day")[row], self.ranks("length")[row]
        return [
            {
                "date": self.dates[at],
                "holders": int(self.holders[row, at]),
                "rank_of_day": int(by_day[at]) or None,
                "rank_of_length": int(by_length[at]) or None,
            }
            for at in range(first, len(self.dates))
        ]

    def exactly(self, ids: Iterable[str]) -> int:
        """People whose tickets make exactly this route now."""
        row = self.rows.get(frozenset(ids))
        return int(self.holders[row, -1]) if row is not None else 0

    def holding(self, ids: Iterable[str]) -> int:
        """People whose tickets now make a route that holds all of these stops, and perhaps more of the same days."""
        wanted = frozenset(ids)
        if not self.dates or not wanted:
            return 0
        found = [row for row, own in enumerate(self.stops) if wanted <= set(own)]
        days = {int(self.day[row]) for row in found} - {SEVERAL}
        one_day = [row for row in found if self.day[row] != SEVERAL] if days else found
        return int(self.holders[one_day, -1].sum()) if one_day else 0

    def to_json(self) -> dict[str, Any]:
        """Holders as the dates on which their number changed: [[index of the date, holders from then on], ...]."""
        routes = []
        for row, ids in enumerate(self.stops):
            moved = np.flatnonzero(np.diff(self.holders[row], prepend=0))
            holders = [[int(at), int(self.holders[row, at])] for at in moved]
            routes.append({"day": int(self.day[row]), "stops": list(ids), "holders": holders})
        return {
            "version": self.version,
            "dates": list(self.dates),
            "people": self.people.tolist(),
            "clashing": self.clashing.tolist(),
            "routes": routes,
        }

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> BoughtRoutes:
        """What `to_json` wrote. Raises ValueError for what is not of that form."""
        try:
            dates, routes = tuple(str(date) for date in document["dates"]), document["routes"]
            holders = np.zeros((len(routes), len(dates)), dtype=np.int32)
            for row, route in enumerate(routes):
                for at, count in route["holders"]:
                    holders[row, at:] = count
            return cls(
                str(document["version"]),
                dates,
                tuple(tuple(str(stop) for stop in route["stops"]) for route in routes),
                np.array([route["day"] for route in routes], dtype=np.int32),
                holders,
                np.array(document["people"], dtype=np.int32),
                np.array(document["clashing"], dtype=np.int32),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the bought routes are broken: {type(error).__name__}: {error}") from None


def bought_routes(timetable: Timetable, dates: Sequence[str], people: Iterable[Sequence[Change]]) -> BoughtRoutes:
    """`people`: the changes of each person, dates ascending. Rows of stops that are optional have no place in them."""
    moves: dict[tuple[int, tuple[int, ...]], Counter[int]] = {}
    holds, clash = np.zeros(len(timetable.days) + 1, dtype=np.int32), np.zeros(len(timetable.days) + 1, dtype=np.int32)
    for changes in people:
        before: dict[int, tuple[int, ...]] = {}
        for change in changes:
            now = _parted(timetable, change.rows)
            for day in before.keys() | now.keys():
                old, new = before.get(day), now.get(day)
                if old != new:
                    for rows, step in ((old, -1), (new, 1)):
                        if rows is not None and not clashing(timetable, rows):
                            moves.setdefault((day, rows), Counter())[change.date] += step
            before = now
        for day, rows in before.items():
            holds[day] += 1
            clash[day] += bool(clashing(timetable, rows))
    kept = sorted(moves, key=lambda key: (-sum(moves[key].values()), key))[:_MOST]
    kept.sort(key=lambda key: (key[0] == SEVERAL, key))
    steps = np.zeros((len(kept), len(dates)), dtype=np.int32)
    for row, key in enumerate(kept):
        for at, step in moves[key].items():
            steps[row, at] = step
    return BoughtRoutes(
        timetable.version,
        tuple(dates),
        tuple(tuple(timetable.stops[row].id for row in rows) for _, rows in kept),
        np.array([day for day, _ in kept], dtype=np.int32),
        np.cumsum(steps, axis=1, dtype=np.int32),
        holds,
        clash,
    )


def _parted(timetable: Timetable, rows: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """The tickets of each day, and all of them if they are of several."""
    out: dict[int, tuple[int, ...]] = {}
    for row in sorted(rows):
        day = int(timetable.day[row])
        out[day] = (*out.get(day, ()), row)
    if len(out) > 1:
        out[SEVERAL] = tuple(sorted(rows))
    return out


def _ranked(groups: NDArray[np.int64], holders: NDArray[np.int32]) -> NDArray[np.int32]:
    out = np.zeros_like(holders)
    for group in np.unique(groups):
        inside = np.flatnonzero(groups == group)
        for at in range(holders.shape[1]):
            column = holders[inside, at]
            ascending = np.sort(column)
            place = len(column) - np.searchsorted(ascending, column, side="right") + 1
            out[inside, at] = np.where(column > 0, place, 0)
    return out
