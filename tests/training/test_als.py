"""ALS: people placed by solving are the people implicit finds, and evidence adds up to the score."""

from __future__ import annotations

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares

from configs.domain import AlsModel
from features.state import positive
from tests.worlds import KINDS, World, checkerboard
from training.candidates.als import Als
from training.interactions import taken

CONFIG = AlsModel(model="als", factors=8, iterations=8, regularization=0.1, alpha=5.0)


@pytest.fixture(scope="module")
def place() -> World:
    return checkerboard()


@pytest.fixture(scope="module")
def model(place: World) -> Als:
    model = Als(CONFIG)
    model.fit(place.data)
    return model


def test_fold_in_is_what_implicit_recalculates(place: World, model: Als) -> None:
    theirs = AlternatingLeastSquares(factors=8, regularization=0.1, alpha=1.0, num_threads=1)
    theirs.item_factors = np.array(model._factors)
    confidence = taken(place.histories, len(place.catalogue))
    confidence.data = 1.0 + CONFIG.alpha * confidence.data
    expected = theirs.recalculate_user(np.arange(20), confidence[:20])
    ours = model.people(place.histories.states(np.arange(20, dtype=np.int32)))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


def test_fold_in_minimises_the_loss_of_the_paper(place: World, model: Als) -> None:
    state = place.histories.state(3)
    factors = np.asarray(model._factors, dtype=np.float64)
    confidence, wanted = np.ones(len(factors)), np.zeros(len(factors))
    confidence[state.positives] += CONFIG.alpha * state.weights
    wanted[state.positives] = 1.0

    def loss(person: np.ndarray) -> float:
        return float((confidence * (wanted - factors @ person) ** 2).sum() + CONFIG.regularization * person @ person)

    person = model.people([state])[0]
    chance = np.random.default_rng(1)
    assert all(loss(person + 0.01 * chance.normal(size=8)) > loss(person) for _ in range(20))


def test_the_parts_of_a_score_add_up_to_it(place: World, model: Als) -> None:
    """What each item adds, found one by one through a person with this item's weight alone, is the evidence's value."""
    state = place.histories.state(3)
    assert positive(state.folded).all()
    system = model._system(state)
    assert system is not None
    rows, confidences, own, matrix = system
    item = int(np.setdiff1d(np.arange(1, 40, 2), rows)[0])
    parts = confidences * (own @ np.linalg.solve(matrix, model._factors[item]))
    assert float(parts.sum()) == pytest.approx(float(model.scores([state], place.now)[0, item]), rel=1e-3)
    told = model.because(state, np.array([item], dtype=np.int32))[0]
    assert told is not None
    assert told.item == rows[parts.argmax()]
    assert told.value == pytest.approx(float(parts.max()), rel=1e-3)


def test_items_nobody_took_are_not_spoken_of(place: World) -> None:
    silent = place.histories.items != 7
    model = Als(CONFIG)
    model.fit(type(place)(place.items, place.events, place.catalogue, place.histories.where(silent), place.now).data)
    assert np.isneginf(model.scores([place.person([1, 3])], place.now)[0, 7])
    assert np.isneginf(model.similar(1)[7])
    assert np.isneginf(model.similar(7)).all()


def test_an_event_changes_the_next_answer(place: World, model: Als) -> None:
    before = place.person([1])
    after = before.then(2, KINDS.code("seen"), 10.0, place.now)
    old, new = model.scores([before, after], place.now)
    assert new[4] > old[4]


def test_a_person_without_items_gets_no_answer(place: World, model: Als) -> None:
    assert np.isneginf(model.scores([place.person([]), place.person([99])], place.now)).all()
