"""The benchmark of a large day, on a small one: the same files, command and checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import configs
from features.itinerary.enumeration import Chains
from features.itinerary.timetable import Timetable
from pipelines import enumerate_routes
from pipelines.bench_routes import made
from pipelines.bench_routes_big import _check, run, table, write_plain
from pipelines.enumerate_routes import MEMORY, write_part
from pipelines.sources import timetable_of
from pipelines.steps import Reporter
from tests.pipelines.programme import domain


def _enumerated(timetable: Timetable, out: Path, rows: int) -> dict[str, Any]:
    return enumerate_routes.enumerate_routes(timetable, Chains(), out, Reporter(True), shard_chains=rows)


def test_the_plain_files_hold_the_same_routes(tmp_path: Path) -> None:
    timetable = made(1, 12, 3)
    write_plain(timetable, tmp_path / "data")
    read = timetable_of(domain(), tmp_path / "data", tmp_path / "raw").timetable
    stops = [(stop.id, stop.starts_at, stop.minutes, stop.price, stop.genre, sorted(stop.composers)) for stop in timetable.stops]
    assert [(stop.id, stop.starts_at, stop.minutes, stop.price, stop.genre, sorted(stop.composers)) for stop in read.stops] == stops
    assert read.walk.tolist() == timetable.walk.tolist()


def test_no_row_group_and_no_part_is_larger_than_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker holds at once is one row group, however many chains a part has."""
    monkeypatch.setattr(enumerate_routes, "GROUP_CHAINS", 100)
    timetable = made(1, 14, 3)
    told = _enumerated(timetable, tmp_path / "out", 1_000)
    parts = [pq.read_metadata(part) for part in sorted((tmp_path / "out").glob("day=*/part-*.parquet"))]
    assert len(parts) == told["parts"] > 1
    assert max(part.num_rows for part in parts) <= 1_000
    assert max(part.row_group(group).num_rows for part in parts for group in range(part.num_row_groups)) <= 100
    assert sum(part.num_rows for part in parts) == int(told["total"])
    assert _check(timetable, tmp_path / "out", told) > 1_000


def test_a_file_that_is_not_right_is_noticed(tmp_path: Path) -> None:
    timetable = made(1, 10, 3)
    told = _enumerated(timetable, tmp_path / "out", 10_000)
    part = next((tmp_path / "out").glob("day=*/part-*.parquet"))
    rows = pq.read_table(part)
    pq.write_table(rows.take(list(range(len(rows)))[::-1]), part)
    with pytest.raises(AssertionError, match="is not chain"):
        _check(timetable, tmp_path / "out", told)
    pq.write_table(rows.slice(1), part)
    with pytest.raises(AssertionError, match=f"{len(rows) - 1} rows, {len(rows)} chains"):
        _check(timetable, tmp_path / "out", told)


def test_a_worker_that_outlived_its_run_writes_nothing(tmp_path: Path) -> None:
    timetable = made(1, 10, 3)
    _enumerated(timetable, tmp_path / "out", 10_000)
    part = next((tmp_path / "out").glob("day=*/part-*.parquet"))
    before = part.read_bytes()
    work = {"timetable": str(tmp_path / "out" / "_timetable.json"), "day": 0, "lo": 0, "hi": 5, "path": str(part), "mark": "of another run"}
    with pytest.raises(FileNotFoundError, match="a later run, of other routes, has taken this folder"):
        write_part({**work, "chains": vars(Chains()), "portraits": False})
    assert part.read_bytes() == before
    assert not list(part.parent.glob(".part-*"))


@pytest.mark.slow
def test_the_command_is_run_and_watched(tmp_path: Path) -> None:
    figures = run(tmp_path, configs.load("festival"), Reporter(True), made(1, 16, 3), 1_000)
    for what in ("masks", "portraits"):
        one = figures[what]
        assert one["parts"] == -(-int(one["total"]) // 1_000)
        assert one["parts"] > 4  # so that Ray takes them
        assert one["checked"] > 1_000
        assert 100 * 2**20 < one["peak_bytes"] < 4 * 2**30
        assert any(name.startswith("ray::") for name in one["peak_by_name"])
    assert MEMORY < 2**30
    assert len(table(figures)) == 8
    assert list((tmp_path / "bench").iterdir()) == []  # the hundred million are not left there
    assert json.dumps(figures)


def test_a_domain_without_routes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="anime has no section `itinerary`: it has no routes"):
        run(tmp_path, configs.load("anime"), Reporter(True))
