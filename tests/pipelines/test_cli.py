"""The command line: what it answers, where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import configs
from pipelines import __main__ as command_line
from pipelines import processes
from pipelines.ingest import IngestRefused
from pipelines.publish import NotPromotedError
from pipelines.refusals import exit_code
from pipelines.sources.tables import SourceError
from pipelines.steps import DONE, Step, StepBusy
from pipelines.train import open_trained, train
from serving.storage.database import DatabaseAwayError
from tests.pipelines.small_run import SILENT, SmallRun
from training import bundle
from training.bundle import BundleError

COMMANDS = (
    "run", "ingest", "featurize", "train", "evaluate", "publish", "serve", "up", "score", "models", "promote", "rollback", "clean", "tune",
    "schedule", "bench",
)  # fmt: skip


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Factotum = Callable[..., Said]


@pytest.fixture
def factotum(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Factotum:
    """Calls the entry point as the shell would, in this process."""
    for name in [name for name in os.environ if name.startswith("FACTOTUM_")]:
        monkeypatch.delenv(name)

    def call(*line: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["factotum", *map(str, line)])
        capsys.readouterr()
        code: str | int = 0
        try:
            command_line.main()
        except SystemExit as ended:
            code = ended.code or 0
        out, err = capsys.readouterr()
        return Said(int(code), out, err)

    return call


def test_help_teaches(factotum: Factotum) -> None:
    said = factotum("--help")
    assert said.code == 0
    assert "factotum up anime" in said.out
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", said.out), command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(factotum: Factotum, command: str) -> None:
    said = factotum(command, "--help")
    assert said.code == 0
    assert "Usage:" in said.out
    assert said.err == ""


def test_python_m_pipelines_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "pipelines", "models", "--help"], capture_output=True, text=True, check=True)
    assert "aliases" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        ("dance",),
        ("run",),
        ("run", "anime", "--no-such"),
        ("tune", "anime"),
        ("tune", "anime", "--model", "als", "--samples", "0"),
        ("run", "anime", "--data", "/no/such"),
    ],
)
def test_a_wrong_command_line_is_two(factotum: Factotum, line: tuple[str, ...]) -> None:
    said = factotum(*line)
    assert said.code == 2
    assert said.out == ""
    assert "Error" in said.err or "Usage" in said.err


def test_what_each_refusal_means(tmp_path: Path) -> None:
    assert exit_code(SourceError("x")) == exit_code(IngestRefused("x", tmp_path)) == exit_code(BundleError("x")) == 3
    assert exit_code(DatabaseAwayError("x")) == exit_code(FileNotFoundError("x")) == 3
    assert exit_code(NotPromotedError("x")) == 4
    assert exit_code(StepBusy("x")) == 5
    assert exit_code(ZeroDivisionError("x")) == 1


def test_an_unknown_domain_is_refused(factotum: Factotum, tmp_path: Path) -> None:
    said = factotum("run", "cinema", "--home", tmp_path)
    assert said.code == 3
    assert said.out == ""
    assert said.err.startswith("factotum: no domain 'cinema'")
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "first"),
    [("featurize", "ingest"), ("train", "featurize"), ("evaluate", "train"), ("publish", "evaluate")],
)
def test_a_step_before_its_time_says_what_comes_first(factotum: Factotum, tmp_path: Path, command: str, first: str) -> None:
    said = factotum(command, "anime", "--home", tmp_path)
    assert said.code == 3
    assert f"`factotum {first} anime` comes first" in said.err


def test_bad_rows_are_refused_with_file_and_line(factotum: Factotum, small_run: SmallRun, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "anime.csv").write_text(
        "anime_id,title,genre,type,episodes,rating,members\n" + "".join(f"{n},T{n},Comedy,TV,12,7,10\n" for n in range(1, 41))
    )
    good = "".join(f"{n},{n},8,2,12,2025-01-01T00:00:00+00:00\n" for n in range(1, 41))
    bad = "".join(f"{n},999,8,2,12,2025-01-01T00:00:00+00:00\n" for n in range(1, 21))
    (data / "animelist.csv").write_text("user_id,anime_id,rating,status,watched_episodes,event_time\n" + good + bad)
    said = factotum("ingest", small_run.yaml, "--data", data, "--home", tmp_path / "home", "--quiet")
    assert said.code == 3
    assert "animelist.csv: 20 of 60 rows are bad (33.3%)" in said.err
    assert "line 42" in said.err
    assert "quarantine.csv" in said.err
    said = factotum("run", small_run.yaml, "--data", tmp_path, "--home", tmp_path / "home", "--quiet")
    assert said.code == 3
    assert "none of anime.csv, anime.csv.gz, anime.parquet is there" in said.err


def test_json_is_one_document_on_stdout_and_progress_stays_away(factotum: Factotum, small_run: SmallRun) -> None:
    home = small_run.home
    said = factotum("run", small_run.yaml, "--home", home, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out) == {"domain": "anime", "version": small_run.version}
    assert {json.loads(line)["event"] for line in said.err.splitlines()} >= {"step", "say"}
    documents = {
        "models": factotum("models", small_run.yaml, "--home", home, "--json"),
        "ingest": factotum("ingest", small_run.yaml, "--home", home, "--json", "--quiet"),
        "evaluate": factotum("evaluate", small_run.yaml, "--home", home, "--json", "--quiet"),
        "clean": factotum("clean", small_run.yaml, "--home", home, "--json", "--dry-run", "--quiet"),
        "promote": factotum("promote", small_run.yaml, "--home", home, "--json", "--dry-run", "--quiet"),
        "schedule": factotum("schedule", small_run.yaml, "--home", home, "--json", "--show"),
    }
    for name, told in documents.items():
        assert told.code == 0, (name, told.err)
        assert isinstance(json.loads(told.out), dict), name
        assert told.err == "", name
    (row,) = json.loads(documents["models"].out)["versions"]
    assert (row["version"], row["aliases"]) == (small_run.version, ["champion"])
    assert json.loads(documents["evaluate"].out)["verdict"]["passed"] is True
    assert json.loads(documents["clean"].out)["dry_run"] is True
    jobs = [job["job"] for job in json.loads(documents["schedule"].out)["jobs"]]
    assert sorted(jobs) == ["nightly_run", "nightly_score", "views", "weekly_clean"]


def test_the_same_in_words(factotum: Factotum, small_run: SmallRun) -> None:
    home = small_run.home
    said = factotum("models", small_run.yaml, "--home", home)
    assert small_run.version in said.out
    assert "champion" in said.out
    told = factotum("evaluate", small_run.yaml, "--home", home, "--quiet")
    assert "NDCG@10" in told.out
    assert told.err == ""
    assert "would free" in factotum("clean", small_run.yaml, "--home", home, "--dry-run", "--quiet").out
    assert "nightly_run" in factotum("schedule", small_run.yaml, "--home", home, "--show").out
    assert "has no versions yet" in factotum("models", "anime", "--home", home / "elsewhere").out


def test_the_home_may_come_from_the_environment(factotum: Factotum, small_run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTOTUM_HOME", str(small_run.home))
    assert small_run.version in factotum("models", small_run.yaml).out


def test_a_version_held_back_by_the_gate_is_four(factotum: Factotum, small_run: SmallRun) -> None:
    small_run.judged({"passed": False, "why": "below popularity (0.2); a test"})
    said = factotum("publish", small_run.yaml, "--home", small_run.home, "--quiet")
    assert said.code == 4
    assert said.out == ""
    assert "the champion stays: below popularity" in said.err
    assert factotum("promote", small_run.yaml, "--home", small_run.home, "--quiet").code == 4
    assert bundle.alias(small_run.home, "anime", "champion") == small_run.version
    assert factotum("promote", small_run.yaml, small_run.version, "--home", small_run.home, "--quiet").code == 0
    assert factotum("rollback", small_run.yaml, "--home", small_run.home, "--quiet").code == 3


def test_somebody_else_at_work_is_five(factotum: Factotum, small_run: SmallRun) -> None:
    step = small_run.step("train")
    (step / DONE).unlink()
    with Step(step):
        said = factotum("train", small_run.yaml, "--home", small_run.home, "--quiet")
    assert said.code == 5
    assert "another process is at work" in said.err


def test_what_nobody_foresaw_is_one_and_debug_shows_where(factotum: Factotum, small_run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    (small_run.step("evaluate") / DONE).write_text('{"no": "such words"}')
    said = factotum("publish", small_run.yaml, "--home", small_run.home)
    assert said.code == 1
    assert "KeyError" in said.err
    assert "FACTOTUM_DEBUG=1 shows where" in said.err
    monkeypatch.setenv("FACTOTUM_DEBUG", "1")
    with pytest.raises(KeyError):
        factotum("publish", small_run.yaml, "--home", small_run.home)


def test_up_trains_once_and_remembers(factotum: Factotum, small_run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only serving itself, which has tests of its own, is left out."""
    served: list[list[str]] = []
    monkeypatch.setattr(command_line, "_serve", lambda session, names: served.append(names))
    line = ("up", small_run.yaml, "--home", small_run.home, "--port", 18_437)
    first = factotum(*line)
    assert first.code == 0, first.err
    assert "== publish" in first.err
    again = factotum(*line)
    assert "nothing is trained again" in again.err
    assert "== ingest" not in again.err
    assert served == [[str(small_run.yaml)], [str(small_run.yaml)]]
    document = yaml.safe_load(small_run.yaml.read_text())
    other = small_run.home.parent / "anime.yaml"
    other.write_text(yaml.safe_dump({**document, "serving": {**document["serving"], "k": 7}}))
    changed = factotum("up", other, "--home", small_run.home, "--port", 18_437)
    assert "== publish" in changed.err  # other words, another run
    (bundle.bundles_dir(small_run.home, "anime") / "champion").unlink()
    assert "== publish" in factotum("up", other, "--home", small_run.home, "--port", 18_437).err


def test_up_sees_that_the_data_changed(factotum: Factotum, small_run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "_serve", lambda session, names: None)
    done: list[Path | None] = []
    monkeypatch.setattr("pipelines.run.run", lambda domain, data, home, deployment, reporter: done.append(data))
    data = small_run.home.parent / "data"
    data.mkdir()
    (data / "anime.csv").write_text("a")
    line = ("up", small_run.yaml, "--data", data, "--home", small_run.home, "--port", 18_437)
    for _ in range(2):
        assert factotum(*line).code == 0
    assert done == [data]
    (data / "anime.csv").write_text("ab")
    factotum(*line)
    (data / "animelist.csv").write_text("c")
    factotum(*line)
    assert done == [data] * 3


def test_up_serves_the_champion_of_before_where_the_gate_refuses(
    factotum: Factotum, small_run: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[list[str]] = []
    monkeypatch.setattr(command_line, "_serve", lambda session, names: served.append(names))

    def refuse(*_: object) -> str:
        raise NotPromotedError("below popularity")

    monkeypatch.setattr("pipelines.run.run", refuse)
    line = ("up", small_run.yaml, "--home", small_run.home, "--port", 18_437)
    (small_run.home / "anime" / "up.json").unlink(missing_ok=True)
    said = factotum(*line)
    assert (said.code, len(served)) == (0, 1)
    assert "below popularity; the champion of before is served" in said.err
    (bundle.bundles_dir(small_run.home, "anime") / "champion").unlink()
    assert (factotum(*line).code, len(served)) == (4, 1)  # nothing to serve


@pytest.mark.slow
def test_a_killed_training_goes_on(small_run: SmallRun) -> None:
    """`factotum train` is killed with SIGKILL after its first fit; what was fitted is not fitted again."""
    document = yaml.safe_load(small_run.yaml.read_text())
    document["candidates"]["als"]["iterations"] = 5
    document["candidates"]["content"]["dimensions"] = 10
    file = small_run.home.parent / "anime.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    words = configs.load(str(file))
    before = set(small_run.made("fits"))
    log = small_run.home / "train.log"
    with log.open("wb") as out:
        line = [sys.executable, "-m", "pipelines", "train", str(file), "--home", str(small_run.home)]
        driver = subprocess.Popen(line, start_new_session=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    seen = processes.look(driver.pid)
    assert seen is not None

    def fitted() -> dict[str, int]:
        return {name: when for name, when in small_run.made("fits").items() if name not in before and name.endswith(DONE)}

    try:
        deadline = time.monotonic() + 250.0
        while not fitted():
            assert driver.poll() is None, f"it ended before it could be killed: {log.read_text()[-2_000:]}"
            assert time.monotonic() < deadline, "the training does not come to its first fit"
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
        driver.wait(30.0)
    finally:
        processes.end(lambda: processes.of_session(driver.pid, seen.started))
    had = fitted()
    assert 1 <= len(had) < 6
    finished = train(words, small_run.step("featurize"), small_run.home, SILENT)
    after = fitted()
    assert {name: after[name] for name in had} == had
    assert len(after) == 6
    assert open_trained(finished, words, small_run.home).ranker is not None
