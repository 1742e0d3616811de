"""Feature rows: values by hand in a tiny world, a batch against each person alone, and events one by one against all at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from configs.domain import Items, Number
from features.catalogue import build
from features.compute import PairFeatures, attribute_vectors
from features.state import Kinds, UserState
from features.statistics import ItemStatistics
from tests.worlds import DAY, EVENTS, KINDS, World, genres, world

NAN = float("nan")


def features_of(place: World) -> PairFeatures:
    return PairFeatures(place.catalogue, ItemStatistics.as_of(place.histories, len(place.catalogue), place.now))


def row(place: World, state: UserState, item: int, now: int | None = None) -> dict[str, float]:
    features = features_of(place)
    got = features.rows([state], np.zeros(1, dtype=np.int32), np.array([item], dtype=np.int32), place.now if now is None else now)
    assert got.shape == (1, len(features.names))
    assert got.dtype == np.float32
    return dict(zip(features.names, got[0].tolist(), strict=True))


@pytest.fixture(scope="module")
def small() -> World:
    """Item 0 Comedy, 1 Drama, 2 both, 3 nothing; films and series; lengths 10, 20, 30, 40. Two people saw item 0, one item 1."""
    return world(
        ["Comedy", "Drama", "Comedy, Drama", ""],
        [[0], [0, 1]],
        forms=["Film", "Film", "Series", "Series"],
        lengths=[10.0, 20.0, 30.0, 40.0],
        members=[8.0, 4.0, 2.0, 1.0],
    )


def test_names_are_stable_and_follow_the_yaml(small: World) -> None:
    assert features_of(small).names == (
        "item.takers", "item.recent", "item.trend", "item.liking", "item.length", "item.members",
        "user.history", "user.idle_days", "user.mainstream", "user.rating", "pair.mainstream_gap",
        "pair.genre_affinity", "pair.genre_aversion", "pair.form_share", "pair.length_gap", "pair.members_gap",
    )  # fmt: skip


def test_affinity_share_gap_and_mainstream_by_hand(small: World) -> None:
    got = row(small, small.person([0, 1]), 2)
    # The profile is the mean of (1, 0) and (0, 1), of length 1 again; item 2 is (1, 1) / sqrt 2: their cosine is 1.
    assert got["pair.genre_affinity"] == pytest.approx(1.0, abs=1e-6)
    assert got["pair.genre_aversion"] == 0.0
    assert got["pair.form_share"] == 0.0  # item 2 is a series, both seen are films
    assert row(small, small.person([0, 2]), 3)["pair.form_share"] == pytest.approx(0.5)
    assert row(small, small.person([0]), 2)["pair.genre_affinity"] == pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert row(small, small.person([0]), 3)["pair.genre_affinity"] == 0.0  # item 3 bears no genre
    scaled = np.log1p([10.0, 20.0, 30.0, 40.0])
    scaled = (scaled - scaled.mean()) / scaled.std()
    assert got["item.length"] == pytest.approx(scaled[2], abs=1e-6)
    assert got["pair.length_gap"] == pytest.approx(abs(scaled[2] - (scaled[0] + scaled[1]) / 2), abs=1e-6)
    assert got["item.takers"] == 0.0
    assert got["user.history"] == pytest.approx(np.log1p(2))
    assert got["user.mainstream"] == pytest.approx((np.log1p(2) + np.log1p(1)) / 2)
    assert got["pair.mainstream_gap"] == pytest.approx(-got["user.mainstream"])


def test_aversion_comes_from_what_was_disliked(small: World) -> None:
    state = small.person([1]).then(0, KINDS.code("dislike"), NAN, small.now - 1)
    got = row(small, state, 2)
    assert got["pair.genre_affinity"] == pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert got["pair.genre_aversion"] == pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert row(small, state, 1)["pair.genre_aversion"] == 0.0


def test_idle_days_and_rating(small: World) -> None:
    seen = KINDS.code("seen")
    state = UserState.empty(KINDS).then(0, seen, 8.0, small.now - 3 * DAY).then(1, seen, 5.0, small.now - 1 * DAY)
    got = row(small, state, 2)
    assert got["user.idle_days"] == pytest.approx(np.log1p(1.0))
    assert got["user.rating"] == pytest.approx(6.5)
    assert row(small, state, 2, now=small.now + 2 * DAY)["user.idle_days"] == pytest.approx(np.log1p(3.0))
    nobody = row(small, UserState.empty(KINDS), 2)
    assert nobody["user.idle_days"] == -1.0
    assert np.isnan(nobody["user.rating"])
    assert nobody["user.history"] == nobody["pair.genre_affinity"] == nobody["pair.form_share"] == 0.0
    untimed = world(["A", "B"], [[0], [1]], ordered=False)
    assert row(untimed, untimed.histories.state(0), 1)["user.idle_days"] == -1.0


def test_what_was_only_shown_or_withdrawn_leaves_no_trace(small: World) -> None:
    before = small.person([0, 1])
    shown = before.then(3, KINDS.code("shown"), NAN, small.now - 1)
    undone = before.then(3, KINDS.code("seen"), 9.0, small.now - 1).then(3, KINDS.code("undo"), NAN, small.now)
    assert row(small, shown, 2) == pytest.approx(row(small, before, 2), nan_ok=True)
    assert row(small, undone, 2) == pytest.approx(row(small, before, 2), nan_ok=True)


def test_the_last_rating_of_an_item_is_the_one_that_counts(small: World) -> None:
    seen = KINDS.code("seen")
    state = UserState.empty(KINDS).then(0, seen, 2.0, small.now - 9).then(0, seen, 8.0, small.now - 8).then(1, seen, 6.0, small.now - 7)
    assert row(small, state, 2)["user.rating"] == pytest.approx(7.0)


def table(features: PairFeatures, states: list[UserState], items: int, now: int) -> NDArray[np.float32]:
    users = np.repeat(np.arange(len(states), dtype=np.int32), items)
    return features.rows(states, users, np.tile(np.arange(items, dtype=np.int32), len(states)), now)


@st.composite
def events(draw: st.DrawFn) -> list[tuple[int, int, float, int]]:
    """(item, kind, value, hours): a life of one person in the world of genres."""
    one = st.tuples(
        st.integers(0, 11), st.sampled_from(range(len(EVENTS.kinds))), st.sampled_from([NAN, 1.0, 4.0, 6.0, 7.0, 10.0]), st.integers(0, 400)
    )
    return draw(st.lists(one, max_size=12))


GENRES = genres()
FEATURES = features_of(GENRES)


def person(life: list[tuple[int, int, float, int]]) -> UserState:
    state = UserState.empty(KINDS)
    for item, kind, value, hour in life:
        state = state.then(item, kind, value, GENRES.now - 1000 * DAY + hour * DAY // 24)
    return state


@settings(max_examples=60)
@given(st.lists(events(), min_size=1, max_size=5))
def test_batch_equals_single(lives: list[list[tuple[int, int, float, int]]]) -> None:
    states = [person(life) for life in lives]
    together = table(FEATURES, states, 12, GENRES.now).reshape(len(states), 12, -1)
    for place, state in enumerate(states):
        np.testing.assert_allclose(together[place], table(FEATURES, [state], 12, GENRES.now), rtol=1e-5, atol=1e-6)


@settings(max_examples=60)
@given(events())
def test_one_by_one_equals_all_at_once(life: list[tuple[int, int, float, int]]) -> None:
    """What a request sees after each event is what training sees of the whole history."""
    from features.state import histories

    n = len(life)
    whole = histories(
        KINDS,
        1,
        np.zeros(n, dtype=np.int32),
        np.array([item for item, _, _, _ in life], dtype=np.int32),
        np.array([kind for _, kind, _, _ in life], dtype=np.int8),
        np.array([value for _, _, value, _ in life], dtype=np.float32),
        np.array([GENRES.now - 1000 * DAY + hour * DAY // 24 for _, _, _, hour in life], dtype=np.int64),
        True,
    )
    np.testing.assert_array_equal(table(FEATURES, [person(life)], 12, GENRES.now), table(FEATURES, [whole.state(0)], 12, GENRES.now))


def test_attribute_vectors_have_length_one_or_nothing(small: World) -> None:
    vectors = attribute_vectors(small.catalogue)
    assert vectors.shape == (4, 4)  # Comedy, Drama, Film, Series
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    assert vectors[0] @ vectors[1] == pytest.approx(0.5)  # one of two words shared
    assert vectors[0] @ vectors[2] == pytest.approx(1.0 / np.sqrt(6.0), abs=1e-6)


def test_what_is_left_of_a_capacity_is_told_in_two_columns_and_is_no_number_of_its_own() -> None:
    schema = Items(attributes={"seats": Number(type="number", capacity=True), "price": Number(type="number")})
    shop = build(schema, ["a", "b", "c"], ["A", "B", "C"], [True] * 3, {"seats": [100, 50, None], "price": [1, 2, 3]})
    place = world(["A"] * 3, [[0, 1, 2]])
    counted = ItemStatistics.as_of(place.histories, 3, place.now)
    statistics = replace(counted, free=np.array([0.25, 0.0, np.nan], dtype=np.float32))
    features = PairFeatures(shop, statistics)
    assert [name for name in features.names if "seats" in name] == []
    got = features.rows([place.person([])], np.zeros(3, dtype=np.int32), np.arange(3, dtype=np.int32), place.now)
    free, left = (got[:, features.names.index(name)] for name in ("item.free", "item.left"))
    np.testing.assert_array_equal(free, statistics.free)
    np.testing.assert_allclose(left, [np.log(26.0), 0.0, np.nan], rtol=1e-6)


def test_a_quantity_is_no_rating(small: World) -> None:
    unrated = Kinds.of(EVENTS.model_copy(update={"scale": None}))
    state = replace(small.person([]), kinds_of=unrated).then(0, 0, 3.0, small.now - 1)
    assert np.isnan(row(small, state, 1)["user.rating"])
