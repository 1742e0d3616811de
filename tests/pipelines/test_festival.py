"""The spreadsheets of 2022 -> the plain form: small ones of the same shape and dirt, and the real ones where they are at hand. The sample
in the plain form holds what its truth says."""

from __future__ import annotations

import csv
from datetime import datetime, time
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook

import configs
from features.itinerary.chains import clashing
from features.itinerary.search import Routes
from features.itinerary.wishes import Wishes
from pipelines.samples import festival as sample
from pipelines.sources import festival as source
from pipelines.sources.tables import SourceError
from pipelines.sources.timetable import read

DOMAIN = configs.load("festival")
_HERE = Path(__file__).resolve()
REAL = next((folder for up in _HERE.parents if (folder := up / "shared" / "data" / "festival_2022").is_dir()), _HERE / "nowhere")
Sheets = dict[str, list[list[object]]]


def sheets() -> Sheets:
    day = datetime(2022, 7, 1, 13, 0)
    return {
        "concerts": [
            ["ShowNum", "ShowName", "ShowDate", "HallName", "Genre", "ShowLong", "Family", "Price", "Tickets", "link"],
            [1, "Кармен", day, "Дом", "Хор", "00:45:00", "1", 200, True, None],
            [2, "Кармен", "2022-07-02 13:00:00", "Сад — 2021 год", "Хор", time(1, 0), None, 200, False, None],
            [3, "Кармен", datetime(2022, 7, 2, 22, 0), "Дом", None, "01:0:00", None, 500, True, None],
        ],
        "halls": [["HallName", "Seats"], ["Дом", 120], ["Сад — 2021 год", None]],
        "transitions": [[None, "Дом", "Сад — 2021 год"], ["Дом", 0, 5], ["Сад — 2021 год", None, 0]],
        "artists": [[None, "Artists", "Spetial"], [0, "Анна Ли (скрипка)", "True"], [1, "Дирижёр — Пётр Ли", None]],
        "composers": [["Author", "Programm", "Spetial", "Part"], ["Бах И", 1, 0, 0.5]],
        "concert_artists": [["ShowNum", "Artists"], [1, "Анна Ли (скрипка)"], [2, "Дирижёр — Пётр Ли"], [3, "Пётр Ли (орган), Япония"]],
        "concert_works": [
            ["ShowNum", "Author", "Programm", "Spetial"],
            [1, "Бах И", "С. «Скерцо»", None],
            [1, "Бах—Гуно", " «Аве; Мария», ор.44", None],
            [2, "Бах И", "С. «Скерцо»", None],
            [2, "Бах—Гуно", " «Аве; Мария», ор.44", None],
            [3, "_Прочее", " Разное", None],
            [3, "Сен-Санс", " Лебедь", None],
        ],
        "tickets": [
            ["ClientId", "OpId", "OpDate", "Price", "ShowNum"],
            [7, 1, datetime(2022, 4, 30, 17, 59, 54), 200, 1],
            [7, 1, "2022-06-27 16:41:47.073", 200, 2],
        ],
        "off_programme": [
            ["EventNum", "EventName", "Description", "EventDate", "EventLong", "HallName", "Format", "Recommend"],
            [1, "Лекция", "Буквы\nвместо нот", day, "01:0:00", "Дом", "Лекция", True],
        ],
    }


def written(folder: Path, content: Sheets) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in content.items():
        book = Workbook()
        assert book.active is not None
        for row in rows:
            book.active.append(row)
        book.save(folder / f"{name}.xlsx")
    return folder


def plain(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def prepared(tmp_path: Path, content: Sheets) -> Path:
    out = tmp_path / "out"
    out.mkdir(parents=True, exist_ok=True)
    source.prepare(DOMAIN, written(tmp_path / "data", content), out)
    return out


def test_the_dirt_is_gone(tmp_path: Path) -> None:
    out = prepared(tmp_path, sheets())
    first, second, third = plain(out, "concerts")
    assert first == {
        "concert_id": "1",
        "title": "Кармен",
        "start": "2022-07-01T13:00:00+05:00",
        "minutes": "45",
        "hall": "Дом",
        "price": "200",
        "genre": "Хор",
        "tags": "скрипка;семейный;звезда",
        "artists": "Анна Ли",
        "composers": "И. С. Бах;Гуно",
        "works": "И. С. Бах: «Скерцо»;И. С. Бах, Гуно: «Аве, Мария», op. 44",
        "programme": "Кармен",
        "on_sale": "true",
    }
    assert (second["hall"], second["minutes"], second["start"]) == ("Сад", "60", "2022-07-02T13:00:00+05:00")
    assert (second["artists"], third["artists"], third["tags"]) == ("Пётр Ли", "Пётр Ли", "орган")
    assert (second["on_sale"], second["programme"]) == ("false", "Кармен")
    assert (third["composers"], third["works"], third["programme"]) == ("Сен-Санс", "Разное;Сен-Санс: Лебедь", "Кармен (3)")
    assert [row["hall"] for row in plain(out, "halls")] == ["Дом", "Сад"]
    ways = [tuple(row.values()) for row in plain(out, "transitions")]
    assert ways == [("Дом", "Дом", "0"), ("Дом", "Сад", "5"), ("Сад", "Сад", "0")]  # an empty cell is no way
    assert [row["sold_at"] for row in plain(out, "tickets")] == ["2022-04-30T17:59:54+05:00", "2022-06-27T16:41:47.073000+05:00"]
    assert (
        plain(out, "off_programme")[0] | {"event_id": "e1", "title": "Лекция: Буквы", "tags": "Лекция;рекомендация"}
        == (plain(out, "off_programme")[0])
    )
    assert [stop.id for stop in read(DOMAIN, out).timetable.stops] == ["1", "e1", "2", "3"]


def test_what_did_not_change_is_left_alone(tmp_path: Path) -> None:
    out = prepared(tmp_path, sheets())
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    source.prepare(DOMAIN, tmp_path / "data", out)
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before
    less = sheets()
    (tmp_path / "data" / "tickets.xlsx").unlink()
    del less["tickets"]
    assert not (prepared(tmp_path, less) / "tickets.csv").exists()


BROKEN: dict[str, tuple[str, int, int, object, str]] = {
    "date": (
        "concerts",
        2,
        3,
        "soon",
        "concerts.xlsx, sheet 'Sheet', row 2, column C (ShowDate): 'soon' is not allowed; a date with a time is",
    ),
    "length": (
        "concerts",
        3,
        6,
        "45",
        "concerts.xlsx, sheet 'Sheet', row 3, column F (ShowLong): '45' is not allowed; a duration of whole",
    ),
    "no length": ("concerts", 3, 6, "00:00:00", "concerts.xlsx, sheet 'Sheet', row 3, column F (ShowLong): '00:00:00' is not allowed"),
    "name": ("concerts", 4, 2, " ", "concerts.xlsx, sheet 'Sheet', row 4, column B (ShowName): ' ' is not allowed; text is"),
    "number": ("tickets", 2, 1, "seven", "tickets.xlsx, sheet 'Sheet', row 2, column A (ClientId): 'seven' is not allowed; whole numbers"),
    "sale": ("tickets", 3, 3, 44_700, "tickets.xlsx, sheet 'Sheet', row 3, column C (OpDate): 44700 is not allowed; a date with a time"),
    "seats": ("halls", 2, 2, -5, "halls.xlsx, sheet 'Sheet', row 2, column B (Seats): -5 is not allowed; whole numbers from 0"),
    "way": ("transitions", 2, 3, "far", "transitions.xlsx, sheet 'Sheet', row 2, column C (Сад — 2021 год): 'far' is not allowed"),
    "family": ("concerts", 2, 7, "maybe", "concerts.xlsx, sheet 'Sheet', row 2, column G (Family): 'maybe' is not allowed; 1, 0, True"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_cell_is_refused_with_sheet_row_and_column(tmp_path: Path, case: str) -> None:
    name, row, column, value, said = BROKEN[case]
    content = sheets()
    content[name][row - 1][column - 1] = value
    with pytest.raises(SourceError) as caught:
        prepared(tmp_path, content)
    assert str(caught.value).startswith(said)
    assert not (tmp_path / "out" / source.STATE).exists()


def test_a_broken_workbook_is_refused(tmp_path: Path) -> None:
    content = sheets()
    content["concerts"][0][2] = "Date"
    with pytest.raises(
        SourceError, match=r"concerts.xlsx, sheet 'Sheet', row 1: no column 'ShowDate'; its headings are ShowNum, ShowName, Date"
    ):
        prepared(tmp_path / "a", content)
    data = written(tmp_path / "b" / "data", sheets())
    (data / "halls.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(SourceError, match=r"halls.xlsx: cannot be read as a workbook \(.xlsx\)"):
        source.prepare(DOMAIN, data, tmp_path)
    (data / "halls.xlsx").unlink()
    with pytest.raises(SourceError, match=r"neither concerts.csv \(the plain form\) nor halls.xlsx is there \(found: artists.xlsx"):
        source.prepare(DOMAIN, data, tmp_path)


@pytest.mark.parametrize(
    ("artist", "name", "plays"),
    [
        ("Дирижёр — Александр Рудин", "Александр Рудин", []),
        ("Дирижер — Антон Шабуров", "Антон Шабуров", []),
        ("Александр Рудин (виолончель)", "Александр Рудин", ["виолончель"]),
        ("Павел Ио (сякухати), Россия—Япония", "Павел Ио", ["сякухати"]),
        ("Мясковский-квартет", "Мясковский-квартет", []),
    ],
)
def test_a_person_has_one_name(artist: str, name: str, plays: list[str]) -> None:
    assert (source.person(artist), source.instruments(artist)) == (name, plays)


def test_composers_are_parted_by_the_long_dash_only() -> None:
    assert source.composers("Шуберт—Лист") == ("Шуберт", "Лист")
    assert source.composers("Сен-Санс") == ("Сен-Санс",)
    assert source.composers("_Прочее") == ()


@pytest.mark.skipif(not REAL.is_dir(), reason="the festival's own spreadsheets are not at hand")
def test_the_festival_of_2022(tmp_path: Path) -> None:
    """The counts of day 1 are those that the festival's own project published."""
    source.prepare(DOMAIN, REAL, tmp_path)
    said = read(DOMAIN, tmp_path)
    table = said.timetable
    day = Routes(table, Wishes(days=("2022-07-01",)))
    assert list(day.by_length().items()) == list(zip(range(1, 9), (30, 361, 2224, 7420, 13072, 11043, 3524, 272), strict=True))
    assert not any(sheet.bad for sheet in said.sheets)
    assert (sum(not stop.optional for stop in table.stops), len(said.sold), said.open_all_day) == (100, 12_753, ["e1", "e8", "e16"])
    assert [stop.id for stop in table.stops if "main" in stop.labels] == ["29", "68", "100"]
    assert "Сад Вайнера" in table.halls
    assert (said.availability.free >= -1).all()


# ------------------------------------------------------------------ the sample


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sample.Truth]:
    folder = tmp_path_factory.mktemp("season")
    return folder, sample.make(folder, 200, 48, 7)


def test_the_sample_repeats(made: tuple[Path, sample.Truth], tmp_path: Path) -> None:
    sample.make(tmp_path, 200, 48, 7)
    assert all((tmp_path / file.name).read_bytes() == file.read_bytes() for file in made[0].iterdir())
    sample.make(tmp_path, 200, 48, 8)
    assert (tmp_path / "tickets.csv").read_bytes() != (made[0] / "tickets.csv").read_bytes()


def test_the_sample_holds_its_truth(made: tuple[Path, sample.Truth]) -> None:
    folder, truth = made
    said = read(DOMAIN, folder)
    table = said.timetable
    assert not any(sheet.bad for sheet in said.sheets)
    assert len(table.days) == 3
    assert sum(not stop.optional for stop in table.stops) == 48
    assert len(said.open_all_day) == 3
    assert (table.walk == -1).any()
    assert any("repeat" in stop.labels for stop in table.stops)
    last = max((stop for stop in table.stops if not stop.optional), key=lambda stop: stop.starts_at)
    assert (last.day, last.begins) == (2, 18 * 60 + 15)  # after midnight
    tickets: dict[str, set[int]] = {}
    for client, item in said.sold:
        tickets.setdefault(client, set()).add(table.rows[item])
    several = {f"u{client + 1}" for client in np.flatnonzero(truth.for_several)}
    assert all(not clashing(table, sorted(rows)) for client, rows in tickets.items() if client not in several)
    sold = plain(folder, "tickets")
    for row, stop in enumerate(table.stops):
        if not stop.optional:
            left = int(table.seats[stop.hall]) - sum(ticket["concert_id"] == stop.id for ticket in sold)
            assert left == said.availability.free[row] >= 0
    genre = {f"c{number + 1}": int(kind) for number, kind in enumerate(truth.genre)}
    gain = [truth.taste[int(client[1:]) - 1][genre[item]] for client, item in said.sold]
    assert float(np.mean(gain)) > 0.2  # people buy what they like; by chance it would be 0


@pytest.mark.parametrize(("users", "items"), [(1, 1), (3, 2), (10, 150)])
def test_odd_sizes_work(tmp_path: Path, users: int, items: int) -> None:
    sample.make(tmp_path, users, items, 1)
    assert sum(not stop.optional for stop in read(DOMAIN, tmp_path).timetable.stops) == items
