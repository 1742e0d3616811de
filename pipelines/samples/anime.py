"""An invented world of titles and viewers, in the shape of the brief's files, whose truth is known.

Three things can be learned from it, one for each family of models. Genres: a person likes a few and dislikes one, and what they choose
and how they rate follows (content). Circles: people belong to circles with a hidden taste that no attribute shows (collaborative).
Franchises: a part is followed by the next one soon after (sequence). A title's audience is a heavy tail, as in life.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

END = datetime(2025, 6, 30, 21, 0, tzinfo=UTC)
DAYS = 365
GENRES = (
    "Action",
    "Adventure",
    "Comedy",
    "Drama",
    "Fantasy",
    "Historical",
    "Horror",
    "Mecha",
    "Music",
    "Mystery",
    "Romance",
    "School",
    "Sci-Fi",
    "Slice of Life",
    "Sports",
    "Supernatural",
)
TYPES = ("TV", "Movie", "OVA", "ONA", "Special")
_EPISODES = ((12, 13, 24, 26, 50), (1,), (1, 2, 4, 6), (6, 10, 12), (1, 2))
_OF = (
    "Amber",
    "Ashen",
    "Borrowed",
    "Brass",
    "Cobalt",
    "Distant",
    "Drifting",
    "Eighth",
    "Folded",
    "Gilded",
    "Hollow",
    "Idle",
    "Jade",
    "Last",
    "Lunar",
    "Mild",
    "Northern",
    "Opal",
    "Paper",
    "Quiet",
    "Restless",
    "Salt",
    "Seventh",
    "Tidal",
    "Unlit",
    "Velvet",
    "Wandering",
    "Woven",
)
_WHAT = (
    "Almanac",
    "Archivists",
    "Bakery",
    "Beacon",
    "Cartographers",
    "Choir",
    "Clockwork",
    "Courier",
    "Dynasty",
    "Engine",
    "Ferry",
    "Foxes",
    "Garden",
    "Harbour",
    "Inkwell",
    "Junction",
    "Kites",
    "Lanterns",
    "Locksmith",
    "Monsoon",
    "Observatory",
    "Orchard",
    "Pilots",
    "Postmen",
    "Quarry",
    "Regatta",
    "Sextant",
    "Spire",
    "Theorem",
    "Tollhouse",
    "Understudy",
    "Viaduct",
    "Weathervane",
    "Zephyr",
)
_WHERE = (
    "",
    " of Tessaly Road",
    " at Low Tide",
    " beyond the Ridge",
    " in Winter",
    " of the Ninth Ward",
    " & Daughters",
    " after School",
    " without Maps",
    " on Platform Two",
)
STATUSES = ("Watching", "Completed", "On-Hold", "Dropped", "Plan to Watch")
_CIRCLES = 12
_DIRT = 0.003  # share of rows that are spoiled; the limit of the YAML is 0.02


@dataclass(frozen=True)
class Truth:
    """What the world was made from: the answer a test may compare with. Rows of items and users are their order in the files."""

    franchise: NDArray[np.int32]  # (items,)
    part: NDArray[np.int32]  # (items,) 0 = the first of its franchise
    genres: NDArray[np.bool_]  # (items, GENRES)
    circle: NDArray[np.int32]  # (users,)
    taste: NDArray[np.float32]  # (users, GENRES), higher is liked more
    hidden: NDArray[np.float32]  # (circles, items), what a circle likes apart from genres


def make(directory: Path, users: int, items: int, seed: int) -> Truth:
    """Writes anime.csv and animelist.csv (about 30 rows a user; UTC times over the year before END). Same arguments, same bytes."""
    chance = np.random.default_rng([seed, users, items])
    titles, franchise, part = _titles(items, chance)
    genres, kind = _attributes(franchise, chance)
    fame = np.exp(chance.normal(0.0, 1.1, items)) * 0.7**part
    circle = chance.integers(0, _CIRCLES, users).astype(np.int32)
    taste = chance.normal(0.0, 0.35, (users, len(GENRES))) + chance.normal(0.0, 0.8, (_CIRCLES, len(GENRES)))[circle]
    hidden = chance.normal(0.0, 1.0, (_CIRCLES, items))
    truth = Truth(franchise, part, genres, circle, taste.astype(np.float32), hidden.astype(np.float32))
    ids = np.cumsum(chance.integers(1, 9, items))  # with gaps, as in life
    ids -= ids[0] - 1  # the first is 1, which the brief's own calls ask about
    rows = _events(truth, fame, kind, ids, chance)
    quality = 6.8 + 0.8 * chance.normal(size=items) + 0.25 * np.log1p(fame)
    _write_items(directory / "anime.csv", titles, truth, kind, ids, fame, quality, chance)
    _write_events(directory / "animelist.csv", rows, ids, chance)
    return truth


def _titles(items: int, chance: np.random.Generator) -> tuple[list[str], NDArray[np.int32], NDArray[np.int32]]:
    """Franchises of one to four parts, numbered in the titles."""
    names = [f"{of} {what}{where}" for where in _WHERE for of in _OF for what in _WHAT]
    order = chance.permutation(len(names))
    titles: list[str] = []
    franchise, part = np.empty(items, dtype=np.int32), np.empty(items, dtype=np.int32)
    number = 0
    while len(titles) < items:
        volume, name = divmod(number, len(names))
        name_ = names[order[name]] + (f" {volume + 1}00" if volume else "")
        for which in range(min(int(chance.choice((1, 2, 3, 4), p=(0.55, 0.25, 0.13, 0.07))), items - len(titles))):
            franchise[len(titles)], part[len(titles)] = number, which
            titles.append(name_ if which == 0 else f"{name_} {('II', 'III', 'IV')[which - 1]}")
        number += 1
    return titles, franchise, part


def _attributes(franchise: NDArray[np.int32], chance: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Genres are a franchise's own (two to four), types mostly too."""
    count = int(franchise.max()) + 1
    own = np.zeros((count, len(GENRES)), dtype=np.bool_)
    weights = 1.0 / np.arange(2, len(GENRES) + 2)
    for number in range(count):
        own[number, chance.choice(len(GENRES), size=int(chance.integers(2, 5)), replace=False, p=weights / weights.sum())] = True
    kinds = chance.choice(len(TYPES), size=count, p=(0.5, 0.2, 0.12, 0.1, 0.08))[franchise]
    other = chance.random(len(franchise)) < 0.15
    kinds[other] = chance.integers(0, len(TYPES), int(other.sum()))
    return own[franchise], kinds.astype(np.int32)


def _events(
    truth: Truth, fame: NDArray[np.float64], kind: NDArray[np.int32], ids: NDArray[np.int64], chance: np.random.Generator
) -> list[list[str]]:
    """Rows of animelist.csv, each user's in the order of time."""
    items = len(fame)
    following = np.full(items, -1)
    same = np.flatnonzero(truth.franchise[1:] == truth.franchise[:-1])
    following[same] = same + 1
    first = END - timedelta(days=DAYS)
    genre_share = truth.genres / truth.genres.sum(axis=1, keepdims=True)
    rows: list[list[str]] = []
    for user in range(len(truth.circle)):
        match = truth.taste[user] @ genre_share.T * 1.6 + 0.8 * truth.hidden[truth.circle[user]]
        pull = np.exp(match) * fame
        pull[truth.part > 0] *= 0.15  # few begin with a sequel
        count = min(int(np.clip(chance.lognormal(3.2, 0.6), 4, 150)), items // 2 or 1)
        drawn = chance.choice(items, size=count, replace=False, p=pull / pull.sum())
        chosen: list[int] = []
        waiting = set(drawn.tolist())
        for item in drawn.tolist():
            while item >= 0 and item not in chosen and len(chosen) < count:
                chosen.append(item)
                waiting.discard(item)
                item = int(following[item]) if chance.random() < 0.7 else -1
        joined = chance.random() * 0.8
        steps = np.sort(joined + (1 - joined) * chance.random(len(chosen)))
        score = 6.6 + 1.1 * match[chosen] + chance.normal(0.0, 0.8, len(chosen))
        for item, when, rating in zip(chosen, steps, score, strict=True):
            at = first + timedelta(seconds=int(when * DAYS * 86_400))
            episodes = _EPISODES[kind[item]][int(ids[item]) % len(_EPISODES[kind[item]])]
            status = int(chance.choice(5, p=(0.08, 0.68, 0.05, 0.0, 0.19) if rating > 4.5 else (0.05, 0.4, 0.1, 0.4, 0.05)))
            watched = episodes if status == 1 else 0 if status == 4 else int(chance.integers(0, episodes + 1))
            shown = "" if status == 4 or chance.random() < 0.25 else str(int(np.clip(round(rating), 1, 10)))
            rows.append([str(user + 1), str(ids[item]), shown, STATUSES[status], str(watched), at.isoformat()])
    return rows


def _write_items(
    path: Path,
    titles: list[str],
    truth: Truth,
    kind: NDArray[np.int32],
    ids: NDArray[np.int64],
    fame: NDArray[np.float64],
    quality: NDArray[np.float64],
    chance: np.random.Generator,
) -> None:
    """The catalogue, with what real ones lack: some genres, types, ratings; "Unknown" episodes; an entity in a title."""
    gaps = chance.random((len(titles), 4))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["anime_id", "title", "genre", "type", "episodes", "rating", "members"])
        for item, title in enumerate(titles):
            episodes = _EPISODES[kind[item]][int(ids[item]) % len(_EPISODES[kind[item]])]
            writer.writerow(
                [
                    ids[item],
                    title.replace("&", "&amp;"),
                    "" if gaps[item, 0] < 0.02 else ", ".join(word for word, has in zip(GENRES, truth.genres[item], strict=True) if has),
                    "" if gaps[item, 1] < 0.01 else TYPES[kind[item]],
                    "Unknown" if gaps[item, 2] < 0.04 else episodes,
                    "" if gaps[item, 3] < 0.03 else f"{np.clip(quality[item], 1.0, 9.9):.2f}",
                    int(2_000 * fame[item]),
                ]
            )


def _write_events(path: Path, rows: list[list[str]], ids: NDArray[np.int64], chance: np.random.Generator) -> None:
    """The lists, in the order of time over all users; a few rows spoiled in each of the ways in which real ones are."""
    rows = sorted(rows, key=lambda row: (row[5], int(row[0]), int(row[1])))
    spoiled = chance.choice(len(rows), size=int(len(rows) * _DIRT), replace=False)
    for position, row in enumerate(spoiled.tolist()):
        bad = list(rows[row])
        match position % 6:
            case 0:
                bad[2] = "11"
            case 1:
                bad[1] = str(int(ids[-1]) + 1_000 + position)
            case 2:
                bad[3] = "Rewound"
            case 3:
                bad[5] = bad[5].replace("-", "/")
            case 4:
                bad = bad[:4]
            case _:
                bad[5] = "2999-01-01T00:00:00+00:00"
        rows.insert(row, bad)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["user_id", "anime_id", "rating", "status", "watched_episodes", "event_time"])
        writer.writerows(rows)
