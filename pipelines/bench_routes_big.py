"""`factotum bench routes DOMAIN --big`: a day of about a hundred million routes, listed and portrayed by the command that a user runs, and
what that took: seconds, disk, and memory as the largest PSS summed over its whole process tree.

The timetable is a made one, in the plain form of pipelines/sources/timetable.py: 68 stops in six halls, more than a 64-bit word holds.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from configs.domain import Domain
from features.itinerary.enumeration import day
from features.itinerary.timetable import IMPASSABLE, Timetable
from pipelines import memory, processes
from pipelines.enumerate_routes import SHARD_CHAINS
from pipelines.steps import Reporter

STOPS, HALLS = 68, 6
WORKERS = 2  # each takes its own Python and row group: the goal is about what two need
_GOAL_BYTES = 4 * 2**30
_EVERY_S = 0.5
_CHECKED = 2_000  # chains that are looked up, one by one, in the files


def run(
    home: Path, domain: Domain, reporter: Reporter, timetable: Timetable | None = None, part_chains: int = SHARD_CHAINS
) -> dict[str, Any]:
    """Figures of the masks alone and with core portraits; `rows` is the table. timetable: another one than the made one. Raises ValueError
    for a domain without an itinerary, RuntimeError with the command's last words if it fails, AssertionError if a file is not right."""
    if domain.itinerary is None:
        raise ValueError(f"{domain.name} has no section `itinerary`: it has no routes")
    if timetable is None:
        from pipelines.bench_routes import made

        timetable = made(1, STOPS, HALLS)
    (home / "bench").mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"stops": len(timetable.stops), "workers": WORKERS}
    with tempfile.TemporaryDirectory(prefix="big-", dir=home / "bench") as name:
        place = Path(name)
        write_plain(timetable, place / "data")
        for what in ("masks", "portraits"):
            reporter.step(f"enumerate a large day: {what}")
            words = ["routes", "enumerate", domain.name, "--data", str(place / "data"), "--home", str(place / "home")]
            words += ["--out", str(place / what), "--workers", str(WORKERS), "--part", str(part_chains), "--json"]
            words += ["--portraits"] if what == "portraits" else []
            figures[what] = _measured(words, place / f"{what}.log", reporter)
            figures[what]["checked"] = _check(timetable, place / what, figures[what])
    return {**figures, "rows": _rows(figures)}


def write_plain(timetable: Timetable, folder: Path) -> None:
    """concerts.csv, halls.csv and transitions.csv of a timetable whose prices are whole hundreds of minor units."""
    folder.mkdir(parents=True, exist_ok=True)
    halls = timetable.halls
    ways = ((a, b, int(timetable.walk[i, j])) for i, a in enumerate(halls) for j, b in enumerate(halls))
    _csv(folder / "halls.csv", ("hall", "seats"), ((hall, 0) for hall in halls))
    _csv(
        folder / "transitions.csv", ("from_hall", "to_hall", "minutes"), (way for way in ways if way[0] != way[1] and way[2] != IMPASSABLE)
    )
    heading = ("concert_id", "title", "start", "minutes", "hall", "price", "genre", "composers", "programme")
    rows = (
        (
            *(
                stop.id,
                stop.title or stop.id,
                datetime.fromtimestamp(stop.starts_at / 1e6, UTC).isoformat(),
                stop.minutes,
                halls[stop.hall],
            ),
            *("" if stop.price is None else stop.price // 100, stop.genre, ";".join(stop.composers), stop.programme),
        )
        for stop in timetable.stops
    )
    _csv(folder / "concerts.csv", heading, rows)


def _csv(path: Path, heading: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heading)
        writer.writerows(rows)


def _measured(words: Sequence[str], log: Path, reporter: Reporter) -> dict[str, Any]:
    """What the command says of its work, with wall_s and peak_bytes: of the tree, and by the names of its processes at that moment."""
    began, peak = time.monotonic(), 0
    by_name: dict[str, int] = {}
    with log.open("wb") as said, log.with_suffix(".json").open("wb") as answer:
        command = subprocess.Popen(
            [sys.executable, "-m", "pipelines", *words], stdin=subprocess.DEVNULL, stdout=answer, stderr=said, start_new_session=True
        )
        seen = processes.look(command.pid)
        try:
            while command.poll() is None:
                sizes = memory.tree(command.pid)
                if sum(sizes.values()) > peak:
                    peak, by_name = sum(sizes.values()), {}
                    for pid, size in sizes.items():
                        by_name[memory.name(pid)] = by_name.get(memory.name(pid), 0) + size
                reporter.progress("largest PSS as a share of 4 GiB", peak / _GOAL_BYTES)
                time.sleep(_EVERY_S)
        finally:
            if seen is not None:
                processes.end(lambda: processes.of_session(command.pid, seen.started))
            command.wait()
    if command.returncode:
        raise RuntimeError(f"factotum {' '.join(words[:3])} failed: {log.read_text(encoding='utf-8').strip()[-600:]}")
    told: dict[str, Any] = json.loads(log.with_suffix(".json").read_text(encoding="utf-8"))
    kept = {name: told[name] for name in ("total", "parts", "bytes", "bytes_a_chain", "seconds", "days")}
    return {**kept, "wall_s": round(time.monotonic() - began, 1), "peak_bytes": peak, "peak_by_name": by_name}


def _check(timetable: Timetable, out: Path, told: dict[str, Any]) -> int:
    """Whether the files hold as many rows as there are chains, and at chance places those of the day itself; how many were looked at."""
    made = day(timetable, 0)
    parts = sorted(out.glob("day=*/part-*.parquet"))
    groups: list[tuple[int, Path, int, int]] = []  # first chain, file, row group, rows
    first = 0
    for part in parts:
        said = pq.read_metadata(part)
        for group in range(said.num_row_groups):
            groups.append((first, part, group, said.row_group(group).num_rows))
            first += said.row_group(group).num_rows
    by_length = sum(int(count) for count in told["days"][0]["by_length"].values())
    if not first == made.total == int(told["total"]) == by_length:
        raise AssertionError(f"{first} rows, {made.total} chains, {told['total']} told, {by_length} by length")
    chance = np.random.default_rng(11)
    looked = 0
    for which in chance.choice(len(groups), min(len(groups), 20), replace=False):
        begins, part, group, rows = groups[which]
        table = pq.ParquetFile(part).read_row_group(group, columns=[f"mask{word}" for word in range(made.words)])
        for row in chance.integers(0, rows, _CHECKED // min(len(groups), 20)):
            if made.masks(begins + int(row), begins + int(row) + 1)[:, 0].tolist() != [
                column[int(row)].as_py() for column in table.columns
            ]:
                raise AssertionError(f"{part}: row {row} of row group {group} is not chain {begins + int(row)}")
            looked += 1
    return looked


def _rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    out = []
    for what in ("masks", "portraits"):
        one = figures[what]
        name = f"{int(one['total']):,} chains of {figures['stops']} stops on disk, {what}, {figures['workers']} workers"
        gib, disk = one["peak_bytes"] / 2**30, one["bytes_a_chain"]
        out.append({"name": f"{name}: memory", "value": gib, "unit": "GiB", "goal": "<= 4", "reached": one["peak_bytes"] <= _GOAL_BYTES})
        out.append({"name": f"{name}: time", "value": one["wall_s"], "unit": "s", "goal": "", "reached": None})
        reached = disk <= 0.15 if what == "masks" else None
        out.append(
            {"name": f"{name}: disk", "value": disk, "unit": "bytes", "goal": "<= 0.15" if reached is not None else "", "reached": reached}
        )
    return out


def table(figures: dict[str, Any]) -> list[str]:
    """The figures for people."""
    lines = []
    for row in figures["rows"]:
        said = {True: "reached", False: "not reached", None: ""}[row["reached"]]
        lines.append(f"{row['name']:<72}{row['value']:>10.4g}  {row['unit']:<6}{row['goal']:<10}{said}".rstrip())
    for what in ("masks", "portraits"):
        largest = sorted(figures[what]["peak_by_name"].items(), key=lambda one: -one[1])[:6]
        lines.append(f"{what}, at the largest: " + ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in largest))
    return lines
