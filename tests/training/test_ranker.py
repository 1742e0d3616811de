"""The second stage and its training rows: an obvious rule is learnt, contributions add up, what is saved is what is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.domain import PopularityModel
from configs.domain import Ranker as Words
from features.compute import PairFeatures
from features.statistics import ItemStatistics
from tests.worlds import World, checkerboard
from training import build, contract, examples
from training.ranker import Ranker
from training.split import Targets

NAMES = ("als.score", "als.place", "sources", "noise")
WORDS = Words(trees=40, leaves=7, leaf_rows=5, learning_rate=0.1)


def rule(people: int = 80, each: int = 12, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.int64]]:
    """One of each person's is taken: the one whose first column is above 0.9, whatever the others say."""
    chance = np.random.default_rng(seed)
    rows = chance.random((people * each, 4)).astype(np.float32)
    rows[:, 0] *= 0.8
    labels = np.zeros(people * each, dtype=np.int8)
    best = chance.integers(each, size=people) + np.arange(people) * each
    rows[best, 0] = 0.9 + 0.1 * chance.random(people)
    labels[best] = 1
    return rows, labels, np.full(people, each, dtype=np.int64)


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    rows, labels, groups = rule()
    return Ranker.fit(WORDS, NAMES, ("als",), rows, labels, groups, seed=3, threads=1)


def test_an_obvious_rule_is_learnt(ranker: Ranker) -> None:
    rows, labels, groups = rule(seed=9)
    best = ranker.scores(rows).reshape(len(groups), -1).argmax(axis=1)
    assert (labels.reshape(len(groups), -1).argmax(axis=1) == best).mean() > 0.95
    assert next(iter(ranker.importance())) == "als.score"
    assert sum(ranker.importance().values()) == pytest.approx(1.0, abs=1e-4)


def test_contributions_sum_to_the_score(ranker: Ranker) -> None:
    rows = rule(seed=4)[0][:200]
    rows[::7, 1] = np.nan
    contributions = ranker.contributions(rows)
    assert contributions.shape == (200, 5)
    np.testing.assert_allclose(contributions.sum(axis=1), ranker.scores(rows), atol=1e-6)


def test_batch_equals_single(ranker: Ranker) -> None:
    rows = rule(seed=4)[0][:20]
    np.testing.assert_array_equal(ranker.scores(rows), np.concatenate([ranker.scores(rows[at : at + 1]) for at in range(20)]))
    assert ranker.scores(rows[:0]).shape == (0,)


def test_the_seed_decides(ranker: Ranker) -> None:
    rows, labels, groups = rule()
    again = Ranker.fit(WORDS, NAMES, ("als",), rows, labels, groups, seed=3, threads=1)
    np.testing.assert_array_equal(again.scores(rows), ranker.scores(rows))


def test_what_is_saved_is_what_is_loaded(ranker: Ranker, tmp_path: Path) -> None:
    ranker.save(tmp_path / "ranker")
    opened = Ranker.load(tmp_path / "ranker")
    rows = rule(seed=5)[0]
    assert (opened.names, opened.sources, opened.trees) == (NAMES, ("als",), ranker.trees)
    np.testing.assert_array_equal(opened.scores(rows), ranker.scores(rows))
    assert sorted(path.name for path in (tmp_path / "ranker").iterdir()) == ["ranker.json", "ranker.txt"]


def test_other_features_than_those_named_beside_it_are_refused(ranker: Ranker, tmp_path: Path) -> None:
    ranker.save(tmp_path)
    (tmp_path / "ranker.json").write_text(json.dumps({"names": NAMES[:3], "sources": ["als"]}))
    with pytest.raises(ValueError, match=r"4 features, ranker\.json names 3"):
        Ranker.load(tmp_path)


def test_without_a_taken_candidate_there_is_nothing_to_learn() -> None:
    rows, labels, groups = rule()
    with pytest.raises(ValueError, match="no candidate was taken"):
        Ranker.fit(WORDS, NAMES, ("als",), rows, labels * 0, groups, seed=3, threads=1)


@pytest.mark.parametrize("people", [1, 2, 3])
def test_a_handful_of_people_is_enough(people: int) -> None:
    rows, labels, groups = rule(people=people)
    assert np.isfinite(Ranker.fit(WORDS, NAMES, ("als",), rows, labels, groups, seed=3, threads=1).scores(rows)).all()


def test_the_loss_for_other_words_is_another_model() -> None:
    rows, labels, groups = rule()
    few = Ranker.fit(Words(trees=2, leaves=3, leaf_rows=5), NAMES, ("als",), rows, labels, groups, seed=3, threads=1)
    assert few.trees <= 2


# ------------------------------------------------------------ its training rows


@pytest.fixture(scope="module")
def place() -> World:
    return checkerboard(users=20)


def made_of(place: World, wanted: Targets, **words: int) -> examples.Examples:
    model = build.build(PopularityModel(model="popularity"))
    model.fit(contract.TrainingData(place.histories, place.catalogue, place.now, 1))
    features = PairFeatures(place.catalogue, ItemStatistics.as_of(place.histories, 40, place.now))
    return examples.make(
        Words.model_validate(words), {"popular": model}, features, place.histories, wanted, 40, place.catalogue.available, place.now, 5
    )


def missing(place: World, users: list[int]) -> Targets:
    """The items of their own colour that these people have not seen: with 40 candidates all of them are found."""
    rows = [np.setdiff1d(np.arange(user % 2, 40, 2), place.histories.state(user).positives).astype(np.int32) for user in users]
    return Targets(
        np.array(users, dtype=np.int32),
        np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64),
        np.concatenate(rows),
    )


def test_rows_are_marked_by_what_was_taken(place: World) -> None:
    made = made_of(place, missing(place, [0, 3]), candidates=40)
    assert made.share == 1.0
    assert made.groups.tolist() == [23, 23]  # 40 items less the 17 seen
    assert made.labels.reshape(2, 23).sum(axis=1).tolist() == [3, 3]
    assert made.rows.shape[0] == made.labels.shape[0] == 46
    brought = made.rows[:, 2]
    assert (brought == 1.0).all()


def test_few_negatives_are_kept_and_all_positives(place: World) -> None:
    made = made_of(place, missing(place, [0, 3]), candidates=40, negatives=4)
    assert made.groups.tolist() == [7, 7]
    assert made.labels.sum() == 6
    again = made_of(place, missing(place, [0, 3]), candidates=40, negatives=4)
    np.testing.assert_array_equal(made.rows, again.rows)


def test_what_no_source_found_is_said(place: World) -> None:
    made = made_of(place, missing(place, list(range(20))), candidates=8)
    taken = int(made.labels.sum())
    assert 0 < taken < 60
    assert made.share == pytest.approx(taken / 60)


def test_at_most_so_many_people(place: World) -> None:
    assert len(made_of(place, missing(place, list(range(20))), candidates=40, users=6).groups) == 6


def test_nobody_took_a_candidate(place: World) -> None:
    seen = place.histories.state(0).positives[:1].astype(np.int32)
    impossible = Targets(np.array([0], dtype=np.int32), np.array([0, 1], dtype=np.int64), seen)
    nothing = made_of(place, impossible, candidates=40)
    assert (len(nothing.rows), nothing.share) == (0, 0.0)
    with pytest.raises(ValueError, match="nobody took any candidate"):
        examples.joined([nothing, nothing])
