"""Rows that wait for a database that is away: bounded, in a file, found again by whoever starts next."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from serving.storage.database import DatabaseAwayError
from serving.storage.spool import BATCH, Spool


class Sink:
    """A database of rows by key that can be away, and refuses what is named in `refused`."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.away = False
        self.refused: set[str] = set()
        self.written = self.lost = 0

    async def write(self, rows: Sequence[tuple[str, str]]) -> None:
        if self.away:
            raise DatabaseAwayError("away")
        if self.refused & {key for key, _ in rows}:
            raise RuntimeError("refused")
        self.rows.update(rows)

    def spool(self, folder: Path, bound: int = 1_000) -> Spool[tuple[str, str]]:
        def written(count: int) -> None:
            self.written += count

        def lost(count: int) -> None:
            self.lost += count

        return Spool(
            "rows", folder, bound, self.write, lambda row: {"key": row[0], "text": row[1]}, lambda d: (d["key"], d["text"]), written, lost
        )


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not true after {seconds} s")


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


async def test_what_waits_at_a_stop_is_written_after_the_next_start_by_somebody_else(tmp_path: Path) -> None:
    sink = Sink()
    sink.away = True
    first = sink.spool(tmp_path)
    await first.start()
    for number in range(BATCH + 7):
        first.put(f"k{number}", (f"k{number}", "ключ\n\"'"))
    await first.stop(0.1)
    assert sink.rows == {}
    assert sink.lost == 0
    assert [oct(path.stat().st_mode & 0o777) for path in files(tmp_path)] == ["0o600"]
    sink.away = False
    second = sink.spool(tmp_path)
    await second.start()
    await until(lambda: len(sink.rows) == BATCH + 7 and not files(tmp_path))
    assert set(sink.rows.values()) == {"ключ\n\"'"}
    await second.stop(1.0)


async def test_a_file_whose_process_lives_is_left_alone_and_goes_when_all_is_written(tmp_path: Path) -> None:
    living, starting = Sink(), Sink()
    living.away = True
    first, second = living.spool(tmp_path), starting.spool(tmp_path)
    await first.start()
    first.put("a", ("a", "1"))
    await until(lambda: any(path.stat().st_size for path in files(tmp_path)))
    await second.start()
    await asyncio.sleep(0.3)
    assert starting.rows == {}
    living.away = False
    await until(lambda: living.rows == {"a": "1"} and not files(tmp_path))
    await first.stop(1.0)
    await second.stop(1.0)


async def test_beyond_the_bound_the_oldest_are_lost_and_the_file_stays_bounded(tmp_path: Path) -> None:
    sink = Sink()
    sink.away = True
    spool = sink.spool(tmp_path, bound=10)
    await spool.start()
    for number in range(60):
        spool.put(f"k{number}", (f"k{number}", ""))
        if number % 10 == 9:
            await asyncio.sleep(0.8)  # each ten find their way into the file
    assert sink.lost == 50
    assert [row[0] for row in spool.values()] == [f"k{number}" for number in range(50, 60)]
    lines = [line for path in files(tmp_path) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) <= 20
    await spool.stop(0.1)
    sink.away = False
    after = sink.spool(tmp_path, bound=10)
    await after.start()
    await until(lambda: not files(tmp_path))
    assert {f"k{number}" for number in range(50, 60)} <= set(sink.rows)
    await after.stop(1.0)


async def test_a_row_that_is_refused_for_good_keeps_no_other_from_being_written(tmp_path: Path) -> None:
    sink = Sink()
    sink.refused = {"k3"}
    spool = sink.spool(tmp_path)
    await spool.start()
    for number in range(6):
        spool.put(f"k{number}", (f"k{number}", ""))
    await until(lambda: len(spool) == 0)
    assert sorted(sink.rows) == ["k0", "k1", "k2", "k4", "k5"]
    assert (sink.written, sink.lost) == (5, 1)
    spool.put("later", ("later", ""))
    await until(lambda: "later" in sink.rows)
    await spool.stop(1.0)


async def test_a_damaged_file_gives_what_can_be_read(tmp_path: Path) -> None:
    lines = [b'{"key":"a","text":"1"}', b"rubbish", b'{"text":"no key"}', b"[]", b"\xff\xfe", b'{"key":"b","text":"2"}', b'{"key":"c","te']
    (tmp_path / "rows-1-x.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "others-1-x.jsonl").write_bytes(b'{"key":"z","text":"0"}\n')
    sink = Sink()
    spool = sink.spool(tmp_path)
    await spool.start()
    await until(lambda: len(files(tmp_path)) == 1)
    assert sink.rows == {"a": "1", "b": "2"}
    assert sink.lost == 5
    await spool.stop(1.0)


async def test_a_folder_that_cannot_be_written_loses_nothing_while_the_process_lives(tmp_path: Path) -> None:
    sink = Sink()
    sink.away = True
    (tmp_path / "file").write_text("in the way")
    spool = sink.spool(tmp_path / "file")
    await spool.start()
    spool.put("a", ("a", "1"))
    await asyncio.sleep(1.0)
    sink.away = False
    await until(lambda: sink.rows == {"a": "1"})
    sink.away = True
    spool.put("b", ("b", "2"))
    await spool.stop(0.1)
    assert sink.lost == 1


_KILLED = """
import asyncio, sys
from pathlib import Path
from tests.serving.test_spool import Sink

async def main():
    sink = Sink()
    sink.away = True
    spool = sink.spool(Path(sys.argv[1]))
    await spool.start()
    for number in range(1_000):
        spool.put(f"k{number}", (f"k{number}", "x" * 50))
    await asyncio.sleep(60)

asyncio.run(main())
"""


def _fill_and_kill(folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(folder)], cwd=Path(__file__).parents[2])
    try:
        began = time.monotonic()
        while sum(path.stat().st_size for path in files(folder)) < 1_000 * 50 and time.monotonic() - began < 60:
            time.sleep(0.1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_killed_process_leaves_its_rows_to_the_others(tmp_path: Path, replicas: int) -> None:
    await asyncio.to_thread(_fill_and_kill, tmp_path)
    sink = Sink()
    others = [sink.spool(tmp_path) for _ in range(replicas)]
    await asyncio.gather(*(spool.start() for spool in others))
    await until(lambda: len(sink.rows) == 1_000 and not files(tmp_path))
    assert sink.written == 1_000  # one of them took the file
    assert sink.lost == 0
    await asyncio.gather(*(spool.stop(1.0) for spool in others))
