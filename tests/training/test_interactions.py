"""Which of a person's items a model reads."""

from __future__ import annotations

import numpy as np
import pytest

from tests.worlds import checkerboard, world
from training.interactions import known, recent, taken


def test_taken_is_everybody() -> None:
    place = world(["A"] * 3, [[0, 2], [1]])
    assert taken(place.histories, 3).toarray().tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    with pytest.raises(ValueError, match="nothing to learn"):
        taken(place.histories.where(np.zeros(3, dtype=np.bool_)), 3)


def test_items_a_model_does_not_know_are_left_out() -> None:
    place = world(["A"] * 3, [[0, 2], [1]])
    rows, weights = known(place.person([0, 7, 2]), 3)
    assert rows.tolist() == [0, 2]
    assert len(weights) == 2


def test_the_last_ones_where_there_is_an_order() -> None:
    place = checkerboard()
    assert recent(place.person([1, 3, 50, 5, 7]), 40, 2)[0].tolist() == [5, 7]


def test_every_so_manieth_where_there_is_none() -> None:
    state = checkerboard(ordered=False, missing=0).histories.state(0)
    rows, weights = recent(state, 40, 5)
    assert rows.tolist() == [int(state.positives[place]) for place in np.linspace(0, 19, 5).round().astype(int)]
    assert len(weights) == 5
