"""An invented festival in the plain form of pipelines/sources/timetable.py, whose truth is known: three days, several halls and the ways
between them, programmes that are played again elsewhere, and clients with a taste who buy what they can attend.

What can be learned: a client likes some genres and composers, follows artists, comes early or late; the large hall sells best. Most buy
everything on one date; about one in twenty buys for several people, tickets that clash. A night concert begins after midnight and belongs
to the day before.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

ZONE = ZoneInfo("Asia/Yekaterinburg")
FIRST_DAY, DAYS = date(2025, 7, 4), 3
SALE_BEGINS = datetime(2025, 4, 21, 9, tzinfo=ZONE)
GENRES = ("Chamber", "Orchestra", "Choir", "Organ", "Dance", "Folk")
COMPOSERS = (
    *("Aldano Verri", "Brigid Moss", "Casimir Holt", "Dorotea Lind", "Emeric Vale", "Filippa Ström", "Gaspar Okoro", "Hedda Quill"),
    *("Ilario Benes", "Jonquil Adair", "Karel Tamm", "Liviu Sorescu", "Maud Pellerin", "Nestor Ibarra", "Odile Farrow", "Piet Lanting"),
)
ARTISTS = (
    *(
        "Harbour Quartet",
        "Trio Meridian",
        "Lantern Choir",
        "Northern Brass",
        "Two Rivers Orchestra",
        "Ensemble Saltmarsh",
        "The Clock Consort",
    ),
    *("Ada Winterbourne", "Boris Calloway", "Chiara Norden", "Dmitri Ashgrove", "Elin Castellan", "Farid Monk", "Greta Oyelaran"),
    *("Hugo Petrescu", "Ines Thorvald", "Jun Abernathy", "Kira Montrose", "Leo Fairweather", "Mina Dragomir"),
)
_HALLS = ("Great Hall", "Music House", "Old Library", "Chamber Room", "Riverside Stage", "Garden Tent", "Chapel", "Foundry")
_SEATS = (740, 120, 340, 150, 480, 1_200, 90, 260)
_WHAT = ("Nocturnes", "Serenade", "Dances", "Rhapsody", "Songs", "Fantasia", "Suite", "Preludes", "Variations", "Overture")
_OF = ("for Two Rivers", "of the Lighthouse", "without Words", "at Midnight", "for Children", "of the North", "in Blue", "and Fugues")
_OPENS, _CLOSES = 11 * 60, 23 * 60  # minutes after midnight


@dataclass(frozen=True)
class Truth:
    """What the festival was made from; concerts in the order of concerts.csv."""

    programme: NDArray[np.int32]  # (concerts,)
    genre: NDArray[np.int32]  # (concerts,)
    composers: list[tuple[int, ...]]
    artists: list[tuple[int, ...]]
    begins: NDArray[np.int64]  # (concerts,) minutes since the first day's midnight
    ends: NDArray[np.int64]
    hall: NDArray[np.int32]
    walk: NDArray[np.int32]  # (halls, halls) minutes, -1 = no way
    taste: NDArray[np.float32]  # (clients, GENRES), higher is liked more
    for_several: NDArray[np.bool_]  # (clients,) whether a client bought for several people


def make(directory: Path, users: int, items: int, seed: int) -> Truth:
    """Writes concerts.csv, halls.csv, transitions.csv, off_programme.csv and tickets.csv. Same arguments, same bytes."""
    chance = np.random.default_rng([seed, users, items, 3])
    count = max(4, -(-items // (DAYS * 6)))
    halls = [_HALLS[place] if place < len(_HALLS) else f"Stage {place + 1}" for place in range(count)]
    seats = [_SEATS[place % len(_SEATS)] for place in range(count)]
    walk = _ways(count, chance)
    hall, begins, ends = _slots(items, count, chance)
    played = max(1, round(items * 0.7))
    programme = np.concatenate([np.arange(played), chance.integers(0, played, items - played)])[:items].astype(np.int32)
    genre = chance.integers(0, len(GENRES), played)[programme].astype(np.int32)
    by = [tuple(chance.choice(len(COMPOSERS), size=int(chance.integers(1, 4)), replace=False).tolist()) for _ in range(played)]
    played_by = [tuple(chance.choice(len(ARTISTS), size=int(chance.integers(1, 3)), replace=False).tolist()) for _ in range(played)]
    composers, artists = [by[number] for number in programme], [played_by[number] for number in programme]
    taste = chance.normal(0.0, 1.0, (users, len(GENRES))).astype(np.float32)
    for_several = chance.random(users) < 0.05
    truth = Truth(programme, genre, composers, artists, begins, ends, hall, walk, taste, for_several)
    _write(directory / "halls.csv", ("hall", "seats"), ((name, str(room)) for name, room in zip(halls, seats, strict=True)))
    ways = ((halls[a], halls[b], str(walk[a, b])) for a in range(count) for b in range(count) if a != b and walk[a, b] >= 0)
    _write(directory / "transitions.csv", ("from_hall", "to_hall", "minutes"), ways)
    heading = ("concert_id", "title", "start", "minutes", "hall", "price", "genre", "tags", "artists", "composers", "works", "programme")
    _write(directory / "concerts.csv", heading, (_concert(number, truth, halls) for number in range(items)))
    _write(directory / "off_programme.csv", ("event_id", "title", "start", "minutes", "hall", "tags"), _beside(halls))
    _write(directory / "tickets.csv", ("client_id", "concert_id", "sold_at", "price"), _tickets(truth, np.array(seats), chance))
    return truth


def _ways(count: int, chance: np.random.Generator) -> NDArray[np.int32]:
    """Minutes between points of a town, a little longer one way than the other; between the last two halls there is none."""
    at = chance.random((count, 2)) * 12
    minutes = 1 + np.sqrt(((at[:, None] - at[None, :]) ** 2).sum(axis=2)) + chance.random((count, count))
    walk = np.round(minutes).astype(np.int32)
    np.fill_diagonal(walk, 0)
    walk[count - 1, count - 2] = -1
    return np.asarray(walk)


def _slots(items: int, halls: int, chance: np.random.Generator) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Hall, beginning and end of each concert, in the order of time; the last of many is a night concert."""
    rows: list[tuple[int, int, int]] = []
    for place in range(DAYS * halls):
        day, hall = divmod(place, halls)
        wanted = items // (DAYS * halls) + (place < items % (DAYS * halls))
        step = (_CLOSES - _OPENS) // max(wanted, 1)
        for turn in range(wanted):
            length = int(chance.choice((45, 45, 60))) if step > 60 else max(1, step - 1)
            free = max(step - length, 1)
            begins = day * 1_440 + _OPENS + turn * step + 5 * (int(chance.integers(0, free)) // 5)
            rows.append((begins, begins + length, hall))
    rows.sort()
    if items > DAYS * halls:
        rows[-1] = (DAYS * 1_440 + 15, DAYS * 1_440 + 60, 0)
    begins_at, ends_at, hall_of = (np.array(column) for column in zip(*rows, strict=True))
    return hall_of.astype(np.int32), begins_at.astype(np.int64), ends_at.astype(np.int64)


def _concert(number: int, truth: Truth, halls: Sequence[str]) -> Sequence[str]:
    programme = int(truth.programme[number])
    title = f"{_WHAT[programme % len(_WHAT)]} {_OF[programme // len(_WHAT) % len(_OF)]}"
    if programme >= len(_WHAT) * len(_OF):
        title += f" {programme // (len(_WHAT) * len(_OF)) + 1}"
    tags = [word for word, on in (("star", programme % 9 == 0), ("family", programme % 11 == 3), ("recommended", programme % 8 == 5)) if on]
    return (
        f"c{number + 1}",
        title,
        _clock(int(truth.begins[number])).isoformat(),
        str(truth.ends[number] - truth.begins[number]),
        halls[truth.hall[number]],
        "500" if truth.hall[number] == 0 else "250",
        GENRES[truth.genre[number]],
        ";".join(tags),
        ";".join(ARTISTS[artist] for artist in truth.artists[number]),
        ";".join(COMPOSERS[composer] for composer in truth.composers[number]),
        ";".join(f"{COMPOSERS[composer]}: {title}, part {part}" for part, composer in enumerate(truth.composers[number], start=1)),
        title,
    )


def _beside(halls: Sequence[str]) -> Iterable[Sequence[str]]:
    """A workshop each day, and a desk that is open all day and is therefore no stop."""
    for day in range(DAYS):
        for number, (title, begins, minutes) in enumerate(
            (("Workshop: how a fugue is made", 14 * 60, 45), ("Tickets and advice", 10 * 60, 660))
        ):
            yield f"e{day * 2 + number + 1}", title, _clock(day * 1_440 + begins).isoformat(), str(minutes), halls[-1], "workshop"


def _tickets(truth: Truth, seats: NDArray[np.int64], chance: np.random.Generator) -> list[tuple[str, str, str, str]]:
    """Ticket after ticket in the order of sale; nothing is sold beyond the seats of a hall."""
    concerts = len(truth.begins)
    hour = (truth.begins % 1_440) / 60
    size = np.log(seats[truth.hall]) * 0.7
    fame = chance.normal(0.0, 0.5, int(truth.programme.max()) + 1)[truth.programme] if concerts else np.empty(0)
    left = seats[truth.hall].copy()
    sold: list[tuple[datetime, str, str, str]] = []
    for client in range(len(truth.taste)):
        own_composers, own_artists = chance.normal(0.0, 0.7, len(COMPOSERS)), chance.normal(0.0, 0.7, len(ARTISTS))
        liked = np.array(
            [own_composers[list(by)].mean() + own_artists[list(on)].mean() for by, on in zip(truth.composers, truth.artists, strict=True)]
        )
        likes_late = chance.normal(0.0, 0.12)
        pull = np.exp(0.9 * truth.taste[client][truth.genre] + liked + likes_late * (hour - 17) + size + fame)
        wanted = int(np.clip(chance.geometric(0.34), 1, 14))
        chosen = _basket(truth, pull * (left > 0), wanted, bool(truth.for_several[client]), chance)
        days = int(chance.integers(0, 74))
        for place, number in enumerate(chosen):
            if place and chance.random() < 0.12:
                days = int(chance.integers(days, 74))
            when = SALE_BEGINS + timedelta(days=days, minutes=int(chance.integers(0, 600)))
            for _ in range(2 if truth.for_several[client] or chance.random() < 0.4 else 1):
                if left[number]:
                    left[number] -= 1
                    sold.append((when, f"u{client + 1}", f"c{number + 1}", "500" if truth.hall[number] == 0 else "250"))
    sold.sort()
    return [(client, concert, when.isoformat(), price) for when, client, concert, price in sold]


def _basket(truth: Truth, pull: NDArray[np.float64], wanted: int, for_several: bool, chance: np.random.Generator) -> list[int]:
    """One concert after the other by its pull, as long as one person can attend them all, and no programme twice."""
    chosen: list[int] = []
    pull = pull.copy()
    while len(chosen) < wanted and pull.sum() > 0:
        number = int(chance.choice(len(pull), p=pull / pull.sum()))
        chosen.append(number)
        pull[truth.programme == truth.programme[number]] = 0
        if not for_several:
            there, back = truth.walk[truth.hall[number], truth.hall], truth.walk[truth.hall, truth.hall[number]]
            before = (back >= 0) & (truth.ends + back <= truth.begins[number])
            after = (there >= 0) & (truth.ends[number] + there <= truth.begins)
            pull[~(before | after)] = 0
    return chosen


def _clock(minutes: int) -> datetime:
    return datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=ZONE) + timedelta(minutes=minutes)


def _write(path: Path, heading: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heading)
        writer.writerows(rows)
