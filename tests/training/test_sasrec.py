"""SASRec: it learns an order, its losses are the losses, its windows miss nothing, and it writes no file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from configs.domain import SasrecModel
from tests.worlds import START, World, checkerboard, cycle, world
from training.candidates import transformer
from training.candidates.sasrec import Sasrec
from training.candidates.transformer import Network, full_cross_entropy, sampled_cross_entropy
from training.sequences import Batches, Sequences, prepare


def words(**more: object) -> SasrecModel:
    small = {"dimensions": 16, "blocks": 1, "heads": 2, "window": 6, "epochs": 15, "batch": 16, "learning_rate": 1e-2, "patience": 15}
    return SasrecModel.model_validate({"model": "sasrec", **small, **more})


def learnt(place: World, **more: object) -> Sasrec:
    model = Sasrec(words(**more))
    model.fit(place.data)
    return model


@pytest.fixture(scope="module")
def ring() -> World:
    return cycle()


@pytest.fixture(scope="module")
def of_ring(ring: World) -> Sasrec:
    return learnt(ring)


def test_it_learns_what_comes_next(ring: World, of_ring: Sasrec) -> None:
    states = [ring.person([(start + step) % 12 for step in range(4)]) for start in range(12)]
    assert of_ring.scores(states, ring.now).argmax(axis=1).tolist() == [(start + 4) % 12 for start in range(12)]


def test_with_sampled_negatives_too(ring: World) -> None:
    model = learnt(ring, negatives=6)
    states = [ring.person([(start + step) % 12 for step in range(4)]) for start in range(12)]
    assert (model.scores(states, ring.now).argmax(axis=1) == (np.arange(12) + 4) % 12).mean() > 0.8


def test_the_last_item_is_the_reason(ring: World, of_ring: Sasrec) -> None:
    told = of_ring.because(ring.person([2, 3, 4, 5]), np.array([6], dtype=np.int32))[0]
    assert told is not None
    assert told.item == 5


def test_a_fit_goes_on_from_what_is_there_and_a_new_object_starts_anew(ring: World, of_ring: Sasrec, tmp_path: Path) -> None:
    of_ring.save(tmp_path)
    warm, told = Sasrec.load(tmp_path), list[str]()
    warm.fit(ring.data, lambda what, share: told.append(what))
    assert len(told) == 5  # a third of the epochs
    cold = learnt(ring, epochs=1)
    states = [ring.person([(start + step) % 12 for step in range(4)]) for start in range(12)]
    right = (np.arange(12) + 4) % 12
    assert (warm.scores(states, ring.now).argmax(axis=1) == right).all()
    assert not (cold.scores(states, ring.now).argmax(axis=1) == right).all()


def test_a_larger_catalogue_keeps_what_was_learnt(ring: World, of_ring: Sasrec, tmp_path: Path) -> None:
    of_ring.save(tmp_path)
    larger = cycle(items=14)
    warm = Sasrec.load(tmp_path)
    warm.fit(larger.data)
    assert warm.scores([larger.person([3, 4, 5])], larger.now).shape == (1, 14)
    assert warm.scores([larger.person([3, 4, 5])], larger.now).argmax() == 6


def test_items_training_never_met(ring: World) -> None:
    more = world(["Any"] * 4, [[0, 1, 2], [0, 1, 2]])
    model = learnt(more, epochs=1)
    assert np.isneginf(model.scores([more.person([0])], more.now)[0, 3])
    assert np.isneginf(model.scores([more.person([3])], more.now)).all()
    np.testing.assert_array_equal(*model.scores([more.person([0, 3]), more.person([0])], more.now))


def test_without_order_it_is_shuffled_every_epoch() -> None:
    ordered, unordered = (Sequences.of(checkerboard(ordered=flag).data) for flag in (True, False))
    for sequences, same in ((ordered, True), (unordered, False)):
        first, second = (sequences.windows(50, np.random.default_rng(seed))[2] for seed in (1, 2))
        assert np.array_equal(first, second) is same
        for low, high in zip(sequences.indptr[:-1], sequences.indptr[1:], strict=True):
            assert sorted(first[low:high]) == sorted(sequences.rows[low:high])


@pytest.mark.parametrize("window", [4, 5, 16, 100])
def test_windows_foresee_every_item_but_the_first_once(window: int) -> None:
    place = world(["A"] * 40, [list(range(n)) for n in (2, 3, 5, 6, 9, 40)])
    sequences = Sequences.of(place.data)
    starts, lengths, rows = sequences.windows(window, np.random.default_rng(0))
    assert lengths.max() <= window + 1
    foreseen = np.sort(np.concatenate([np.arange(s + 1, s + n) for s, n in zip(starts, lengths, strict=True)]))
    np.testing.assert_array_equal(foreseen, np.setdiff1d(np.arange(len(rows)), sequences.indptr[:-1]))
    batches = Batches(sequences, window, 2, seed=1)
    drawn = list(batches)
    assert len(drawn) == len(batches)
    assert sum(batch[:, 1:].numel() for batch in drawn) == len(foreseen)


def test_what_validates_is_not_learnt_from() -> None:
    place = cycle()
    sequences = Sequences.of(place.data)
    people = np.flatnonzero(sequences.held >= 0)
    assert len(people) == 6  # a twentieth
    for person in people:
        state = place.histories.state(int(person))
        assert sequences.vocabulary[sequences.held[person]] == state.positives[-1]
        own = sequences.rows[sequences.indptr[person] : sequences.indptr[person + 1]]
        np.testing.assert_array_equal(sequences.vocabulary[own], state.positives[:-1])


def test_full_cross_entropy_is_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "LOSS_BYTES", 4 * 11 * 3)  # three rows at a time
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(10, 5), torch.randn(11, 5), torch.randn(11)
    wanted = torch.randint(11, (10,))
    ours, theirs = ([part.clone().requires_grad_() for part in (hidden, weight, bias)] for _ in range(2))
    loss = full_cross_entropy(ours[0], ours[1], ours[2], wanted)
    expected = functional.cross_entropy(theirs[0] @ theirs[1].T + theirs[2], wanted)
    (3.0 * loss).backward()  # type: ignore[no-untyped-call]
    (3.0 * expected).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_sampled_cross_entropy_tends_to_the_full_one() -> None:
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(50, 5), torch.randn(11, 5), torch.randn(11)
    wanted = torch.randint(11, (50,))
    chances = torch.softmax(torch.randn(11), dim=0)
    sampled = torch.multinomial(chances, 200_000, replacement=True)
    expected = functional.cross_entropy(hidden @ weight.T + bias, wanted)
    loss = sampled_cross_entropy(hidden, weight, bias, wanted, sampled, chances)
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)


def test_no_position_sees_a_later_one() -> None:
    torch.manual_seed(0)
    network = Network(20, 8, 2, 2, 10, 0.0).eval()
    rows = torch.arange(8)[None]
    other = rows.clone()
    other[0, 5:] = 19
    with torch.no_grad():
        torch.testing.assert_close(network(rows)[:, :5], network(other)[:, :5])
        assert not torch.allclose(network(rows)[:, 5:], network(other)[:, 5:])
        torch.testing.assert_close(network(rows, last=True), network(rows)[:, -1:])


def test_the_clock_and_patience_stop_it(ring: World) -> None:
    told: list[str] = []
    Sasrec(words(epochs=500, seconds=0.001)).fit(ring.data, lambda what, share: told.append(what))
    assert len(told) <= 1
    told.clear()
    Sasrec(words(epochs=60, patience=1, learning_rate=1e-6)).fit(ring.data, lambda what, share: told.append(what))
    assert len(told) < 60


def test_it_writes_nothing_and_says_nothing(
    ring: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    learnt(ring, epochs=1)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_untimed_histories_are_thinned_evenly_and_news_is_kept() -> None:
    place = checkerboard(items=400, missing=50, ordered=False)
    model = Sasrec(words(window=10, epochs=1))
    model.fit(place.data)
    state = place.histories.state(0)
    read = model._rows(state)
    assert len(read) == 10
    assert read[0] == state.positives[0]
    assert read[-1] == state.positives[-1]
    later = state.then(state.positives[3], 0, float("nan"), START).then(state.positives[5], 0, float("nan"), START + 1)
    assert model._rows(later)[-2:].tolist() == later.positives[-2:].tolist()


def test_before_training_it_already_knows_who_goes_with_whom() -> None:
    place = checkerboard(users=60, items=60)
    sequences = Sequences.of(place.data)
    torch.manual_seed(0)
    network = Network(60, 8, 1, 2, 50, 0.0).eval()
    prepare(network, sequences, seed=1)
    rows = torch.from_numpy(sequences.rows[sequences.indptr[0] : sequences.indptr[1]])[None]
    with torch.no_grad():
        scores = network.items.weight @ network(rows, last=True)[0, 0] + network.bias
    assert scores[0::2].mean() > scores[1::2].mean() + 0.5
