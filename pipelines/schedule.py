"""The jobs of the YAML at their times (UTC): each a command of its own, so that one that fails or is killed takes nothing with it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from configs.domain import Domain, Job
from pipelines.steps import Reporter, write_json

_END_S = 10.0
_VIEWS = "30 6 * * 0"  # the figures for analysts are made anew: every week, after the nights' runs
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def command(job: Job, domain: str, data: Path | None, home: Path, deployment: Path | None = None) -> list[str]:
    """The command line of a job; `domain` is a name, or the path of a YAML."""
    line = [sys.executable, "-m", "pipelines", job.run, domain, "--home", str(home)]
    if job.run in ("run", "ingest", "seats") and data is not None:
        line += ["--data", str(data)]
    if job.run in ("run", "ingest", "score", "seats") and deployment is not None:
        line += ["--deployment", str(deployment)]
    return line


def house_command(home: Path, deployment: Path | None = None) -> list[str]:
    """The command line of the job that belongs to no domain: `factotum db views`."""
    line = [sys.executable, "-m", "pipelines", "db", "views", "--home", str(home)]
    return [*line, "--deployment", str(deployment)] if deployment is not None else line


def upcoming(domains: Sequence[Domain], now: datetime) -> list[tuple[datetime, str, str]]:
    """(next time, domain, job's name), soonest first; the job of no domain is `db.views`. Raises ValueError for a cron expression that
    cannot be read."""
    out = [(trigger(_VIEWS).get_next_fire_time(None, now), "db", "views")]
    for domain in domains:
        for name, job in domain.schedule.items():
            when = trigger(job.cron).get_next_fire_time(None, now)
            if when is not None:
                out.append((when, domain.name, name))
    return sorted(out)


def trigger(cron: str) -> CronTrigger:
    """The times (UTC) of a cron expression, with cron's days of the week: 0 and 7 are Sunday (APScheduler's own reading begins with
    Monday). Where a day of the month and a day of the week are both named, both have to fit. Raises ValueError."""
    minute, hour, day, month, weekday = cron.split()
    return CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=_weekdays(weekday), timezone=UTC)


def _weekdays(field: str) -> str:
    """A cron field of days as names, which mean the same everywhere: "1-5" -> "mon,tue,wed,thu,fri"."""

    def number(word: str) -> int:
        at = _DAYS.index(word.lower()) if word.lower() in _DAYS else int(word) if word.isdecimal() else 8
        if at > 7:
            raise ValueError(f"day of the week {field!r}: allowed are 0 to 7, {', '.join(_DAYS)}, ranges, steps and lists of them")
        return at

    chosen: set[int] = set()
    for part in field.split(","):
        days, _, step = part.partition("/")
        first, dash, last = ("0-6" if days == "*" else days).partition("-")
        low = number(first)
        high = number(last) if dash else 6 if step else low
        if low > high or (step and not (step.isdecimal() and int(step))):
            raise ValueError(f"day of the week {field!r}: {part!r} holds no day")
        chosen |= {day % 7 for day in range(low, high + 1, int(step or 1))}
    return ",".join(_DAYS[day] for day in sorted(chosen)) if len(chosen) < 7 else "*"


class Schedule:
    """Runs jobs one at a time (two trainings at once would only slow each other); a job that is late by more than an hour,
    because another one ran, is left out and said."""

    def __init__(
        self, domains: Mapping[str, Domain], data: Path | None, home: Path, reporter: Reporter, deployment: Path | None = None
    ) -> None:
        """`domains`: by what a command line calls them (a name, or the path of a YAML). Raises ValueError for a cron expression that
        cannot be read."""
        self._home, self._reporter = home, reporter
        self._running: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": {"type": "threadpool", "max_workers": 1}})
        jobs = [
            (domain.name, name, job.cron, command(job, called, data, home, deployment))
            for called, domain in domains.items()
            for name, job in domain.schedule.items()
        ]
        for owner, name, cron, line in [*jobs, ("db", "views", _VIEWS, house_command(home, deployment))]:
            self._scheduler.add_job(
                self._run,
                trigger(cron),
                args=(owner, name, line),
                id=f"{owner}.{name}",
                coalesce=True,
                max_instances=1,
                misfire_grace_time=3_600,
            )

    def run(self) -> None:
        """Until `stop` is called (or Ctrl-C)."""
        self._scheduler.start()
        try:
            while not self._stopping.wait(0.5):
                pass
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends the job under way (it goes on where it was the next time) and the schedule."""
        self._stopping.set()
        running = self._running
        if running is not None and running.poll() is None:
            running.terminate()
            try:
                running.wait(_END_S)
            except subprocess.TimeoutExpired:
                running.kill()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _run(self, domain: str, name: str, line: Sequence[str]) -> None:
        began = datetime.now(UTC)
        self._reporter.say(f"{began:%Y-%m-%d %H:%M} {domain}.{name} begins")
        folder = self._home / "schedule"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{domain}.{name}.log").open("ab") as log:
            self._running = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            code = self._running.wait()
        ended = datetime.now(UTC)
        write_json(folder / f"{domain}.{name}.json", {"began": began.isoformat(), "ended": ended.isoformat(), "exit": code})
        self._reporter.say(
            f"{ended:%Y-%m-%d %H:%M} {domain}.{name} ended with {code}" + ("" if code == 0 else f", see {folder / f'{domain}.{name}.log'}")
        )
