"""The labels of the YAML -> the labels of each stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from configs.domain import Label
from features.itinerary.timetable import Planned, Stop, Timetable


def labelled(labels: Mapping[str, Label], timetable: Timetable) -> list[Planned]:
    """The stops of a timetable with the labels that they earn, in the order of the YAML (what labels they had is gone)."""
    earned: dict[str, list[str]] = {stop.id: [] for stop in timetable.stops}
    for name, label in labels.items():
        tags = {tag.casefold() for tag in label.tags}
        titles = [part.casefold() for part in label.titles]
        by_rule = _by_rule(label, timetable)
        for stop in timetable.stops:
            title = stop.title.casefold()
            if stop.id in by_rule or tags & {tag.casefold() for tag in stop.tags} or any(part in title for part in titles):
                earned[stop.id].append(name)
    fields = Planned.__dataclass_fields__
    return [replace(Planned(**{name: getattr(stop, name) for name in fields}), labels=tuple(earned[stop.id])) for stop in timetable.stops]


def _by_rule(label: Label, timetable: Timetable) -> set[str]:
    concerts = [stop for stop in timetable.stops if not stop.optional]
    match label.rule:
        case None:
            return set()
        case "repeat":
            played = Counter(stop.programme for stop in concerts if stop.programme)
            return {stop.id for stop in concerts if stop.programme and played[stop.programme] > 1}
        case "main":
            days = {stop.day for stop in concerts}
            return {max((stop for stop in concerts if stop.day == day), key=lambda stop: _weight(stop, timetable)).id for day in days}
        case _:
            assert_never(label.rule)


def _weight(stop: Stop, timetable: Timetable) -> tuple[int, int, int, int, str]:
    """What makes a concert the day's main one: the most seats, then the highest price, then the longest, then the latest."""
    return int(timetable.seats[stop.hall]), stop.price or 0, stop.minutes, stop.begins, stop.id
