"""Lists are judged with ties against us, and ways of answering are compared on the same people."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.measuring import K, _first, comparisons


def test_of_equal_scores_the_target_comes_last() -> None:
    items = np.arange(30, dtype=np.int32)
    everything_alike = _first(items, np.zeros(30), items == 0)
    assert 0 not in everything_alike
    assert len(everything_alike) == K
    above = _first(items, np.where(items == 0, 1.0, 0.0), items == 0)
    assert above[0] == 0


def test_the_best_way_is_compared_with_each_other_one() -> None:
    chance = np.random.default_rng(1)
    good, same = chance.random(400), chance.random(400)
    said = comparisons({"good": good + 0.3, "alike": good + 0.3, "other": same}, 7)
    assert said["best"] in ("good", "alike")
    other = said["against"]["other"]
    assert other["mean"] == pytest.approx(float((good + 0.3 - same).mean()), abs=1e-6)
    assert 0 < other["low"] < other["mean"] < other["high"]
    assert other["p_holm"] <= 0.01
    twin = next(row for way, row in said["against"].items() if way != "other")
    assert (twin["mean"], twin["p_holm"]) == (0.0, 1.0)


def test_one_way_is_compared_with_nothing() -> None:
    assert comparisons({"only": np.ones(3)}, 1) == {}
