"""The timetable as it is at this moment: seats, what is on sale and administrators' labels counted in. Immutable, replaced whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from features.itinerary.timetable import Availability, Stop, Timetable
from serving.storage.seats import UNKNOWN, Label, Seat

RECOMMENDED = "recommended"


@dataclass(frozen=True, eq=False)
class Current:
    """`timetable`: with the labels of `labels`, and otherwise that of the bundle `bundle`. `labels`: (of, target) -> what administrators
    put on it, `taken`: what they took back."""

    bundle: str
    timetable: Timetable
    availability: Availability
    labels: Mapping[tuple[str, str], frozenset[str]]
    taken: Mapping[tuple[str, str], frozenset[str]]
    shown: dict[int, bytes] = field(init=False, repr=False, default_factory=dict)  # row -> the stop as JSON, made once

    @classmethod
    def of(cls, bundle: str, timetable: Timetable, seats: Iterable[Seat], labels: Iterable[Label]) -> Current:
        """`timetable`: as the bundle has it. Seats and labels of what is not in it are left out."""
        put: dict[tuple[str, str], set[str]] = {}
        taken: dict[tuple[str, str], set[str]] = {}
        for said in labels:
            (put if said.present else taken).setdefault((said.of, said.target), set()).add(said.label)
        frozen = ({key: frozenset(words) for key, words in side.items()} for side in (put, taken))
        present, gone = frozen
        labelled = timetable if not present and not gone else _labelled(timetable, present, gone)
        return cls(bundle, labelled, availability(labelled, seats), present, gone)

    def with_seats(self, seats: Iterable[Seat]) -> Current:
        return replace(self, availability=availability(self.timetable, seats))

    # ------------------------------------------------------------ what cannot be had

    @cached_property
    def gone(self) -> frozenset[str]:
        """Ids of stops that are sold out or not on sale: no answer shows them to somebody who has no ticket."""
        return frozenset(stop.id for row, stop in enumerate(self.timetable.stops) if not self.to_be_had(row))

    def to_be_had(self, row: int, party: int = 1) -> bool:
        """Whether so many people can still buy a stop; an unknown number of free seats counts as enough."""
        free = int(self.availability.free[row])
        return bool(self.availability.on_sale[row]) and (free == UNKNOWN or free >= party)

    # ------------------------------------------------------------ who plays what where

    @cached_property
    def by_artist(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> rows of the stops, by name."""
        return self._by(lambda stop: stop.artists)

    @cached_property
    def by_composer(self) -> Mapping[str, tuple[int, ...]]:
        return self._by(lambda stop: stop.composers)

    @cached_property
    def by_hall(self) -> Mapping[str, tuple[int, ...]]:
        """Halls in which nothing takes place are in it too."""
        found = self._by(lambda stop: (self.timetable.halls[stop.hall],))
        return {hall: found.get(hall, ()) for hall in sorted(self.timetable.halls)}

    @cached_property
    def by_work(self) -> Mapping[str, tuple[int, ...]]:
        return self._by(lambda stop: stop.works)

    def _by(self, names: object) -> dict[str, tuple[int, ...]]:
        assert callable(names)
        found: dict[str, list[int]] = {}
        for row, stop in enumerate(self.timetable.stops):
            for name in dict.fromkeys(names(stop)):
                found.setdefault(name, []).append(row)
        return {name: tuple(found[name]) for name in sorted(found)}

    # ------------------------------------------------------------ labels

    def targets(self, of: str, label: str = RECOMMENDED) -> frozenset[str]:
        """What administrators put a label on, of one kind ("route")."""
        return frozenset(target for (kind, target), words in self.labels.items() if kind == of and label in words)


def availability(timetable: Timetable, seats: Iterable[Seat]) -> Availability:
    """Stops that are not named are on sale with an unknown number of free seats."""
    made = Availability.unknown(timetable)
    latest = 0
    for seat in seats:
        latest = max(latest, seat.updated)
        row = timetable.rows.get(seat.item)
        if row is not None:
            made.free[row], made.on_sale[row] = np.int32(seat.free), seat.on_sale
    return replace(made, as_of=latest)


def _labelled(
    timetable: Timetable, put: Mapping[tuple[str, str], frozenset[str]], taken: Mapping[tuple[str, str], frozenset[str]]
) -> Timetable:
    """A label put on an artist, a composer or a work is on every stop with them; one taken from a stop is not on it, wherever it came
    from."""

    def anew(stop: Stop) -> Stop:
        words = dict.fromkeys(stop.labels)
        keys = [("stop", stop.id)]
        for of, names in (("artist", stop.artists), ("composer", stop.composers), ("work", stop.works)):
            keys += [(of, name) for name in names]
        for key in keys:
            words |= dict.fromkeys(sorted(put.get(key, ())))
        back = taken.get(("stop", stop.id), frozenset())
        labels = tuple(word for word in words if word not in back)
        return stop if labels == stop.labels else replace(stop, labels=labels)

    stops = tuple(anew(stop) for stop in timetable.stops)
    return replace(timetable, stops=stops, _kept={})
