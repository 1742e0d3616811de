"""People placed in the compiled loop are where a plain solver puts them, whatever the sizes and however many threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training import fold_in
from training.fold_in import placed


def floats(values: Sequence[object]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def test_one_person_by_hand() -> None:
    """One factor, items 2 and 3, confidence in the second 5: x = (1 + 1) 2 + (1 + 4) 3 over 10 + 1 * 4 + 4 * 9."""
    factors = np.array([[7.0], [2.0], [3.0]], dtype=np.float32)
    x = placed(np.array([0, 2]), np.array([1, 2], dtype=np.int32), floats([1, 4]), factors, floats([[10]]))
    assert x.tolist() == [[pytest.approx((2 * 2 + 5 * 3) / (10 + 4 + 36))]]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 11), max_size=9),
    width=st.integers(1, 21),
    least=st.sampled_from([1, 3, 100]),
)
def test_everybody_solves_their_equations(seed: int, lengths: list[int], width: int, least: int) -> None:
    chance = np.random.default_rng(seed)
    factors = chance.normal(size=(12, width)).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    rows = np.concatenate([np.empty(0), *(chance.permutation(12)[:length] for length in lengths)]).astype(np.int32)
    extra = chance.uniform(0.0, 9.0, len(rows)).astype(np.float32)
    gram = (factors.T @ factors + np.eye(width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_in, "_LEAST", least)
        found = placed(indptr, rows, extra, factors, gram)
    assert found.shape == (len(lengths), width)
    for person in range(len(lengths)):
        mine = slice(int(indptr[person]), int(indptr[person + 1]))
        own, more = factors[rows[mine]].astype(np.float64), extra[mine].astype(np.float64)
        expected = np.linalg.solve(gram + (own.T * more) @ own, (1.0 + more) @ own)
        np.testing.assert_allclose(found[person], expected, rtol=2e-3, atol=2e-4)


def test_what_cannot_be_solved_is_refused() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="no factor for 1 of 2 people"):
        placed(np.array([0, 1, 1]), np.array([0], dtype=np.int32), floats([1]), floats([[1, 1]]), floats([[-9, 0], [0, 1]]))
