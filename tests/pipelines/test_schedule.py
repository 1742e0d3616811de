"""Jobs at their times: which, when, and by which command line."""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import configs
from configs.domain import Domain, Job
from pipelines.schedule import Schedule, command, trigger, upcoming
from pipelines.steps import Reporter
from tests.pipelines.small_run import SILENT

NOW = datetime(2026, 3, 4, 3, 15, tzinfo=UTC)  # a Wednesday
ANIME = configs.load("anime")


def with_jobs(**jobs: Job) -> Domain:
    return ANIME.model_copy(update={"schedule": jobs})


def test_free_seats_are_read_from_the_same_folder(tmp_path: Path) -> None:
    line = command(Job(run="seats", cron="*/5 * * * *"), "festival", tmp_path / "data", tmp_path, tmp_path / "d.yaml")
    assert line[3:] == [
        "seats",
        "festival",
        "--home",
        str(tmp_path),
        "--data",
        str(tmp_path / "data"),
        "--deployment",
        str(tmp_path / "d.yaml"),
    ]


def test_the_nightly_jobs_of_the_yaml() -> None:
    said = [(when.isoformat(), domain, job) for when, domain, job in upcoming([ANIME], NOW)]
    assert said == [
        ("2026-03-04T04:30:00+00:00", "anime", "nightly_score"),
        ("2026-03-05T02:00:00+00:00", "anime", "nightly_run"),
        ("2026-03-08T06:00:00+00:00", "anime", "weekly_clean"),
        ("2026-03-08T06:30:00+00:00", "db", "views"),
    ]


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("*", [0, 1, 2, 3, 4, 5, 6]),
        ("0", [0]),
        ("7", [0]),
        ("sun", [0]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("0-2", [0, 1, 2]),
        ("5-7", [0, 5, 6]),
        ("*/2", [0, 2, 4, 6]),
        ("Mon,3", [1, 3]),
        ("2/3", [2, 5]),
    ],
)
def test_days_of_the_week_are_crons(field: str, days: list[int]) -> None:
    """Days are counted as cron counts them, 0 = Sunday, and compared with the calendar's own (isoweekday 7 = Sunday)."""
    times, found = trigger(f"0 12 * * {field}"), []
    at = datetime(2026, 3, 1, tzinfo=UTC)  # a Sunday
    for _ in range(len(days)):
        when = times.get_next_fire_time(None, at)
        assert when is not None
        found.append(when.isoweekday() % 7)
        at = when + timedelta(hours=1)
    assert sorted(found) == days
    assert at < datetime(2026, 3, 8, tzinfo=UTC)


@pytest.mark.parametrize("field", ["8", "5-1", "x", "*/0", "1-", "-1"])
def test_days_that_are_none_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match="day of the week"):
        trigger(f"0 12 * * {field}")


def test_a_cron_expression_that_cannot_be_read_is_refused() -> None:
    wrong = with_jobs(broken=Job(run="clean", cron="99 * * * *"))
    with pytest.raises(ValueError, match="99"):
        upcoming([wrong], NOW)
    with pytest.raises(ValueError, match="99"):
        Schedule({"anime": wrong}, None, Path("home"), SILENT)


@pytest.mark.parametrize(
    ("run", "more"),
    [
        ("run", ["--data", "/d", "--deployment", "/dep.yaml"]),
        ("ingest", ["--data", "/d", "--deployment", "/dep.yaml"]),
        ("train", []),
        ("score", ["--deployment", "/dep.yaml"]),
        ("clean", []),
    ],
)
def test_command_lines(run: str, more: list[str]) -> None:
    job = Job.model_validate({"run": run, "cron": "0 0 * * *"})
    line = command(job, "/books.yaml", Path("/d"), Path("/h"), Path("/dep.yaml"))
    assert line == [sys.executable, "-m", "pipelines", run, "/books.yaml", "--home", "/h", *more]
    assert command(job, "anime", None, Path("/h")) == [sys.executable, "-m", "pipelines", run, "anime", "--home", "/h"]


def test_every_job_is_a_command_that_exists() -> None:
    from typer.main import get_command

    from pipelines.__main__ import application

    commands = get_command(application).commands  # type: ignore[attr-defined]
    for job in ANIME.schedule.values():
        line = command(job, "anime", Path("/d"), Path("/h"), Path("/dep.yaml"))
        accepted = {option for parameter in commands[job.run].params for option in parameter.opts}
        assert {word for word in line if word.startswith("--")} <= accepted


class Told(Reporter):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_job_runs_and_leaves_its_log_and_its_end(tmp_path: Path) -> None:
    told = Told()
    schedule = Schedule({}, None, tmp_path, told)
    schedule._run("anime", "good", [sys.executable, "-c", "print('all swept')"])
    schedule._run("anime", "bad", [sys.executable, "-c", "raise SystemExit(3)"])
    folder = tmp_path / "schedule"
    assert (folder / "anime.good.log").read_text() == "all swept\n"
    assert json.loads((folder / "anime.good.json").read_text())["exit"] == 0
    assert json.loads((folder / "anime.bad.json").read_text())["exit"] == 3
    assert "ended with 0" in told.lines[1]
    assert str(folder / "anime.bad.log") in told.lines[3]


def until(what: str, seen: object) -> None:
    assert callable(seen)
    deadline = time.monotonic() + 60.0
    while not seen():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


def test_a_job_whose_time_has_come_is_run_by_the_schedule_itself(tmp_path: Path) -> None:
    """The job `clean` on an empty home, made due now instead of waiting for its minute."""
    schedule = Schedule({"anime": with_jobs(sweep=Job(run="clean", cron="0 0 1 1 *"))}, None, tmp_path, SILENT)
    schedule._scheduler.modify_job("anime.sweep", next_run_time=datetime.now(UTC))
    thread = threading.Thread(target=schedule.run)
    thread.start()
    try:
        until("the job has ended", (tmp_path / "schedule" / "anime.sweep.json").is_file)
    finally:
        schedule.stop()
        thread.join(20.0)
    assert not thread.is_alive()
    assert json.loads((tmp_path / "schedule" / "anime.sweep.json").read_text())["exit"] == 0
    assert "freed 0.0 MiB" in (tmp_path / "schedule" / "anime.sweep.log").read_text()


def test_stopping_ends_the_job_under_way(tmp_path: Path) -> None:
    schedule = Schedule({}, None, tmp_path, SILENT)
    line = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)"]
    thread = threading.Thread(target=schedule._run, args=("anime", "long", line))
    thread.start()
    log = tmp_path / "schedule" / "anime.long.log"
    until("the job has begun", lambda: log.is_file() and "begun" in log.read_text())
    schedule.stop()
    thread.join(20.0)
    assert not thread.is_alive()
    assert json.loads((tmp_path / "schedule" / "anime.long.json").read_text())["exit"] == -15
