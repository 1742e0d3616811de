"""Canonical tables -> the arrays that models and the engine read: catalogue, vocabulary of users, histories.

Each partition of users becomes a piece of plain arrays; the pieces are then copied one after another into memory-mapped files. No
more than one partition is held in memory at a time by a process, and no event is ever a Python object.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from configs.domain import Domain
from features.catalogue import Catalogue
from features.state import NO_TIME, Histories, Kinds
from features.tables import ITEM, KIND, TIME, USER, VALUE
from features.vocabulary import Vocabulary
from pipelines.cluster import each, started_for
from pipelines.sources.items import catalogue_of
from pipelines.steps import Reporter, Step, fingerprint, upstream, write_json

VERSION = 1  # raise it when the same tables would become other arrays
_ARRAYS: dict[str, type[np.generic]] = {"items": np.int32, "kinds": np.int8, "values": np.float32, "times": np.int64}


@dataclass(frozen=True)
class Features:
    """What `featurize` made, opened memory-mapped. User row u of `users` has the history u of `histories`; items are rows of `catalogue`.

    `ordered`: people's events stand in the order of time (which may yet be unknown).
    `moment` (microseconds UTC) is when all this was known: the time of the last event, or of the run where the source has no times.
    """

    catalogue: Catalogue
    users: Vocabulary
    histories: Histories
    ordered: bool
    moment: int


def featurize(domain: Domain, tables: Path, home: Path, reporter: Reporter) -> Path:
    """The directory of the finished step, from that of a finished `ingest`. Raises FileNotFoundError if it is not finished, StepBusy."""
    reporter.step("featurize")
    mark = fingerprint(VERSION, upstream(tables), domain.items.model_dump(mode="json"), domain.events.model_dump(mode="json"))
    with Step(home / domain.name / "featurize" / mark) as step:
        if step.done is not None:
            reporter.say(f"featurize: nothing changed, the arrays stand in {step.directory}")
            return step.directory
        directory = step.directory
        catalogue = catalogue_of(domain.items, pq.read_table(tables / "items.parquet"))
        catalogue.save(directory / "catalogue")
        parts = sorted((tables / "events").glob("part-*.parquet"))
        pieces = [directory / "pieces" / part.stem for part in parts]
        work = [
            {"part": str(part), "piece": str(piece), "catalogue": str(directory / "catalogue"), "kinds": list(domain.events.kinds)}
            for part, piece in zip(parts, pieces, strict=True)
            if not (piece / "piece.json").is_file()
        ]
        what, left = "events to arrays", len(parts) - len(work)
        with started_for(len(work)):
            for done, _ in enumerate(each(_piece, work), start=left + 1):
                reporter.progress(what, done / len(parts))
        _join(pieces, directory)
        report = json.loads((tables / "report.json").read_text(encoding="utf-8"))
        ordered = bool(report["ordered"])
        np.save(directory / "histories" / "ordered.npy", np.array(ordered))
        moment = report["last_time"] if report["order"] == "time" else time.time_ns() // 1_000
        counts = {"users": report["users"], "items": len(catalogue), "events": report["events"]}
        summary = {**counts, "ordered": ordered, "first_time": report["first_time"], "last_time": report["last_time"], "moment": moment}
        write_json(directory / "features.json", summary)
        step.finish({**summary, "tables": tables.name})
        shutil.rmtree(directory / "pieces", ignore_errors=True)
        reporter.say(f"featurize: {counts['events']} events of {counts['users']} users and {counts['items']} items as arrays")
        return directory


def load(directory: Path, domain: Domain) -> Features:
    """Opens what `featurize` wrote. Raises FileNotFoundError if the step is not finished."""
    upstream(directory)
    summary = json.loads((directory / "features.json").read_text(encoding="utf-8"))
    return Features(
        Catalogue.load(directory / "catalogue"),
        Vocabulary.load(directory / "users"),
        Histories.load(directory / "histories", Kinds.of(domain.events)),
        bool(summary["ordered"]),
        int(summary["moment"]),
    )


@lru_cache(maxsize=1)
def _item_ids(catalogue: str, stamp: int) -> pa.StringArray:
    """The ids of the catalogue's items by row, once a process."""
    ids = Vocabulary.load(Path(catalogue) / "ids")
    return pa.array(ids.ids(range(len(ids))), pa.string())


def _piece(work: Mapping[str, Any]) -> dict[str, Any]:
    """One partition as arrays: ids.npy (users, sorted), lengths.npy (events of each), items, kinds, values, times; piece.json last."""
    target = Path(work["piece"])
    target.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(work["part"], use_threads=False)
    users = _whole(table.column(USER))
    runs = pc.run_end_encode(users, run_end_type=pa.int64()) if len(users) else None
    ids = runs.values.cast(pa.binary()).to_pylist() if runs is not None else []
    ends = np.asarray(runs.run_ends) if runs is not None else np.empty(0, dtype=np.int64)
    stamp = (Path(work["catalogue"]) / "catalogue.json").stat().st_mtime_ns
    items = pc.index_in(_whole(table.column(ITEM)), value_set=_item_ids(work["catalogue"], stamp))
    kinds = pc.index_in(_whole(table.column(KIND)), value_set=pa.array(work["kinds"], pa.string()))
    times = pc.fill_null(table.column(TIME).cast(pa.int64()), NO_TIME)
    np.save(target / "ids.npy", np.array(ids, dtype=f"S{max((len(one) for one in ids), default=1)}"))
    np.save(target / "lengths.npy", np.diff(ends, prepend=0).astype(np.int64))
    np.save(target / "items.npy", np.asarray(items, dtype=np.int32))
    np.save(target / "kinds.npy", np.asarray(kinds, dtype=np.int8))
    np.save(target / "values.npy", np.asarray(pc.fill_null(table.column(VALUE), float("nan")), dtype=np.float32))
    np.save(target / "times.npy", np.asarray(times, dtype=np.int64))
    write_json(target / "piece.json", {"users": len(ids), "events": len(users)})
    return {"events": len(users)}


def _join(pieces: list[Path], directory: Path) -> None:
    """Copies the pieces behind each other into the layout that Histories.save and Vocabulary.save write."""
    sizes = [json.loads((piece / "piece.json").read_text(encoding="utf-8")) for piece in pieces]
    users, events = sum(size["users"] for size in sizes), sum(size["events"] for size in sizes)
    target = directory / "histories"
    target.mkdir(exist_ok=True)
    for name, dtype in _ARRAYS.items():
        whole = _mapped(target / f"{name}.npy", dtype, events)
        at = 0
        for piece in pieces:
            part = np.load(piece / f"{name}.npy", allow_pickle=False)
            whole[at : at + len(part)] = part
            at += len(part)
        if isinstance(whole, np.memmap):
            whole.flush()
    lengths = [np.load(piece / "lengths.npy", allow_pickle=False) for piece in pieces]
    np.save(target / "indptr.npy", np.concatenate([[0], np.cumsum(np.concatenate([np.empty(0, np.int64), *lengths]))]).astype(np.int64))
    ids = [np.load(piece / "ids.npy", mmap_mode="r", allow_pickle=False) for piece in pieces]
    width = max((part.dtype.itemsize for part in ids), default=1)
    by_row = np.empty(users, dtype=f"S{width}")
    at = 0
    for part in ids:
        by_row[at : at + len(part)] = part
        at += len(part)
    Vocabulary.of_bytes(by_row).save(directory / "users")


def _mapped(path: Path, dtype: type[np.generic], length: int) -> NDArray[np.generic]:
    """A writable .npy of this length; an empty file cannot be mapped."""
    if not length:
        empty: NDArray[np.generic] = np.empty(0, dtype=dtype)
        np.save(path, empty)
        return empty
    mapped: NDArray[np.generic] = open_memmap(path, mode="w+", dtype=dtype, shape=(length,))
    return mapped


def _whole(column: pa.ChunkedArray) -> pa.StringArray:
    return pa.concat_arrays([*column.chunks, pa.array([], column.type)])
