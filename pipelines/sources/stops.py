"""A timetable's stops and tickets -> the items and events that pipelines/sources/tables.py reads. A file whose content did not change is
left alone, so that a change of free seats alone trains nothing again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from features.itinerary.timetable import Stop, Timetable
from pipelines.sources.timetable import Programme
from pipelines.steps import atomic

ITEMS, EVENTS = "items.csv", "events.csv"
_LISTS = ("artists", "composers", "works", "tags", "labels")
_HEADING = ("item_id", "title", "genre", "hall", "day", "programme", *_LISTS, "hour", "minutes", "price", "seats")


def write(programme: Programme, minor: int, directory: Path) -> None:
    """items.csv: every concert (what stands beside the programme is no item), the price in units of the currency, `hour` the hours from
    midnight of its festival day (25.5 is half past one in the night after), `seats` of its hall, empty where they are not known.
    events.csv: user_id, item_id, time, quantity: a client's first order for a concert and how many tickets it was for; what they
    order later is company, not taste."""
    timetable = programme.timetable
    concerts = [stop for stop in timetable.stops if not stop.optional]
    items = (_cells(stop, timetable, minor) for stop in concerts)
    _write(directory / ITEMS, _HEADING, items)
    beside = {stop.id for stop in timetable.stops if stop.optional}
    sold = sorted((order.at, client, item, order.tickets) for (client, item), order in programme.sold.items() if item not in beside)
    orders = ((client, item, _iso(when), str(tickets)) for when, client, item, tickets in sold)
    _write(directory / EVENTS, ("user_id", "item_id", "time", "quantity"), orders)


def _cells(stop: Stop, timetable: Timetable, minor: int) -> list[str]:
    hour = (timetable.day_begins + stop.begins) / 60
    lists = (stop.artists, stop.composers, stop.works, stop.tags, stop.labels)
    plain = [stop.id, stop.title, stop.genre or "", timetable.halls[stop.hall], timetable.days[stop.day], stop.programme or ""]
    price = "" if stop.price is None else f"{stop.price / minor:g}"
    return [*plain, *(";".join(words) for words in lists), f"{hour:g}", str(stop.minutes), price, str(timetable.seats[stop.hall] or "")]


def _iso(moment: int) -> str:
    return datetime.fromtimestamp(moment // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{moment % 1_000_000:06d}Z"


def _write(path: Path, heading: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    data = out.getvalue().encode()
    if not path.is_file() or path.read_bytes() != data:
        with atomic(path) as temporary:
            temporary.write_bytes(data)
