"""An invented world of films and viewers in the shape of MovieLens-1M's files, whose truth is known.

What can be learned: a viewer's taste in genres, moods that many films share and no attribute shows, and series, whose next part is
watched soon after. As in the real files, viewers and films are numbered anew in the sequences, several films are rated in one
second, a title bears its year, and only the first half of the viewers have times and stars.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GENRES = ("Action", "Adventure", "Animation", "Comedy", "Crime", "Drama", "Fantasy", "Horror", "Musical", "Romance", "Thriller", "War")
BEGIN, DAYS = 956_700_000, 1_000  # seconds since 1970, UTC
_WHO = ("Cartographer", "Florist", "Ghost", "Juggler", "Lighthouse Keeper", "Pilot", "Piano Tuner", "Understudy", "Waiter", "Widow")
_WHERE = ("Boulevard", "Café", "Frontier", "Harbour", "Hotel", "Island", "Midnight Train", "Orchard", "Salt Road", "Tower")
_HOW = ("in Winter", "without a Name", "of the North", "and the Thief", "after Dark", "by the Sea", "on Trial", "in Exile")
_MOODS = 8


@dataclass(frozen=True)
class Truth:
    """What the world was made from. Rows of films and viewers are their order by original number."""

    series: NDArray[np.int32]  # (items,)
    part: NDArray[np.int32]  # (items,) 0 = the first of its series
    genres: NDArray[np.bool_]  # (items, GENRES)
    taste: NDArray[np.float32]  # (users, GENRES), higher is liked more
    mood: NDArray[np.int32]  # (users,)


def make(directory: Path, users: int, items: int, seed: int) -> Truth:
    """Writes the five files (about 40 rows a viewer). Same arguments, same bytes."""
    chance = np.random.default_rng([seed, users, items, 1])
    series = np.repeat(np.arange(items), chance.choice((1, 2, 3), size=items, p=(0.6, 0.25, 0.15)))[:items].astype(np.int32)
    part = (np.arange(items) - np.searchsorted(series, series)).astype(np.int32)
    genres = (chance.random((items, len(GENRES))) < 0.17)[series]
    genres[np.arange(items), (series * 7) % len(GENRES)] = True
    taste = chance.normal(0.0, 0.7, (users, len(GENRES))).astype(np.float32)
    mood = chance.integers(0, _MOODS, users).astype(np.int32)
    truth = Truth(series, part, genres, taste, mood)
    movie_ids = np.cumsum(chance.integers(1, 3, items))
    events = _events(truth, chance)
    _write_movies(directory / "ml-1m_movies.dat", truth, movie_ids)
    _write_sequences(directory, events, movie_ids, chance.permutation(users))
    _write_ratings(directory / "ml-1m_ratings_users_1-2999.dat", events[: (users + 1) // 2], movie_ids, chance)
    return truth


def _events(truth: Truth, chance: np.random.Generator) -> list[list[tuple[int, int]]]:
    """(seconds, film) of each viewer in the order of time: evenings on which several films are rated at once."""
    items = len(truth.series)
    fame = np.exp(chance.normal(0.0, 1.0, items)) * 0.8**truth.part
    hidden = chance.normal(0.0, 1.0, (_MOODS, items))
    share = truth.genres / truth.genres.sum(axis=1, keepdims=True)
    following = np.where(np.append(truth.series[1:] == truth.series[:-1], False), np.arange(items) + 1, -1)
    out: list[list[tuple[int, int]]] = []
    for taste, mood in zip(truth.taste, truth.mood, strict=True):
        pull = np.exp(1.8 * share @ taste + 0.9 * hidden[mood]) * fame
        pull[truth.part > 0] *= 0.3
        count = min(int(np.clip(chance.lognormal(3.4, 0.6), 8, 200)), max(items // 2, 1))
        seen: dict[int, None] = {}
        for film in chance.choice(items, size=count, replace=False, p=pull / pull.sum()).tolist():
            while film >= 0 and film not in seen and len(seen) < count:
                seen[film] = None
                film = int(following[film]) if chance.random() < 0.75 else -1
        evening = np.sort(chance.integers(0, DAYS * 86_400, max(1, len(seen) // 12)))
        of = np.sort(chance.integers(0, len(evening), len(seen)))
        seconds = evening[of] + np.cumsum(chance.integers(0, 2, len(seen)) * 40)
        out.append([(BEGIN + int(when), film) for when, film in zip(seconds, seen, strict=True)])
    return out


def _write_movies(path: Path, truth: Truth, ids: NDArray[np.int64]) -> None:
    lines: list[str] = []
    for film, movie in enumerate(ids):
        number = int(truth.series[film])
        who, where, how = _WHO[number % 10], _WHERE[number // 10 % 10], _HOW[number // 100 % 8]
        again = f" {number // 800 + 1}" if number >= 800 else ""
        title = f"{who} of the {where} {how}{again}" + (f", Part {truth.part[film] + 1}" if truth.part[film] else "")
        words = "|".join(word for word, has in zip(GENRES, truth.genres[film], strict=True) if has)
        lines.append(f"{movie}::{title} ({1940 + (number * 13) % 55 + truth.part[film] * 2})::{words}\n")
    path.write_bytes("".join(lines).encode("latin-1"))


def _write_sequences(directory: Path, events: list[list[tuple[int, int]]], ids: NDArray[np.int64], order: NDArray[np.int64]) -> None:
    """Viewers in another order, films by their first appearance, both numbered from 1; the maps say which is which."""
    known: dict[int, int] = {}
    lines: list[str] = []
    for place, viewer in enumerate(order.tolist(), start=1):
        lines.extend(f"{place} {known.setdefault(film, len(known) + 1)}\n" for _, film in events[viewer])
    (directory / "ml-1m_sequences.txt").write_text("".join(lines), encoding="ascii")
    (directory / "ml-1m_item_ids.txt").write_text("".join(f"{ours} {ids[film]}\n" for film, ours in known.items()), encoding="ascii")
    (directory / "ml-1m_user_ids.txt").write_text(
        "".join(f"{at} {viewer + 1}\n" for at, viewer in enumerate(order, start=1)), encoding="ascii"
    )


def _write_ratings(path: Path, events: list[list[tuple[int, int]]], ids: NDArray[np.int64], chance: np.random.Generator) -> None:
    rows = [
        f"{viewer}::{ids[film]}::{int(np.clip(round(3.6 + chance.normal(0.0, 1.0)), 1, 5))}::{when}\n"
        for viewer, own in enumerate(events, start=1)
        for when, film in own
    ]
    path.write_text("".join(rows), encoding="ascii")
