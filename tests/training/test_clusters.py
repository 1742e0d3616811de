"""Clusters: two kinds of people are told apart, strangers are placed, and shares are shares."""

from __future__ import annotations

import numpy as np
import pytest

from configs.domain import ClustersModel
from tests.worlds import World, checkerboard
from training.candidates.clusters import Clusters


@pytest.fixture(scope="module")
def place() -> World:
    return checkerboard()


def learnt(place: World, clusters: int = 2, top: int = 200) -> Clusters:
    model = Clusters(ClustersModel(model="clusters", clusters=clusters, top=top))
    model.fit(place.data)
    return model


def test_two_kinds_of_people_make_two_clusters(place: World) -> None:
    even, odd = learnt(place).scores([place.person([0, 2]), place.person([1, 3])], place.now)
    assert np.isfinite(even[0::2]).all()
    assert np.isneginf(even[1::2]).all()
    assert np.isfinite(odd[1::2]).all()
    assert np.isneginf(odd[0::2]).all()


def test_a_score_is_the_share_of_the_cluster_that_took_it(place: World) -> None:
    model = learnt(place)
    state = place.person([0, 2])
    takers = np.bincount(place.histories.items, minlength=40)[0::2]
    np.testing.assert_allclose(model.scores([state], place.now)[0, 0::2], takers / 30, rtol=1e-6)
    told = model.because(state, np.array([4, 5], dtype=np.int32))
    assert told[0] is not None
    assert told[0].value == pytest.approx(takers[2] / 30)
    assert told[1] is None


def test_only_the_top_is_kept(place: World) -> None:
    scores = learnt(place, top=5).scores([place.person([0])], place.now)[0]
    assert np.isfinite(scores).sum() == 5


def test_more_clusters_than_people_and_nobody(place: World) -> None:
    model = learnt(place, clusters=500)
    assert np.isfinite(model.scores([place.person([0])], place.now)).any()
    assert np.isneginf(model.scores([place.person([])], place.now)).all()
