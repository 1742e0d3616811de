"""Each feature of the ranker, once: the same function makes rows as of a past moment for training and now for a request.

A row is one (person, item) pair. What is asked of a person comes from the state given, what is asked of an item from
statistics as of a moment: nothing here can see the future of either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from configs.domain import Category, Number, Tags
from features.catalogue import Catalogue
from features.state import NO_TIME, UserState
from features.statistics import DAY_US, ItemStatistics

Rows = NDArray[np.float32]


class PairFeatures:
    """Rows for pairs. `names` are stable for a schema: attributes in the order of the YAML."""

    def __init__(self, catalogue: Catalogue, statistics: ItemStatistics) -> None:
        self._statistics = statistics
        self._tags: dict[str, Rows] = {}  # (items, words), each row of length 1
        for name in catalogue.names(Tags):
            one_hot = catalogue.tags(name).one_hot()
            self._tags[name] = one_hot / np.maximum(np.linalg.norm(one_hot, axis=1, keepdims=True), 1e-9)
        self._categories = {name: catalogue.category(name) for name in catalogue.names(Category)}
        self._numbers: dict[str, NDArray[np.float32]] = {}  # (items,) standardised
        for name in catalogue.names(Number):
            attribute = catalogue.schema.attributes[name]
            if name == catalogue.schema.capacity:
                continue
            values = catalogue.number(name).values
            scaled = np.log1p(np.maximum(values, 0)) if isinstance(attribute, Number) and attribute.logarithm else values
            spread = float(scaled.std()) or 1.0
            self._numbers[name] = ((scaled - scaled.mean()) / spread).astype(np.float32)
        self._mainstream = np.log1p(statistics.takers).astype(np.float32)
        own = {
            "item.takers": self._mainstream,
            "item.recent": np.log1p(statistics.recent),
            "item.trend": statistics.recent / np.maximum(statistics.takers, 1.0),
            "item.liking": statistics.liking,
        }
        if catalogue.schema.capacity is not None:  # the share that is free, and how many that are: NaN where nobody knows
            own |= {"item.free": statistics.free, "item.left": np.log1p(catalogue.capacity() * statistics.free)}
        own |= {f"item.{name}": values for name, values in self._numbers.items()}
        self._item_columns = np.stack(list(own.values()), axis=1).astype(np.float32)
        self.names: tuple[str, ...] = (
            *own,
            "user.history",
            "user.idle_days",
            "user.mainstream",
            "user.rating",
            "pair.mainstream_gap",
            *(f"pair.{name}_affinity" for name in self._tags),
            *(f"pair.{name}_aversion" for name in self._tags),
            *(f"pair.{name}_share" for name in self._categories),
            *(f"pair.{name}_gap" for name in self._numbers),
        )

    def rows(self, states: Sequence[UserState], users: NDArray[np.int32], items: NDArray[np.int32], now: int) -> Rows:
        """(pairs, features) float32; `users` (pairs,) are positions in `states`, `items` (pairs,) rows of the catalogue."""
        taste = _Bags([state.positives for state in states])
        dislike = _Bags([state.disliked for state in states])
        about = np.empty((len(states), 4), dtype=np.float32)
        about[:, 0] = np.log1p(taste.lengths)
        about[:, 1] = [_idle_days(state, now) for state in states]
        about[:, 2] = taste.mean(self._mainstream[:, None])[:, 0]
        about[:, 3] = [_mean_rating(state) for state in states]
        columns: list[Rows] = [self._item_columns[items], about[users], (self._mainstream[items] - about[users, 2])[:, None]]
        for bags in (taste, dislike):
            for matrix in self._tags.values():
                profile = bags.mean(matrix)
                profile /= np.maximum(np.linalg.norm(profile, axis=1, keepdims=True), 1e-9)
                columns.append(np.einsum("ij,ij->i", profile[users], matrix[items])[:, None])
        for column in self._categories.values():
            shares = taste.shares(column.codes, len(column.words))
            columns.append(shares[users, column.codes[items]][:, None])
        for values in self._numbers.values():
            mean = taste.mean(values[:, None])[:, 0]
            columns.append(np.abs(values[items] - mean[users])[:, None])
        return np.concatenate(columns, axis=1, dtype=np.float32)


def attribute_vectors(catalogue: Catalogue) -> Rows:
    """(items, words) float32 of length 1 (0 for an item that bears nothing): tags and categories, for telling how alike two
    items of one slate are."""
    parts = [catalogue.tags(name).one_hot() for name in catalogue.names(Tags)]
    for name in catalogue.names(Category):
        column = catalogue.category(name)
        parts.append(np.eye(len(column.words), dtype=np.float32)[column.codes])
    if not parts:
        return np.zeros((len(catalogue), 1), dtype=np.float32)
    joined = np.concatenate(parts, axis=1)
    return np.asarray(joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-9), dtype=np.float32)


class _Bags:
    """A bag of items for each of n people, for means over them."""

    def __init__(self, bags: Sequence[NDArray[np.int32]]) -> None:
        self.lengths = np.array([len(bag) for bag in bags], dtype=np.int64)
        self._flat = np.concatenate(bags) if len(bags) else np.empty(0, dtype=np.int32)
        self._filled = np.flatnonzero(self.lengths)
        ends = np.cumsum(self.lengths)
        self._starts = (ends - self.lengths)[self._filled]
        self._owners = np.repeat(np.arange(len(bags)), self.lengths)

    def mean(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, columns) mean of matrix[item] over each bag; zeros for an empty one."""
        out = np.zeros((len(self.lengths), matrix.shape[1]), dtype=np.float32)
        if len(self._filled):
            out[self._filled] = np.add.reduceat(matrix[self._flat], self._starts, axis=0) / self.lengths[self._filled, None]
        return out

    def shares(self, codes: NDArray[np.int32], words: int) -> NDArray[np.float32]:
        """(n, words) share of each bag's items that bear each word."""
        n = len(self.lengths)
        counted = np.bincount(self._owners * words + codes[self._flat], minlength=n * words).reshape(n, words)
        return np.asarray(counted / np.maximum(self.lengths, 1)[:, None], dtype=np.float32)


def _idle_days(state: UserState, now: int) -> float:
    """log1p of the days since the person's last event that still stands; -1 where there is none or it has no time."""
    times = state.folded.times
    if not len(times) or times[-1] == NO_TIME:
        return -1.0
    return float(np.log1p(max(0.0, (now - int(times[-1])) / DAY_US)))


def _mean_rating(state: UserState) -> float:
    """Mean of the person's last rating of each item, NaN where there is none."""
    if not np.isfinite(state.kinds_of.liked_from):
        return float("nan")  # without a scale of ratings a value is a quantity
    values = state.folded.values
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
