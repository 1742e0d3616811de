"""`factotum bench routes`: listing, portraying and searching routes, beside this machine's memcpy, plain Python and today's tools.

On the domain's own timetable where it has one (newest ingest, else the champion's bundle), else on a made one; and on a made day of
millions of chains, whose masks do not fit into a core's own caches. One core. Where the domain has a champion, its searches through HTTP
as well (pipelines/bench_routes_served.py). The rivals live in a virtual environment of the benchmark's
own (the cache folder of the home directory); where they cannot be installed it says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.domain import Domain
from features.itinerary import enumeration
from features.itinerary.core_portraits import core_portraits
from features.itinerary.enumeration import Chains, Day, day
from features.itinerary.graph import TooManyStatesError
from features.itinerary.hops import day_pointer, pairs
from features.itinerary.objectives import Worth
from features.itinerary.search import Routes, warm
from features.itinerary.timetable import Planned, Timetable
from features.itinerary.wishes import Meal, Objective, Wishes
from pipelines import bench_routes_served, routes_rival
from pipelines.bench_routes_served import P99_MS, RATE
from pipelines.enumerate_routes import write_part
from pipelines.steps import Reporter

RIVALS = ("networkx==3.6.1", "duckdb==2.0.1", "ortools==9.15.6755")
K = 10
_REPEATS, _ASKED = 7, 200
_RANGE = 2**18  # chains whose core portraits are made at once: columns that come back to the same memory


def run(home: Path, domain: Domain, reporter: Reporter, rivals: bool = True, data: Path | None = None) -> dict[str, Any]:
    """All figures; `rows` is the table: name, value, unit, goal, reached. Of the timetable in the files of `data`, else of the newest
    ingest, else of a made one. Raises SourceError for files that cannot be read."""
    warm()
    timetable, of = _timetable(home, domain, data, reporter), "the domain's"
    if timetable is None:
        timetable, of = made(3, 36, 9), "a made one"
    figures: dict[str, Any] = {"timetable": of, "stops": len(timetable.stops), "days": len(timetable.days)}
    reporter.step("list")
    days = [day(timetable, number) for number in range(len(timetable.days))]
    largest = max(days, key=lambda one: one.total)
    figures["largest_day"] = _listing(largest)
    reporter.step("list a made day")
    figures["made_day"] = _listing(day(made(1, 44, 9), 0), python=False)
    reporter.step("disk")
    figures["bytes_a_chain"] = _on_disk(timetable, largest)
    reporter.step("search")
    figures["search"] = _searches(timetable)
    reporter.step("search through HTTP")
    try:
        figures["http"] = bench_routes_served.measure(home, domain.name, reporter)
    except (FileNotFoundError, ValueError) as error:  # no champion, or one without a timetable or without tickets
        figures["http"] = {"not measured": str(error)}
    if rivals:
        reporter.step("rivals")
        figures["rivals"] = _rivals(timetable, days, reporter)
    return {**figures, "rows": _rows(figures)}


def table(figures: dict[str, Any]) -> list[str]:
    """The figures for people."""
    lines = [f"{figures['timetable']} timetable: {figures['stops']} stops on {figures['days']} days; one core"]
    for row in figures["rows"]:
        said = {True: "reached", False: "not reached", None: ""}[row["reached"]]
        lines.append(f"{row['name']:<66}{row['value']:>14.5g}  {row['unit']:<10}{row['goal']:<10}{said}".rstrip())
    if "not measured" in figures["http"]:
        lines.append(f"through HTTP: {figures['http']['not measured']}")
    for name, rival in figures.get("rivals", {}).items():
        lines.append(f"{name}: " + (", ".join(f"{key} {value}" for key, value in rival.items()) if isinstance(rival, dict) else str(rival)))
    return lines


def made(days: int, stops: int, halls: int, seed: int = 5) -> Timetable:
    """So many stops a day in so many halls, most of them 45 minutes, as festivals are."""
    chance = np.random.default_rng(seed)
    walk = chance.integers(1, 14, (halls, halls))
    walk = np.minimum(walk, walk.T)
    np.fill_diagonal(walk, 0)
    planned = []
    for number in range(days):
        for place in range(stops):
            begins = 600 + int(720 * place / stops / 15) * 15
            start = (20_000 * 1_440 + number * 1_440 + begins) * 60_000_000
            hall = int(chance.integers(halls))
            minutes, price = int(chance.choice((45, 45, 45, 50, 60))), int(chance.choice((200, 300, 500))) * 100
            who = tuple(f"c{one}" for one in chance.choice(50, 3, replace=False))
            name, genre = f"{number}-{place:02}", f"g{place % 7}"
            planned.append(Planned(name, "", start, minutes, hall, price, genre, composers=who, programme=f"p{place}"))
    return Timetable.build("UTC", 360, [f"hall {hall}" for hall in range(halls)], [0] * halls, walk, planned)


def _timetable(home: Path, domain: Domain, data: Path | None, reporter: Reporter) -> Timetable | None:
    from pipelines.routes import read_timetable, timetable_file

    if data is not None:
        return read_timetable(domain, data, home, reporter)[0]
    try:
        return Timetable.of_json(json.loads(timetable_file(domain, home).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _listing(one: Day, python: bool = True) -> dict[str, Any]:
    out = np.zeros((one.words, one.total), dtype=np.uint64)
    other = np.ones_like(out)
    args = (one.pointer, one.to, one.start, one.end, one.size, one.base_from, one.base_at, one.base, 0, one.total, out)
    listing = _seconds(lambda: enumeration._listed(*args), _REPEATS)
    copying = _seconds(lambda: np.copyto(other, out), _REPEATS)
    core = core_portraits(one)
    some = min(one.total, _RANGE)
    portraying = _seconds(lambda: core.columns(one.total - some, one.total), _REPEATS)
    figures: dict[str, Any] = {
        "chains": one.total,
        "chains_per_second": one.total / listing,
        "memcpy_bytes_per_second": out.nbytes / copying,
        "of_memcpy": copying / listing,
        "core_portraits_per_second": some / portraying,
    }
    if python:
        plain, python_s = _plain(one)
        if plain != one.total:
            raise AssertionError(f"plain Python lists {plain} chains, we {one.total}")
        figures |= {"plain_python_per_second": plain / python_s, "of_plain_python": python_s / listing}
    return figures


def _plain(one: Day) -> tuple[int, float]:
    """Recursion over lists, one mask a chain appended: what a first attempt looks like."""
    after = [one.to[one.pointer[c] : one.pointer[c + 1]].tolist() for c in range(len(one.rows))]
    out: list[int] = []

    def chains(mask: int, c: int) -> None:
        mask |= 1 << c
        out.append(mask)
        for successor in after[c]:
            chains(mask, successor)

    began = time.perf_counter()
    for c in range(len(after)):
        chains(0, c)
    return len(out), time.perf_counter() - began


def _on_disk(timetable: Timetable, one: Day) -> float:
    with tempfile.TemporaryDirectory(prefix="factotum-bench-") as name:
        place = Path(name)
        (place / "timetable.json").write_text(json.dumps(timetable.to_json()), encoding="utf-8")
        path = place / "day" / "part.parquet"
        work = {"timetable": str(place / "timetable.json"), "day": one.number, "lo": 0, "hi": one.total, "path": str(path)}
        write_part({**work, "chains": vars(Chains()), "portraits": False, "mark": None})
        return path.stat().st_size / one.total


def _searches(timetable: Timetable) -> dict[str, float]:
    """Milliseconds. Whole: wishes read, graph built, the best found (median of many); kernel: without reading the wishes (quickest of
    many: this machine may have other work)."""
    worth = Worth(score=np.random.default_rng(1).normal(size=len(timetable.stops)))
    budget, meal = int(timetable.price.max()) * 8, Meal(45, 12 * 60, 15 * 60)
    in_a_day = Wishes(price_limit=budget, walking_a_day=40, waiting_a_day=240)
    asked = {
        "no filter": Wishes(),
        "2 to 4 concerts a day, a meal": Wishes(fewest=2, most=4, meal=meal),
        "a budget": Wishes(price_limit=budget),
        "budget, 3 to 5 a day, a meal, one programme left out": Wishes(
            price_limit=budget, fewest=3, most=5, meal=meal, must_not=(timetable.stops[0].id,)
        ),
        "40 minutes of walking a day": Wishes(walking_a_day=40),
        "budget and 40 minutes of walking a day": Wishes(price_limit=budget, walking_a_day=40),
        "budget, 40 minutes of walking and 4 hours of waiting a day": in_a_day,
        "budget, walking, waiting, a meal": replace(in_a_day, meal=meal),
        "budget, walking, waiting, a meal, 2 to 4 a day": replace(in_a_day, meal=meal, fewest=2, most=4),
    }
    # Which programmes were met is part of every state: the best are found another way (bounding.py), the count is this one.
    counted = {
        "no programme twice": Wishes(no_programme_twice=True),
        "no programme twice, a budget": Wishes(no_programme_twice=True, price_limit=budget),
        "no programme twice, budget and walking": Wishes(no_programme_twice=True, price_limit=budget, walking_a_day=40),
        "no programme twice, budget, walking, waiting, a meal": replace(in_a_day, no_programme_twice=True, meal=meal),
    }
    out = {}
    for name, wishes in asked.items():
        out[name] = _median_ms(lambda wishes=wishes: Routes(timetable, wishes, None, worth).best(Objective.SCORE, K))  # type: ignore[misc]
        out[f"{name}: count"] = _median_ms(lambda wishes=wishes: Routes(timetable, wishes).count())  # type: ignore[misc]
        routes = Routes(timetable, wishes, None, worth)
        out[f"{name}: kernel"] = _seconds(lambda routes=routes: routes.best(Objective.SCORE, K), _ASKED) * 1e3  # type: ignore[misc]
        out[f"{name}, comfort: kernel"] = _seconds(lambda routes=routes: routes.best(Objective.COMFORT, K), _ASKED) * 1e3  # type: ignore[misc]
    for name, wishes in counted.items():
        with suppress(TooManyStatesError):  # a made timetable plays every programme every day
            out[f"{name}: count"] = _median_ms(lambda wishes=wishes: Routes(timetable, wishes).count())  # type: ignore[misc]
    return out


def _rivals(timetable: Timetable, days: list[Day], reporter: Reporter) -> dict[str, Any]:
    try:
        python = _environment(reporter)
    except (RuntimeError, OSError) as error:
        return {"not there": str(error)}
    pointer, to, *_ = pairs(timetable)
    at = day_pointer(timetable)
    gains = np.random.default_rng(1).integers(1, 1_000, len(timetable.stops))
    asked = []
    for number in range(len(timetable.days)):
        first, last = int(at[number]), int(at[number + 1])
        core = [row for row in range(first, last) if not timetable.optional[row]]
        index = {row: place for place, row in enumerate(core)}
        edges = [
            (index[row], index[int(other)]) for row in core for other in to[pointer[row] : pointer[row + 1]].tolist() if int(other) in index
        ]
        asked.append({"stops": len(core), "edges": edges, "gains": gains[core].tolist()})
    smallest = min((one for one in days if one.total), key=lambda one: one.total)
    ours = Routes(timetable, worth=Worth(score=gains.astype(np.float64)))
    out_masks = np.empty((smallest.words, smallest.total), dtype=np.uint64)
    args = (smallest.pointer, smallest.to, smallest.start, smallest.end, smallest.size, smallest.base_from, smallest.base_at, smallest.base)
    figures: dict[str, Any] = {
        "ours": {
            "listed": smallest.total,
            "list_s": _seconds(lambda: enumeration._listed(*args, 0, smallest.total, out_masks), _REPEATS),
            "best": ours.best(Objective.SCORE, 1).routes[0].value,
            "best_s": _seconds(lambda: ours.best(Objective.SCORE, 1), _REPEATS),
            "best_k_s": _seconds(lambda: ours.best(Objective.SCORE, K), _REPEATS),
        }
    }
    with tempfile.TemporaryDirectory(prefix="factotum-bench-") as name:
        place = Path(name)
        (place / "questions.json").write_text(json.dumps({"days": asked, "listed": smallest.number, "k": K}), encoding="utf-8")
        command = [str(python), routes_rival.__file__, str(place / "questions.json"), str(place / "out.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place, timeout=600)
        if done.returncode:
            return {**figures, "failed": done.stderr.strip()[-600:]}
        figures |= json.loads((place / "out.json").read_text(encoding="utf-8"))
    return figures


def _environment(reporter: Reporter) -> Path:
    """The Python of the rivals' environment, made at the first call."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "factotum" / "routes-rivals"
    python, mark = cache / "bin" / "python", cache / "installed.json"
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == list(RIVALS):
        return python
    reporter.say(f"installing {', '.join(RIVALS)} into {cache}")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for command in ([sys.executable, "-m", "venv", str(cache)], [*pip, *RIVALS]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[-3:])} failed: {done.stderr.strip()[-300:]}")
    mark.write_text(json.dumps(list(RIVALS)), encoding="utf-8")
    return python


def _seconds(what: Callable[[], object], repeats: int) -> float:
    """Of the quickest of so many calls."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        what()
        best = min(best, time.perf_counter() - began)
    return best


def _median_ms(what: Callable[[], object]) -> float:
    what()
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < _ASKED and (len(taken) < 5 or time.perf_counter() - began < 2.0):
        before = time.perf_counter()
        what()
        taken.append(time.perf_counter() - before)
    return float(np.median(taken)) * 1e3


def _rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    def row(name: str, value: float, unit: str, goal: str = "", reached: bool | None = None) -> dict[str, Any]:
        return {"name": name, "value": value, "unit": unit, "goal": goal, "reached": reached}

    out = []
    for name, said in (("largest day", "largest_day"), ("made day", "made_day")):
        one = figures[said]
        share, pace = one["of_memcpy"], one["core_portraits_per_second"]
        out.append(row(f"{name}: {one['chains']:,} chains listed", one["chains_per_second"] / 1e6, "million/s"))
        out.append(row(f"{name}: listing as a share of memcpy", share, "", ">= 0.6", share >= 0.6))
        if "of_plain_python" in one:
            out.append(row(f"{name}: times as fast as plain Python", one["of_plain_python"], "x", ">= 300", one["of_plain_python"] >= 300))
        out.append(row(f"{name}: core portraits, eleven columns", pace / 1e6, "million/s", ">= 100", pace >= 1e8))
    disk = figures["bytes_a_chain"]
    out.append(row("masks on disk", disk, "bytes", "<= 0.15", disk <= 0.15))
    for name, taken in figures["search"].items():
        goal = name.endswith("kernel")
        called = name if name.endswith("count") else f"top {K} of all days, {name}"
        out.append(row(called, taken, "ms", "< 1" if goal else "", taken < 1 if goal else None))
    http = figures["http"]
    for name, said in (("nobody", "nobody in particular"), ("persons", "{} persons with tickets")):
        if name in http:
            called = f"through HTTP at {RATE:g} a second, {said.format(http['accounts'])}"
            out.append(row(f"{called}: p50", http[name]["p50_ms"], "ms"))
            good = http[name]["p99_ms"] < P99_MS and not http[name]["failed"]
            out.append(row(f"{called}: p99", http[name]["p99_ms"], "ms", f"< {P99_MS:g}", good))
    return out
