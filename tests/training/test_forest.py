"""A forest says what LightGBM says, to the last bit, of every kind of row; what it cannot hold is refused by name."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.forest import BLOCK, Forest

FEATURES = 6


def booster(seed: int, leaves: int = 31, trees: int = 12, missing: float = 0.0, **more: object) -> lightgbm.Booster:
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(600, FEATURES)).astype(np.float32)
    rows[:, 1] = np.round(rows[:, 1])  # many equal values
    rows[:, 2] = 1.0  # nothing to part by
    rows[chance.random(rows.shape) < missing] = np.nan
    wanted = np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 3]) * np.nan_to_num(rows[:, 4]) + chance.normal(size=len(rows))
    words = {"num_leaves": leaves, "min_data_in_leaf": 2, "verbosity": -1, "num_threads": 1, **more}
    return lightgbm.train({"objective": "regression", **words}, lightgbm.Dataset(rows, wanted), num_boost_round=trees)


def said(model: lightgbm.Booster, rows: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict(rows, num_threads=1, validate_features=False))


@pytest.mark.parametrize(("leaves", "missing"), [(2, 0.0), (31, 0.0), (31, 0.2), (32, 0.1), (33, 0.1), (64, 0.3)])
@pytest.mark.parametrize("rows", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_it_is_equal_to_lightgbm(leaves: int, missing: float, rows: int) -> None:
    model = booster(leaves, leaves, missing=missing)
    forest = Forest.of(model.model_to_string())
    chance = np.random.default_rng(9)
    asked = chance.normal(size=(rows, FEATURES)).astype(np.float32)
    asked[chance.random(asked.shape) < 0.3] = np.nan
    asked[:, 1] = np.round(asked[:, 1])
    np.testing.assert_array_equal(forest.scores(asked), said(model, asked))


@pytest.fixture(scope="module")
def models() -> list[tuple[lightgbm.Booster, Forest]]:
    return [(model, Forest.of(model.model_to_string())) for model in (booster(1), booster(2, missing=0.3), booster(3, 50, 40, missing=0.1))]


@settings(max_examples=60)
@given(data=st.data())
def test_of_any_row_at_all(models: list[tuple[lightgbm.Booster, Forest]], data: st.DataObject) -> None:
    for model, forest in models:
        # the thresholds themselves and their neighbours are where a comparison can go wrong
        edges = [float(value) for value in forest.thresholds[:40]]
        cell = st.one_of(st.floats(width=32), st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, *edges]))
        asked = np.array(data.draw(st.lists(st.tuples(*[cell] * FEATURES), min_size=1, max_size=5)), dtype=np.float32)
        with np.errstate(over="ignore"):  # beyond the largest number lies infinity, which is asked too
            beside = (np.nextafter(asked, np.float32(np.inf)), np.nextafter(asked, np.float32(-np.inf)))
        for row in (asked, *beside):
            np.testing.assert_array_equal(forest.scores(row), said(model, row))


def test_trees_that_never_parted_are_constants() -> None:
    model = booster(1, trees=2, min_data_in_leaf=10_000)
    asked = np.zeros((3, FEATURES), dtype=np.float32)
    np.testing.assert_array_equal(Forest.of(model.model_to_string()).scores(asked), said(model, asked))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"leaves": 70}, "leaves, 0 categorical tests; at most 64"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "random forest"),
        ({"zero_as_missing": True}, "a test of type"),
        ({"linear_tree": True}, "leaves, 0 categorical tests"),
    ],
)
def test_what_it_cannot_hold_is_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Forest.of(booster(1, **more).model_to_string())  # type: ignore[arg-type]


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows of shape \(2, 5\) for a forest of 6 features"):
        Forest.of(booster(1).model_to_string()).scores(np.zeros((2, 5), dtype=np.float32))
