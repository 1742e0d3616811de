"""What a search found is adopted, seen and taken back; what no longer fits is refused. And the runs that are sent to MLflow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import configs
from configs import ConfigError
from pipelines import tracking, trials_page
from pipelines.adopt import adopt, undo
from pipelines.tune import lines
from tests.configs.test_configs import plain, written


def trial(number: int, score: float | None, words: dict[str, Any], done: float = 1.0, error: str | None = None) -> dict[str, Any]:
    curve = [] if score is None else [[share, score * share] for share in (0.25, 0.5, 1.0) if share < done] + [[done, score]]
    return {
        "trial": number,
        "words": words,
        "score": score,
        "stopped": error is None and done < 1.0,
        "curve": curve,
        "seconds": 2.5,
        "error": error,
    }


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    document = plain()
    document["candidates"]["als"] = {"model": "als", "factors": 64}
    return written(tmp_path, document)


def searched(home: Path, yaml_file: Path, name: str = "als-1", **changed: Any) -> dict[str, Any]:
    """A finished search of the books: trial 1 is the present, 2 is better, 3 was stopped, 4 failed."""
    directory = home / "books" / "tune" / name
    directory.mkdir(parents=True)
    result: dict[str, Any] = {
        "domain": "books",
        "model": "als",
        "metric": "NDCG@10",
        "window": "the label window",
        "seed": 11,
        "commit": "0123456789abcdef",
        "now": configs.load(str(yaml_file)).candidates["als"].model_dump(mode="json"),
        "now_is": 1,
        "space": {"words": {"factors": {"choices": [64, 128]}, "alpha": {"low": 1.0, "high": 20.0, "log": True, "whole": False}}},
        "trials": [
            trial(2, 0.3, {"factors": 128, "alpha": 10.0}),
            trial(1, 0.2, {"factors": 64, "alpha": 10.0}),
            trial(3, 0.1, {"factors": 64, "alpha": 3.0}, done=0.5),
            trial(4, None, {"factors": 64, "alpha": 2.0}, error="ValueError: no"),
        ],
        "directory": str(directory),
        **changed,
    }
    (directory / "trials.json").write_text(json.dumps(result))
    return result


def test_the_best_trial_is_adopted_seen_and_taken_back(tmp_path: Path, yaml_file: Path) -> None:
    name, text = str(yaml_file), yaml_file.read_text()
    searched(tmp_path / "home", yaml_file)
    would = adopt(name, "als", tmp_path / "home", dry_run=True)
    assert (would["adopted"], would["over"]) == ({"factors": 128}, {"factors": 64})
    assert configs.adopted(name) == {}
    said = adopt(name, "als", tmp_path / "home")
    assert said == {**would, "dry_run": False}
    assert yaml_file.read_text() == text
    assert configs.load(name).candidates["als"].model_dump()["factors"] == 128
    assert configs.written(name).candidates["als"].model_dump()["factors"] == 64
    assert configs.names(tmp_path) == ("books",)
    entry = configs.adopted(name)["als"]
    assert (entry.words, entry.over, entry.score, entry.before, entry.trials, entry.search) == (
        {"factors": 128},
        {"factors": 64},
        0.3,
        0.2,
        4,
        "als-1",
    )
    assert undo(name, "als")["again"] == {"factors": 64}
    assert not (tmp_path / "books.adopted.yaml").exists()
    assert configs.load(name) == configs.written(name)


def test_a_second_search_adds_to_what_was_adopted(tmp_path: Path, yaml_file: Path) -> None:
    name, home = str(yaml_file), tmp_path / "home"
    searched(home, yaml_file)
    adopt(name, "als", home)
    best = [trial(2, 0.4, {"factors": 128, "alpha": 5.0}), trial(1, 0.3, {"factors": 128, "alpha": 10.0})]
    searched(home, yaml_file, "als-2", trials=best)
    adopt(name, "als", home)
    entry = configs.adopted(name)["als"]
    assert (entry.words, entry.over) == ({"factors": 128, "alpha": 5.0}, {"factors": 64, "alpha": 10.0})
    model = configs.load(name).candidates["als"].model_dump()
    assert (model["factors"], model["alpha"]) == (128, 5.0)


def test_what_is_no_better_stopped_failed_or_old_is_not_adopted(tmp_path: Path, yaml_file: Path) -> None:
    name, home = str(yaml_file), tmp_path / "home"
    with pytest.raises(FileNotFoundError, match="books was not searched for als"):
        adopt(name, "als", home)
    searched(home, yaml_file)
    with pytest.raises(ValueError, match="trial 3 did not come to its end: it was stopped on the way"):
        adopt(name, "als", home, trial=3)
    with pytest.raises(ValueError, match="trial 4 did not come to its end: ValueError: no"):
        adopt(name, "als", home, trial=4)
    with pytest.raises(ValueError, match="trial 1 has the settings that are in force already"):
        adopt(name, "als", home, trial=1)
    with pytest.raises(ValueError, match="no trial 9: the newest search has 1 to 4"):
        adopt(name, "als", home, trial=9)
    even = [trial(2, 0.2, {"factors": 128, "alpha": 10.0}), trial(1, 0.2, {"factors": 64, "alpha": 10.0})]
    searched(home, yaml_file, "als-2", trials=even)
    with pytest.raises(ValueError, match=r"no trial is better than the settings in force \(0\.2000\)"):
        adopt(name, "als", home)
    yaml_file.write_text(yaml_file.read_text().replace("factors: 64", "factors: 96"))
    with pytest.raises(ValueError, match="made when factors was 64: search again"):
        adopt(name, "als", home)
    with pytest.raises(ValueError, match="nothing was adopted for 'als'; adopted are none"):
        undo(name, "als")


def test_a_yaml_that_was_changed_since_refuses_what_was_adopted(tmp_path: Path, yaml_file: Path) -> None:
    name = str(yaml_file)
    searched(tmp_path / "home", yaml_file)
    adopt(name, "als", tmp_path / "home")
    yaml_file.write_text(yaml_file.read_text().replace("factors: 64", "factors: 96"))
    with pytest.raises(
        ConfigError, match=r"books\.adopted\.yaml: als\.factors: 128 was adopted over 64, but books\.yaml now says 96; take one of them out"
    ):
        configs.load(name)
    undo(name, "als")
    assert configs.load(name).candidates["als"].model_dump()["factors"] == 96


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: {"als": {**entry, "words": {"factors": 3}}}, r"factors: Input should be greater than or equal to 4, got 3"),
        (lambda entry: {"als": {**entry, "words": {"depth": 3}}}, r"als\.depth: not a word of it; allowed are alpha, factors"),
        (lambda entry: {"knn": entry}, r"knn: neither a source \(popular, als\) nor the ranker"),
        (lambda entry: {"als": {**entry, "why": "no"}}, r"entries\.als\.why: Extra inputs are not permitted"),
        (lambda entry: {"als": {**entry, "words": {}}}, r"entries\.als\.words: Dictionary should have at least 1 item"),
        (lambda entry: ["als"], r"holds list, expected a mapping"),
    ],
)
def test_a_file_written_by_hand_is_checked(tmp_path: Path, yaml_file: Path, change: Any, message: str) -> None:
    searched(tmp_path / "home", yaml_file)
    adopt(str(yaml_file), "als", tmp_path / "home")
    path = tmp_path / "books.adopted.yaml"
    path.write_text(yaml.safe_dump(change(yaml.safe_load(path.read_text())["als"])))
    with pytest.raises(ConfigError, match=r"(?s)books\.adopted\.yaml.*" + message):
        configs.load(str(yaml_file))


def test_the_table_and_the_picture_name_every_trial(tmp_path: Path, yaml_file: Path) -> None:
    result = searched(tmp_path / "home", yaml_file)
    told = lines(result)
    assert [line.split()[0] for line in told[2:6]] == ["2", "1", "3", "4"]
    assert "(present settings)" in told[3]
    assert "failed" in told[5]
    assert told[6] == "4: ValueError: no"
    drawn = trials_page.page_of(result)
    assert drawn.count("<svg") == 5  # the order, the best so far, two words, the curves
    assert len(re.findall(r"<tr", drawn)) == 5
    assert "ValueError: no" in drawn
    assert "<script" not in drawn


# ------------------------------------------------------------------ MLflow


def test_runs_are_sent_once_to_a_file_store(tmp_path: Path, yaml_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    result = searched(tmp_path / "home", yaml_file)
    monkeypatch.delenv(tracking.ADDRESS, raising=False)
    assert tracking.send(result) == 0
    address = (tmp_path / "runs").as_uri()
    monkeypatch.setenv(tracking.ADDRESS, address)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracking.check()
    first = {**result, "trials": result["trials"][:2]}
    assert tracking.send(first) == 2
    assert tracking.send(result) == 2  # the other two only
    assert tracking.send(result) == 0
    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name("factotum/books/als")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["als-1", "als-2", "als-3", "als-4"]
    best = runs["als-2"]
    assert (best.data.params["factors"], best.data.params["iterations"]) == ("128", "15")
    assert best.data.metrics == {"NDCG_at_10": 0.3, "seconds": 2.5}
    history = client.get_metric_history(best.info.run_id, "NDCG_at_10")
    assert [point.value for point in history] == pytest.approx([0.075, 0.15, 0.3])
    assert [run.info.status for _, run in sorted(runs.items())] == ["FINISHED", "FINISHED", "FINISHED", "FAILED"]
    assert runs["als-3"].data.tags["factotum.stopped"] == "true"
    assert runs["als-4"].data.tags["error"] == "ValueError: no"


def test_an_address_that_takes_nothing_is_said(tmp_path: Path, yaml_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv(tracking.ADDRESS, "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConnectionError, match=r"MLFLOW_TRACKING_URI=http://127\.0\.0\.1:9: "):
        tracking.send(searched(tmp_path / "home", yaml_file))


def test_without_the_client_a_search_is_refused_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tracking.ADDRESS, "file:///nowhere")
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="install the extra `mlflow`, or unset MLFLOW_TRACKING_URI"):
        tracking.check()
    monkeypatch.delenv(tracking.ADDRESS)
    tracking.check()
