"""The files of MovieLens-1M as they lie -> plain ones: titles with genres and year, everybody's sequence, the ratings that have times.

Read are `ml-1m_movies.dat` (id::title (year)::genre|genre, latin-1), `ml-1m_sequences.txt` ("user item" a line, in the order of time
for each user, numbered anew), the two maps from those numbers to the original ones, and, where it is there,
`ml-1m_ratings_users_1-2999.dat` (user::movie::rating::seconds). Everything written bears the original numbers.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from configs.domain import Domain
from pipelines.sources.tables import SourceError
from pipelines.steps import atomic, files_state, write_json

MOVIES, SEQUENCES, RATINGS = "ml-1m_movies.dat", "ml-1m_sequences.txt", "ml-1m_ratings_users_1-2999.dat"
ITEM_IDS, USER_IDS = "ml-1m_item_ids.txt", "ml-1m_user_ids.txt"
NEEDED = (MOVIES, SEQUENCES, ITEM_IDS, USER_IDS)
STATE = "prepared.json"
_VERSION = 1  # raise it when the same files would become others
_YEAR = re.compile(r"\((\d{4})\)\s*$")
Rows = Iterator[Sequence[str]]


def prepare(domain: Domain, data: Path, directory: Path) -> None:
    """Writes movies.csv, sequences.csv and, if there are ratings, ratings.csv; files that stand for the same input are left alone.
    A title outside the sequences is in the catalogue but not available: published figures rank those inside.

    Raises SourceError naming file, line and what was expected."""
    missing = [name for name in NEEDED if not (data / name).is_file()]
    if missing:
        there = ", ".join(sorted(entry.name for entry in data.iterdir())[:20]) or "nothing"
        raise SourceError(f"{data}: {', '.join(missing)} not there (found: {there})")
    timed = (data / RATINGS).is_file()
    read = [data / name for name in (*NEEDED, *([RATINGS] if timed else []))]
    state = json.loads(json.dumps([_VERSION, files_state(read)]))
    made = [directory / name for name in ("movies.csv", "sequences.csv", *(["ratings.csv"] if timed else []))]
    if (directory / STATE).is_file() and json.loads((directory / STATE).read_text()) == state and all(file.is_file() for file in made):
        return
    (directory / STATE).unlink(missing_ok=True)
    items, users = _map(data / ITEM_IDS), _map(data / USER_IDS)
    _write(directory / "movies.csv", ("movie_id", "title", "genres", "year", "available"), _movies(data / MOVIES, set(items.values())))
    _write(directory / "sequences.csv", ("user_id", "movie_id"), _sequences(data / SEQUENCES, users, items))
    if timed:
        _write(directory / "ratings.csv", ("user_id", "movie_id", "rating", "time"), _parts(data / RATINGS, "::", 4))
    else:
        (directory / "ratings.csv").unlink(missing_ok=True)
    write_json(directory / STATE, state)


def _movies(path: Path, ranked: set[str]) -> Rows:
    for movie, title, genres in _parts(path, "::", 3):
        year = _YEAR.search(title)
        yield movie, title, genres, year[1] if year else "", "1" if movie in ranked else "0"


def _sequences(path: Path, users: dict[str, str], items: dict[str, str]) -> Rows:
    for number, (user, item) in enumerate(_parts(path, " ", 2), start=1):
        if user not in users or item not in items:
            raise SourceError(f"{path.name}, line {number}: {user} {item} is not in {USER_IDS} and {ITEM_IDS}")
        yield users[user], items[item]


def _map(path: Path) -> dict[str, str]:
    """Number in the sequences -> original number."""
    return {ours: original for ours, original in _parts(path, " ", 2)}  # noqa: C416  (says which is which)


def _parts(path: Path, separator: str, width: int) -> Rows:
    """The cells of each line. Raises SourceError for a line that has not `width` of them."""
    with path.open(encoding="latin-1", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            cells = line.rstrip("\r\n").split(separator)
            if len(cells) != width:
                raise SourceError(f"{path.name}, line {number}: {line.rstrip()[:100]!r}, expected {width} cells parted by {separator!r}")
            yield cells


def _write(path: Path, heading: Sequence[str], rows: Rows) -> None:
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write: Callable[[Sequence[str]], object] = csv.writer(file, lineterminator="\n").writerow
        write(heading)
        for row in rows:
            write(row)
