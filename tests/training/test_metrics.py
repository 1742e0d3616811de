"""Metrics against examples worked out by hand, and against scikit-learn where it has the same formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, label_ranking_average_precision_score, ndcg_score, precision_score
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import recall_score as sklearn_recall
from sklearn.metrics.pairwise import cosine_similarity

from training import metrics
from training.metrics import Counts, Hits, PerPerson


def lists(*rows: list[int]) -> list[np.ndarray]:
    return [np.array(row, dtype=np.int32) for row in rows]


# Places 1 and 3 of five are targets; the second person's only target stands second; the third has none among the first five.
HITS: Hits = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=np.bool_)
WANTED: Counts = np.array([3, 1, 2], dtype=np.int64)


def test_hits_of_marks_places_and_leaves_short_lists_false() -> None:
    hits = metrics.hits_of(lists([5, 7, 9], [4]), lists([9, 5], [1]), 4)
    assert hits.tolist() == [[True, False, True, False], [False] * 4]


def test_hits_of_looks_at_the_first_k_only() -> None:
    assert metrics.hits_of(lists([5, 7, 9]), lists([9]), 2).tolist() == [[False, False]]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (metrics.hit_rate, [1.0, 1.0, 0.0]),
        (metrics.recall, [2 / 3, 1.0, 0.0]),
        (metrics.precision, [2 / 5, 1 / 5, 0.0]),
        # Person 1: (1/log2 2 + 1/log2 4) / (1/log2 2 + 1/log2 3 + 1/log2 4) = 1.5 / 2.130930
        (metrics.ndcg, [1.5 / (1.0 + 1.0 / math.log2(3) + 0.5), (1.0 / math.log2(3)) / 1.0, 0.0]),
        # Person 1: (1/1 + 2/3) / min(3, 5); person 2: (1/2) / 1
        (metrics.average_precision, [(1.0 + 2.0 / 3.0) / 3.0, 0.5, 0.0]),
        (metrics.reciprocal_rank, [1.0, 0.5, 0.0]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_worked_by_hand(metric: object, expected: list[float]) -> None:
    assert callable(metric)
    np.testing.assert_allclose(metric(HITS, WANTED), expected, rtol=1e-12)


def test_more_targets_than_places_still_reach_one() -> None:
    full: Hits = np.ones((1, 3), dtype=np.bool_)
    many: Counts = np.array([50], dtype=np.int64)
    assert metrics.ndcg(full, many) == pytest.approx([1.0])
    assert metrics.average_precision(full, many) == pytest.approx([1.0])
    assert metrics.recall(full, many) == pytest.approx([3 / 50])


def test_a_person_without_targets_counts_as_zero() -> None:
    nothing: Hits = np.zeros((1, 3), dtype=np.bool_)
    none: Counts = np.array([0], dtype=np.int64)
    for metric in (metrics.hit_rate, metrics.recall, metrics.precision, metrics.ndcg, metrics.average_precision, metrics.reciprocal_rank):
        assert metric(nothing, none).tolist() == [0.0]


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(3, 30), st.integers(1, 30))
def test_ndcg_is_that_of_scikit_learn(seed: int, items: int, k: int) -> None:
    chance = np.random.default_rng(seed)
    relevant = chance.random(items) < 0.3
    relevant[chance.integers(items)] = True
    scores = chance.permutation(items).astype(np.float64)
    k = min(k, items)
    ranked = np.argsort(-scores)[:k].astype(np.int32)
    hits = metrics.hits_of([ranked], [np.flatnonzero(relevant).astype(np.int32)], k)
    ours: PerPerson = metrics.ndcg(hits, np.array([relevant.sum()], dtype=np.int64))
    assert ours[0] == pytest.approx(ndcg_score(relevant[None].astype(float), scores[None], k=k), abs=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(3, 30), st.integers(1, 30))
def test_the_others_are_those_of_scikit_learn_too(seed: int, items: int, k: int) -> None:
    """Precision and recall of a set that is chosen; average precision of a whole ranking; the reciprocal rank of one target."""
    chance = np.random.default_rng(seed)
    k = min(k, items)
    relevant = chance.random(items) < 0.3
    relevant[chance.integers(items)] = True
    scores = chance.permutation(items).astype(np.float64)
    ranked = np.argsort(-scores).astype(np.int32)
    targets, chosen = np.flatnonzero(relevant).astype(np.int32), np.isin(np.arange(items), ranked[:k])
    hits, count = metrics.hits_of([ranked], [targets], k), np.array([len(targets)], dtype=np.int64)
    assert metrics.precision(hits, count)[0] == pytest.approx(precision_score(relevant, chosen), abs=1e-12)
    assert metrics.recall(hits, count)[0] == pytest.approx(sklearn_recall(relevant, chosen), abs=1e-12)
    assert metrics.hit_rate(hits, count)[0] == float(sklearn_recall(relevant, chosen) > 0)
    whole = metrics.hits_of([ranked], [targets], items)
    assert metrics.average_precision(whole, count)[0] == pytest.approx(average_precision_score(relevant, scores), abs=1e-12)
    one = metrics.hits_of([ranked], [targets[:1]], items)
    expected = label_ranking_average_precision_score((np.arange(items) == targets[0])[None], scores[None])
    assert metrics.reciprocal_rank(one, np.array([1], dtype=np.int64))[0] == pytest.approx(expected, abs=1e-12)


# What RecTools 0.19.0 gives for these lists, at 5 places; `TAKERS` of 12 people. Made once, in an environment of its own.
RANKED = lists([7, 26, 27, 24, 10], [5, 27, 29, 4, 19], [12, 19, 16, 22, 29], [28, 1, 21, 7, 15], [13, 20, 2, 16, 25], [28, 18, 24, 16, 8])
TRUTH = lists(
    [5, 10, 18, 19, 27],
    [10, 12, 20, 27, 28, 29],
    [6, 12, 15, 16, 17, 24, 27, 29],
    [1, 7, 11, 12, 15, 17, 27],
    [10, 14, 15, 20, 21, 28],
    [2, 5, 6, 8, 11, 17, 23, 26],
)
TAKERS = [9, 7, 3, 6, 1, 3, 0, 6, 3, 4, 1, 0, 2, 3, 0, 1, 2, 2, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0]
RECTOOLS = {
    "HitRate": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "Precision": [0.4, 0.4, 0.6, 0.6, 0.2, 0.2],
    "Recall": [0.4, 0.333333333333, 0.375, 0.428571428571, 0.166666666667, 0.125],
    "NDCG": [0.300785180149, 0.383566367371, 0.639945385423, 0.49125969209, 0.213986264735, 0.131205077512],
    "MRR": [0.333333333333, 0.5, 1.0, 0.5, 0.5, 0.2],
    "MAP": [0.146666666667, 0.194444444444, 0.283333333333, 0.228571428571, 0.083333333333, 0.025],
    "MeanInvUserFreq": [3.067970000577, 3.267970000577, 3.184962500721, 2.506499016165, 2.750977500433, 3.067970000577],
}


@pytest.mark.parametrize(
    ("metric", "theirs"),
    [
        (metrics.hit_rate, "HitRate"),
        (metrics.precision, "Precision"),
        (metrics.recall, "Recall"),
        (metrics.ndcg, "NDCG"),
        (metrics.reciprocal_rank, "MRR"),
    ],
)
def test_the_same_as_rectools(metric: Callable[[Hits, Counts], PerPerson], theirs: str) -> None:
    counts = np.array([len(own) for own in TRUTH], dtype=np.int64)
    np.testing.assert_allclose(metric(metrics.hits_of(RANKED, TRUTH, 5), counts), RECTOOLS[theirs], atol=1e-10)


def test_where_rectools_has_another_formula_the_difference_is_known() -> None:
    """Their MAP divides by all targets, ours by those that fit into the list; their novelty counts takers without the one that ours
    adds to both sides, and one where there is none."""
    counts = np.array([len(own) for own in TRUTH], dtype=np.int64)
    ours = metrics.average_precision(metrics.hits_of(RANKED, TRUTH, 5), counts)
    np.testing.assert_allclose(ours * np.minimum(counts, 5) / counts, RECTOOLS["MAP"], atol=1e-10)
    without_ours = np.array([max(takers, 1) - 1 for takers in TAKERS], dtype=np.float32)
    np.testing.assert_allclose(metrics.novelty(RANKED, without_ours, 11), RECTOOLS["MeanInvUserFreq"], atol=1e-6)


@settings(max_examples=60)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5), st.integers(0, 10))
def test_every_metric_lies_between_zero_and_one(rows: list[list[bool]], more: int) -> None:
    hits: Hits = np.array(rows, dtype=np.bool_)
    wanted: Counts = hits.sum(axis=1).astype(np.int64) + more
    for metric in (metrics.hit_rate, metrics.recall, metrics.precision, metrics.ndcg, metrics.average_precision, metrics.reciprocal_rank):
        values = metric(hits, wanted)
        assert values.shape == (len(rows),)
        assert ((values >= 0.0) & (values <= 1.0 + 1e-12)).all()


def test_coverage_counts_each_item_once() -> None:
    assert metrics.coverage(lists([0, 1], [1, 2]), 10) == pytest.approx(0.3)
    assert metrics.coverage([], 10) == 0.0


def test_gini_of_equal_and_of_one_sided_attention() -> None:
    assert metrics.gini(lists([0, 1, 2, 3]), 4) == pytest.approx(0.0)
    # One of four items takes everything: (n - 1) / n.
    assert metrics.gini(lists([2], [2], [2]), 4) == pytest.approx(0.75)
    # Counts 0, 1, 3: sum of (2i - n - 1) x / (n sum x) = (-2*0 + 0*1 + 2*3) / (3 * 4).
    assert metrics.gini(lists([2, 1], [2], [2]), 3) == pytest.approx(0.5)
    assert metrics.gini([], 4) == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_gini_is_half_the_relative_mean_difference(seed: int) -> None:
    """Its definition: the mean absolute difference of two items' counts, over twice their mean."""
    chance = np.random.default_rng(seed)
    shown = [chance.choice(20, 5, replace=False, p=np.arange(1, 21) / 210.0).astype(np.int32) for _ in range(15)]
    counts = np.bincount(np.concatenate(shown), minlength=20).astype(np.float64)
    expected = np.abs(counts[:, None] - counts[None, :]).mean() / (2.0 * counts.mean())
    assert metrics.gini(shown, 20) == pytest.approx(expected, abs=1e-12)


def test_novelty_is_self_information() -> None:
    takers = np.array([7.0, 0.0, 3.0], dtype=np.float32)
    # 7 people: -log2(8/8) = 0, -log2(1/8) = 3, -log2(4/8) = 1
    assert metrics.novelty(lists([0], [1], [0, 1, 2], []), takers, 7).tolist() == pytest.approx([0.0, 3.0, 4 / 3, 0.0])


def test_diversity_is_one_minus_the_mean_cosine_of_pairs() -> None:
    half = math.sqrt(0.5)
    vectors = np.array([[1, 0], [0, 1], [half, half], [0, 0]], dtype=np.float32)
    got = metrics.diversity(lists([0, 1], [0, 2], [0, 1, 2], [0], [0, 3]), vectors)
    assert got.tolist() == pytest.approx([1.0, 1.0 - half, 1.0 - (0.0 + half + half) / 3.0, 0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_diversity_is_that_of_scikit_learns_cosines(seed: int) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(30, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranked = chance.choice(30, 8, replace=False).astype(np.int32)
    away = 1.0 - cosine_similarity(vectors[ranked])
    assert metrics.diversity([ranked], vectors)[0] == pytest.approx(away[~np.eye(8, dtype=bool)].mean(), abs=1e-6)


def test_surprisal_is_the_share_of_the_most_surprise_there_can_be() -> None:
    takers = np.array([8.0, 2.0, 1.0, 0.0], dtype=np.float32)
    # 8 people, log2 8 = 3: -log2(8/8)/3 = 0, -log2(2/8)/3 = 2/3, -log2(1/8)/3 = 1; nobody counts as one
    got = metrics.surprisal(lists([0], [1], [2, 3], [0, 1], []), takers, 8)
    assert got.tolist() == pytest.approx([0.0, 2 / 3, 1.0, 1 / 3, 0.0])
    assert metrics.surprisal(lists([0]), takers, 1).tolist() == [0.0]


def test_serendipity_counts_a_hit_by_how_many_items_are_more_popular() -> None:
    takers = np.array([9.0, 5.0, 5.0, 1.0, 0.0], dtype=np.float32)
    # Items more popular than each, of the 4 others: 0, 1, 1, 3, 4
    got = metrics.serendipity(lists([0, 3], [1, 4], [2, 0], []), lists([0, 3], [4], [1], [0]), takers, 2)
    assert got.tolist() == pytest.approx([(0.0 + 3 / 4) / 2, (4 / 4) / 2, 0.0, 0.0])


def test_popularity_bias_is_how_much_more_popular_than_their_own_taste() -> None:
    takers = np.array([8.0, 4.0, 2.0], dtype=np.float32)
    got = metrics.popularity_bias(lists([0], [1, 2], [2], [0], []), takers, lists([1], [1, 2], [0], [], [0]))
    assert got.tolist() == pytest.approx([1.0, 0.0, 2 / 8 - 1, 0.0, 0.0])


def test_probabilities_worked_by_hand() -> None:
    foretold, came = np.array([0.9, 0.6, 0.2, 0.1]), np.array([True, False, False, False])
    assert metrics.brier(foretold, came) == pytest.approx((0.01 + 0.36 + 0.04 + 0.01) / 4)
    assert metrics.brier_skill(foretold, came) == pytest.approx(1.0 - 0.105 / (0.25 * 0.75))
    assert metrics.brier_skill(np.full(4, 0.25), came) == pytest.approx(0.0)
    # Two bins of equal mass: (.1, .2) against 0 of 2, (.6, .9) against 1 of 2
    assert metrics.calibration_error(foretold, came, bins=2) == pytest.approx(0.5 * 0.15 + 0.5 * 0.25)


def test_equal_probabilities_share_a_bin_in_any_order() -> None:
    foretold = np.array([0.3] * 10 + [0.8] * 2)
    came = np.array([True] * 3 + [False] * 7 + [True, False])
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(12)
        assert metrics.calibration_error(foretold[order], came[order], bins=6) == pytest.approx(2 / 12 * 0.3)


@pytest.mark.parametrize("seed", range(4))
def test_probabilities_agree_with_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    foretold = generator.random(500)
    foretold[:2] = [0.0, 1.0]
    came = generator.random(500) < foretold
    assert metrics.brier(foretold, came) == pytest.approx(brier_score_loss(came, foretold), rel=1e-12)
    assert metrics.log_loss(foretold, came) == pytest.approx(sklearn_log_loss(came, foretold), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_calibration_error_is_the_gap_of_scikit_learns_curve(seed: int) -> None:
    generator = np.random.default_rng(seed)
    foretold = generator.random(400)
    came = generator.random(400) < foretold**2
    true, said = calibration_curve(came, foretold, n_bins=10, strategy="quantile")
    assert metrics.calibration_error(foretold, came, bins=10) == pytest.approx(float(np.abs(true - said).mean()), abs=1e-12)


@pytest.mark.parametrize(("foretold", "came"), [([], []), ([0.5], [True, False]), ([1.2], [True]), ([-0.1], [False]), ([math.nan], [True])])
def test_what_is_no_probability_is_refused(foretold: list[float], came: list[bool]) -> None:
    for metric in (metrics.brier, metrics.brier_skill, metrics.log_loss, metrics.calibration_error):
        with pytest.raises(ValueError):
            metric(np.array(foretold, dtype=np.float64), np.array(came, dtype=np.bool_))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 12))
def test_the_calibration_error_lies_between_the_error_of_the_whole_and_one(pairs: list[tuple[float, bool]], bins: int) -> None:
    foretold, came = np.array([p for p, _ in pairs]), np.array([y for _, y in pairs])
    error = metrics.calibration_error(foretold, came, bins)
    assert abs(float(foretold.mean()) - float(came.mean())) - 1e-12 <= error <= 1.0 + 1e-12
