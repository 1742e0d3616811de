"""SASRec: it learns an order, its losses are the losses, its windows miss nothing, and it writes no file."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from torch.nn import functional

from configs.domain import SasrecModel
from tests.worlds import START, World, checkerboard, cycle, world
from training import losses
from training.candidates import transformer
from training.candidates.sasrec import Sasrec
from training.candidates.transformer import Network
from training.losses import full_cross_entropy, inclusion, sampled_cross_entropy
from training.sequences import Batches, Sequences, Task, Watch, prepare


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
    assert len(told) == 3  # a fifth of the epochs
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


def test_left_out_is_by_how_much_the_score_falls(ring: World, of_ring: Sasrec) -> None:
    """Asked thoroughly it names the item without which the score is lowest, and by how much, as asking again without it shows."""
    rows = [8, 2, 3, 4, 5]
    told = of_ring.because(ring.person(rows), np.array([6, 9], dtype=np.int32), thorough=True)
    scores = of_ring.scores([ring.person(rows), *(ring.person(rows[:at] + rows[at + 1 :]) for at in range(5))], ring.now)
    for item, found in zip((6, 9), told, strict=True):
        falls = scores[0, item] - scores[1:, item]
        if falls.max() <= 0:
            assert found is None
            continue
        assert found is not None
        assert found.item == rows[int(falls.argmax())]
        assert found.value == pytest.approx(float(falls.max()), abs=1e-4)
    assert told[0] is not None
    assert told[0].item == 5  # after 5 comes 6


def test_without_order_it_is_shuffled_every_epoch() -> None:
    ordered, unordered = (Sequences.of(checkerboard(ordered=flag).data) for flag in (True, False))
    for sequences, same in ((ordered, True), (unordered, False)):
        first, second = (sequences.windows(50, np.random.default_rng(seed)).rows for seed in (1, 2))
        assert np.array_equal(first, second) is same
        for low, high in zip(sequences.indptr[:-1], sequences.indptr[1:], strict=True):
            assert sorted(first[low:high]) == sorted(sequences.rows[low:high])


@pytest.mark.parametrize("window", [4, 5, 16, 100])
def test_windows_foresee_every_item_but_the_first_once(window: int) -> None:
    place = world(["A"] * 40, [list(range(n)) for n in (2, 3, 5, 6, 9, 40)])
    sequences = Sequences.of(place.data)
    batches = Batches(sequences, window, 2, seed=1)
    for epoch in range(6):  # some of them cut at random places
        drawn = sequences.windows(window, np.random.default_rng(epoch))
        assert drawn.lengths.max() <= window + 1
        ends = drawn.starts + drawn.lengths
        foreseen = np.sort(np.concatenate([np.arange(end - n, end) for end, n in zip(ends, drawn.fresh, strict=True)]))
        np.testing.assert_array_equal(foreseen, np.setdiff1d(np.arange(len(drawn.rows)), sequences.indptr[:-1]))
        assert sum(int(wanted.sum()) for _, _, wanted in batches) == len(foreseen)
    drawn_batches = list(Batches(sequences, window, 2, seed=1))
    assert len(drawn_batches) == batches.steps(1)
    for rows, lengths, wanted in drawn_batches:
        assert wanted.numel() <= 2 * window or len(rows) == 1
        assert not wanted[torch.arange(rows.shape[1] - 1) >= lengths[:, None] - 1].any()


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
    monkeypatch.setattr(losses, "LOSS_BYTES", 4 * 11 * 3)  # three rows at a time
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


def test_full_cross_entropy_in_bfloat16_is_near() -> None:
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(64, 8), torch.randn(50, 8) / 3, torch.randn(50) - 8
    wanted = torch.randint(50, (64,))
    exact, rough = ([part.clone().requires_grad_() for part in (hidden, weight, bias)] for _ in range(2))
    one = full_cross_entropy(exact[0], exact[1], exact[2], wanted)
    other = full_cross_entropy(rough[0].bfloat16(), rough[1], rough[2], wanted)
    one.backward()  # type: ignore[no-untyped-call]
    other.backward()  # type: ignore[no-untyped-call]
    assert other.item() == pytest.approx(one.item(), rel=0.01)
    for mine, theirs in zip(rough, exact, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.cosine_similarity(mine.grad.flatten(), theirs.grad.flatten(), dim=0) > 0.999


def test_sampled_cross_entropy_is_that_of_the_corrected_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOSS_BYTES", 4 * 7 * 3)  # three rows at a time
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(50, 5), torch.randn(11, 5), torch.randn(11)
    wanted, chances = torch.randint(11, (50,)), torch.rand(11) * 0.9 + 0.1
    sampled = torch.tensor([9, 0, 4, 7, 2, 3])
    ours, theirs = ([part.clone().requires_grad_() for part in (hidden, weight, bias)] for _ in range(2))
    loss = sampled_cross_entropy(ours[0], ours[1], ours[2], wanted, sampled, chances)
    logits = theirs[0] @ theirs[1].T + theirs[2]
    others = (logits - chances.log())[:, sampled].masked_fill(sampled[None, :] == wanted[:, None], -torch.inf)
    expected = functional.cross_entropy(torch.cat([logits.gather(1, wanted[:, None]), others], dim=1), torch.zeros(50, dtype=torch.int64))
    (3.0 * loss).backward()  # type: ignore[no-untyped-call]
    (3.0 * expected).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_a_sample_of_all_gives_the_full_cross_entropy() -> None:
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(50, 5), torch.randn(11, 5), torch.randn(11)
    wanted = torch.randint(11, (50,))
    loss = sampled_cross_entropy(hidden, weight, bias, wanted, torch.randperm(11), torch.ones(11))
    assert loss.item() == pytest.approx(full_cross_entropy(hidden, weight, bias, wanted).item(), rel=1e-5)


@pytest.mark.parametrize("many", [1, 7, 150, 399, 400, 1_000])
def test_what_is_often_taken_is_the_likelier_in_a_sample(many: int) -> None:
    counts = torch.from_numpy(np.random.default_rng(0).integers(0, 3_000, 400))
    chances = inclusion(counts, many)
    assert chances.sum().item() == pytest.approx(min(many, 400), rel=1e-4)
    assert 0.0 < chances.min() <= chances.max() <= 1.0
    assert (chances[counts.argsort()].diff() >= 0).all()
    free = chances < 1.0
    torch.testing.assert_close(
        chances[free] ** 2 / counts[free].clamp_min(1), (chances[free][:1] ** 2 / counts[free][:1].clamp_min(1)).expand(int(free.sum()))
    )


FORMS: list[tuple[transformer.Positions, int]] = [("end", 0), ("relative", 0), ("end", 3), ("relative", 3)]


def unlike_new(positions: transformer.Positions, convolution: int) -> Network:
    """A network none of whose parts is still at its beginning, where some do nothing."""
    torch.manual_seed(0)
    network = Network(20, 8, 2, 2, 10, 0.0, positions, convolution).eval()
    with torch.no_grad():
        for part in network.parameters():
            part.add_(0.3 * torch.randn_like(part))
    return network


@pytest.mark.parametrize(("positions", "convolution"), FORMS)
def test_no_position_sees_a_later_one(positions: transformer.Positions, convolution: int) -> None:
    network = unlike_new(positions, convolution)
    rows = torch.arange(8)[None]
    other = rows.clone()
    other[0, 5:] = 19
    with torch.no_grad():
        torch.testing.assert_close(network(rows)[:, :5], network(other)[:, :5])
        assert not torch.allclose(network(rows)[:, 5:], network(other)[:, 5:])
        torch.testing.assert_close(network(rows, last=True), network(rows)[:, -1:])


@pytest.mark.parametrize(("positions", "convolution"), FORMS)
def test_what_fills_up_a_batch_changes_nothing(positions: transformer.Positions, convolution: int) -> None:
    network = unlike_new(positions, convolution)
    rows, lengths = torch.randint(20, (3, 7)), torch.tensor([7, 2, 4])
    with torch.no_grad():
        together = network(rows, lengths=lengths)
        for person, length in enumerate(lengths.tolist()):
            torch.testing.assert_close(together[person, :length], network(rows[person : person + 1, :length])[0])


def test_relative_positions_do_not_ask_how_long_the_history_is() -> None:
    network = unlike_new("relative", 2)
    for block in network.blocks:
        assert isinstance(block, transformer.Block)
        assert block.distances is not None
        with torch.no_grad():
            block.distances[:, 3:] = -40.0  # nothing further back counts
    rows = torch.arange(10)[None]
    with torch.no_grad():
        torch.testing.assert_close(network(rows, last=True), network(rows[:, 2:], last=True))


@pytest.mark.parametrize("rows", [3, 5_000])
def test_products_are_the_same_however_they_are_made(rows: int) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, 2, 16), torch.randn(24, 16), torch.randn(24)
    with torch.no_grad():
        quick = transformer.linear(x, weight, bias)
    torch.testing.assert_close(quick, functional.linear(x, weight, bias), atol=1e-5, rtol=1e-5)
    assert transformer.linear(x, weight.requires_grad_(), bias).requires_grad


def test_dropout_keeps_the_mean() -> None:
    torch.manual_seed(0)
    thinned = transformer.thinned(torch.ones(200, 501), 0.2)
    assert (thinned == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert thinned.mean().item() == pytest.approx(1.0, abs=0.01)
    assert transformer.thinned(thinned, 0.0) is thinned


@pytest.mark.parametrize("more", [{"positions": "relative", "convolution": 3}, {"average": 0.9}, {"precision": "bfloat16"}])
def test_every_form_of_it_learns_is_kept_and_repeats(ring: World, more: dict[str, object], tmp_path: Path) -> None:
    model, again = learnt(ring, **more), learnt(ring, **more)
    states = [ring.person([(start + step) % 12 for step in range(4)]) for start in range(12)]
    scores = model.scores(states, ring.now)
    assert scores.dtype == np.float32
    assert (scores.argmax(axis=1) == (np.arange(12) + 4) % 12).mean() > 0.8
    np.testing.assert_array_equal(scores, again.scores(states, ring.now))
    model.save(tmp_path)
    np.testing.assert_array_equal(scores, Sasrec.load(tmp_path).scores(states, ring.now))
    np.testing.assert_allclose(scores[:1], model.scores(states[:1], ring.now), atol=1e-5)


def test_averaged_weights_are_lent_and_given_back(ring: World) -> None:
    config = words(average=0.5)
    sequences = Sequences.of(ring.data)
    network = Network(12, 16, 1, 2, 6, 0.0)
    task = Task(config, network, sequences, 10, 1e-2, 1)
    history = list[torch.Tensor]()
    for _ in range(4):
        with torch.no_grad():
            network.bias.add_(1.0)
        task.on_train_batch_end()
        history.append(network.bias.detach().clone())
    with task.averaged():
        lent = network.bias.detach().clone()
    assert history[0][0] < lent[0] < history[-1][0]
    torch.testing.assert_close(network.bias.detach(), history[-1])


def test_the_clock_and_patience_stop_it(ring: World) -> None:
    told: list[str] = []
    Sasrec(words(epochs=500, seconds=0.001)).fit(ring.data, lambda what, share: told.append(what))
    assert len(told) <= 1
    told.clear()
    Sasrec(words(epochs=60, patience=1, learning_rate=1e-6)).fit(ring.data, lambda what, share: told.append(what))
    assert len(told) < 60


@pytest.mark.parametrize(("average", "patience", "kept"), [(0.0, 15, 1.0), (0.5, 15, 3.0), (0.5, 1, 1.0)])
def test_of_averaged_weights_the_last_are_kept(
    ring: World, monkeypatch: pytest.MonkeyPatch, average: float, patience: int, kept: float
) -> None:
    """The first epoch is the best of three. Without averaging it is kept; with it the last one is, unless patience was at an end."""
    config = words(average=average, patience=patience)
    network = Network(12, 16, 1, 2, 6, 0.0)
    task, watch = Task(config, network, Sequences.of(ring.data), 10, 1e-2, 1), Watch(config, 3, None)
    figures = iter([0.9, 0.2, 0.4])
    monkeypatch.setattr(task, "validate", lambda: next(figures))
    monkeypatch.setattr(task, "log", lambda *_: None)
    trainer = SimpleNamespace(current_epoch=0, should_stop=False)
    for epoch in range(3):
        if not trainer.should_stop:
            trainer.current_epoch = epoch
            with torch.no_grad():
                network.bias.fill_(epoch + 1.0)
            watch.on_train_epoch_end(cast(lightning.Trainer, trainer), task)
    assert watch.weights is not None
    assert watch.weights["bias"][0].item() == kept


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
