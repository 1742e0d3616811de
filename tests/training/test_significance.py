"""Bootstrap intervals: where they lie, that they repeat, and what pairing does."""

from __future__ import annotations

import numpy as np
import pytest

from training.significance import holm, interval, paired, permutation


def test_the_mean_lies_inside_and_the_width_is_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(0.4, 0.2, 900)
    got = interval(values, seed=3)
    assert got.people == 900
    assert got.mean == pytest.approx(values.mean())
    assert got.low < got.mean < got.high
    assert got.high - got.low == pytest.approx(2 * 1.96 * values.std() / 30.0, rel=0.15)


def test_ninety_five_of_a_hundred_intervals_cover_the_truth() -> None:
    chance = np.random.default_rng(7)
    covered = 0
    for seed in range(200):
        got = interval((chance.random(120) < 0.3).astype(np.float64), seed=seed, rounds=400)
        covered += got.low <= 0.3 <= got.high
    assert 178 <= covered <= 200  # 190 expected; 4 standard deviations below is 178


def test_seeds_repeat_and_blocks_do_not_matter_for_the_mean() -> None:
    values = np.random.default_rng(2).random(50)
    assert interval(values, seed=5) == interval(values, seed=5)
    assert interval(values, seed=5) != interval(values, seed=6)
    assert interval(values, seed=5, rounds=10).mean == interval(values, seed=5).mean


def test_paired_of_identical_rankings_is_zero() -> None:
    values = np.random.default_rng(2).random(50)
    got = paired(values, values.copy())
    assert (got.mean, got.low, got.high) == (0.0, 0.0, 0.0)


def test_pairing_sees_what_two_intervals_do_not() -> None:
    values = np.random.default_rng(2).random(200)
    better = values + 0.01
    assert paired(better, values).low > 0.0
    assert interval(better).low < interval(values).high  # side by side the two overlap


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired(np.zeros(2), np.zeros(3))


def test_nobody_gives_zeros_and_one_person_a_point() -> None:
    assert interval(np.empty(0)).as_json() == {"mean": 0.0, "low": 0.0, "high": 0.0, "people": 0}
    assert interval(np.array([0.25])).as_json() == {"mean": 0.25, "low": 0.25, "high": 0.25, "people": 1}


def test_the_permutation_test_of_a_few_people_is_the_exact_one() -> None:
    # Differences 1, 2, 3: of the 8 patterns of signs only +++ and --- reach a sum of 6, so p = 1/4.
    got = permutation(np.array([1.0, 2.0, 3.0, 5.0]), np.array([0.0, 0.0, 0.0, 5.0]), rounds=40_000)
    assert got == pytest.approx(0.25, abs=0.01)
    assert permutation(np.ones(5), np.ones(5)) == 1.0
    assert permutation(np.array([]), np.array([])) == 1.0


def test_the_permutation_test_errs_as_often_as_it_says_and_finds_what_is_there() -> None:
    generator = np.random.default_rng(5)
    false = sum(permutation(generator.normal(size=40), generator.normal(size=40), seed, 500) < 0.05 for seed in range(300))
    assert 5 <= false <= 28  # 15 expected; beyond these bounds once in some thousand runs
    first = generator.normal(size=200)
    assert permutation(first + 0.5, first + generator.normal(0, 0.5, 200)) < 0.001


def test_the_permutation_test_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="one length"):
        permutation(np.zeros(3), np.zeros(4))


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .2: times 4, 3, 2, 1 = .04 .06 .06 .2, never falling
    assert holm({"a": 0.03, "b": 0.01, "c": 0.2, "d": 0.02}) == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.2, "d": 0.06})
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_the_paired_bootstrap_errs_as_often_as_it_says() -> None:
    """Two rankings that are equally good (A/A): hits of the same people, each half of the time one's own draw."""
    generator = np.random.default_rng(11)
    wrong = 0
    for seed in range(300):
        hard = generator.random(150)  # how hard each person is, the same for both
        first, second = (np.where(generator.random(150) < 0.4 * hard, 1.0 / np.log2(generator.integers(2, 12, 150)), 0.0) for _ in range(2))
        got = paired(first, second, seed, rounds=400)
        wrong += not got.low <= 0.0 <= got.high
    assert 5 <= wrong <= 28  # 15 expected; beyond these bounds once in some thousand runs


def test_holm_keeps_the_level_of_all_together_and_single_looks_do_not() -> None:
    """Six comparisons of equals at 5%: without a correction at least one is wrong in one of four families, with Holm in one of twenty."""
    generator = np.random.default_rng(12)
    single = together = 0
    for seed in range(200):
        p = {str(way): permutation(generator.normal(size=40), np.zeros(40), seed, 200) for way in range(6)}
        single += min(p.values()) < 0.05
        together += min(holm(p).values()) < 0.05
    assert 30 <= single <= 80  # 53 expected
    assert 1 <= together <= 22  # 10 expected, at most
    real = {"real": permutation(generator.normal(1.0, 1.0, 40), np.zeros(40), rounds=1_000), "none": 0.6}
    assert holm(real)["real"] < 0.05
