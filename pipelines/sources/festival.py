"""The spreadsheets of the festival of 2022 as they lie -> the plain form that timetable.py reads.

What is dirty there, and what becomes of it: dates that are text; durations such as "01:0:00"; an empty `Family` means no; a hall bears
a year in its name; a person is written with an instrument, a land or as a conductor (the instrument becomes a tag); composers of one
work are joined by a long dash (a short one belongs to a name), initials have slipped into the work's title; `_Прочее` and `Автор` are
nobody.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from configs.domain import Domain
from pipelines.sources.tables import SourceError
from pipelines.sources.workbooks import SheetRow, sheet
from pipelines.steps import atomic, files_state, write_json

FILES: dict[str, tuple[str, ...]] = {
    "concerts.xlsx": ("ShowNum", "ShowName", "ShowDate", "HallName", "Genre", "ShowLong", "Family", "Price", "Tickets"),
    "halls.xlsx": ("HallName", "Seats"),
    "transitions.xlsx": (),
    "artists.xlsx": ("Artists", "Spetial"),
    "composers.xlsx": ("Author", "Spetial"),
    "concert_artists.xlsx": ("ShowNum", "Artists"),
    "concert_works.xlsx": ("ShowNum", "Author", "Programm"),
    "tickets.xlsx": ("ClientId", "ShowNum", "OpDate", "Price"),
    "off_programme.xlsx": ("EventNum", "EventName", "Description", "EventDate", "EventLong", "HallName", "Format", "Recommend"),
}
_OPTIONAL = ("tickets.xlsx", "off_programme.xlsx")
STATE = "prepared.json"
_VERSION = 1  # raise it when the same files would become others

_YEAR = re.compile(r"\s*[—–-]\s*\d{4}(\s*год\w*)?$")
_ROLE = re.compile(r"^(?:главный )?дириж[её]р\s*[—–-]\s*(?:заслуженный деятель искусств России\s+)?", re.IGNORECASE)
_HOW = re.compile(r"\s*\(([^)]*)\)")
_LAND = re.compile(r",\s*(?:Россия|Япония)(?:[—–-](?:Россия|Япония))?$")
_OPUS = re.compile(r"\bор\.\s*")  # Cyrillic letters that look Latin
_NOBODY = ("Автор", "_Прочее")
_SAME_COMPOSER = {"Бах И": "И. С. Бах", "Бах": "И. С. Бах", "Штраус И": "И. Штраус"}
_LISTS = ("tags", "artists", "composers", "works")
_CONCERTS = ("concert_id", "title", "start", "minutes", "hall", "price", "genre", *_LISTS, "programme", "on_sale")


def prepare(domain: Domain, data: Path, directory: Path) -> None:
    """Writes concerts.csv, halls.csv, transitions.csv and, where there are any, tickets.csv and off_programme.csv; files that stand for the
    same input are left alone. A row of tickets.csv stands on the line of its row in the sheet.

    Raises SourceError naming file, sheet, row, column, value and what is allowed."""
    missing = [name for name in FILES if not (data / name).is_file() and name not in _OPTIONAL]
    if missing:
        there = ", ".join(sorted(entry.name for entry in data.iterdir())[:20]) or "nothing"
        raise SourceError(f"{data}: neither concerts.csv (the plain form) nor {', '.join(missing)} is there (found: {there})")
    zone = domain.itinerary.zone if domain.itinerary is not None else "UTC"
    state = json.loads(json.dumps([_VERSION, zone, files_state([data / name for name in FILES if (data / name).is_file()])]))
    if (directory / STATE).is_file() and json.loads((directory / STATE).read_text(encoding="utf-8")) == state:
        return
    (directory / STATE).unlink(missing_ok=True)
    place = ZoneInfo(zone)
    halls = [(_hall(row, "HallName"), str(row.whole("Seats", 0, 1_000_000, 0))) for row in _rows(data, "halls.xlsx")]
    _write(directory / "halls.csv", ("hall", "seats"), halls)
    _write(directory / "transitions.csv", ("from_hall", "to_hall", "minutes"), _transitions(data))
    _write(directory / "concerts.csv", _CONCERTS, _concerts(data, place))
    for name, heading, made in (
        ("off_programme", ("event_id", "title", "start", "minutes", "hall", "tags"), _beside),
        ("tickets", ("client_id", "concert_id", "sold_at", "price"), _tickets),
    ):
        if (data / f"{name}.xlsx").is_file():
            _write(directory / f"{name}.csv", heading, made(data, place))
        else:
            (directory / f"{name}.csv").unlink(missing_ok=True)
    write_json(directory / STATE, state)


def _rows(data: Path, name: str) -> Iterable[SheetRow]:
    return sheet(data / name, FILES[name])


def _concerts(data: Path, place: ZoneInfo) -> Iterable[Sequence[str]]:
    stars = {row.text("Artists") for row in _rows(data, "artists.xlsx") if row.truth("Spetial")}
    starred = {name for row in _rows(data, "composers.xlsx") if row.truth("Spetial") for name in composers(row.text("Author"))}
    artists: dict[str, list[str]] = defaultdict(list)
    for row in _rows(data, "concert_artists.xlsx"):
        artists[_number(row)].append(row.text("Artists"))
    works: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in _rows(data, "concert_works.xlsx"):
        works[_number(row)].append((row.text("Author"), row.text("Programm")))
    played = [(row, _number(row)) for row in _rows(data, "concerts.xlsx")]
    programme = programmes({number: row.text("ShowName") for row, number in played}, {number: set(works[number]) for _, number in played})
    for row, number in played:
        by = list(dict.fromkeys(name for author, _ in works[number] for name in composers(author)))
        tags = [word for artist in artists[number] for word in instruments(artist)]
        if row.truth("Family"):
            tags.append("семейный")
        if stars & set(artists[number]) or starred & set(by):
            tags.append("звезда")
        yield (
            number,
            row.text("ShowName"),
            row.when("ShowDate").replace(tzinfo=place).isoformat(),
            str(row.minutes("ShowLong")),
            _hall(row, "HallName"),
            str(row.whole("Price", 0, 1_000_000)),
            row.text("Genre", empty=True),
            _joined(tags),
            _joined(person(artist) for artist in artists[number]),
            _joined(by),
            _joined(work(author, title) for author, title in works[number]),
            programme[number],
            str(row.truth("Tickets", empty=True)).lower(),
        )


def _beside(data: Path, place: ZoneInfo) -> Iterable[Sequence[str]]:
    for row in _rows(data, "off_programme.xlsx"):
        about = str(row.cell("Description") or "").strip().split("\n")[0].strip()
        title = row.text("EventName")
        tags = [row.text("Format", empty=True), "рекомендация" if row.truth("Recommend") else ""]
        yield (
            f"e{row.whole('EventNum', 0, 10**9)}",
            f"{title}: {about}" if 0 < len(about) <= 60 else title,
            row.when("EventDate").replace(tzinfo=place).isoformat(),
            str(row.minutes("EventLong")),
            _hall(row, "HallName"),
            _joined(tags),
        )


def _transitions(data: Path) -> Iterable[Sequence[str]]:
    """A square: the halls walked from are the first column, those walked to the heading; an empty cell is no way."""
    for row in _rows(data, "transitions.xlsx"):
        come_from = _YEAR.sub("", row.text(""))
        for hall in row.headings:
            if hall and row.cell(hall) is not None:
                yield come_from, _YEAR.sub("", hall), str(row.whole(hall, 0, 600))


def _tickets(data: Path, place: ZoneInfo) -> Iterable[Sequence[str]]:
    for row in _rows(data, "tickets.xlsx"):
        sold = row.when("OpDate").replace(tzinfo=place)
        yield str(row.whole("ClientId", 0, 10**12)), _number(row), sold.isoformat(), str(row.whole("Price", 0, 1_000_000))


def _number(row: SheetRow) -> str:
    return str(row.whole("ShowNum", 0, 10**9))


def _hall(row: SheetRow, heading: str) -> str:
    return _YEAR.sub("", row.text(heading))


# ------------------------------------------------------------------ spellings


def composers(author: str) -> tuple[str, ...]:
    """`Шуберт—Лист` -> Шуберт and Лист; a short dash belongs to a name."""
    names = (part.strip() for part in author.split("—"))
    return tuple(_SAME_COMPOSER.get(name, name) for name in names if name and name not in _NOBODY)


def work(author: str, title: str) -> str:
    """`Бах И` + `С. «Скерцо»` -> `И. С. Бах: «Скерцо»`."""
    if author.endswith(" И") and title.startswith("С. "):
        title = title.removeprefix("С. ")
    by = ", ".join(composers(author))
    cleaned = _OPUS.sub("op. ", title.strip()).replace(";", ",")
    return f"{by}: {cleaned}" if by else cleaned


def person(artist: str) -> str:
    """`Дирижёр — Александр Рудин` and `Александр Рудин (виолончель)` are one person."""
    return re.sub(r"\s+", " ", _LAND.sub("", _HOW.sub("", _ROLE.sub("", artist)))).replace("Сovara", "Covara").strip()


def instruments(artist: str) -> list[str]:
    """What stands in brackets behind a name."""
    return [word.strip() for part in _HOW.findall(artist) for word in part.split(",")]


def programmes(names: dict[str, str], works: dict[str, set[tuple[str, str]]]) -> dict[str, str]:
    """Concert -> its programme: its name, unless it shares less than half of its works with the first concert of that name; then the
    name with its own number, because only the name is played again."""
    first: dict[str, str] = {}
    out: dict[str, str] = {}
    for number, name in names.items():
        own, other = works[number], works[first.setdefault(name, number)]
        shared = len(own & other) / max(len(own | other), 1)
        out[number] = name if own == other or shared >= 0.5 else f"{name} ({number})"
    return out


def _joined(words: Iterable[str]) -> str:
    return ";".join(dict.fromkeys(word for word in words if word))


def _write(path: Path, heading: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heading)
        writer.writerows(rows)
