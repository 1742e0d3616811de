"""Popularity: counts as of a moment, decay, the prior below, and words a newcomer names."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.domain import Events, Items, Kind, Number, PopularityModel
from features.catalogue import build
from features.state import Kinds, histories
from tests.worlds import DAY, KINDS, World, genres, world
from training.candidates.popularity import Popularity, constrained, shares
from training.contract import TrainingData


def learnt(place: World, half_life_days: float | None = None, now: int | None = None) -> Popularity:
    model = Popularity(PopularityModel(model="popularity", half_life_days=half_life_days))
    model.fit(TrainingData(place.histories, place.catalogue, now or place.now, 1))
    return model


def test_each_person_counts_once_and_shares_are_of_the_largest() -> None:
    place = world(["A"] * 4, [[0, 0, 0, 1], [1, 2], [1]])
    assert learnt(place).scores([place.person([])], place.now)[0, :3].tolist() == [np.float32(1 / 3), 1.0, np.float32(1 / 3)]


def test_an_event_weighs_half_after_a_half_life() -> None:
    place = world(["A", "A"], [[0], [1]])
    times = place.histories.times.copy()
    times[0] -= 10 * DAY
    place.histories.times[:] = times
    scores = learnt(place, half_life_days=10.0).scores([place.person([])], place.now)[0]
    np.testing.assert_allclose(scores, [0.5, 1.0], rtol=1e-6)


def test_the_future_is_not_counted() -> None:
    place = world(["A"] * 6, [[0, 1, 2, 3, 4], [1, 2, 5, 5, 5]])
    moment = int(place.histories.times.min()) + 2 * DAY // 24
    before = learnt(place, 30.0, moment).scores([place.person([])], moment)
    late = place.histories.times >= moment
    place.histories.items[late] = 5
    assert learnt(place, 30.0, moment).scores([place.person([])], moment).tobytes() == before.tobytes()


def test_uncounted_items_stand_below_counted_ones_by_prior() -> None:
    place = world(["A"] * 5, [[0, 1], [0]], members=[1.0, 2.0, 30.0, 1000.0, 0.0])
    model = learnt(place)
    scores = model.scores([place.person([])], place.now)[0]
    assert np.argsort(-scores, kind="stable").tolist() == [0, 1, 3, 2, 4]
    told = model.because(place.person([]), np.arange(5, dtype=np.int32))
    assert [(e.value, e.feature) if e else None for e in told] == [(2.0, None), (1.0, None), (30.0, "members"), (1000.0, "members"), None]


def test_no_event_at_all_leaves_the_prior() -> None:
    np.testing.assert_allclose(shares(np.zeros(3, dtype=np.float32), np.array([2, 4, 1], dtype=np.float32)), [0.25, 0.5, 0.125])
    assert not shares(np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.float32)).any()
    assert len(shares(np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32))) == 0


def test_words_a_newcomer_names_come_first() -> None:
    place = genres()
    model = learnt(place)
    plain = model.scores([place.person([])], place.now)[0]
    scores = model.scores([place.person([], genre=("Drama", "Unheard of"))], place.now)[0]
    assert scores[6:].min() > scores[:6].max()
    assert np.argsort(-scores[6:], kind="stable").tolist() == np.argsort(-plain[6:], kind="stable").tolist()
    both = model.scores([place.person([], genre=("Drama",), form=("Film",))], place.now)[0]
    assert both[7::2].min() > both[6::2].max() > both[0:6:2].max()
    told = model.because(place.person([], genre=("Drama",)), np.array([7, 0], dtype=np.int32))
    assert told[0] is not None
    assert told[0].feature == "genre:Drama"
    assert told[1] is not None
    assert told[1].kind == "popular"
    nonsense = place.person([], genre=("Unheard of",), colour=("red",))
    np.testing.assert_array_equal(model.scores([nonsense], place.now)[0], plain)


def test_disliked_and_shown_do_not_count() -> None:
    place = world(["A", "A", "A"], [[0, 1], [2]])
    place.histories.kinds[0] = KINDS.code("dislike")
    place.histories.kinds[1] = KINDS.code("shown")
    scores = learnt(place).scores([place.person([])], place.now)[0]
    assert scores[2] == 1.0
    assert scores[:2].max() < 1.0


# ------------------------------------------------------------ demand and what is left


def selling(**words: float) -> tuple[Popularity, World]:
    """Items 0..3 counted 3, 2, 1, 0 times (half-life none), with 30, 4, 1 and 5 places, of which 3, 2, 1 and 0 are owned."""
    place = world(["A"] * 4, [[0, 1, 2], [0, 1], [0]])
    schema = Items(attributes={"seats": Number(type="number", capacity=True)})
    catalogue = build(schema, ["a", "b", "c", "d"], list("ABCD"), [True] * 4, {"seats": [30, 4, 1, 5]})
    kinds = Kinds.of(Events(kinds={"bought": Kind(means=("owned",))}))
    model = Popularity(PopularityModel(model="popularity", half_life_days=None, **words))
    model.fit(TrainingData(replace(place.histories, kinds_of=kinds), catalogue, place.now, 1))
    return model, replace(place, catalogue=catalogue)


def test_the_demand_that_can_be_met_by_hand() -> None:
    recent, left = np.array([3, 2, 1, 0, 7], dtype=np.float32), np.array([27, 2, 0, 5, np.nan], dtype=np.float32)
    met = constrained(recent, left, 2.0)
    np.testing.assert_allclose(met, [27 * (1 - math.exp(-6 / 27)), 2 * (1 - math.exp(-2)), 0.0, 0.0, 14.0], rtol=1e-6)
    assert constrained(recent, left, 0.0) is recent


@given(st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 1_000)), min_size=1, max_size=20), st.floats(0.01, 100.0))
def test_no_more_is_met_than_is_asked_or_left(items: list[tuple[int, int]], demand: float) -> None:
    recent, left = (np.array(column, dtype=np.float32) for column in zip(*items, strict=True))
    met = constrained(recent, left, demand)
    assert (met <= np.minimum(np.float32(demand) * recent, left) * np.float32(1.00001)).all()
    assert ((met > 0) == ((recent > 0) & (left > 0))).all()
    more = constrained(recent, left + 1, demand)
    assert (more >= met * np.float32(0.99999)).all()


def test_half_of_the_requests_find_a_place_where_as_many_fall_on_places_by_chance() -> None:
    """What the formula says is what happens: requests fall on places, and a place is taken once."""
    chance = np.random.default_rng(3)
    taken = np.mean([len(np.unique(chance.integers(0, 50, 80))) for _ in range(4_000)])
    assert float(constrained(np.array([80], dtype=np.float32), np.array([50], dtype=np.float32), 1.0)[0]) == pytest.approx(taken, rel=0.01)


def test_what_is_nearly_gone_falls_behind_and_what_is_gone_stands_last() -> None:
    plain, place = selling()
    assert np.argsort(-plain.scores([place.person([])], place.now)[0], kind="stable").tolist() == [0, 1, 2, 3]
    model, place = selling(demand=1.0)
    scores = model.scores([place.person([])], place.now)[0]
    met = np.array([27 * (1 - math.exp(-3 / 27)), 2 * (1 - math.exp(-1)), 0.0, 0.0])
    np.testing.assert_allclose(scores, met / met.max(), rtol=1e-6)


def test_it_can_be_told_anew_how_many_are_left(tmp_path: Path) -> None:
    model, place = selling(demand=1.0)
    before = model.scores([place.person([])], place.now)[0].copy()
    told = model.stocked(np.array([0.0, 100.0, 100.0, 5.0], dtype=np.float32))
    assert np.argsort(-told.scores([place.person([])], place.now)[0], kind="stable").tolist()[:2] == [1, 2]
    np.testing.assert_array_equal(model.scores([place.person([])], place.now)[0], before)
    plain, _ = selling()
    assert plain.stocked(np.zeros(4, dtype=np.float32)) is plain
    told.save(tmp_path)
    np.testing.assert_array_equal(Popularity.load(tmp_path).scores([place.person([])], 0)[0], told.scores([place.person([])], 0)[0])


def test_a_model_saved_before_there_was_a_demand_is_opened(tmp_path: Path) -> None:
    plain, place = selling()
    plain.save(tmp_path)
    document = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    del document["config"]["demand"]
    (tmp_path / "model.json").write_text(json.dumps(document), encoding="utf-8")
    assert not (tmp_path / "left.npy").exists()
    np.testing.assert_array_equal(Popularity.load(tmp_path).scores([place.person([])], 0)[0], plain.scores([place.person([])], 0)[0])


def test_what_is_left_is_as_of_the_moment() -> None:
    model, place = selling(demand=1.0)
    late = replace(place.histories, kinds_of=Kinds.of(Events(kinds={"bought": Kind(means=("owned",))})))
    more = histories(
        late.kinds_of,
        4,
        np.append(late.users, [3, 3]).astype(np.int32),
        np.append(late.items, [0, 3]).astype(np.int32),
        np.append(late.kinds, [0, 0]).astype(np.int8),
        np.append(late.values, [20.0, 5.0]).astype(np.float32),
        np.append(late.times, [place.now, place.now + 1]),
        True,
    )
    again = Popularity(model.config)
    again.fit(TrainingData(more, place.catalogue, place.now, 1))
    assert again.scores([place.person([])], place.now).tobytes() == model.scores([place.person([])], place.now).tobytes()
    again.fit(TrainingData(more, place.catalogue, place.now + 2, 1))  # the future is seen when it is past
    assert again.scores([place.person([])], place.now).tobytes() != model.scores([place.person([])], place.now).tobytes()
