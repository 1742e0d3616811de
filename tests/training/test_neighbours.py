"""Neighbours: similarities by hand, in blocks of any size, and the strongest neighbour as the reason."""

from __future__ import annotations

import numpy as np
import pytest

from configs.domain import NeighboursModel
from tests.worlds import World, checkerboard, cycle, world
from training.candidates import neighbours
from training.candidates.neighbours import Neighbours


def learnt(place: World, **words: object) -> Neighbours:
    model = Neighbours(NeighboursModel.model_validate({"model": "neighbours", **words}))
    model.fit(place.data)
    return model


def test_cosine_by_hand() -> None:
    place = world(["A"] * 4, [[0, 1], [0, 1], [0, 2], [3]])
    near = learnt(place).similar(0)
    np.testing.assert_allclose(near[1:3], [2 / np.sqrt(3 * 2), 1 / np.sqrt(3)], rtol=1e-6)
    assert np.isneginf(near[[0, 3]]).all()


@pytest.mark.parametrize("similarity", ["tfidf", "bm25"])
def test_somebody_with_a_long_list_says_less(similarity: str) -> None:
    """Items 0 and 1 were taken together by a person of two items, 0 and 2 by one who took nearly everything."""
    place = world(["A"] * 12, [[0, 1], [0, *range(2, 12)]])
    plain, weighted = learnt(place).similar(0), learnt(place, similarity=similarity).similar(0)
    assert plain[1] == pytest.approx(plain[2])
    assert weighted[1] > weighted[2]


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    place = checkerboard()
    whole = learnt(place, neighbours=7).scores([place.person([1, 4])], place.now)
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 8 * 40 * 3)
    np.testing.assert_array_equal(learnt(place, neighbours=7).scores([place.person([1, 4])], place.now), whole)


def test_only_the_best_neighbours_are_kept() -> None:
    place = world(["A"] * 4, [[0, 1], [0, 1], [0, 2], [3]])
    near = learnt(place, neighbours=1).similar(0)
    assert np.flatnonzero(np.isfinite(near)).tolist() == [1]


def test_the_strongest_neighbour_is_the_reason_and_the_parts_add_up() -> None:
    place = world(["A"] * 4, [[0, 1], [0, 1], [2, 1], [3]])
    model = learnt(place)
    state = place.person([2, 0])
    told = model.because(state, np.array([1, 3], dtype=np.int32))
    assert told[0] is not None
    assert told[0].item == 0
    assert told[0].value == pytest.approx(float(model.similar(0)[1]))
    assert told[1] is None
    assert model.scores([state], place.now)[0, 1] == pytest.approx(float(model.similar(0)[1] + model.similar(2)[1]))


def test_only_the_last_of_the_history_is_read() -> None:
    place = checkerboard()
    model = learnt(place, history=2)
    scores = model.scores([place.person([1, 3, 5, 2, 4]), place.person([2, 4])], place.now)
    np.testing.assert_array_equal(scores[0], scores[1])


def test_what_follows_is_found_by_order_alone() -> None:
    place = cycle(items=12, length=8)
    model = learnt(place, similarity="following", reach=2, history=1)
    scores = model.scores([place.person([3, 4, 5])], place.now)[0]
    assert np.argsort(-scores)[:2].tolist() == [6, 7]  # the next one, then the one after it
    plain = learnt(place).scores([place.person([3, 4, 5])], place.now)[0]
    assert plain[6] == pytest.approx(plain[2], rel=0.2)  # who does not look at the order cannot tell before from after


def test_following_by_hand() -> None:
    place = world(["A"] * 4, [[0, 1, 2], [0, 1], [3, 0]])
    near = learnt(place, similarity="following", reach=2).similar(0)
    np.testing.assert_allclose(near[1:3], [2 / np.sqrt(3 * 2), 0.5 / np.sqrt(3 * 1)], rtol=1e-6)
    assert np.isneginf(near[[0, 3]]).all()


def test_following_is_refused_without_an_order() -> None:
    with pytest.raises(ValueError, match="needs events in order"):
        learnt(checkerboard(ordered=False), similarity="following")


def test_older_items_fade() -> None:
    place = world(["A"] * 4, [[0, 1], [0, 1], [2, 3], [2, 3]])
    model = learnt(place, fade=0.5)
    scores = model.scores([place.person([0, 2])], place.now)[0]
    assert scores[1] == pytest.approx(scores[3] / 2)
    assert scores[1] > 0
