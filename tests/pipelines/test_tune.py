"""The search: small ones on sources that fit in a moment, and one whose driver is killed half-way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.domain import Domain
from pipelines.featurize import load as load_features
from pipelines.train import part_of
from pipelines.tune import _ndcg, lines, tune
from tests.pipelines.killed import run_until_killed
from tests.pipelines.small_run import SILENT, SmallRun
from training import build
from training.contract import TrainingData
from training.split import split, targets

TRIALS = 4


def test_a_search_finds_the_best_first_and_changes_nothing(small_run: SmallRun) -> None:
    before = small_run.made()
    result = tune(small_run.domain, small_run.step("featurize"), None, "popular", TRIALS, small_run.home, False, SILENT)
    trials = result["trials"]
    assert len(trials) == TRIALS
    scores = [trial["score"] for trial in trials]
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert all(1.0 <= trial["words"]["half_life_days"] <= 365.0 for trial in trials)
    assert len({trial["words"]["half_life_days"] for trial in trials}) == TRIALS
    assert all(trial["error"] is None for trial in trials)
    assert result["now"] == small_run.domain.candidates["popular"].model_dump(mode="json")
    assert result["now_is"] is None  # "auto" is no number between 1 and 365
    assert sorted(trial["trial"] for trial in trials) == list(range(1, TRIALS + 1))
    assert all(trial["curve"] == [[1.0, trial["score"]]] and not trial["stopped"] for trial in trials)
    written = json.loads((Path(result["directory"]) / "trials.json").read_text())
    assert written == result
    after = small_run.made()
    assert {name: after[name] for name in before} == before
    with pytest.raises(FileExistsError, match="holds a search already: resume it"):
        tune(small_run.domain, small_run.step("featurize"), None, "popular", TRIALS, small_run.home, False, SILENT)


def test_the_same_seed_tries_the_same_and_another_does_not(small_run: SmallRun, tmp_path: Path) -> None:
    features = small_run.step("featurize")
    found = {}
    for place, seed in (("a", 3), ("b", 3), ("c", 4)):
        home = small_run.copied(tmp_path / place).home
        result = tune(small_run.domain, features, None, "popular", 2, home, False, SILENT, seed)
        found[place] = {(trial["words"]["half_life_days"], trial["score"]) for trial in result["trials"]}
    assert found["a"] == found["b"]
    assert not found["a"] & found["c"]


def with_sequences(small_run: SmallRun) -> Domain:
    """The small domain with a search for its sequence model: sensible learning rates and hopeless ones."""
    document = small_run.domain.model_dump(mode="json")
    document["candidates"]["sasrec"] |= {"epochs": 8, "learning_rate": 0.01, "patience": 8}
    document["search"]["sasrec"] = {"cpus": 2, "looks": 4, "words": {"learning_rate": {"low": 1e-7, "high": 0.02, "log": True}}}
    return Domain.model_validate(document)


@pytest.mark.slow
def test_a_sequence_models_trial_is_one_training_that_may_be_ended_on_the_way(small_run: SmallRun) -> None:
    domain, features = with_sequences(small_run), small_run.step("featurize")
    result = tune(domain, features, None, "sasrec", 6, small_run.home, False, SILENT)
    trials = {trial["trial"]: trial for trial in result["trials"]}
    assert [trial["error"] for trial in trials.values()] == [None] * 6
    assert result["now_is"] == 1
    assert trials[1]["words"] == {"learning_rate": 0.01}
    looks = [0.25, 0.5, 0.75, 1.0]
    for trial in trials.values():
        assert [share for share, _ in trial["curve"]] == looks[: len(trial["curve"])]
        assert trial["score"] == trial["curve"][-1][1]
        assert trial["stopped"] == (len(trial["curve"]) < 4)
    assert not trials[1]["stopped"]
    assert any(trial["stopped"] for trial in trials.values()), "hopeless learning rates go to their end"
    assert [trial["stopped"] for trial in result["trials"]] == sorted(trial["stopped"] for trial in result["trials"])
    # What the search says of settings is what a plain training with them gives.
    opened = load_features(features, domain)
    cut = split(opened.histories, domain.split, opened.moment)
    part = part_of(opened, cut, "base")
    wanted = targets(opened.histories, cut.label, part.histories, len(opened.catalogue)).sample(2_000, domain.split.seed)
    model = build.build(domain.candidates["sasrec"])
    model.fit(TrainingData(part.histories, opened.catalogue, part.moment, domain.split.seed, threads=2))
    assert _ndcg(model, opened.catalogue, part, wanted) == pytest.approx(trials[1]["score"], abs=1e-6)
    drawn = (Path(result["directory"]) / "trials.html").read_text()
    assert drawn.count("<svg") == 4
    assert "<script" not in drawn
    assert "http" not in drawn
    told = lines(result)
    assert sum("(present settings)" in line for line in told) == 1
    assert len(told) == 2 + 6 + 2


def test_the_ranker_is_searched_on_fitted_sources(small_run: SmallRun) -> None:
    result = tune(small_run.domain, small_run.step("featurize"), small_run.step("train"), "ranker", 2, small_run.home, False, SILENT)
    assert len(result["trials"]) == 2
    assert all(trial["error"] is None and trial["words"]["leaves"] in (3, 7) for trial in result["trials"])
    assert all(trial["score"] > 0.0 for trial in result["trials"])
    assert len(list(Path(result["directory"]).glob("rows-*.npz"))) == 1  # both trials learnt from the same rows


def test_what_cannot_be_searched_is_refused(small_run: SmallRun) -> None:
    features = small_run.step("featurize")
    with pytest.raises(ValueError, match="says nothing about 'als'; it has popular, ranker"):
        tune(small_run.domain, features, None, "als", 1, small_run.home, False, SILENT)
    with pytest.raises(ValueError, match="the ranker is tuned on fitted sources: train first"):
        tune(small_run.domain, features, None, "ranker", 1, small_run.home, False, SILENT)
    with pytest.raises(FileNotFoundError, match="holds no search to go on with"):
        tune(small_run.domain, features, None, "popular", 1, small_run.home, True, SILENT)


def finished(folder: Path, model: str) -> dict[str, float]:
    """Trials that the search's newest record calls ended, and when they reported last (seconds UTC)."""
    for path in sorted(folder.glob(f"{model}-*/experiment_state-*.json"), reverse=True):
        try:
            trials = [[json.loads(part) for part in trial] for trial in json.loads(path.read_text())["trial_data"]]
        except ValueError:
            continue  # being written
        return {said["trial_id"]: ran["last_result_time"] for said, ran in trials if said["status"] == "TERMINATED"}
    return {}


#: A search whose driver kills itself at the end of the first trial that finds another one written down as ended.
DYING = """
import os, signal, sys, time
from pathlib import Path

from pipelines.__main__ import main
from tests.pipelines.test_tune import finished
from training.tune import _Told

folder, model = Path(sys.argv.pop(1)), sys.argv.pop(1)
ended = _Told.on_trial_complete

def die(*said, **more):
    ended(*said, **more)
    if finished(folder, model):
        time.sleep(1.0)  # what writes the search down does so in a thread: a file that is cut off half-way is another story
        os.kill(os.getpid(), signal.SIGKILL)

_Told.on_trial_complete = die
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["popular", "ranker"])
def test_a_killed_search_goes_on_without_doing_finished_trials_again(small_run: SmallRun, model: str) -> None:
    """The driver dies of SIGKILL once a trial of eight has ended, its Ray with it."""
    folder, samples = small_run.home / "anime" / "tune", 8
    words = ["tune", str(small_run.yaml), "--model", model, "--samples", str(samples), "--home", str(small_run.home)]
    often = {"TUNE_GLOBAL_CHECKPOINT_S": "0"}  # written down at each step: these trials take less than a second
    run_until_killed(DYING, [str(folder), model, *words], small_run.home / "tune.log", often)
    had = finished(folder, model)
    assert 1 <= len(had) < samples
    train = small_run.step("train") if model == "ranker" else None
    result = tune(small_run.domain, small_run.step("featurize"), train, model, samples, small_run.home, True, SILENT)
    assert len(result["trials"]) == samples
    assert all(trial["score"] is not None for trial in result["trials"])
    after = finished(folder, model)
    assert len(after) == samples
    assert {trial: after[trial] for trial in had} == had
