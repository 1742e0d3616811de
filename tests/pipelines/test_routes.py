"""`factotum routes` as its user runs it: everything on disk, and the same answers from the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from features.itinerary.core_portraits import core_portraits
from features.itinerary.enumeration import Chains, day
from features.itinerary.wishes import Meal, Wishes, Words
from pipelines.__main__ import application
from pipelines.enumerate_routes import enumerate_routes
from pipelines.routes import wishes_of
from pipelines.sources.tables import SourceError
from pipelines.steps import Reporter
from tests import itinerary_worlds as worlds
from tests.pipelines.programme import folder, with_line

DOMAIN = "anime"  # any: the timetable is named
FESTIVAL = "festival"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "timetable.json"
    path.write_text(json.dumps(worlds.two_days().to_json()), encoding="utf-8")
    return path


def _asked(file: Path, *words: str) -> Any:
    line = ["routes", words[0], DOMAIN, *words[1:], "--timetable", str(file), "--json"]
    done = CliRunner().invoke(application, line, catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_count_holds_strings_of_digits(file: Path) -> None:
    said = _asked(file, "count")
    assert said["total"] == "19"
    assert said["by_length"] == {"1": "5", "2": "8", "3": "5", "4": "1"}  # (1 + 3t + t2)(1 + 2t + t2) - 1
    assert said["by_day"]["2030-07-01"] == {"total": "4", "by_length": {"1": "3", "2": "1"}}
    assert sum(int(count) for count in said["by_length"].values()) == 19
    assert _asked(file, "count", "-w", "no_programme_twice")["total"] == "15"
    clash = _asked(file, "count", "-w", "must=a", "-w", "must=x")
    assert clash["total"] == "0"
    assert clash["why"].startswith("'a' (until 13:45) and 'x' (from 13:30) clash on 2030-07-01")


def test_what_has_begun_is_not_counted_as_the_search_does_not(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 13:30 of the first day b is left of it: (1 + 1) * 4 - 1 routes; when all has begun, all 19."""

    def count(*words: str) -> str:
        line = ["routes", "count", FESTIVAL, *words, "--timetable", str(file), "--json"]
        done = CliRunner().invoke(application, line, catch_exceptions=False)
        return str(json.loads(done.stdout)["total"])

    for clock, later, total in (("12:59", 0, "19"), ("13:30", 0, "7"), ("13:59", 1, "1"), ("14:00", 1, "19")):
        now = worlds.instant(clock, later) * 1_000
        monkeypatch.setattr("pipelines.routes.time.time_ns", lambda now=now: now)
        assert count() == total
    assert count("-w", "begun=2030-07-01T13:30+05:00") == "7"
    assert _asked(file, "count")["total"] == "19"  # a domain whose YAML says nothing of it


def test_top_sample_and_show_agree(file: Path) -> None:
    best = _asked(file, "top", "-o", "cheapest", "-w", "fewest=2", "-k", "2")
    assert best["exact"] is True
    assert [one["value"] for one in best["routes"]] == [300.0, 500.0]
    route = best["routes"][0]["route"]
    shown = _asked(file, "show", route)
    assert [stop["id"] for stop in shown["stops"]] == ["c", "d"]
    assert shown["portrait"]["cost"] == 300
    assert _asked(file, "show", "d,c") == shown
    drawn = _asked(file, "sample", "-n", "4", "--seed", "3")
    assert drawn == _asked(file, "sample", "-n", "4", "--seed", "3")
    assert len(drawn["routes"]) == 4


def test_the_plain_files_are_enough_and_nobody_needs_tickets(tmp_path: Path) -> None:
    """Day 1: a, b and ab (52 minutes later, 7 of them to walk); day 2: c. 4 * 2 - 1 routes."""
    data = folder(tmp_path / "data", {"tickets.csv": None, "off_programme.csv": None})
    line = ["routes", "count", FESTIVAL, "--data", str(data), "--home", str(tmp_path / "home")]
    done = CliRunner().invoke(application, [*line, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["total"] == "7"
    folder(data, with_line("concerts.csv", "d,Noon,never,45,Big,,,,,,,"))
    done = CliRunner().invoke(application, line, catch_exceptions=False)
    assert done.stdout.startswith("7 routes")
    assert "concerts.csv: 1 of 4 rows are bad; the first, line 5: start: 'never'" in done.stderr
    bad = "".join(f"d{place},Noon,never,45,Big,,,,,,,\n" for place in range(11))
    folder(data, with_line("concerts.csv", bad.rstrip()))
    done = CliRunner().invoke(application, line)
    assert isinstance(done.exception, SourceError)
    assert "concerts.csv: 11 of 14 rows are bad; the first, line 5: start: 'never'" in str(done.exception)
    assert str(done.exception).endswith("accepted are 2.0% of a file's rows, or 10 (source.bad_rows)")


def test_chains_on_disk_are_those_of_the_day_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    timetable, out = worlds.many(12), tmp_path / "out"
    result = enumerate_routes(timetable, Chains(), out, Reporter(True), portraits=True, shard_chains=1_500)
    assert (result["total"], result["parts"]) == ("4095", 3)
    assert result["days"][0]["by_length"]["12"] == "1"
    parts = sorted((out / f"day={timetable.days[0]}").glob("part-*.parquet"))
    whole = day(timetable, 0)
    tables = [pq.read_table(part) for part in parts]
    assert [mask for table in tables for mask in table["mask0"].to_pylist()] == whole.masks()[0].tolist()
    for name, column in core_portraits(whole).columns().items():
        assert [value for table in tables for value in table[name].to_pylist()] == column.tolist()
    said = tables[0].schema.metadata
    assert json.loads(said[b"stops"]) == [timetable.stops[row].id for row in whole.rows]
    assert said[b"timetable"].decode() == timetable.version
    before = {part: part.stat().st_mtime_ns for part in parts}
    parts[1].unlink()
    (out / "routes.json").unlink()
    again = enumerate_routes(timetable, Chains(), out, Reporter(True), portraits=True, shard_chains=1_500)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    after = {part: part.stat().st_mtime_ns for part in parts}
    assert (after[parts[0]], after[parts[2]]) == (before[parts[0]], before[parts[2]])
    assert pq.read_table(parts[1]).equals(tables[1])
    fewer = enumerate_routes(timetable, Chains(maximal=True), out, Reporter(True))
    assert (fewer["total"], fewer["parts"]) == ("1", 1)
    assert len(list(out.glob("day=*/part-*.parquet"))) == 1


def test_filters_are_read_and_what_is_wrong_is_named() -> None:
    texts = ["days=2030-07-01", "must=a", "must=b", "halls.none=h1", "meal=45@12:00-15:30", "arrival=12:15", "most=3", "maximal"]
    texts.append("begun=2030-07-01T13:00+05:00")
    assert wishes_of(texts, 5) == Wishes(
        days=("2030-07-01",),
        must=("a", "b"),
        halls=Words(none=("h1",)),
        meal=Meal(45, 720, 930),
        arrival=735,
        most=3,
        maximal=True,
        buffer=5,
        begun=worlds.instant("13:00"),
    )
    for text, message in (
        ("walls.only=x", "--wish walls.only=x: there is no wish 'walls.only'; days, every_day"),
        ("halls=x", "--wish halls=x: halls.only, halls.some or halls.none is needed"),
        ("most=three", "--wish most=three: a whole number is needed, found 'three'"),
        ("arrival=25:00", "--wish arrival=25:00: a clock time such as 13:30 is needed, found '25:00'"),
        ("begun=13:00", "--wish begun=13:00: a moment with its offset such as 2030-07-01T13:00+05:00 is needed, found '13:00'"),
        ("meal=45", "--wish meal=45: minutes@from-to is needed, such as 45@12:00-15:00"),
        ("maximal=perhaps", "--wish maximal=perhaps: nothing, true or false may stand behind maximal"),
    ):
        with pytest.raises(ValueError) as refused:
            wishes_of([text])
        assert str(refused.value).startswith(message)


def test_without_a_timetable_it_says_where_one_comes_from(tmp_path: Path) -> None:
    done = CliRunner().invoke(application, ["routes", "count", DOMAIN, "--home", str(tmp_path)])
    assert isinstance(done.exception, FileNotFoundError)
    makes = f"`factotum ingest {DOMAIN} --data DIR` makes one, or name --data or a --timetable"
    assert str(done.exception) == f"{DOMAIN} has no timetable in {tmp_path}: {makes}"
