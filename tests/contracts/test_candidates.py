"""What training/contract.py promises, for every model of the YAML."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from configs.domain import AlsModel, CandidateModel, ClustersModel, ContentModel, NeighboursModel, PopularityModel, SasrecModel
from features.state import UserState
from tests.worlds import DAY, KINDS, START, World, checkerboard
from training import build, contract
from training.contract import FindsSimilar, FollowsStock, PlacesNewItems, TellsParts

CONFIGS: dict[str, CandidateModel] = {
    "popularity": PopularityModel(model="popularity", half_life_days=30.0),
    "demand": PopularityModel(model="popularity", half_life_days=None, demand=2.0),
    "content": ContentModel(model="content", title_words=64, dimensions=8),
    "als": AlsModel(model="als", factors=8, iterations=5),
    "sasrec": SasrecModel(model="sasrec", dimensions=16, blocks=1, heads=2, window=10, epochs=4, batch=8, learning_rate=1e-2, patience=9),
    "neighbours": NeighboursModel(model="neighbours", neighbours=10),
    "clusters": ClustersModel(model="clusters", clusters=2, top=30),
}
EVERY = pytest.mark.parametrize("name", list(CONFIGS))
EITHER = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


@cache
def place(ordered: bool) -> World:
    return checkerboard(ordered=ordered)


def learnt(name: str, world: World) -> contract.CandidateModel:
    model = build.build(CONFIGS[name])
    model.fit(world.data)
    return model


@cache
def fitted(name: str, ordered: bool = True) -> contract.CandidateModel:
    return learnt(name, place(ordered))


def people(world: World) -> list[UserState]:
    """Known people, somebody new with few items, a newcomer with words, one with none, one with an item beyond the catalogue,
    one who disliked an item, and one with more items than any model reads."""
    known = world.histories.states(np.arange(5, dtype=np.int32))
    disliker = world.person([2, 4]).then(6, KINDS.code("dislike"), float("nan"), world.now)
    return [
        *known,
        world.person([1, 3]),
        world.person([], genre=("Even",)),
        world.person([]),
        world.person([2, len(world.catalogue) + 3]),
        disliker,
        world.person(list(range(30))),
    ]


@EVERY
@EITHER
def test_batch_equals_single(name: str, ordered: bool) -> None:
    world, model = place(ordered), fitted(name, ordered)
    states = people(world)
    table = model.scores(states, world.now)
    assert table.shape == (len(states), len(world.catalogue))
    assert table.dtype == np.float32
    assert not np.isnan(table).any()
    assert not np.isposinf(table).any()
    for row, state in enumerate(states):
        alone = model.scores([state], world.now)
        assert alone.shape == (1, len(world.catalogue))
        np.testing.assert_allclose(alone[0], table[row], rtol=1e-5, atol=1e-5)
    table[:] = 0.0  # a caller may write into what it gets, and the model does not mind
    assert model.scores(states, world.now).any()


@EVERY
def test_nobody_at_all(name: str) -> None:
    assert fitted(name).scores([], place(True).now).shape == (0, len(place(True).catalogue))


@EVERY
@EITHER
def test_same_seed_same_model(name: str, ordered: bool) -> None:
    world = place(ordered)
    again = learnt(name, world).scores(people(world), world.now)
    np.testing.assert_array_equal(again, fitted(name, ordered).scores(people(world), world.now))


@EVERY
def test_a_second_fit_on_other_data_forgets_the_first(name: str) -> None:
    if name == "sasrec":
        pytest.skip("the contract lets SASRec go on from what it has")
    world, other = place(True), checkerboard(seed=9)
    model = learnt(name, other)
    model.fit(world.data)
    np.testing.assert_array_equal(model.scores(people(world), world.now), fitted(name).scores(people(world), world.now))


@EVERY
@EITHER
def test_saved_and_loaded_it_answers_the_same(name: str, ordered: bool, tmp_path: Path) -> None:
    world, model = place(ordered), fitted(name, ordered)
    model.save(tmp_path / "model")
    loaded = build.load(CONFIGS[name], tmp_path / "model")
    states = people(world)
    np.testing.assert_array_equal(loaded.scores(states, world.now), model.scores(states, world.now))
    items = np.arange(len(world.catalogue), dtype=np.int32)
    assert [loaded.because(state, items) for state in states] == [model.because(state, items) for state in states]
    if isinstance(model, FindsSimilar):
        assert isinstance(loaded, FindsSimilar)
        np.testing.assert_array_equal(loaded.similar(3), model.similar(3))


@EVERY
def test_its_files_are_never_unpickled(name: str, tmp_path: Path) -> None:
    fitted(name).save(tmp_path)
    written = list(tmp_path.rglob("*"))
    assert written
    for file in written:
        assert file.suffix in {".npy", ".json", ".safetensors"}
        if file.suffix == ".npy":
            np.load(file, allow_pickle=False)  # raises for an array of objects


@EVERY
def test_a_missing_or_broken_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        build.load(CONFIGS[name], tmp_path / "nowhere")
    fitted(name).save(tmp_path)
    for file in tmp_path.iterdir():
        kept = file.read_bytes()
        file.write_bytes(kept[: len(kept) // 2])
        with pytest.raises(ValueError):
            build.load(CONFIGS[name], tmp_path)
        file.write_bytes(kept)


@EVERY
def test_the_future_does_not_leak(name: str) -> None:
    """Fitted as of a moment, two worlds that differ only from that moment on give the same model to the last byte."""
    world = place(True)
    moment = START + DAY // 2
    altered = world.histories.items.copy()
    late = world.histories.times >= moment
    assert late.any()
    altered[late] = (altered[late] + 7) % len(world.catalogue)
    other = replace(world, histories=replace(world.histories, items=altered))
    states = [state.until(moment) for state in people(world)]
    tables = []
    for each in (world, other):
        model = build.build(CONFIGS[name])
        model.fit(each.before(moment))
        tables.append(model.scores(states, moment))
    assert tables[0].tobytes() == tables[1].tobytes()


@EVERY
def test_a_persons_own_future_does_not_reach_their_answer(name: str) -> None:
    world = place(True)
    moment = START + DAY // 2
    now = world.histories.state(1)
    assert len(now.until(moment)) < len(now)
    table = fitted(name).scores([now.until(moment), now.then(5, 0, 9.0, moment + 1).until(moment)], moment)
    assert table[0].tobytes() == table[1].tobytes()


@EVERY
@EITHER
def test_evidence_speaks_of_the_person(name: str, ordered: bool) -> None:
    world, model = place(ordered), fitted(name, ordered)
    items = np.arange(len(world.catalogue), dtype=np.int32)
    told = 0
    for state in people(world):
        evidence = model.because(state, items)
        assert len(evidence) == len(items)
        for item, found in zip(items, evidence, strict=True):
            if found is None:
                continue
            told += 1
            assert np.isfinite(found.value)
            assert found.value > 0
            assert (found.item is not None) == (found.kind == "item")
            if found.item is not None:
                assert found.item in state.positives
            if found.kind == "attribute":
                assert found.feature is not None
                attribute, word = found.feature.split(":")
                borne = world.catalogue.describe(int(item))[attribute]
                assert word in borne if isinstance(borne, list) else word == borne
    assert told
    assert model.because(people(world)[0], np.empty(0, dtype=np.int32)) == []


@EITHER
@pytest.mark.parametrize("name", ["als", "content", "neighbours"])
def test_the_parts_of_a_score_sum_to_it(name: str, ordered: bool) -> None:
    world, model = place(ordered), fitted(name, ordered)
    assert isinstance(model, TellsParts)
    items = np.arange(len(world.catalogue), dtype=np.int32)
    states = people(world)
    for state, scores in zip(states, model.scores(states, world.now), strict=True):
        parts = model.parts(state, items)
        assert len(parts) == len(items)
        for score, found in zip(scores, parts, strict=True):
            if np.isneginf(score):
                assert found == []
                continue
            assert sum(part.value for part in found) == pytest.approx(float(score), abs=1e-4)
            if found:
                assert sum(part.share for part in found) == pytest.approx(1.0, abs=1e-6)
            assert [abs(part.value) for part in found] == sorted((abs(part.value) for part in found), reverse=True)
            assert all(part.item in state.positives for part in found if part.kind == "item")
    assert model.parts(states[0], items[:0]) == []


def test_models_whose_score_is_no_sum_do_not_pretend() -> None:
    assert [name for name in CONFIGS if isinstance(fitted(name), TellsParts)] == ["content", "als", "neighbours"]


@EVERY
def test_progress_is_told_and_may_stop_the_fit(name: str) -> None:
    world, seen = place(True), list[float]()
    build.build(CONFIGS[name]).fit(world.data, lambda what, share: seen.append(share))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    def stop(what: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.build(CONFIGS[name]).fit(world.data, stop)


@EVERY
def test_nothing_to_learn_from(name: str) -> None:
    world = place(True)
    nothing = replace(world, histories=world.histories.where(np.zeros(world.histories.events, dtype=np.bool_)))
    model = build.build(CONFIGS[name])
    if name in {"popularity", "demand", "content"}:  # these read the catalogue too
        model.fit(nothing.data)
        assert np.isfinite(model.scores([nothing.person([], genre=("Odd",))], nothing.now)).all()
    else:
        with pytest.raises(ValueError, match="learn"):
            model.fit(nothing.data)


@pytest.mark.parametrize("name", ["content", "als", "neighbours", "sasrec", "clusters"])
def test_the_checkerboard_is_understood(name: str) -> None:
    """What a person has not seen of their own colour stands above everything of the other colour."""
    world, model = place(True), fitted(name)
    right = 0
    for user in range(20):
        scores = model.scores([world.histories.state(user)], world.now)[0]
        own = np.arange(user % 2, len(world.catalogue), 2)
        other = np.arange(1 - user % 2, len(world.catalogue), 2)
        missing = np.setdiff1d(own, world.histories.state(user).positives)
        right += bool(scores[missing].max() > scores[other].max())
    assert right == 20


@EVERY
def test_optional_abilities_are_what_they_say(name: str) -> None:
    world, model = place(True), fitted(name)
    if isinstance(model, FindsSimilar):
        near = model.similar(4)
        assert near.shape == (len(world.catalogue),)
        assert near.dtype == np.float32
        assert np.isneginf(near[4])
        assert near.argmax() % 2 == 0
        with pytest.raises(IndexError):
            model.similar(len(world.catalogue))
    if isinstance(model, PlacesNewItems):
        larger = world.catalogue.with_item("new", "Newcomer", {"genre": "Odd", "form": "Series", "length": 24, "members": 5})
        placed = model.place(larger)
        states = people(world)
        table = placed.scores(states, world.now)
        assert table.shape == (len(states), len(larger))
        np.testing.assert_allclose(table[:6, :-1], model.scores(states, world.now)[:6], rtol=1e-5, atol=1e-6)
        assert np.isfinite(table[:6, -1]).all()
    if isinstance(model, FollowsStock):
        before = model.scores(people(world), world.now)
        told = model.stocked(np.where(np.arange(len(world.catalogue)) == 3, 0.0, np.nan).astype(np.float32))
        assert told.scores(people(world), world.now).shape == before.shape
        np.testing.assert_array_equal(model.scores(people(world), world.now), before)


def test_who_has_which_ability() -> None:
    def able(protocol: type) -> set[str]:
        return {name for name in CONFIGS if isinstance(fitted(name), protocol)}

    assert able(FindsSimilar) == {"content", "als", "neighbours"}
    assert able(PlacesNewItems) == {"popularity", "demand", "content"}
    assert able(FollowsStock) == {"popularity", "demand"}


@pytest.mark.parametrize(
    ("said", "heavy"),
    [
        ("import training.build", ("torch", "implicit", "sklearn", "pytorch_lightning")),
        ("import training.candidates.sasrec", ("pytorch_lightning",)),
    ],
)
def test_importing_stays_light(said: str, heavy: tuple[str, ...]) -> None:
    program = f"{said}, sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]"
