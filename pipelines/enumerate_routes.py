"""Every chain of every day of a timetable as Parquet, by Ray Data, in shards that any number of workers can take.

`out/day=YYYY-MM-DD/part-NNNNN.parquet`: a column of 64-bit masks (`mask0` and so on; bit i is the i-th of the stops that the schema's
metadata names), byte-stream-split and zstd, and on request the core portraits beside it. A part is a range of chain numbers, made by
itself and written whole or not at all, so a killed run goes on with what is missing. `routes.json` is written last. A worker holds one row
group at a time: memory does not grow with the number of chains.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.itinerary.core_portraits import core_portraits
from features.itinerary.enumeration import Chains, day, report, shards
from features.itinerary.timetable import Timetable
from pipelines import cluster
from pipelines.steps import Reporter, Step, atomic, fingerprint, write_json

SHARD_CHAINS = 4 * 2**20
GROUP_CHAINS = 2**20
_PLAN, _TIMETABLE, SUMMARY = "_plan.json", "_timetable.json", "routes.json"
#: Bytes that one task takes at most: its Python, one row group of masks and portraits, and what Parquet holds of it.
MEMORY = 768 * 2**20


def enumerate_routes(
    timetable: Timetable,
    chains: Chains,
    out: Path,
    reporter: Reporter,
    portraits: bool = False,
    shard_chains: int = SHARD_CHAINS,
    workers: int | None = None,
) -> dict[str, Any]:
    """Writes all chains; returns what routes.json holds: counts by day and length as strings of digits, bytes, seconds.

    What `out` holds of another timetable or other options is replaced. shard_chains: of one part, at most. workers: parts at once on this
    machine (None: as many as cores). Raises ValueError for a day that is too large to be listed, StepBusy if somebody else writes there."""
    began = time.monotonic()
    reporter.step("enumerate")
    days = [day(timetable, number, chains) for number in range(len(timetable.days))]
    mark = fingerprint(timetable.version, asdict(chains), portraits, shard_chains)
    with Step(out):
        if _read(out / _PLAN).get("mark") != mark:
            _clear(out)
            write_json(out / _TIMETABLE, timetable.to_json())
            write_json(out / _PLAN, {"mark": mark, "version": timetable.version})
        pieces = []
        for made in days:
            folder = out / f"day={timetable.days[made.number]}"
            for number, (lo, hi) in enumerate(shards(made.total, shard_chains)):
                path = folder / f"part-{number:05d}.parquet"
                said = {"timetable": str(out / _TIMETABLE), "day": made.number, "lo": lo, "hi": hi, "path": str(path), "mark": mark}
                pieces.append({**said, "chains": asdict(chains), "portraits": portraits})
            if made.total:
                folder.mkdir(exist_ok=True)
                _sweep(folder)
        work = [piece for piece in pieces if not Path(str(piece["path"])).is_file()]
        if len(work) < len(pieces):
            reporter.say(f"going on: {len(pieces) - len(work)} of {len(pieces)} parts are there")
        total, done = sum(made.total for made in days), sum(_span(piece) for piece in pieces) - sum(_span(piece) for piece in work)
        with cluster.started(workers) if len(work) > cluster.FEW else nullcontext():
            for answer in cluster.each(write_part, work, MEMORY):
                done += answer["chains"]
                reporter.progress("chains", done / max(1, total))
        size = sum(Path(str(piece["path"])).stat().st_size for piece in pieces)
        result = {
            "out": str(out),
            "timetable": timetable.version,
            "chains": asdict(chains),
            "portraits": portraits,
            "total": str(total),
            "days": [report(made) for made in days],
            "parts": len(pieces),
            "bytes": size,
            "bytes_a_chain": round(size / max(1, total), 4),
            "seconds": round(time.monotonic() - began, 2),
        }
        write_json(out / SUMMARY, result)
    return result


def write_part(work: Mapping[str, Any]) -> dict[str, Any]:
    """One part, on whichever machine: chains lo .. hi of a day, row group by row group. Raises FileNotFoundError, and writes nothing, where
    the folder's plan bears another mark by now."""
    path = Path(work["path"])
    timetable = Timetable.of_json(json.loads(Path(work["timetable"]).read_text(encoding="utf-8")))
    made = day(timetable, work["day"], Chains(**work["chains"]))
    core = core_portraits(made) if work["portraits"] else None
    names = [f"mask{word}" for word in range(made.words)]
    fields = [pa.field(name, pa.uint64(), nullable=False) for name in names]
    if core is not None:
        fields += [pa.field(name, pa.from_numpy_dtype(column.dtype), nullable=False) for name, column in core.columns(0, 0).items()]
    stops = json.dumps([timetable.stops[row].id for row in made.rows], ensure_ascii=False)
    said = {"timetable": timetable.version, "day": timetable.days[made.number], "stops": stops, "first": str(work["lo"])}
    schema = pa.schema(fields, metadata=said)
    path.parent.mkdir(parents=True, exist_ok=True)
    encodings = dict.fromkeys(schema.names, "BYTE_STREAM_SPLIT")
    with atomic(path) as temporary:
        with pq.ParquetWriter(
            temporary, schema, compression="zstd", use_dictionary=False, column_encoding=encodings, version="2.6"
        ) as writer:
            for lo in range(work["lo"], work["hi"], GROUP_CHAINS):
                hi = min(lo + GROUP_CHAINS, work["hi"])
                columns = dict(zip(names, made.masks(lo, hi), strict=True))
                if core is not None:
                    columns.update(core.columns(lo, hi))
                writer.write_table(pa.table([pa.array(column) for column in columns.values()], schema=schema), row_group_size=GROUP_CHAINS)
        if _read(path.parent.parent / _PLAN).get("mark") != work["mark"]:  # a worker that outlived its run
            raise FileNotFoundError(f"{path}: a later run, of other routes, has taken this folder")
    return {"chains": _span(work)}


def lines(result: Mapping[str, Any]) -> list[str]:
    """The counts by day and length for people."""
    out = []
    for made in result["days"]:
        lengths = ", ".join(f"{count} of {length}" for length, count in made["by_length"].items())
        out.append(f"{made['day']}: {made['total']} routes of {made['stops']} stops" + (f" ({lengths})" if lengths else ""))
    where = f"{result['parts']} parts of {result['out']}"
    return [*out, f"{result['total']} routes in {where}, {result['bytes_a_chain']} bytes each, {result['seconds']} s"]


def _span(work: Mapping[str, Any]) -> int:
    return int(work["hi"]) - int(work["lo"])


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return document


def _clear(out: Path) -> None:
    """Away with what an earlier run wrote, and nothing else."""
    (out / SUMMARY).unlink(missing_ok=True)
    for folder in out.glob("day=*"):
        for part in folder.glob("part-*.parquet"):
            part.unlink()
        _sweep(folder)
        if not any(folder.iterdir()):
            folder.rmdir()


def _sweep(folder: Path) -> None:
    """Away with half-written parts that a killed run left."""
    for part in folder.glob(".part-*.tmp"):
        part.unlink(missing_ok=True)
