"""Tiny worlds in which the right answer is known. Every test that needs people and items starts from one of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.domain import Category, Events, Items, Kind, Number, Scale, Tags
from features.catalogue import Catalogue, build
from features.state import NO_TIME, Histories, Kinds, UserState, histories
from training.contract import TrainingData

DAY = 86_400_000_000
START = 1_700_000_000_000_000  # microseconds UTC: the first event of every ordered world

ITEMS = Items(
    attributes={
        "genre": Tags(type="tags"),
        "form": Category(type="category"),
        "length": Number(type="number", logarithm=True),
        "members": Number(type="number", missing=0.0, prior=True),
    }
)
EVENTS = Events(
    kinds={
        "seen": Kind(means=("seen",), weight=1.0),
        "planned": Kind(means=("interest",), weight=0.3),
        "dislike": Kind(means=("disliked",), weight=0.0),
        "shown": Kind(means=("shown",), weight=0.0),
        "undo": Kind(means=("undo",), weight=0.0),
    },
    scale=Scale(low=1.0, high=10.0, liked_from=7.0, disliked_to=4.0),
)
KINDS = Kinds.of(EVENTS)
SEEN = KINDS.code("seen")


@dataclass(frozen=True)
class World:
    """`now` is a day after the last event. `data` is what a model is fitted on."""

    items: Items
    events: Events
    catalogue: Catalogue
    histories: Histories
    now: int
    seed: int = 5

    @property
    def kinds_of(self) -> Kinds:
        return self.histories.kinds_of

    @property
    def data(self) -> TrainingData:
        return TrainingData(self.histories, self.catalogue, self.now, self.seed, threads=1)

    def before(self, moment: int) -> TrainingData:
        """Only what was known before `moment`."""
        return TrainingData(self.histories.where(self.histories.times < moment), self.catalogue, moment, self.seed, threads=1)

    def person(self, rows: Sequence[int], **preferences: tuple[str, ...]) -> UserState:
        """Somebody who saw these rows, in this order, just before `now`."""
        state = UserState.empty(self.kinds_of, preferences)
        for place, row in enumerate(rows):
            state = state.then(row, SEEN, float("nan"), self.now - len(rows) + place)
        return state


def world(
    genres: Sequence[str],
    people: Sequence[Sequence[int]],
    *,
    titles: Sequence[str] | None = None,
    lengths: Sequence[float] | None = None,
    forms: Sequence[str] | None = None,
    members: Sequence[float] | None = None,
    ordered: bool = True,
) -> World:
    """One item a genre cell ("Comedy, Drama"); person u saw the rows people[u], oldest first, an event an hour, everybody
    starting at START. Without `ordered` the events have no times."""
    n = len(genres)
    catalogue = build(
        ITEMS,
        [f"i{row}" for row in range(n)],
        titles or [f"Title {row}" for row in range(n)],
        [True] * n,
        {
            "genre": list(genres),
            "form": list(forms or ["Series"] * n),
            "length": list(lengths or [12.0] * n),
            "members": list(members or [float(n - row) for row in range(n)]),
        },
    )
    users = np.repeat(np.arange(len(people), dtype=np.int32), [len(rows) for rows in people])
    items = np.array([row for rows in people for row in rows], dtype=np.int32)
    hours = np.concatenate([np.arange(len(rows), dtype=np.int64) for rows in people])
    times = START + hours * (DAY // 24) if ordered else np.full(len(items), NO_TIME, dtype=np.int64)
    made = histories(
        KINDS,
        len(people),
        users,
        items,
        np.full(len(items), SEEN, dtype=np.int8),
        np.full(len(items), np.nan, dtype=np.float32),
        times,
        ordered,
    )
    return World(ITEMS, EVENTS, catalogue, made, START + (int(hours.max()) + 24) * DAY // 24)


def checkerboard(users: int = 60, items: int = 40, missing: int = 3, ordered: bool = True, seed: int = 3) -> World:
    """Even people saw even items, odd people odd ones, all but a few each: exactly these few are the right answer.
    Even items bear the genre Even and are films, odd ones Odd and series. (The world implicit tests its own models in.)"""
    chance = np.random.default_rng(seed)
    people = [chance.permutation(np.arange(user % 2, items, 2))[missing:].tolist() for user in range(users)]
    odd = [row % 2 == 1 for row in range(items)]
    return world(
        ["Odd" if at else "Even" for at in odd],
        people,
        forms=["Series" if at else "Film" for at in odd],
        lengths=[24.0 if at else 90.0 for at in odd],
        ordered=ordered,
    )


def cycle(users: int = 120, items: int = 12, length: int = 8, seed: int = 3) -> World:
    """After item i everybody sees i + 1 (after the last, the first): only the order tells what comes next."""
    starts = np.random.default_rng(seed).integers(items, size=users)
    return world(["Any"] * items, [((start + np.arange(length)) % items).tolist() for start in starts])


def genres() -> World:
    """Six comedies (rows 0-5), six dramas (6-11); rows 4 and 10 were never seen by anybody; two titles share a name (0 and 5);
    row 3 is the most seen comedy."""
    cells = ["Comedy"] * 6 + ["Drama"] * 6
    titles = ["Moon Cafe", "Alpha", "Bravo", "Charlie", "Delta", "Moon Cafe Again", "Echo", "Foxtrot", "Golf", "Hotel", "India", "Juliet"]
    people = [[0, 1, 3], [1, 2, 3], [3, 5, 0], [6, 7, 8], [7, 8, 9], [9, 11, 6], [3, 7]]
    return world(cells, people, titles=titles, forms=["Series", "Film"] * 6, lengths=[12.0, 90.0] * 6)


def unseen(catalogue: Catalogue, state: UserState) -> NDArray[np.int64]:
    """Rows of the catalogue that this person has not taken."""
    return np.setdiff1d(np.arange(len(catalogue)), state.positives)
