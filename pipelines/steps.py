"""A step of a pipeline: done once for the same inputs, resumed where it was interrupted; and the reporter all pipelines speak through.

A step lives in `home/<domain>/<step>/<fingerprint>/`. What it has made is finished when DONE.json stands there, which is
written last and atomically. Everything a step writes on the way is written atomically too, so whatever exists is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

DONE = "DONE.json"


class StepBusy(RuntimeError):  # noqa: N818
    """Another process is at work on the same step."""


def fingerprint(*inputs: object) -> str:
    """16 hexadecimal digits of the sha256 of the inputs as canonical JSON. Raises TypeError for what JSON cannot hold."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_state(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Name, size in bytes and time of change in nanoseconds of each file: what tells whether an input changed."""
    out = []
    for path in paths:
        stat = path.stat()
        out.append((path.name, stat.st_size, stat.st_mtime_ns))
    return out


def upstream(directory: Path) -> str:
    """The fingerprint of a finished step, for the fingerprint of the step that reads it. Raises FileNotFoundError if it is not finished."""
    if not (directory / DONE).is_file():
        raise FileNotFoundError(f"{directory} holds no finished step: there is no {DONE}")
    return directory.name


def latest(home: Path, domain: str, name: str) -> Path | None:
    """The directory of the step `name` that was finished last, None if there is none."""
    done = list((home / domain / name).glob(f"*/{DONE}"))
    return max(done, key=lambda path: path.stat().st_mtime_ns).parent if done else None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` at the end; if something was raised, `path` is as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, document: object) -> None:
    """Writes atomically: a reader finds the old file or the new one, whole."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())


def write_table(path: Path, table: pa.Table) -> None:
    """Writes Parquet atomically."""
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


@dataclass
class Step:
    """One step at one fingerprint. Use as a context manager: inside, no other process works on it.

    with Step(home / domain / "ingest" / mark) as step:
        if step.done is None:
            ...
            step.finish({"rows": rows})
    """

    directory: Path
    _lock: IO[str] | None = field(default=None, init=False)
    _began: float = field(default=0.0, init=False)

    @property
    def done(self) -> dict[str, object] | None:
        """What DONE.json says, None while the step is not finished."""
        try:
            document: dict[str, object] = json.loads((self.directory / DONE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return document

    def finish(self, produced: Mapping[str, object]) -> None:
        """Marks the step as done: `produced` says what it made; the seconds it took (of its last run) are added."""
        seconds = round(time.monotonic() - self._began, 3)
        write_json(self.directory / DONE, {**produced, "seconds": seconds, "finished_at": int(time.time())})

    def __enter__(self) -> Self:
        """Creates the directory. Raises StepBusy if another process is inside."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = (self.directory / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StepBusy(f"another process is at work in {self.directory}; wait for it, or end it") from None
        self._began = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._lock is not None
        self._lock.close()  # closing gives the lock back


class Reporter:
    """Tells people how far the work is, on stderr: a bar on a terminal, plain lines elsewhere, one JSON object a line with
    `json`, nothing with `quiet`. stdout stays free for results."""

    def __init__(self, quiet: bool = False, json: bool = False, stream: IO[str] | None = None) -> None:
        self._quiet, self._json = quiet, json
        self._stream = stream or sys.stderr
        self._step, self._began = "", 0.0
        self._said: dict[str, tuple[float, float]] = {}  # what -> (share, when) last written
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._on_terminal = not quiet and not json and self._stream.isatty()

    def step(self, name: str) -> None:
        """A step begins (and the one before it ends)."""
        self.close()
        self._step, self._began = name, time.monotonic()
        self._write("step", name)

    def progress(self, what: str, share: float) -> None:
        """`share` (0..1) of `what` is done. May be called as often as is convenient; few calls are written."""
        if self._quiet:
            return
        share = min(max(share, 0.0), 1.0)
        if self._on_terminal:
            self._draw(what, share)
            return
        before, when = self._said.get(what, (-1.0, 0.0))
        now = time.monotonic()
        if (share >= 1.0 and before < 1.0) or (before >= 0.0 and now - when >= 10.0) or before < 0.0:
            self._said[what] = (share, now)
            self._write("progress", f"{what} {share:.0%}", what=what, share=round(share, 4))

    def say(self, text: str) -> None:
        """One line for people."""
        self._write("say", text)

    def close(self) -> None:
        """Takes the bar off the screen; the terminal is as it was. May be called twice."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._tasks.clear()
        self._said.clear()
        self._step = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _draw(self, what: str, share: float) -> None:
        if self._bar is None:
            percent = TextColumn("{task.percentage:>3.0f}%")
            columns = (TextColumn("  {task.description}"), BarColumn(bar_width=30), percent, TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(file=self._stream), transient=True)
            self._bar.start()
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=1.0)
        self._bar.update(self._tasks[what], completed=share)

    def _write(self, kind: str, text: str, **more: object) -> None:
        if self._quiet:
            return
        if self._json:
            since = {"seconds": round(time.monotonic() - self._began, 3)} if self._step else {}
            line = json.dumps({"event": kind, "step": self._step, "text": text, **more, **since}, ensure_ascii=False)
        else:
            line = f"== {text}" if kind == "step" else f"   {text}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self._stream, flush=True)
