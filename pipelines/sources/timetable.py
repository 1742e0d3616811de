"""The plain form of any timetable -> the timetable itself, free seats, and the items and events that every domain has.

concerts.csv: concert_id, title, start (ISO 8601 with offset), minutes, hall; and, where they are known, price, genre, tags, artists,
composers, works (lists separated by `;`), programme (the same for repeats of one programme), free (seats left), on_sale.
halls.csv: hall, seats (empty or 0: unknown). transitions.csv: from_hall, to_hall, minutes, in each direction; a missing pair is
impassable. tickets.csv (optional): client_id, concert_id, sold_at, price. off_programme.csv (optional): event_id, title, start,
minutes, hall, price, tags. Each file may also be .csv.gz or .parquet.

A bad row of the halls or the transitions is refused, because all routes hang on it; bad concerts, events and tickets are set aside and
counted, as in every domain.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.domain import Domain, Itinerary
from features.catalogue import CellError
from features.itinerary.timetable import IMPASSABLE, MINUTE_US, Availability, Planned, Timetable
from pipelines.sources import rows
from pipelines.sources.labels import labelled
from pipelines.sources.rows import Row, Sheet
from pipelines.sources.tables import SourceError

_LONGEST_WALK = 600  # minutes
_MOST_SEATS = 1_000_000
_NEEDED = ("title", "start", "minutes", "hall")
_KNOWN = ("price", "genre", "tags", "artists", "composers", "works", "programme", "free", "on_sale")


#: Tickets that a client buys for one stop within so long of the first are one order: the files have a row a ticket, some seconds apart.
_ORDER_US = 10 * MINUTE_US


class Order(NamedTuple):
    """`at`: when its first ticket was sold, microseconds UTC."""

    at: int
    tickets: int


@dataclass(frozen=True)
class Programme:
    """What the plain form says. sold: (client, stop id) -> the first order. sheets: the files whose
    bad rows are set aside, with these rows. open_all_day: ids of events too long to be a stop, which are left out."""

    timetable: Timetable
    availability: Availability
    sold: Mapping[tuple[str, str], Order]
    sheets: Sequence[Sheet]
    open_all_day: Sequence[str]


def read(domain: Domain, folder: Path, as_of: int | None = None) -> Programme:
    """`as_of`: microseconds UTC, free seats are those of that moment (None: now). Raises SourceError naming file, line, value and what
    is allowed; ValueError for a domain without an itinerary."""
    words = domain.itinerary
    if words is None:
        raise ValueError(f"{domain.name} has no section `itinerary`")
    now = time.time_ns() // 1_000
    halls, seats = _halls(folder)
    walk = _walk(folder, halls)
    concerts = Sheet("concerts.csv")
    stops: dict[str, Planned] = {}
    said: dict[str, tuple[int, bool]] = {}  # stop -> free seats as the file says (-1: it does not), on sale

    def concert(row: Row) -> None:
        made = _planned(row, "concert_id", words, halls, stops)
        if made.minutes > words.longest_minutes:
            most = f"a stop lasts at most {words.longest_minutes} (itinerary.longest_minutes)"
            raise CellError(f"minutes: {made.minutes} is not allowed; {most}")
        said[made.id] = rows.whole(row, "free", 0, _MOST_SEATS, -1), rows.truth(row, "on_sale", True)
        stops[made.id] = made

    rows.each(folder, "concerts", ("concert_id", *_NEEDED), _KNOWN, concerts, concert)
    if not stops:
        why = f": line {concerts.bad[0][0]}: {concerts.bad[0][1]}" if concerts.bad else ""
        raise SourceError(f"{concerts.name} has no good row{why}")
    sheets = [concerts]
    longest: list[str] = []
    if rows.exists(folder, "off_programme"):
        events = Sheet("off_programme.csv")

        def event(row: Row) -> None:
            made = _planned(row, "event_id", words, halls, stops)
            if made.minutes > words.longest_minutes:
                longest.append(made.id)
            else:
                stops[made.id] = made

        rows.each(folder, "off_programme", ("event_id", *_NEEDED), ("price", "tags"), events, event)
        sheets.append(events)
    bought: dict[tuple[str, str], list[int]] = {}
    sold: Counter[str] = Counter()
    if rows.exists(folder, "tickets"):
        tickets, latest = Sheet("tickets.csv"), now + domain.source.future_tolerance_s * 1_000_000

        def ticket(row: Row) -> None:
            client, item, when = rows.identity(row, "client_id"), row["concert_id"], rows.moment(row, "sold_at")
            if item not in stops:
                raise CellError(f"concert_id: {item!r} is not in {concerts.name}")
            if when > latest:
                raise CellError(f"sold_at: {row['sold_at']!r} is in the future")
            rows.money(row, "price", words.minor_units)
            bought.setdefault((client, item), []).append(when)
            sold[item] += as_of is None or when <= as_of

        rows.each(folder, "tickets", ("client_id", "concert_id", "sold_at"), ("price",), tickets, ticket)
        sheets.append(tickets)
    timetable = _timetable(words, halls, seats, walk, list(stops.values()))
    availability = _availability(timetable, said, sold, now if as_of is None else as_of, rows.exists(folder, "tickets") is not None)
    orders = {pair: Order(at := min(times), sum(when - at <= _ORDER_US for when in times)) for pair, times in bought.items()}
    return Programme(timetable, availability, orders, sheets, longest)


def _halls(folder: Path) -> tuple[list[str], list[int]]:
    seats: dict[str, int] = {}
    for row, fault in rows.strictly(folder, "halls", ("hall",), ("seats",)):
        try:
            name = rows.identity(row, "hall")
            if name in seats:
                raise CellError(f"hall: {name!r} stands twice")
            seats[name] = rows.whole(row, "seats", 0, _MOST_SEATS, 0)
        except CellError as error:
            raise fault(str(error)) from None
    return list(seats), list(seats.values())


def _walk(folder: Path, halls: Sequence[str]) -> list[list[int]]:
    place = {name: number for number, name in enumerate(halls)}
    walk = [[0 if one == other else IMPASSABLE for other in halls] for one in halls]
    known: set[tuple[str, str]] = set()
    for row, fault in rows.strictly(folder, "transitions", ("from_hall", "to_hall", "minutes"), ()):
        pair = row["from_hall"], row["to_hall"]
        try:
            for column in ("from_hall", "to_hall"):
                _hall(row, column, place)
            minutes = rows.whole(row, "minutes", 0, _LONGEST_WALK)
            if pair in known:
                raise CellError(f"{pair[0]} -> {pair[1]} stands twice")
            if pair[0] == pair[1] and minutes:
                raise CellError(f"minutes: {minutes} from {pair[0]} to itself is not allowed; 0 is")
        except CellError as error:
            raise fault(str(error)) from None
        known.add(pair)
        walk[place[pair[0]]][place[pair[1]]] = minutes
    return walk


def _hall(row: Row, column: str, place: Mapping[str, int] | Sequence[str]) -> str:
    if row[column] not in place:
        raise CellError(f"{column}: {row[column]!r} is not in halls.csv ({', '.join(place)})")
    return row[column]


def _planned(row: Row, column: str, words: Itinerary, halls: Sequence[str], stops: Mapping[str, Planned]) -> Planned:
    """Raises CellError."""
    name, starts = rows.identity(row, column), rows.moment(row, "start")
    if name in stops:
        raise CellError(f"{column}: {name!r} stands twice")
    if starts % MINUTE_US:
        raise CellError(f"start: {row['start']!r} is not allowed; whole minutes are")
    return Planned(
        id=name,
        title=row["title"] or name,
        starts_at=starts,
        minutes=rows.whole(row, "minutes", 1, 1_440),
        hall=halls.index(_hall(row, "hall", halls)),
        price=rows.money(row, "price", words.minor_units),
        genre=row.get("genre") or None,
        tags=rows.listed(row, "tags"),
        artists=rows.listed(row, "artists"),
        composers=rows.listed(row, "composers"),
        works=rows.listed(row, "works"),
        programme=row.get("programme") or None,
        optional=column == "event_id",
    )


def _timetable(
    words: Itinerary, halls: Sequence[str], seats: Sequence[int], walk: Sequence[Sequence[int]], planned: Sequence[Planned]
) -> Timetable:
    """With the labels that the words ask for; which day a stop belongs to has to be known first. Raises SourceError."""
    try:
        bare = Timetable.build(words.zone, words.day_begins * 60, halls, seats, walk, planned)
        return Timetable.build(words.zone, words.day_begins * 60, halls, seats, walk, labelled(words.labels, bare))
    except ValueError as error:
        raise SourceError(f"concerts.csv, off_programme.csv: {error}") from error


def _availability(
    timetable: Timetable, said: Mapping[str, tuple[int, bool]], sold: Mapping[str, int], as_of: int, counted: bool
) -> Availability:
    """Free seats as the file says, else those of the hall less the tickets sold, if both are known. An event beside the programme has no
    tickets: its seats are unknown."""
    made = Availability.unknown(timetable, as_of)
    for row, stop in enumerate(timetable.stops):
        free, on_sale = said.get(stop.id, (-1, True))
        seats = int(timetable.seats[stop.hall])
        if free < 0 and seats and counted and not stop.optional:
            free = max(0, seats - sold.get(stop.id, 0))
        made.free[row], made.on_sale[row] = free, on_sale
    return Availability(made.free.astype(np.int32), made.on_sale, as_of)
