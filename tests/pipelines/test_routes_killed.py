"""An enumeration that is killed half-way, its Ray with it: the next run makes the same files, and none of them twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.__main__ import application
from tests import itinerary_worlds as worlds
from tests.pipelines.killed import run_until_killed

DOMAIN = "anime"  # any: the timetable is named

#: A driver that kills itself as soon as so many parts are there. Its workers stop then as well, with a whole file that bears no name yet;
#: where the driver does the work, it dies in this place itself.
DYING = """
import os, signal, sys, time
from pathlib import Path

from pipelines import cluster
from pipelines.__main__ import main
from pipelines.steps import Reporter

out, first, driver = Path(sys.argv.pop(1)), int(sys.argv.pop(1)), os.getpid()

def there():
    return len(list(out.glob("day=*/part-*.parquet")))

def hesitating(write_part):
    def written(work):
        replace = os.replace

        def wait(source, goal):
            while there() >= first:
                if os.getpid() == driver:
                    os.kill(driver, signal.SIGKILL)
                time.sleep(0.05)
            replace(source, goal)

        os.replace = wait
        try:
            return write_part(work)
        finally:
            os.replace = replace

    return written

def told(self, what, share):
    if cluster.running() and there() >= first:
        while not list(out.glob("day=*/.part-*.tmp")):
            time.sleep(0.05)
        os.kill(driver, signal.SIGKILL)

each = cluster.each
cluster.each = lambda function, work, memory: each(hesitating(function), work, memory)
Reporter.progress = told
sys.exit(main())
"""


def _state(out: Path) -> dict[str, tuple[str, int, int]]:
    """Name of each part -> sha256, inode and time of change."""
    found = {}
    for part in sorted(out.glob("day=*/part-*.parquet")):
        stat = part.stat()
        found[f"{part.parent.name}/{part.name}"] = hashlib.sha256(part.read_bytes()).hexdigest(), stat.st_ino, stat.st_mtime_ns
    return found


@pytest.mark.parametrize(
    ("parts", "chains", "first"), [pytest.param(3, 3_000, 1, id="alone"), pytest.param(9, 1_000, 3, id="workers", marks=pytest.mark.slow)]
)
def test_a_killed_enumeration_goes_on_and_makes_the_same_files(tmp_path: Path, parts: int, chains: int, first: int) -> None:
    file = tmp_path / "timetable.json"
    file.write_text(json.dumps(worlds.many(13).to_json()), encoding="utf-8")  # 8,191 chains
    whole, half, log = tmp_path / "whole", tmp_path / "half", tmp_path / "killed.log"
    words = ["routes", "enumerate", DOMAIN, "--timetable", str(file), "--portraits", "--part", str(chains), "--workers", "2", "--quiet"]
    run_until_killed(DYING, [str(half), str(first), *words, "--out", str(half)], log)
    had = _state(half)
    assert first <= len(had) < parts
    assert list(half.glob("day=*/.part-*.tmp"))  # half-written ones lie beside them
    assert not (half / "routes.json").exists()
    for name in ([*words, "--out", str(whole)], [*words, "--out", str(half)]):
        assert CliRunner().invoke(application, name, catch_exceptions=False).exit_code == 0
    after, never_killed = _state(half), _state(whole)
    assert len(after) == parts
    assert {name: state[0] for name, state in after.items()} == {name: state[0] for name, state in never_killed.items()}
    assert {name: after[name] for name in had} == had  # what was finished is the same file still
    assert not list(half.glob("day=*/.part-*.tmp"))
    summary = [json.loads((out / "routes.json").read_text()) for out in (half, whole)]
    assert [{**one, "seconds": 0, "out": ""} for one in summary[:1]] == [{**one, "seconds": 0, "out": ""} for one in summary[1:]]
    assert summary[0]["total"] == "8191"
