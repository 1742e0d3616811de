"""The search: small ones on sources that fit in a moment, and one whose driver is killed half-way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import processes
from pipelines.tune import tune
from tests.pipelines.small_run import SILENT, SmallRun

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
    written = json.loads((Path(result["directory"]) / "trials.json").read_text())
    assert written == result
    after = small_run.made()
    assert {name: after[name] for name in before} == before
    with pytest.raises(FileExistsError, match="holds a search already: resume it"):
        tune(small_run.domain, small_run.step("featurize"), None, "popular", TRIALS, small_run.home, False, SILENT)


def test_the_ranker_is_searched_on_fitted_sources(small_run: SmallRun) -> None:
    result = tune(small_run.domain, small_run.step("featurize"), small_run.step("train"), "ranker", 2, small_run.home, False, SILENT)
    assert len(result["trials"]) == 2
    assert all(trial["error"] is None and trial["words"]["leaves"] in (3, 7) for trial in result["trials"])
    assert all(trial["score"] > 0.0 for trial in result["trials"])


def test_what_cannot_be_searched_is_refused(small_run: SmallRun) -> None:
    features = small_run.step("featurize")
    with pytest.raises(ValueError, match="says nothing about 'als'; it has popular, ranker"):
        tune(small_run.domain, features, None, "als", 1, small_run.home, False, SILENT)
    with pytest.raises(FileNotFoundError, match="holds no search to go on with"):
        tune(small_run.domain, features, None, "popular", 1, small_run.home, True, SILENT)


def finished(folder: Path) -> dict[str, float]:
    """Trials that the search's newest record calls ended, and when they reported last (seconds UTC)."""
    for path in sorted(folder.glob("popular-*/experiment_state-*.json"), reverse=True):
        try:
            trials = [[json.loads(part) for part in trial] for trial in json.loads(path.read_text())["trial_data"]]
        except ValueError:
            continue  # being written
        return {said["trial_id"]: ran["last_result_time"] for said, ran in trials if said["status"] == "TERMINATED"}
    return {}


@pytest.mark.slow
def test_a_killed_search_goes_on_without_doing_finished_trials_again(small_run: SmallRun) -> None:
    """The driver is killed with SIGKILL once a trial of eight has ended, its Ray with it."""
    folder, samples = small_run.home / "anime" / "tune", 8
    command = [sys.executable, "-m", "pipelines", "tune", str(small_run.yaml), "--model", "popular", "--samples", str(samples)]
    log = small_run.home / "tune.log"
    with log.open("wb") as out:
        driver = subprocess.Popen(
            [*command, "--home", str(small_run.home)], start_new_session=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    seen = processes.look(driver.pid)
    assert seen is not None
    try:
        deadline = time.monotonic() + 250.0
        while not finished(folder):
            assert driver.poll() is None, f"the search ended before it could be killed: {log.read_text()[-2_000:]}"
            assert time.monotonic() < deadline, "the search does not come to its first trial"
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
        driver.wait(30.0)
    finally:
        processes.end(lambda: processes.of_session(driver.pid, seen.started))
    had = finished(folder)
    assert 1 <= len(had) < samples
    result = tune(small_run.domain, small_run.step("featurize"), None, "popular", samples, small_run.home, True, SILENT)
    assert len(result["trials"]) == samples
    assert all(trial["score"] is not None for trial in result["trials"])
    after = finished(folder)
    assert len(after) == samples
    assert {trial: after[trial] for trial in had} == had
