"""One path to candidates: the best k against a plain sort, unions, exclusions, and sources that fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.compute import PairFeatures
from features.state import UserState
from features.statistics import ItemStatistics
from tests.worlds import KINDS, World, checkerboard
from training.contract import Evidence, Progress, TrainingData
from training.retrieval import columns_of, feature_names, feature_rows, retrieve

NOTHING = UserState.empty(KINDS)


class Fixed:
    """A source whose table is given: row u for the person who saw u items."""

    def __init__(self, table: Sequence[Sequence[float]]) -> None:
        self.table = np.array(table, dtype=np.float32)
        self.asked = 0

    def fit(self, data: TrainingData, progress: Progress | None = None) -> None:
        raise ValueError("there is nothing to learn here")

    def scores(self, states: Sequence[UserState], now: int) -> NDArray[np.float32]:
        self.asked += 1
        return self.table[[len(state) for state in states]].copy()

    def because(self, state: UserState, items: NDArray[np.int32], thorough: bool = False) -> list[Evidence | None]:
        return [None] * len(items)

    def save(self, directory: Path) -> None:
        raise OSError("nothing to save")

    @classmethod
    def load(cls, directory: Path) -> Self:
        raise FileNotFoundError(directory)


class Broken(Fixed):
    def scores(self, states: Sequence[UserState], now: int) -> NDArray[np.float32]:
        raise RuntimeError("this source is broken")


class Slow(Fixed):
    """Takes longer than any deadline of these tests."""

    def scores(self, states: Sequence[UserState], now: int) -> NDArray[np.float32]:
        time.sleep(0.06)
        return super().scores(states, now)


def pairs(*numbers: int) -> NDArray[np.int32]:
    return np.array(numbers, dtype=np.int32)


def test_the_union_holds_every_score_and_the_ranks_of_who_brought_it() -> None:
    first = Fixed([[0.9, 0.8, 0.1, 0.0], [0.0, 0.1, 0.2, 0.3]])
    second = Fixed([[0.0, 0.1, 5.0, 4.0], [9.0, 8.0, -np.inf, -np.inf]])
    one = UserState.of_items(KINDS, [3], KINDS.code("planned"), 1)
    got = retrieve({"first": first, "second": second}, [NOTHING, one], 0, 2, 4).candidates
    assert got.sources == ("first", "second")
    assert got.users.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert got.items.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert got.ranks.tolist() == [[1, 0], [2, 0], [0, 1], [0, 2], [0, 1], [0, 2], [2, 0], [1, 0]]
    np.testing.assert_allclose(got.scores[:4], [[0.9, 0.0], [0.8, 0.1], [0.1, 5.0], [0.0, 4.0]])
    np.testing.assert_allclose(got.scores[4:], [[0.0, 9.0], [0.1, 8.0], [0.2, np.nan], [0.3, np.nan]])


def test_what_is_not_allowed_or_excluded_never_comes() -> None:
    source = Fixed([[5.0, 4.0, 3.0, 2.0, 1.0]])
    allowed = np.array([True, False, True, True, True])
    got = retrieve({"it": source}, [NOTHING], 0, 2, 5, allowed, [pairs(0)]).candidates
    assert got.items.tolist() == [2, 3]
    each = np.array([[True] * 5, [False, False, False, False, True]])
    got = retrieve({"it": source}, [NOTHING, NOTHING], 0, 2, 5, each, [pairs(), pairs()]).candidates
    assert list(zip(got.users.tolist(), got.items.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 4)]


def test_what_the_state_excludes_stays_out_by_default() -> None:
    seen = UserState.of_items(KINDS, [1], KINDS.code("seen"), 1)
    planned = UserState.of_items(KINDS, [1], KINDS.code("planned"), 1)
    source = Fixed([[0.0] * 3, [1.0, 2.0, 3.0]])
    assert retrieve({"it": source}, [seen], 0, 3, 3).candidates.items.tolist() == [0, 2]
    assert retrieve({"it": source}, [planned], 0, 3, 3).candidates.items.tolist() == [0, 1, 2]


def test_a_source_that_raises_is_named_and_the_others_go_on() -> None:
    good = Fixed([[1.0, 2.0]])
    got = retrieve({"bad": Broken([[0.0]]), "good": good}, [NOTHING], 0, 1, 2)
    assert got.candidates.failed == ("bad",)
    assert got.candidates.sources == ("good",)
    assert got.candidates.items.tolist() == [1]
    assert set(got.seconds) == {"good"}


def test_a_table_of_the_wrong_size_is_a_failure_of_its_source() -> None:
    class Short(Fixed):
        def scores(self, states: Sequence[UserState], now: int) -> NDArray[np.float32]:
            return np.zeros((len(states) - 1, 2), dtype=np.float32)

    got = retrieve({"short": Short([[0.0]]), "good": Fixed([[1.0, 2.0]])}, [NOTHING, NOTHING], 0, 1, 2).candidates
    assert got.failed == ("short",)
    assert got.items.tolist() == [1, 1]


def test_if_all_fail_the_candidates_are_empty_and_can_be_featured() -> None:
    world = checkerboard()
    got = retrieve({"bad": Broken([[0.0]])}, [NOTHING], 0, 3, 40).candidates
    assert len(got) == 0
    assert got.failed == ("bad",)
    features = PairFeatures(world.catalogue, ItemStatistics.as_of(world.histories, 40, world.now))
    assert feature_rows(("bad",), features, [NOTHING], got, world.now).shape == (0, len(feature_names(("bad",), features)))


def test_nothing_is_begun_after_the_deadline() -> None:
    slow, late = Slow([[1.0, 2.0]]), Fixed([[2.0, 1.0]])
    got = retrieve({"slow": slow, "late": late}, [NOTHING], 0, 1, 2, deadline=time.monotonic() + 0.05).candidates
    assert got.failed == ("late",)
    assert late.asked == 0
    assert got.items.tolist() == [1]


def test_a_source_that_knows_fewer_items_has_nothing_to_say_of_the_others() -> None:
    old, new = Fixed([[1.0, 3.0]]), Fixed([[0.0, 0.0, 7.0]])
    got = retrieve({"old": old, "new": new}, [NOTHING], 0, 1, 3).candidates
    assert got.items.tolist() == [1, 2]
    np.testing.assert_allclose(got.scores, [[3.0, 0.0], [np.nan, 7.0]])
    assert got.ranks.tolist() == [[1, 0], [0, 1]]


def test_a_source_that_knows_more_items_is_cut_to_the_catalogue() -> None:
    got = retrieve({"it": Fixed([[1.0, 3.0, 9.0]])}, [NOTHING], 0, 2, 2).candidates
    assert got.items.tolist() == [0, 1]


def test_silence_is_no_candidate() -> None:
    got = retrieve({"it": Fixed([[-np.inf, 1.0, -np.inf]])}, [NOTHING], 0, 3, 3).candidates
    assert got.items.tolist() == [1]


@pytest.fixture(scope="module")
def world() -> World:
    return checkerboard()


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 12))
def test_batch_equals_single(seed: int, people: int, k: int) -> None:
    world = checkerboard()
    chance = np.random.default_rng(seed)
    sources = {name: Fixed(chance.integers(0, 5, (20, 40)).tolist()) for name in ("a", "b", "c")}
    states = [world.person(chance.choice(40, chance.integers(0, 20), replace=False).tolist()) for _ in range(people)]
    together = retrieve(sources, states, world.now, k, 40).candidates
    for place, state in enumerate(states):
        alone = retrieve(sources, [state], world.now, k, 40).candidates
        mine = together.users == place
        np.testing.assert_array_equal(together.items[mine], alone.items)
        np.testing.assert_array_equal(together.scores[mine], alone.scores)
        np.testing.assert_array_equal(together.ranks[mine], alone.ranks)
        assert not np.isin(alone.items, state.excluded).any()


def test_rows_name_each_source_and_say_nothing_of_one_that_failed(world: World) -> None:
    features = PairFeatures(world.catalogue, ItemStatistics.as_of(world.histories, 40, world.now))
    sources = {"gone": Broken([[0.0]]), "here": Fixed([list(map(float, range(40)))])}
    names = feature_names(tuple(sources), features)
    assert names[:5] == ("gone.score", "here.score", "gone.place", "here.place", "sources")
    got = retrieve(sources, [NOTHING], world.now, 2, 40).candidates
    rows = feature_rows(tuple(sources), features, [NOTHING], got, world.now)
    assert rows.shape == (2, len(names))
    assert rows.dtype == np.float32
    assert np.isnan(rows[:, 0]).all()
    np.testing.assert_allclose(rows[:, 1:5], [[38.0, 0.0, 0.5, 1.0], [39.0, 0.0, 1.0, 1.0]])


def test_a_ranker_of_before_reads_its_own_columns() -> None:
    assert columns_of(("a", "b"), ("a", "b")) is None
    columns = columns_of(("c", "a"), ("a", "b", "c"))
    assert columns is not None
    assert columns.tolist() == [2, 0]
    with pytest.raises(ValueError, match="learnt from d, e, which is not computed any more"):
        columns_of(("a", "d", "e"), ("a", "b"))
