"""Items by what they are: words, categories, numbers and titles as vectors, and people as the mean of what they liked.

An item is the concatenation of blocks, each of length 1 times its weight in the YAML, the whole of length 1 again; the inner
product of two items is then a weighted mean of the blocks' cosines. Blocks: tags weighted by rarity (idf), categories, each
number as a point on a half circle, hashed words of the title reduced by a truncated SVD (Deerwester et al. 1990).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from configs.domain import Category, ContentModel, Number, Tags
from features.catalogue import Catalogue, CategoryColumn, TagColumn
from features.state import UserState
from training import folder
from training.contract import Evidence, Progress, TrainingData, shared
from training.interactions import recent

Floats = NDArray[np.float32]

MOST_WORDS = 256  # of one attribute; rarer words are left out, so that a vector stays short
DISLIKE = np.float32(0.3)  # how much of the mean disliked item is taken away from a profile
FURTHEST = 3.0  # standard deviations: a number further out counts as this far


@dataclass(frozen=True)
class _Space:
    """What was fitted: the meaning of every column of a vector, in this order: words, numbers, title."""

    words: Mapping[str, tuple[str, ...]]  # tag and category attributes -> their words, one column each
    rarity: Floats  # (words,) idf of a tag, 1 for a category
    numbers: Mapping[str, tuple[float, float]]  # attribute -> mean and deviation, after the logarithm; two columns each
    title_rarity: Floats  # (buckets,)
    title_axes: Floats  # (buckets, t)


class Content:
    """Score = cosine of the person's profile and the item, -1..1.

    The profile is the mean of the last `history` items of a person's taste, weighted by their strengths, less DISLIKE times
    the mean of the disliked ones. Words a person named count as one more item that bears just these words."""

    def __init__(self, config: ContentModel) -> None:
        self.config = config
        none = np.empty((0, 0), dtype=np.float32)
        self._space = _Space({}, none[0:0].ravel(), {}, none[0:0].ravel(), none)
        self._vectors = none
        self._columns: dict[tuple[str, str], int] = {}

    def fit(self, data: TrainingData, progress: Progress | None = None) -> None:
        """Learns rarities, means and the title's axes from the catalogue alone; events say nothing here.
        Raises ValueError for an empty catalogue."""
        if not len(data.catalogue):
            raise ValueError("the catalogue is empty: there are no items to describe")
        self._open(_fitted(self.config, data.catalogue, data.seed, data.threads), None)
        self._vectors = _embedded(self.config, self._space, data.catalogue)
        if progress is not None:
            progress("content", 1.0)

    def _open(self, space: _Space, vectors: Floats | None) -> None:
        self._space = space
        if vectors is not None:
            self._vectors = vectors
        self._columns = {}
        for attribute, words in space.words.items():
            for word in words:
                self._columns[attribute, word] = len(self._columns)
        self._names = [f"{attribute}:{word}" for attribute, word in self._columns]

    def place(self, catalogue: Catalogue) -> Self:
        """Every item of the catalogue in the space that was fitted; words never seen while fitting add nothing."""
        placed = type(self)(self.config)
        placed._open(self._space, _embedded(self.config, self._space, catalogue))
        return placed

    def profile(self, state: UserState) -> Floats | None:
        """(d,) float32 of length 1, None if nothing is known of the person."""
        m = len(self._vectors)
        rows, weights = recent(state, m, self.config.history)
        total = np.zeros(self._vectors.shape[1], dtype=np.float32)
        weight = 0.0
        if len(rows):
            total += weights @ self._vectors[rows]
            weight += float(weights.sum())
        named = self._named(state.preferences) if state.preferences else None
        if named is not None:
            total += named
            weight += 1.0
        if weight:
            total /= np.float32(weight)
        disliked = state.disliked[state.disliked < m]
        if len(disliked):
            total -= DISLIKE * self._vectors[disliked].mean(axis=0)
        length = float(np.linalg.norm(total))
        return total / np.float32(length) if length > 0 else None

    def _named(self, preferences: Mapping[str, tuple[str, ...]]) -> Floats | None:
        """(d,) an item of length 1 that bears exactly the words named; None if none of them is known."""
        columns = [self._columns[a, word] for a, words in preferences.items() for word in set(words) if (a, word) in self._columns]
        if not columns:
            return None
        vector = np.zeros(self._vectors.shape[1], dtype=np.float32)
        vector[columns] = self._space.rarity[columns]
        return vector / np.float32(np.linalg.norm(vector))

    def scores(self, states: Sequence[UserState], now: int) -> Floats:
        people = np.zeros((len(states), self._vectors.shape[1]), dtype=np.float32)
        nobody: list[int] = []
        for row, state in enumerate(states):
            profile = self.profile(state)
            if profile is None:
                nobody.append(row)
            else:
                people[row] = profile
        table: Floats = (self._vectors @ people[0])[None, :] if len(states) == 1 else people @ self._vectors.T
        table[nobody] = -np.inf
        return table

    def because(self, state: UserState, items: NDArray[np.int32], thorough: bool = False) -> list[Evidence | None]:
        """The word that adds most to the score; or, where the title adds more than any word, the person's item that is most
        alike (`value` is then their cosine)."""
        profile = self.profile(state)
        if profile is None:
            return [None] * len(items)
        rows, _ = recent(state, len(self._vectors), self.config.history)
        words = len(self._names)
        titles = self._vectors.shape[1] - self._space.title_axes.shape[1]
        added = self._vectors[items] * profile
        by_title = added[:, titles:].sum(axis=1)
        out: list[Evidence | None] = []
        for place, item in enumerate(items):
            best = int(added[place, :words].argmax()) if words else -1
            strength = float(added[place, best]) if words else 0.0
            others = rows[rows != item]
            if len(others) and by_title[place] >= strength:
                alike = self._vectors[others] @ self._vectors[item]
                nearest = int(alike.argmax())
                out.append(Evidence("item", float(alike[nearest]), item=int(others[nearest])) if alike[nearest] > 0 else None)
            else:
                out.append(Evidence("attribute", strength, feature=self._names[best]) if strength > 0 else None)
        return out

    def parts(self, state: UserState, items: NDArray[np.int32]) -> list[list[Evidence]]:
        """Every shared word, every number and the title, by what they add to the cosine. A number is called by its attribute, the title
        `title`; where a word of the person's is missing from the item (or disliked) it adds nothing (or takes away)."""
        profile = self.profile(state)
        if profile is None:
            return [[] for _ in items]
        added = self._vectors[items] * profile
        words, numbers = len(self._names), list(self._space.numbers)
        titles = words + 2 * len(numbers)
        out = []
        for row in added:
            found = [Evidence("attribute", float(row[at]), feature=self._names[at]) for at in np.flatnonzero(row[:words])]
            for place, name in enumerate(numbers):
                value = float(row[words + 2 * place : words + 2 * place + 2].sum())
                found.append(Evidence("attribute", value, feature=name))
            found.append(Evidence("attribute", float(row[titles:].sum()), feature="title"))
            out.append(shared(found))
        return out

    def similar(self, item: int) -> Floats:
        """Cosine of the items' vectors."""
        if not 0 <= item < len(self._vectors):
            raise IndexError(f"item {item} of {len(self._vectors)}")
        out: Floats = self._vectors @ self._vectors[item]
        out[item] = -np.inf
        return out

    def save(self, directory: Path) -> None:
        space = self._space
        folder.write(
            directory,
            {"config": self.config.model_dump(mode="json"), "words": dict(space.words), "numbers": dict(space.numbers)},
            {"vectors": self._vectors, "rarity": space.rarity, "title_rarity": space.title_rarity, "title_axes": space.title_axes},
        )

    @classmethod
    def load(cls, directory: Path) -> Self:
        document = folder.document(directory)
        model = cls(ContentModel.model_validate(document["config"]))
        words = {name: tuple(said) for name, said in document["words"].items()}
        numbers = {name: (float(mean), float(deviation)) for name, (mean, deviation) in document["numbers"].items()}
        arrays = {name: folder.array(directory, name) for name in ("vectors", "rarity", "title_rarity", "title_axes")}
        model._open(_Space(words, arrays["rarity"], numbers, arrays["title_rarity"], arrays["title_axes"]), arrays["vectors"])
        return model


def _fitted(config: ContentModel, catalogue: Catalogue, seed: int, threads: int) -> _Space:
    n = len(catalogue)
    words: dict[str, tuple[str, ...]] = {}
    rarity: list[Floats] = []
    for name in (*catalogue.names(Tags), *catalogue.names(Category)):
        column = catalogue.columns[name]
        assert isinstance(column, TagColumn | CategoryColumn)
        counts = np.bincount(column.codes, minlength=len(column.words))
        kept = np.sort(np.argsort(-counts, kind="stable")[:MOST_WORDS])
        words[name] = tuple(column.words[code] for code in kept)
        tags = isinstance(column, TagColumn)
        rarity.append((np.log((1.0 + n) / (1.0 + counts[kept])) + 1.0 if tags else np.ones(len(kept))).astype(np.float32))
    numbers: dict[str, tuple[float, float]] = {}
    for name in catalogue.names(Number):
        attribute = catalogue.schema.attributes[name]
        # Neither a count of people nor how many there are to be had says what an item is like.
        if isinstance(attribute, Number) and not (attribute.prior or attribute.capacity):
            present = _scaled(attribute, catalogue.number(name).values)[~catalogue.number(name).missing]
            if len(present) and float(present.std()) > 0:
                numbers[name] = (float(present.mean()), float(present.std()))
    title_rarity, axes = _title_axes(config, catalogue.titles, seed, threads)
    return _Space(words, np.concatenate([*rarity, np.empty(0, dtype=np.float32)]), numbers, title_rarity, axes)


def _title_axes(config: ContentModel, titles: Sequence[str], seed: int, threads: int) -> tuple[Floats, Floats]:
    """(buckets,) idf and (buckets, t) axes of the title; t = 0 where the title is left out or the items are too few."""
    from sklearn.decomposition import TruncatedSVD
    from threadpoolctl import threadpool_limits

    none = np.empty(0, dtype=np.float32), np.empty((0, 0), dtype=np.float32)
    if not config.title_words:
        return none
    counts = _title_words(titles, config.title_words)
    used = np.bincount(counts.indices, minlength=config.title_words)
    dimensions = min(config.dimensions, len(titles) - 1, int((used > 0).sum()) - 1)
    if dimensions < 2:
        return none
    rarity = (np.log((1.0 + len(titles)) / (1.0 + used)) + 1.0).astype(np.float32)
    with threadpool_limits(threads):
        reduction = TruncatedSVD(dimensions, random_state=seed).fit(_unit_rows(counts @ sparse.diags(rarity)))
    return rarity, np.ascontiguousarray(reduction.components_.T, dtype=np.float32)


def _embedded(config: ContentModel, space: _Space, catalogue: Catalogue) -> Floats:
    """(n, d) float32 rows of length 1 (0 for an item of which nothing is known)."""
    n = len(catalogue)
    blocks: list[Floats] = []
    offset = 0
    for name, words in space.words.items():
        column = catalogue.columns[name]
        assert isinstance(column, TagColumn | CategoryColumn)
        at = {word: place for place, word in enumerate(words)}
        place = np.array([at.get(word, -1) for word in column.words], dtype=np.int64)
        tags = isinstance(column, TagColumn)
        owners = np.repeat(np.arange(n), np.diff(column.indptr)) if isinstance(column, TagColumn) else np.arange(n)
        columns = place[column.codes] if len(place) else np.empty(0, dtype=np.int64)
        block = np.zeros((n, len(words)), dtype=np.float32)
        block[owners[columns >= 0], columns[columns >= 0]] = 1.0
        block *= space.rarity[offset : offset + len(words)]
        blocks.append(_unit(block) * np.float32(config.tag_weight if tags else config.category_weight))
        offset += len(words)
    for name, (mean, deviation) in space.numbers.items():
        attribute = catalogue.schema.attributes[name]
        assert isinstance(attribute, Number)
        number = catalogue.number(name)
        # A half circle: equal numbers have cosine 1, the two ends -1; a missing number says nothing.
        away = np.clip((_scaled(attribute, number.values) - mean) / deviation, -FURTHEST, FURTHEST)
        angle = away * (np.pi / 2.0 / FURTHEST)
        block = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        block[number.missing] = 0.0
        blocks.append(block * np.float32(config.number_weight))
    if space.title_axes.shape[1]:
        counts = _title_words(catalogue.titles, len(space.title_rarity))
        reduced = _unit_rows(counts @ sparse.diags(space.title_rarity)) @ space.title_axes
        blocks.append(_unit(np.asarray(reduced, dtype=np.float32)) * np.float32(config.title_weight))
    return _unit(np.concatenate(blocks, axis=1)) if blocks else np.zeros((n, 0), dtype=np.float32)


def _scaled(attribute: Number, values: Floats) -> Floats:
    """log1p where the YAML says `logarithm`; what lies below 0 keeps its sign."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)) if attribute.logarithm else values, dtype=np.float32)


def _title_words(titles: Sequence[str], buckets: int) -> Any:
    """(n, buckets) scipy CSR: 1 where a word of the title falls. CRC-32 is the same on every machine and in every run."""
    rows: list[int] = []
    columns: list[int] = []
    for row, title in enumerate(titles):
        found = {zlib.crc32(word.encode()) % buckets for word in re.findall(r"\w+", title.casefold())}
        rows.extend([row] * len(found))
        columns.extend(sorted(found))
    return sparse.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(len(titles), buckets))


def _unit_rows(matrix: Any) -> Any:
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return (sparse.diags(1.0 / np.maximum(lengths, 1e-12)) @ matrix).tocsr()


def _unit(rows: Floats) -> Floats:
    """Rows of length 1; rows of zeros stay."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12)), dtype=np.float32)
