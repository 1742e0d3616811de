"""The best k are those of a plain sort; in blocks they are those of the whole table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training import topk


def naive(table: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    k = min(k, table.shape[1])
    out = np.full((len(table), k), -1, dtype=np.int32)
    for row, values in enumerate(table.tolist()):
        best = sorted((column for column in range(len(values)) if values[column] > -np.inf), key=lambda column: (-values[column], column))
        out[row, : len(best[:k])] = best[:k]
    return out


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 6),
    m=st.integers(1, 200),
    k=st.integers(0, 45),
    values=st.integers(1, 300),
    silent=st.floats(0.0, 1.0),
    least=st.sampled_from([1, 100, topk._LEAST]),
)
def test_top_is_a_plain_sort_however_many_ties_and_threads(
    seed: int, n: int, m: int, k: int, values: int, silent: float, least: int
) -> None:
    chance = np.random.default_rng(seed)
    table = chance.integers(0, values, (n, m)).astype(np.float32)
    table[chance.random((n, m)) < silent] = -np.inf
    before = table.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "_LEAST", least)
        np.testing.assert_array_equal(topk.top(table, k), naive(table, k))
    np.testing.assert_array_equal(table, before)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 9),
    m=st.integers(1, 60),
    k=st.integers(1, 12),
    width=st.integers(1, 40),
    many=st.integers(1, 5),
)
def test_blocks_change_nothing(seed: int, n: int, m: int, k: int, width: int, many: int) -> None:
    chance = np.random.default_rng(seed)
    people = chance.integers(-2, 3, (n, 3)).astype(np.float32)  # whole numbers: many ties
    items = chance.integers(-2, 3, (m, 3)).astype(np.float32)
    excluded = [np.flatnonzero(chance.random(m) < 0.3).astype(np.int32) for _ in range(n)]
    silent = chance.random(m) < 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "PEOPLE", many)
        patch.setattr(topk, "BLOCK_BYTES", 4 * many * width)
        rows, products = topk.best(people, items, k, excluded, silent)
    table = people @ items.T
    table[:, silent] = -np.inf
    for person, own in enumerate(excluded):
        table[person, own] = -np.inf
    np.testing.assert_array_equal(rows, topk.top(table, k))
    expected = np.where(rows >= 0, np.take_along_axis(table, np.maximum(rows, 0), axis=1), -np.inf)
    np.testing.assert_array_equal(products, expected)


def test_nobody_and_nothing() -> None:
    none = np.empty((0, 3), dtype=np.float32)
    some = np.ones((2, 3), dtype=np.float32)
    assert topk.best(none, some, 5)[0].shape == (0, 2)
    assert topk.best(some, none, 5)[0].shape == (2, 0)
    with pytest.raises(ValueError, match=r"expected \(n, f\)"):
        topk.best(some, some[:, :2], 5)
