"""The two passes over events: `scatter` parses one piece of a file, `gather` puts one partition of users in order.

Both are tasks of Ray Data: they get a description ({"directory", "number"}), read what they need from the step's directory, write files
there whole or not at all, and answer with a few numbers. What both need to know stands in plan.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs.domain import Domain, EventFile
from features.state import NO_TIME
from features.tables import EVENTS, FILE, ITEM, KIND, LINE, TIME, USER, VALUE
from pipelines.quarantine import BadRow, counted, write_bad
from pipelines.sources.cells import DUPLICATE, REASONS, Parsed, Rules, parse, shards
from pipelines.sources.tables import Piece, read
from pipelines.steps import atomic, write_json, write_table

#: What stands for a file's name where events were recorded while serving.
RECORDED = "recorded"

#: A good row between the passes: item and kind as numbers, where it came from.
SCATTERED = pa.schema(
    [
        (USER, pa.string()),
        (ITEM, pa.int32()),
        (KIND, pa.int8()),
        (VALUE, pa.float32()),
        (TIME, pa.int64()),
        (FILE, pa.int16()),
        (LINE, pa.int64()),
    ]
)


def scatter(work: Mapping[str, Any]) -> dict[str, Any]:
    """One piece: bad rows to NNNNN.csv, good ones to NNNNN.arrow, one batch a partition; NNNNN.json, written last, says which."""
    directory, number = Path(work["directory"]), int(work["number"])
    plan, domain, items = _common(directory)
    file = int(plan["pieces"][number]["file"])
    piece = Piece(**plan["pieces"][number]["piece"])
    own = file == len(domain.source.events)
    said = EventFile(files=(RECORDED,), kind=next(iter(domain.events.kinds))) if own else domain.source.events[file]
    rules = Rules.of(domain, said, int(plan["now"]))
    target = directory / "scatter" / f"{number:05d}"
    bad: list[BadRow] = []
    batches: dict[str, list[int]] = {}
    rows = written = 0
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with atomic(target.with_suffix(".arrow")) as temporary, pa.ipc.new_file(str(temporary), SCATTERED, options=options) as writer:
        for cells in read(piece):
            parsed = parse(cells.columns, rules, items, timed=not own and bool(plan["timed"][file]))
            rows += len(parsed.reasons) + len(cells.bad)
            bad.extend(cells.bad)
            faulty = np.flatnonzero(parsed.reasons).tolist()
            bad.extend((int(cells.lines[row]), REASONS[parsed.reasons[row]], cells.text(row)) for row in faulty)
            for shard, batch in _by_shard(parsed, cells.lines, file, int(plan["shards"])):
                writer.write_batch(batch)
                batches.setdefault(str(shard), []).append(written)
                written += 1
    bad.sort(key=lambda row: row[0])
    write_bad(target.with_suffix(".csv"), ((plan["files"][file], *row) for row in bad))
    write_json(target.with_suffix(".json"), {"file": file, "rows": rows, "batches": batches, "bad": counted(bad)})
    return {"rows": rows}


def gather(work: Mapping[str, Any]) -> dict[str, Any]:
    """One partition of users: sorted, each (user, item, time) once (the first of the files' order stays)."""
    directory, number = Path(work["directory"]), int(work["number"])
    plan, domain, items = _common(directory)
    kinds = pa.array(list(domain.events.kinds), pa.string())
    table = _scattered(directory, len(plan["pieces"]), number)
    users, names = _ranks(table.column(USER))
    item, times = np.asarray(table.column(ITEM)), np.asarray(table.column(TIME))
    order = np.lexsort((times, item, users))  # stable: equal ones keep the files' order
    later, before = order[1:], order[:-1]
    same = (users[later] == users[before]) & (item[later] == item[before]) & (times[later] == times[before])
    if plan["order"] == "rows":
        same &= times[later] != NO_TIME  # another row is another time
    duplicates = np.sort(later[same])
    stays = np.ones(len(order), dtype=np.bool_)
    stays[duplicates] = False
    order = np.argsort(users, kind="stable") if plan["order"] == "none" else np.lexsort((times, users))
    order = order[stays[order]]
    part = directory / "events" / f"part-{number:05d}.parquet"
    part.parent.mkdir(exist_ok=True)
    write_table(part, _canonical(table, order, names, users, items, kinds))
    bad: dict[str, list[BadRow]] = {}
    if len(duplicates):
        files, lines = np.asarray(table.column(FILE))[duplicates], np.asarray(table.column(LINE))[duplicates]
        rows = _canonical(table, duplicates, names, users, items, kinds).to_pylist()
        for file, line, row in sorted(zip(files.tolist(), lines.tolist(), rows, strict=True), key=lambda found: found[:2]):
            text = json.dumps(row, default=str, ensure_ascii=False)
            bad.setdefault(plan["files"][file], []).append((line, REASONS[DUPLICATE], text))
    write_bad(directory / "gather" / f"{number:05d}.csv", ((name, *row) for name, found in bad.items() for row in found))
    known = times[order][times[order] != NO_TIME]
    answer = {
        "events": len(order),
        "users": len(np.unique(users[order])),
        "first_time": int(known.min()) if len(known) else None,
        "last_time": int(known.max()) if len(known) else None,
        "bad": {name: counted(found) for name, found in bad.items()},
    }
    write_json(directory / "gather" / f"{number:05d}.json", answer)
    return {"events": len(order)}


def _common(directory: Path) -> tuple[dict[str, Any], Domain, pa.StringArray]:
    """Plan, domain and item ids, read once a process (and anew if the plan was written anew)."""
    return _read_common(str(directory), (directory / "plan.json").stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_common(directory: str, stamp: int) -> tuple[dict[str, Any], Domain, pa.StringArray]:
    plan = json.loads((Path(directory) / "plan.json").read_text(encoding="utf-8"))
    column = pq.read_table(Path(directory) / "items.parquet", columns=[ITEM], use_threads=False).column(ITEM)
    return plan, Domain.model_validate(plan["domain"]), _whole(column)


def _by_shard(parsed: Parsed, lines: NDArray[np.int64], file: int, count: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The good rows, each partition's together, in the order of the file."""
    good = np.flatnonzero(parsed.reasons == 0)
    shard = shards(parsed.users, count)[good]
    order = np.argsort(shard, kind="stable")
    good, shard = good[order], shard[order]
    columns = [
        parsed.users.take(pa.array(good)),
        pa.array(parsed.items[good]),
        pa.array(parsed.kinds[good]),
        pa.array(parsed.values[good]),
        pa.array(parsed.times[good]),
        pa.array(np.full(len(good), file, dtype=np.int16)),
        pa.array(lines[good]),
    ]
    table = pa.record_batch(columns, schema=SCATTERED)
    edges = np.searchsorted(shard, np.arange(count + 1))
    for part in np.flatnonzero(np.diff(edges)).tolist():
        yield part, table.slice(int(edges[part]), int(edges[part + 1] - edges[part]))


def _scattered(directory: Path, pieces: int, shard: int) -> pa.Table:
    """All rows of one partition, in the order of the files."""
    batches: list[pa.RecordBatch] = []
    for piece in range(pieces):
        source = directory / "scatter" / f"{piece:05d}"
        wanted = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))["batches"].get(str(shard), ())
        if wanted:
            with pa.memory_map(str(source.with_suffix(".arrow"))) as file, pa.ipc.open_file(file) as opened:
                batches.extend(opened.get_batch(batch) for batch in wanted)
    return pa.Table.from_batches(batches, schema=SCATTERED).combine_chunks()


def _ranks(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.StringArray]:
    """(n,) the rank of each id among the distinct ones in ascending order of their bytes, and those."""
    distinct = _whole(column).dictionary_encode()
    order = np.asarray(pc.array_sort_indices(distinct.dictionary))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[np.asarray(distinct.indices)], distinct.dictionary.take(pa.array(order))


def _canonical(
    table: pa.Table, rows: NDArray[np.int64], names: pa.StringArray, users: NDArray[np.int64], items: pa.StringArray, kinds: pa.StringArray
) -> pa.Table:
    """The rows as features.tables.EVENTS."""
    values, times = np.asarray(table.column(VALUE))[rows], np.asarray(table.column(TIME))[rows]
    columns = [
        names.take(pa.array(users[rows])),
        items.take(pa.array(np.asarray(table.column(ITEM))[rows])),
        kinds.take(pa.array(np.asarray(table.column(KIND))[rows])),
        pa.array(values, mask=np.isnan(values)),
        pa.array(times, mask=times == NO_TIME).cast(pa.timestamp("us", "UTC")),
    ]
    return pa.table(columns, schema=EVENTS)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([*column.chunks, pa.array([], column.type)])
