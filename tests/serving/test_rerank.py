"""Diversity and exploration: pure functions over rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.rerank import explore, mmr, seed_of


def unit(rows: list[list[float]]) -> np.ndarray:
    vectors = np.array(rows, dtype=np.float32)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def test_no_diversity_is_the_ranking_itself() -> None:
    scores = np.array([3.0, 2.0, 1.0, 0.5])
    assert mmr(scores, unit([[1, 0]] * 4), 3, 0.0).tolist() == [0, 1, 2]


def test_one_step_worked_by_hand() -> None:
    # Relevance 1, 0.8, 0.4, 0. After position 0, with d = 0.5: 1 is its twin: 0.4 - 0.5; 2 shares nothing: 0.2; 3 likewise: 0.
    # After 2: 1 has -0.1, 3 is 2's twin: 0 - 0.5. So 0, 2, 1, 3.
    scores = np.array([10.0, 9.0, 7.0, 5.0])
    assert mmr(scores, unit([[1, 0], [1, 0], [0, 1], [0, 1]]), 4, 0.5).tolist() == [0, 2, 1, 3]


def test_equal_scores_keep_their_order_where_nothing_tells_them_apart() -> None:
    assert mmr(np.full(5, 2.0), np.zeros((5, 1), dtype=np.float32), 5, 0.3).tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 35), st.floats(0.0, 1.0))
def test_positions_are_distinct_and_as_many_as_asked(seed: int, n: int, k: int, diversity: float) -> None:
    chance = np.random.default_rng(seed)
    scores = -np.sort(-chance.random(n))
    got = mmr(scores, unit(chance.random((n, 3)).tolist()), k, diversity)
    assert len(got) == len(set(got.tolist())) == min(k, n)
    assert got[0] == 0  # nothing was chosen before: the best ranked


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 20), st.floats(0.0, 1.0), st.integers(1, 50))
def test_exploration_keeps_the_head_and_its_propensities_sum_to_k(seed: int, n: int, k: int, share: float, pool: int) -> None:
    order = np.random.default_rng(seed).permutation(n)
    shown = explore(order, k, share, pool, seed)
    places = min(k, n)
    assert len(shown.positions) == len(set(shown.positions.tolist())) == len(shown.propensities) == places
    kept = places - min(round(share * places), places)
    assert shown.positions[:kept].tolist() == order[:kept].tolist()
    assert (shown.propensities[:kept] == 1.0).all()
    assert ((shown.propensities > 0.0) & (shown.propensities <= 1.0)).all()
    assert set(shown.positions.tolist()) <= set(order.tolist())
    again = explore(order, k, share, pool, seed)
    assert again.positions.tolist() == shown.positions.tolist()


def test_propensities_are_the_frequencies() -> None:
    rounds, k, pool = 4_000, 10, 12
    order = np.arange(30)
    counted = np.zeros(30)
    said = np.zeros(30)
    for seed in range(rounds):
        shown = explore(order, k, 0.3, pool, seed)
        counted[shown.positions] += 1
        said[shown.positions] = shown.propensities
    assert said[:7].tolist() == [1.0] * 7
    assert said[7:19].tolist() == pytest.approx([3 / 12] * 12)
    assert not said[19:].any()
    sigma = np.sqrt(said * (1 - said) / rounds)
    assert (np.abs(counted / rounds - said) <= 4 * sigma + 1e-12).all()


def test_the_seed_is_of_person_day_and_model() -> None:
    base = seed_of("u1", 3, "v1")
    assert base == seed_of("u1", 3, "v1")
    assert len({base, seed_of("u2", 3, "v1"), seed_of("u1", 4, "v1"), seed_of("u1", 3, "v2")}) == 4
    assert seed_of("u1", 3, "v1", b"history") == base  # who is named is the same person whatever was sent
    assert seed_of(None, 3, "v1", b"one") != seed_of(None, 3, "v1", b"other")
    assert 0 <= seed_of("\udce9", 3, "v1") < 2**64
