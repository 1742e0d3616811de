"""Popularity: counts as of a moment, decay, the prior below, and words a newcomer names."""

from __future__ import annotations

import numpy as np

from configs.domain import PopularityModel
from tests.worlds import DAY, KINDS, World, genres, world
from training.candidates.popularity import Popularity, shares
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
