"""The future does not leak: whatever happens at or after a moment, nothing that is made as of it changes by a byte."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.domain import (
    AlsModel,
    CandidateModel,
    ClustersModel,
    ContentModel,
    NeighboursModel,
    PopularityModel,
    Ranker,
    SasrecModel,
)
from configs.domain import Split as SplitWords
from features.compute import PairFeatures
from features.state import Histories
from features.statistics import ItemStatistics
from tests.worlds import KINDS, World, checkerboard
from training import build, contract, examples
from training.retrieval import feature_rows, retrieve
from training.split import Split, split, targets

MODELS: dict[str, CandidateModel] = {
    "popular": PopularityModel(model="popularity", half_life_days=5.0),
    "content": ContentModel(model="content", title_words=64, dimensions=8),
    "als": AlsModel(model="als", factors=4, iterations=3),
    "sasrec": SasrecModel(model="sasrec", dimensions=8, blocks=1, heads=1, window=8, epochs=1, batch=32),
    "neighbours": NeighboursModel(model="neighbours", neighbours=5),
    "clusters": ClustersModel(model="clusters", clusters=2, top=20),
}
WORDS = Ranker(candidates=10, negatives=5)


def altered(known: Histories, moment: int, seed: int) -> Histories:
    """The same times, but from `moment` on other items, kinds and ratings."""
    chance = np.random.default_rng(seed)
    late = known.times >= moment
    items, kinds, values = known.items.copy(), known.kinds.copy(), known.values.copy()
    items[late] = chance.integers(0, 40, int(late.sum()))
    kinds[late] = chance.choice([KINDS.code("seen"), KINDS.code("planned"), KINDS.code("dislike"), KINDS.code("undo")], int(late.sum()))
    values[late] = chance.choice([np.nan, 1.0, 10.0], int(late.sum()))
    return Histories(known.kinds_of, known.indptr, items, kinds, values, known.times, known.ordered)


def as_of(place: World, known: Histories, cut: Split) -> str:
    """A digest of everything that is made as of the label window's first moment, and of what the label window teaches."""
    digest = hashlib.sha256()
    moment, items = cut.label_moment, len(place.catalogue)
    base = known.where(cut.base)
    statistics = ItemStatistics.as_of(known, items, moment)  # given everything, it has to look away itself
    told: list[NDArray[Any]] = [statistics.takers, statistics.recent, statistics.liking]
    models: dict[str, contract.CandidateModel] = {}
    for name, words in MODELS.items():
        models[name] = build.build(words)
        models[name].fit(contract.TrainingData(base, place.catalogue, moment, 3, threads=1))
    states = [known.state(user).until(moment) for user in range(len(known))]
    features = PairFeatures(place.catalogue, statistics)
    found = retrieve(models, states, moment, 10, items).candidates
    rows = feature_rows(tuple(models), features, states, found, moment)
    told += [found.users, found.items, found.scores, found.ranks, rows]
    wanted = targets(known, cut.label, base, items)
    made = examples.make(WORDS, models, features, base, wanted, items, place.catalogue.available, moment, 3)
    told += [wanted.users, wanted.items, made.rows, made.labels, made.groups]
    for array in told:
        digest.update(array.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def place() -> World:
    return checkerboard(users=40)


def test_no_byte_of_the_past_knows_the_test_window(place: World) -> None:
    cut = split(place.histories, SplitWords(test=0.2, label=0.2), place.now)
    truth = as_of(place, place.histories, cut)
    assert as_of(place, altered(place.histories, cut.test_moment, 1), cut) == truth
    assert as_of(place, place.histories, cut) == truth  # else the comparison above would say nothing


def test_the_comparison_would_see_an_altered_past(place: World) -> None:
    cut = split(place.histories, SplitWords(test=0.2, label=0.2), place.now)
    assert as_of(place, altered(place.histories, cut.label_moment - 1, 1), cut) != as_of(place, place.histories, cut)


def test_the_moments_of_the_split_do_not_depend_on_what_happened_then(place: World) -> None:
    words = SplitWords(test=0.2, label=0.2)
    cut = split(place.histories, words, place.now)
    other = split(altered(place.histories, cut.label_moment, 2), words, place.now)
    assert (cut.label_moment, cut.test_moment) == (other.label_moment, other.test_moment)
