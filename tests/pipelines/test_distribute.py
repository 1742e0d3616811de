"""Several workers learn what one does: the parts make up the batch, and the validation is that of one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs.domain import Domain, SasrecModel, Workers
from pipelines.train import EPOCHS, train
from tests.pipelines.small_run import SILENT, SmallRun
from tests.worlds import World, world
from training.candidates.sasrec import Sasrec
from training.contract import TrainingData
from training.epochs import EachEpoch, Epoch
from training.sequences import Batches, Sequences
from training.share import Share

WORDS = SasrecModel.model_validate(
    {
        "model": "sasrec",
        "dimensions": 16,
        "blocks": 1,
        "heads": 2,
        "window": 10,
        "epochs": 4,
        "batch": 40,
        "learning_rate": 5e-3,
        "patience": 9,
        "average": 0.9,
        "dropout": 0.1,
    }
)


def wandering(people: int = 1_500, items: int = 60, length: int = 14, seed: int = 3) -> World:
    """After item i comes i + 1 in six of ten cases, else any other: nobody can foresee more than that."""
    chance = np.random.default_rng(seed)
    out = []
    for _ in range(people):
        row = [int(chance.integers(items))]
        while len(row) < length:
            following = (row[-1] + 1) % items if chance.random() < 0.6 else int(chance.integers(items))
            if following not in row:
                row.append(following)
        out.append(row)
    return world(["Any"] * items, out)


def load() -> TrainingData:
    return wandering().data


@pytest.mark.parametrize(("workers", "batch"), [(2, 8), (3, 8), (5, 2)])
def test_the_parts_of_a_batch_are_the_batch(workers: int, batch: int) -> None:
    sequences = Sequences.of(wandering(people=50).data)
    whole = list(Batches(sequences, 6, batch, seed=1))
    parts = [list(Batches(sequences, 6, batch, 1, Share(rank, workers, {}))) for rank in range(workers)]
    for place, (rows, lengths, foreseen) in enumerate(whole):
        mine = [own[place] for own in parts]
        if len(rows) >= workers:
            assert sum(len(part[0]) for part in mine) == len(rows)
            assert sum(int(part[2].sum()) for part in mine) == int(foreseen.sum())
        else:
            assert all(len(part[0]) == 1 for part in mine)
        assert {tuple(row[:n].tolist()) for row, n in zip(rows, lengths, strict=True)} == {
            tuple(row[:n].tolist()) for part in mine for row, n in zip(part[0], part[1], strict=True)
        }
    assert all(len(own) == len(whole) for own in parts)


@pytest.mark.slow
def test_two_workers_validate_as_one_does(one_ray: None, tmp_path: Path) -> None:
    from training import distribute

    alone: list[Epoch] = []
    model = Sasrec(WORDS)
    model.fit(load(), callbacks=[EachEpoch(alone.append)])
    curve = tmp_path / "curve.jsonl"

    def told(epoch: Epoch) -> None:
        with curve.open("a", encoding="utf-8") as file:
            file.write(json.dumps([epoch.loss, epoch.ndcg]) + "\n")

    peak = distribute.fit(WORDS, load, Workers(workers=2, cpus=1), tmp_path / "model", told=told)
    together = [json.loads(line) for line in curve.read_text().splitlines()]
    assert len(together) == len(alone) == WORDS.epochs
    for (loss, ndcg), epoch in zip(together, alone, strict=True):
        assert loss == pytest.approx(epoch.loss, rel=0.03)
        assert ndcg == pytest.approx(epoch.ndcg, abs=0.05)  # of 75 people: half of one standard error
    assert peak > 2 * 100 * 2**20
    # Of 500 people neither had met: the next item that is to be foreseen, with what there is to be foreseen.
    others = wandering(people=500, seed=9)
    states = [others.histories.state(person) for person in range(500)]
    wanted = np.array([(int(state.items[-1]) + 1) % 60 for state in states])
    opened = Sasrec.load(tmp_path / "model")
    found = [float((learnt.scores(states, others.now).argmax(axis=1) == wanted).mean()) for learnt in (model, opened)]
    assert found[0] > 0.6
    assert found[1] == pytest.approx(found[0], abs=0.05)
    assert opened.config == WORDS


@pytest.mark.slow
def test_a_domain_says_how_many_workers_and_the_fits_are_the_same_units(small_run: SmallRun) -> None:
    """Nothing is fitted anew because of where it is fitted; what is new is fitted by the workers, and leaves its learning curve."""
    document = {**small_run.domain.model_dump(mode="json"), "workers": {"sasrec": {"workers": 2}}}
    features = small_run.step("featurize")
    before = small_run.made("fits")
    assert train(Domain.model_validate(document), features, small_run.home, SILENT) == small_run.step("train")
    assert small_run.made("fits") == before
    document["candidates"]["sasrec"] |= {"epochs": 2}
    train(Domain.model_validate(document), features, small_run.home, SILENT)
    fits = [
        path for path in (small_run.home / "anime" / "fits").glob("sasrec-*") if json.loads((path / "DONE.json").read_text()).get("workers")
    ]
    assert sorted(path.name.split("-")[1] for path in fits) == ["all", "base", "known"]
    for path in fits:
        curve = json.loads((path / EPOCHS).read_text())
        assert [epoch["epoch"] for epoch in curve] == ([1, 2] if "-base-" in path.name else [1])
        assert all(epoch["loss"] > 0 for epoch in curve)
        assert json.loads((path / "DONE.json").read_text())["workers"] == 2


def test_workers_of_what_is_no_sequence_model_are_refused(small_run: SmallRun) -> None:
    document = {**small_run.domain.model_dump(mode="json"), "workers": {"als": {"workers": 2}}}
    with pytest.raises(ValueError, match="workers: 'als' is no source of model sasrec; allowed are sasrec"):
        Domain.model_validate(document)
