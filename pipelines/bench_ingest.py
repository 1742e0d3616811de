"""How fast, and in how much memory, a large file becomes tables and arrays: the proof that ingest and featurize stream."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from configs.domain import Domain
from pipelines.featurize import featurize
from pipelines.ingest import ingest
from pipelines.memory import tree
from pipelines.steps import Reporter

_ITEMS = 12_000
_ROWS_A_USER = 100
_BLOCK = 500_000
_START = 1_672_531_200  # 2023-01-01, seconds UTC
_SPAN = 365 * 86_400
_STATUSES = ("Watching", "Completed", "On-Hold", "Dropped", "Plan to Watch")


def run(rows: int, home: Path, reporter: Reporter, seed: int = 3) -> dict[str, Any]:
    """Generates `rows` list rows under `home`, ingests and featurizes them, and takes everything away again.

    Answers rows, bytes, seconds of each part, rows a second, the peak PSS of this process and all below it in GiB (sampled twice a
    second), and the machine. Raises OSError if the disk has less than four times the file's size free.
    """
    place = home / "bench-ingest"
    place.mkdir(parents=True, exist_ok=True)
    try:
        needed = rows * 60 * 4
        if (free := shutil.disk_usage(place).free) < needed:
            raise OSError(f"{place}: {free / 2**30:.1f} GiB are free, {needed / 2**30:.1f} GiB are needed")
        reporter.step("generate")
        began = time.monotonic()
        _generate(place / "data", rows, seed, reporter)
        generated = time.monotonic()
        domain = _domain()
        with _PeakPss() as peak:
            tables = ingest(domain, place / "data", place, reporter)
            ingested = time.monotonic()
            features = featurize(domain, tables, place, reporter)
            featurized = time.monotonic()
        events = sum(len(np.load(path, mmap_mode="r")) for path in (features / "histories").glob("items.npy"))
        return {
            "rows": rows,
            "events": events,
            "file_bytes": (place / "data" / "lists.csv").stat().st_size,
            "generate_s": round(generated - began, 1),
            "ingest_s": round(ingested - generated, 1),
            "featurize_s": round(featurized - ingested, 1),
            "rows_per_s": round(rows / (featurized - generated)),
            "peak_pss_gib": round(peak.bytes / 2**30, 2),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        }
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _domain() -> Domain:
    """Lists of titles in the usual shape: a rating, a status by name, a count, a time."""
    names = {status: status.lower().replace(" ", "_").replace("-", "_") for status in _STATUSES}
    return Domain.model_validate(
        {
            "name": "bench_ingest",
            "title": "Generated lists",
            "items": {"attributes": {"genre": {"type": "tags"}}},
            "events": {
                "scale": {"low": 1, "high": 10, "liked_from": 7, "disliked_to": 4},
                "kinds": {name: {"means": ["seen"]} for name in names.values()},
            },
            "source": {
                "items": {"files": ["titles.csv"]},
                "events": [{"files": ["lists.csv"], "kind": "completed", "kinds": names, "progress": ["watched_episodes"]}],
            },
            "candidates": {"popular": {"model": "popularity"}},
        }
    )


def _generate(folder: Path, rows: int, seed: int, reporter: Reporter) -> None:
    """Users at random over the file, so that nothing but a shuffle brings a person's rows together; items by a heavy tail."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    ids = [str(item) for item in range(1, _ITEMS + 1)]
    genres = [f"Genre {item % 23}, Genre {item % 7}" for item in range(_ITEMS)]
    pa.csv.write_csv(pa.table({"item_id": ids, "title": [f"Title {one}" for one in ids], "genre": genres}), folder / "titles.csv")
    weights = 1.0 / np.arange(3, _ITEMS + 3)
    edges = np.cumsum(weights / weights.sum())
    users = max(rows // _ROWS_A_USER, 1)
    statuses, schema = pa.array(_STATUSES), None
    writer = None
    try:
        for done in range(0, rows, _BLOCK):
            n = min(_BLOCK, rows - done)
            ratings = pa.array(chance.integers(1, 11, n), mask=chance.random(n) < 0.3)
            block = pa.table(
                {
                    "user_id": chance.integers(1, users + 1, n),
                    "item_id": np.minimum(np.searchsorted(edges, chance.random(n)), _ITEMS - 1) + 1,
                    "rating": ratings,
                    "status": statuses.take(pa.array(chance.integers(0, len(_STATUSES), n))),
                    "watched_episodes": chance.integers(0, 64, n),
                    "event_time": pa.array(_START + chance.integers(0, _SPAN, n)).cast(pa.timestamp("s", "UTC")),
                }
            )
            schema = schema or block.schema
            writer = writer or pa.csv.CSVWriter(folder / "lists.csv", schema)
            writer.write_table(block)
            reporter.progress("rows written", (done + n) / rows)
    finally:
        if writer is not None:
            writer.close()


class _PeakPss:
    """Samples the memory of the process tree twice a second while it is entered; `bytes` is the most it saw."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            self.bytes = max(self.bytes, sum(tree(os.getpid()).values()))

    def __enter__(self) -> _PeakPss:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
