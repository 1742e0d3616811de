"""The plain form of a timetable: what it becomes, and what is refused or set aside, with file, line, value and what is allowed."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.catalogue import CellError
from features.itinerary.timetable import IMPASSABLE
from pipelines.ingest import AVAILABILITY, IngestRefused, ingest
from pipelines.quarantine import quarantined
from pipelines.sources import prepare, rows
from pipelines.sources.tables import SourceError
from pipelines.sources.timetable import Programme, read
from tests.pipelines.programme import FILES, domain, folder, with_line
from tests.pipelines.small_run import SILENT
from training.bundle import TIMETABLE


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1e6)


def programme(directory: Path, as_of: str | None = None, **changed: str | None) -> Programme:
    renamed = {f"{name}.csv": text for name, text in changed.items()}
    return read(domain(), folder(directory, renamed), us(as_of) if as_of else None)


def test_what_the_plain_form_says(tmp_path: Path) -> None:
    said = programme(tmp_path)
    table = said.timetable
    assert (table.halls, table.seats.tolist()) == (("Big", "Small"), [10, 0])
    assert table.walk.tolist() == [[0, 7], [IMPASSABLE, 0]]
    assert table.days == ("2025-07-04", "2025-07-05")
    assert [(stop.id, stop.day, stop.begins, stop.ends) for stop in table.stops] == [
        ("a", 0, 7 * 60, 7 * 60 + 45),
        ("b", 0, 7 * 60 + 52, 8 * 60 + 37),
        ("e", 0, 9 * 60, 9 * 60 + 30),
        ("c", 1, 18 * 60 + 30, 19 * 60 + 30),  # half past midnight by the clock: still the day before
    ]
    first = table.stops[0]
    assert (first.price, first.genre, first.tags, first.composers) == (20_050, "Choir", ("star", "Brass"), ("Bach", "Liszt"))
    assert (table.stops[1].price, table.stops[1].genre, table.stops[1].programme) == (None, None, None)
    assert [stop.optional for stop in table.stops] == [False, False, True, False]
    assert said.open_all_day == ["desk"]
    assert not any(sheet.bad for sheet in said.sheets)


def test_labels_by_tag_title_and_rule(tmp_path: Path) -> None:
    labels = {stop.id: stop.labels for stop in programme(tmp_path).timetable.stops}
    assert labels == {"a": ("star", "main", "repeat"), "b": ("children",), "c": ("main", "repeat"), "e": ("recommended",)}


def test_the_main_concert_has_the_most_seats_then_the_highest_price(tmp_path: Path) -> None:
    text = FILES["concerts.csv"] + "d,Late,2025-07-04T20:00:00+05:00,45,Big,900,,,,,,\n"
    stops = programme(tmp_path, concerts=text).timetable.stops
    assert [stop.id for stop in stops if "main" in stop.labels] == ["d", "c"]


def test_free_seats_are_those_of_a_moment(tmp_path: Path) -> None:
    def free(as_of: str | None) -> dict[str, int]:
        said = programme(tmp_path, as_of)
        return {stop.id: int(said.availability.free[row]) for row, stop in enumerate(said.timetable.stops)}

    assert free(None) == {"a": 8, "b": -1, "c": 9, "e": -1}  # of the small hall nobody knows the seats
    assert free("2025-05-01T11:59:59+05:00") == {"a": 9, "b": -1, "c": 10, "e": -1}
    assert free("2025-05-01T12:00:00+05:00")["a"] == 8


def test_the_file_s_own_number_of_free_seats_wins(tmp_path: Path) -> None:
    text = (
        "concert_id,title,start,minutes,hall,free,on_sale\n"
        "a,Dawn,2025-07-04T13:00:00+05:00,45,Big,3,\n"
        "b,Day,2025-07-04T14:00:00+05:00,45,Small,0,no\n"
        "c,Dusk,2025-07-04T16:00:00+05:00,45,Big,,true\n"
    )
    said = programme(tmp_path, concerts=text, off_programme=None, tickets=None).availability
    assert (said.free.tolist(), said.on_sale.tolist()) == ([3, 0, -1], [True, False, True])  # without tickets nobody counted


def test_more_tickets_than_seats_leave_none(tmp_path: Path) -> None:
    assert programme(tmp_path, halls="hall,seats\nBig,1\nSmall,5\n").availability.free.tolist() == [0, 4, -1, 0]


def test_items_and_events_of_every_domain(tmp_path: Path) -> None:
    prepared = prepare(domain(), folder(tmp_path / "data"), tmp_path / "raw")
    with (prepared.folder / "items.csv").open(encoding="utf-8", newline="") as file:
        items = {row["item_id"]: row for row in csv.DictReader(file)}
    assert set(items) == {"a", "b", "c"}
    assert (
        items["a"] | {"title": "Dawn", "genre": "Choir", "hall": "Big", "day": "2025-07-04", "hour": "13", "price": "200.5"} == items["a"]
    )
    assert (items["c"]["hour"], items["c"]["day"], items["c"]["minutes"], items["b"]["price"]) == ("24.5", "2025-07-05", "60", "")
    assert (items["a"]["composers"], items["a"]["labels"]) == ("Bach;Liszt", "star;main;repeat")
    assert (items["a"]["seats"], items["b"]["seats"]) == ("10", "")  # of the small hall nobody knows them
    assert (prepared.folder / "events.csv").read_text().splitlines() == [
        "user_id,item_id,time,quantity",
        "1,a,2025-04-30T07:00:00.000000Z,1",  # the first of two orders
        "1,c,2025-05-02T07:00:00.000000Z,1",
        "2,b,2025-05-03T00:00:00.000000Z,1",
    ]


def test_tickets_bought_within_ten_minutes_are_one_order(tmp_path: Path) -> None:
    rows = ("1,a,2025-05-01T12:10:00Z,", "1,a,2025-05-01T12:00:00Z,", "1,a,2025-05-01T12:00:00Z,", "1,a,2025-05-01T12:10:01Z,")
    sold = programme(tmp_path, tickets="\n".join(("client_id,concert_id,sold_at,price", *rows, "2,a,2025-05-01T12:00:00Z,", ""))).sold
    assert sold == {("1", "a"): (us("2025-05-01T12:00:00Z"), 3), ("2", "a"): (us("2025-05-01T12:00:00Z"), 1)}


BAD = {
    "no offset": ("concerts.csv", "z,Z,2025-07-04T13:00:00,45,Big,,,,,,,", "start: '2025-07-04T13:00:00' is not allowed; ISO 8601 with an"),
    "no date": ("concerts.csv", "z,Z,2025-02-30T13:00:00Z,45,Big,,,,,,,", "start: '2025-02-30T13:00:00Z' is not allowed"),
    "seconds": (
        "concerts.csv",
        "z,Z,2025-07-04T13:00:30Z,45,Big,,,,,,,",
        "start: '2025-07-04T13:00:30Z' is not allowed; whole minutes are",
    ),
    "no minutes": (
        "concerts.csv",
        "z,Z,2025-07-04T13:00:00Z,0,Big,,,,,,,",
        "minutes: '0' is not allowed; whole numbers from 1 to 1440 are",
    ),
    "too long": ("concerts.csv", "z,Z,2025-07-04T07:00:00Z,361,Big,,,,,,,", "minutes: 361 is not allowed; a stop lasts at most 360"),
    "unknown hall": ("concerts.csv", "z,Z,2025-07-04T13:00:00Z,45,Hut,,,,,,,", "hall: 'Hut' is not in halls.csv (Big, Small)"),
    "price below nothing": (
        "concerts.csv",
        "z,Z,2025-07-04T13:00:00Z,45,Big,-1,,,,,,",
        "price: '-1' is not allowed; amounts from 0 in steps",
    ),
    "price too fine": (
        "concerts.csv",
        "z,Z,2025-07-04T13:00:00Z,45,Big,1.005,,,,,,",
        "price: '1.005' is not allowed; amounts from 0 in steps",
    ),
    "price no number": ("concerts.csv", "z,Z,2025-07-04T13:00:00Z,45,Big,free,,,,,,", "price: 'free' is not allowed"),
    "id twice": ("concerts.csv", "a,Z,2025-07-04T13:00:00Z,45,Big,,,,,,,", "concert_id: 'a' stands twice"),
    "no id": ("concerts.csv", ",Z,2025-07-04T13:00:00Z,45,Big,,,,,,,", "concert_id: empty"),
    "cells missing": ("concerts.csv", "z,Z", "wrong number of cells"),
    "event like a concert": ("off_programme.csv", "a,Walk,2025-07-04T15:00:00+05:00,30,Small,", "event_id: 'a' stands twice"),
    "event without a hall": ("off_programme.csv", "f,Walk,2025-07-04T15:00:00+05:00,30,,", "hall: '' is not in halls.csv"),
    "ticket for nothing": ("tickets.csv", "1,z,2025-05-01T12:00:00Z,", "concert_id: 'z' is not in concerts.csv"),
    "ticket of nobody": ("tickets.csv", ",a,2025-05-01T12:00:00Z,", "client_id: empty"),
    "ticket without a zone": ("tickets.csv", "1,a,2025-05-01 12:00:00,", "sold_at: '2025-05-01 12:00:00' is not allowed"),
    "ticket of the future": ("tickets.csv", "1,a,2999-05-01T12:00:00Z,", "sold_at: '2999-05-01T12:00:00Z' is in the future"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_set_aside_with_its_line(tmp_path: Path, case: str) -> None:
    name, line, why = BAD[case]
    said = read(domain(), folder(tmp_path, with_line(name, line)))
    assert [stop.id for stop in said.timetable.stops] == ["a", "b", "e", "c"]
    found = [(sheet.name, number, reason, row) for sheet in said.sheets for number, reason, row in sheet.bad]
    assert len(found) == 1
    assert found[0][:2] == (name, len(FILES[name].splitlines()) + 1)
    assert found[0][2].startswith(why)
    assert found[0][3] == line


REFUSED = {
    "seats of no number": ("halls.csv", "Hut,many", "halls.csv, line 4: seats: 'many' is not allowed; whole numbers from 0 to 1000000 are"),
    "hall twice": ("halls.csv", "Big,5", "halls.csv, line 4: hall: 'Big' stands twice"),
    "way from nowhere": ("transitions.csv", "Hut,Big,5", "transitions.csv, line 3: from_hall: 'Hut' is not in halls.csv (Big, Small)"),
    "way below nothing": (
        "transitions.csv",
        "Small,Big,-1",
        "transitions.csv, line 3: minutes: '-1' is not allowed; whole numbers from 0 to 600",
    ),
    "way twice": ("transitions.csv", "Big,Small,8", "transitions.csv, line 3: Big -> Small stands twice"),
    "way to itself": ("transitions.csv", "Big,Big,2", "transitions.csv, line 3: minutes: 2 from Big to itself is not allowed; 0 is"),
    "cells": ("transitions.csv", "Big", "transitions.csv, line 3: wrong number of cells"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_hall_or_way_is_refused(tmp_path: Path, case: str) -> None:
    name, line, why = REFUSED[case]
    with pytest.raises(SourceError) as caught:
        read(domain(), folder(tmp_path, with_line(name, line)))
    assert str(caught.value).startswith(why)


def test_files_and_columns_that_are_not_there(tmp_path: Path) -> None:
    for name in ("concerts.csv", "halls.csv", "transitions.csv"):
        with pytest.raises(SourceError, match=f"none of {name}"):
            read(domain(), folder(tmp_path / name, {name: None}))
    with pytest.raises(SourceError, match=r"concerts.csv: no column for 'start'; its headings are concert_id, title; accepted are start"):
        read(domain(), folder(tmp_path / "x", {"concerts.csv": "concert_id,title\n"}))
    with pytest.raises(SourceError, match=r"concerts.csv has no good row: line 2: hall: 'Hut' is not in"):
        read(domain(), folder(tmp_path / "y", {"concerts.csv": "concert_id,title,start,minutes,hall\na,A,2025-07-04T13:00:00Z,45,Hut\n"}))


def test_bad_rows_go_through_ingest_as_in_every_domain(tmp_path: Path, one_ray: None) -> None:
    one, two = BAD["unknown hall"][1], BAD["no minutes"][1].replace("z,", "y,", 1)
    data = folder(tmp_path / "data", with_line("concerts.csv", one))
    tables = ingest(domain(), data, tmp_path / "home", SILENT)
    assert quarantined(tables) == [
        {"file": "concerts.csv", "line": 5, "reason": "hall: 'Hut' is not in halls.csv (Big, Small)", "row": one}
    ]
    report = json.loads((tables / "report.json").read_text(encoding="utf-8"))
    assert (report["files"]["concerts.csv"]["rows"], report["files"]["concerts.csv"]["bad"], report["bad"]) == (4, 1, 1)
    folder(data, with_line("concerts.csv", f"{one}\n{two}"))
    with pytest.raises(IngestRefused, match=r"concerts.csv: 2 of 5 rows are bad .*line 5: z,Z,.*; accepted are 2.0%"):
        ingest(domain(), data, tmp_path / "home", SILENT)


def test_seats_and_ways_alone_teach_nothing_anew(tmp_path: Path, one_ray: None) -> None:
    data, home = folder(tmp_path / "data"), tmp_path / "home"
    tables = ingest(domain(), data, home, SILENT)
    before = {name: (tables / name).stat().st_mtime_ns for name in ("items.parquet", "DONE.json", TIMETABLE)}
    seats = json.loads((tables / AVAILABILITY).read_text(encoding="utf-8"))["stops"]
    assert seats == {"a": [8, True], "b": [-1, True], "c": [9, True], "e": [-1, True]}
    assert ingest(domain(), data, home, SILENT) == tables
    assert (tables / TIMETABLE).stat().st_mtime_ns == before[TIMETABLE]
    heading, *concerts = FILES["concerts.csv"].splitlines()
    free = "\n".join((f"{heading},free", *(f"{line},{number}" for number, line in enumerate(concerts, start=3)), ""))
    folder(data, {"concerts.csv": free, "transitions.csv": "from_hall,to_hall,minutes\nBig,Small,7\nSmall,Big,9\n"})
    assert ingest(domain(), data, home, SILENT) == tables
    assert json.loads((tables / AVAILABILITY).read_text(encoding="utf-8"))["stops"]["a"] == [3, True]
    assert json.loads((tables / TIMETABLE).read_text(encoding="utf-8"))["walk"] == [[0, 7], [9, 0]]
    assert {name: (tables / name).stat().st_mtime_ns for name in ("items.parquet", "DONE.json")} | {TIMETABLE: before[TIMETABLE]} == before
    folder(data, {"halls.csv": "hall,seats\nBig,20\nSmall,5\n"})
    assert ingest(domain(), data, home, SILENT) != tables  # how many places a hall has is said of every item in it


def test_a_new_ticket_is_a_new_event(tmp_path: Path, one_ray: None) -> None:
    data = folder(tmp_path / "data")
    before = ingest(domain(), data, tmp_path / "home", SILENT)
    folder(data, with_line("tickets.csv", "3,a,2025-06-01T12:00:00Z,"))
    after = ingest(domain(), data, tmp_path / "home", SILENT)
    assert after != before
    assert json.loads((after / "report.json").read_text(encoding="utf-8"))["events"] == 4


@settings(max_examples=150)
@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)).map(lambda when: when.replace(microsecond=0)),
    st.integers(-14 * 60, 14 * 60),
)
def test_every_moment_with_an_offset_is_read(when: datetime, offset: int) -> None:
    there = when.replace(tzinfo=timezone(timedelta(minutes=offset)))
    wanted = (there - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert rows.moment({"start": there.isoformat()}, "start") == wanted
    with pytest.raises(CellError, match="offset"):
        rows.moment({"start": when.isoformat()}, "start")


@settings(max_examples=150)
@given(st.integers(0, 2**31 - 1), st.sampled_from([1, 100, 1_000]))
def test_every_amount_is_read_exactly(minor: int, units: int) -> None:
    whole, rest = divmod(minor, units)
    places = len(str(units)) - 1
    cell = f"{whole}.{rest:0{places}d}" if places else str(whole)
    assert rows.money({"price": cell}, "price", units) == minor
