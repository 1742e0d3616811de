"""The most chosen items as of a moment: the baseline, the start for newcomers, and the last resort of every answer."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from configs.domain import Category, Number, PopularityModel, Tags
from features.catalogue import Catalogue
from features.state import Histories, UserState
from features.statistics import ItemStatistics
from training import folder
from training.contract import Evidence, Progress, TrainingData

#: Items that bear more than so many of the words a person named are told apart by popularity alone.
MOST_MATCHES = 3


class Popularity:
    """Score = share of the largest count, 0..1. Nobody has counted an item that no event names: it stands below every
    counted one, in the order of the catalogue's own prior, and its evidence carries the prior's name.

    With a `demand` what is counted is, of the demand for an item, the part that can still be met from what is left of it (`constrained`).

    For a person who named words (`preferences`) items bearing them come first: score = (matches + share) / (MOST_MATCHES + 1),
    matches = how many of the words the item bears, at most MOST_MATCHES.
    """

    def __init__(self, config: PopularityModel) -> None:
        self.config = config
        self._recent = np.empty(0, dtype=np.float32)
        self._takers = np.empty(0, dtype=np.float32)
        self._left = np.empty(0, dtype=np.float32)
        self._open(None)

    def _open(self, catalogue: Catalogue | None) -> None:
        self._prior = np.zeros(len(self._recent), dtype=np.float32)
        self._prior_name: str | None = None
        self._bearers: dict[tuple[str, str], NDArray[np.int32]] = {}
        if catalogue is not None:
            self._prior = catalogue.prior()
            named = [n for n, a in catalogue.schema.attributes.items() if isinstance(a, Number) and a.prior]
            self._prior_name = named[0] if named else None
            self._bearers = _bearers(catalogue)
        self._weigh()

    def _weigh(self) -> None:
        self._shares = shares(constrained(self._recent, self._left, self.config.demand), self._prior)

    def fit(self, data: TrainingData, progress: Progress | None = None) -> None:
        """Counts each person and item once, as features.statistics does: nothing at or after `data.now`, an event's weight
        halving every `half_life_days` where there are times. Raises ValueError for an empty catalogue."""
        if not len(data.catalogue):
            raise ValueError("the catalogue is empty: there is nothing to recommend")
        counted = statistics_as_of(self.config, data.histories, data.catalogue, data.now)
        self._recent, self._takers = counted.recent, counted.takers
        self._left = counted.free * data.catalogue.capacity()
        self._open(data.catalogue)
        if progress is not None:
            progress("popularity", 1.0)

    def scores(self, states: Sequence[UserState], now: int) -> NDArray[np.float32]:
        table = np.empty((len(states), len(self._shares)), dtype=np.float32)
        table[:] = self._shares
        for row, state in enumerate(states):
            if state.preferences:
                matches = self._matches(state)
                if matches.any():
                    table[row] = (matches + self._shares) / np.float32(MOST_MATCHES + 1)
        return table

    def _matches(self, state: UserState) -> NDArray[np.float32]:
        """(m,) how many of the words the person named each item bears, at most MOST_MATCHES."""
        matches = np.zeros(len(self._shares), dtype=np.float32)
        for attribute, words in state.preferences.items():
            for word in set(words):
                bearers = self._bearers.get((attribute, word))
                if bearers is not None:
                    matches[bearers] += 1.0
        return np.minimum(matches, np.float32(MOST_MATCHES), out=matches)

    def because(self, state: UserState, items: NDArray[np.int32], thorough: bool = False) -> list[Evidence | None]:
        """A word the person named and the item bears; else how many people chose it; else the catalogue's own count, with
        the name of that attribute as `feature`."""
        return [self._evidence(state, int(item)) for item in items]

    def _evidence(self, state: UserState, item: int) -> Evidence | None:
        for attribute, words in state.preferences.items():
            for word in words:
                bearers = self._bearers.get((attribute, word))
                if bearers is not None and item in bearers:
                    return Evidence("attribute", 1.0, feature=f"{attribute}:{word}")
        if self._takers[item] > 0:
            return Evidence("popular", float(self._takers[item]))
        if self._prior[item] > 0:
            return Evidence("popular", float(self._prior[item]), feature=self._prior_name)
        return None

    def place(self, catalogue: Catalogue) -> Self:
        """Items that came later have been chosen by nobody: they stand by their prior."""
        placed = type(self)(self.config)
        more = np.zeros(len(catalogue) - len(self._recent), dtype=np.float32)
        placed._recent, placed._takers = np.concatenate([self._recent, more]), np.concatenate([self._takers, more])
        placed._left = np.concatenate([self._left, np.full_like(more, np.nan)])
        placed._open(catalogue)
        return placed

    def stocked(self, left: NDArray[np.float32]) -> Self:
        if not self.config.demand:
            return self
        anew = copy(self)
        anew._left = left
        anew._weigh()
        return anew

    def save(self, directory: Path) -> None:
        words = list(self._bearers)
        rows = [self._bearers[word] for word in words]
        indptr = np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64)
        flat = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
        counts = {"recent": self._recent, "takers": self._takers, **({"left": self._left} if self.config.demand else {})}
        folder.write(
            directory,
            {"config": self.config.model_dump(mode="json"), "prior": self._prior_name, "words": words},
            {**counts, "prior": self._prior, "bearers": flat, "bearers_indptr": indptr},
        )

    @classmethod
    def load(cls, directory: Path) -> Self:
        document = folder.document(directory)
        model = cls(PopularityModel.model_validate(document["config"]))
        model._recent, model._takers, model._prior = (folder.array(directory, name) for name in ("recent", "takers", "prior"))
        unknown = np.full(len(model._recent), np.nan, dtype=np.float32)
        model._left = folder.array(directory, "left") if model.config.demand else unknown
        model._prior_name = document["prior"]
        flat, indptr = folder.array(directory, "bearers"), folder.array(directory, "bearers_indptr")
        model._bearers = {(a, w): flat[indptr[i] : indptr[i + 1]] for i, (a, w) in enumerate(document["words"])}
        model._weigh()
        return model


def statistics_as_of(config: PopularityModel, histories: Histories, catalogue: Catalogue, moment: int) -> ItemStatistics:
    """Counts as of a moment with the half-life that the configuration says, or, for `auto`, that the data say; what is free of the
    catalogue's capacities then."""
    half_life, items = config.half_life_days, len(catalogue)
    if half_life == "auto":
        half_life = ItemStatistics.best_half_life(histories, items, moment)
    return ItemStatistics.as_of(histories, items, moment, half_life, catalogue.capacity())


def constrained(recent: NDArray[np.float32], left: NDArray[np.float32], demand: float) -> NDArray[np.float32]:
    """(m,) float32, the demand for each item as far as it can be met: left * (1 - exp(-demand * recent / left)), how many of `left` places
    are taken on average when demand * recent requests fall on them by chance. Much left: demand * recent; much asked: left. Where it is
    not known how much is left (NaN) all demand is met; with demand 0 these are the counts themselves."""
    if not demand:
        return recent
    asked = np.float32(demand) * recent
    bounded = left > 0
    met = np.where(np.isnan(left), asked, np.float32(0.0))
    met[bounded] = left[bounded] * -np.expm1(-asked[bounded] / left[bounded])
    return met


def shares(recent: NDArray[np.float32], prior: NDArray[np.float32]) -> NDArray[np.float32]:
    """(m,) float32 in 0..1: counts as shares of the largest; items without a count below the smallest of these, by prior."""
    counted = recent > 0
    out = np.zeros(len(recent), dtype=np.float32)
    floor = np.float32(1.0)
    if counted.any():
        out[counted] = recent[counted] / recent.max()
        floor = out[counted].min()
    largest = prior[~counted].max() if not counted.all() else 0.0
    if largest > 0:
        out[~counted] = floor * np.float32(0.5) * prior[~counted] / np.float32(largest)
    return out


def _bearers(catalogue: Catalogue) -> dict[tuple[str, str], NDArray[np.int32]]:
    """(attribute, word) -> rows of the items that bear the word, ascending."""
    out: dict[tuple[str, str], NDArray[np.int32]] = {}
    for name in catalogue.names(Tags):
        tags = catalogue.tags(name)
        owners = np.repeat(np.arange(len(catalogue), dtype=np.int32), np.diff(tags.indptr))
        for code, word in enumerate(tags.words):
            out[name, word] = owners[tags.codes == code]
    for name in catalogue.names(Category):
        category = catalogue.category(name)
        for code, word in enumerate(category.words):
            out[name, word] = np.flatnonzero(category.codes == code).astype(np.int32)
    return out
