"""Raw files -> canonical tables, by Ray Data, in two passes that never hold more than a few pieces in memory.

Scatter: each piece of a file (about 16 MB) is parsed, its bad rows set aside, its good ones written by hash of the user.
Gather: each partition of users (about 40 MB of input) is sorted by user and time, rid of duplicates, and written as Parquet.
Whatever a task writes is whole or not there, so a run that was killed goes on from the pieces it had.

The step's directory holds items.parquet, events/part-*.parquet (features.tables.EVENTS; a user stands in one part only, users sorted, each
one's events together, oldest first, or in the files' order where the source has no times), quarantine.csv and report.json; in a domain with
an itinerary also timetable.json and availability.json, which are written anew where only they changed: nothing is learnt from them.
On a cluster of several machines it has to lie on a disk that all of them see.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.domain import Domain, EventFile
from features.tables import EVENTS, ITEM, KIND, TIME, USER, VALUE
from pipelines.cluster import each, started_for
from pipelines.passes import RECORDED, gather, scatter
from pipelines.quarantine import report_of, write_quarantine
from pipelines.sources import Prepared, prepare
from pipelines.sources.items import Added, find_items, read_items
from pipelines.sources.tables import PIECE_BYTES, SourceError, Table, find, pieces
from pipelines.steps import Reporter, Step, files_state, fingerprint, write_json, write_table
from training.bundle import TIMETABLE

AVAILABILITY = "availability.json"
VERSION = 1  # raise it when the same files would become other tables
SHARD_BYTES = 40 * 2**20
_MOST_SHARDS = 256
_UNPACKED = 4  # bytes of CSV that a byte of a compressed file is taken for


class IngestRefused(ValueError):  # noqa: N818
    """More bad rows than the YAML accepts, or nothing good at all: nothing was marked as done. `quarantine` is the file they lie in."""

    def __init__(self, message: str, quarantine: Path) -> None:
        super().__init__(message)
        self.quarantine = quarantine


def ingest(
    domain: Domain,
    data: Path,
    home: Path,
    reporter: Reporter,
    recorded: pa.Table | None = None,
    added: Sequence[Added] = (),
    now: int | None = None,
    piece_bytes: int = PIECE_BYTES,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """The directory of the finished step; done before for the same files, it is returned at once.

    recorded: events as features.tables.EVENTS that were taken while serving; they follow those of the files and keep their times
    (where the files have none the domain stays unordered all the same: report.json's `ordered` is about the files). Those whose item
    is gone fall away and never refuse a run. added: items added while serving; they replace the file's of the same id.
    now: microseconds UTC, the clock's if None.
    Raises SourceError (a file or column is missing, or a file damaged), IngestRefused, StepBusy.
    """
    reporter.step("ingest")
    if domain.source.users:
        raise SourceError(f"source.users: files with one row a user are not read ({', '.join(domain.source.users)}); leave the word out")
    prepared = prepare(domain, data, home / domain.name / "raw")
    items_file = find_items(domain, prepared.folder)
    found = [_find_events(domain, file, prepared.folder) for file in domain.source.events]
    mark = fingerprint(
        VERSION,
        {part: getattr(domain, part).model_dump(mode="json") for part in ("source", "items", "events")},
        files_state([items_file.path, *(table.path for table in found)]),
        _digest(recorded),
        [[extra.item, extra.title, repr(sorted(extra.cells.items())), extra.available] for extra in added],
        [piece_bytes, shard_bytes],
        *([[sheet.rows, sheet.bad] for sheet in prepared.sheets if sheet.bad]),
    )
    with Step(home / domain.name / "ingest" / mark) as step:
        _write_timetable(prepared, step.directory)
        if step.done is not None:
            reporter.say(f"ingest: nothing changed, {step.done['events']} events stand in {step.directory}")
            return step.directory
        if not (step.directory / "plan.json").is_file():
            reporter.say(f"reading {', '.join(table.path.name for table in [items_file, *found])} of {data}")
            moment = time.time_ns() // 1_000 if now is None else now
            _plan(domain, items_file, found, prepared, recorded, added, step.directory, moment, piece_bytes, shard_bytes)
        report = _two_passes(domain, step.directory, reporter)
        step.finish({key: report[key] for key in ("items", "users", "events", "bad", "ordered", "first_time", "last_time")})
        _tidy(step.directory)
        reporter.say(f"ingest: {report['events']} events of {report['users']} users and {report['items']} items; {report['bad']} bad rows")
        return step.directory


def _write_timetable(prepared: Prepared, directory: Path) -> None:
    """Anew only where it changed: a bundle is made of its bytes."""
    if prepared.programme is None:
        return
    timetable = prepared.programme.timetable
    path, said = directory / TIMETABLE, timetable.to_json()
    if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != said:
        write_json(path, said)
    write_json(directory / AVAILABILITY, prepared.programme.availability.to_json(timetable))


def _find_events(domain: Domain, file: EventFile, folder: Path) -> Table:
    roles = {"user": file.user, "item": file.item, "value": file.value, "time": file.time}
    roles |= {"kind": file.kind_column, "progress": file.progress}
    required = ["user", "item", *(["value"] if domain.events.scale and file.value else [])]
    return find(folder, file.files, {role: words for role, words in roles.items() if words}, required, file.encoding)


def _plan(
    domain: Domain,
    items_file: Table,
    found: Sequence[Table],
    prepared: Prepared,
    recorded: pa.Table | None,
    added: Sequence[Added],
    directory: Path,
    now: int,
    piece_bytes: int,
    shard_bytes: int,
) -> None:
    """Writes items.parquet, and what both passes need to know as plan.json. A piece's `file` beyond those of the YAML is `recorded`."""
    items = read_items(domain, items_file, added)
    write_table(directory / "items.parquet", items.table)
    tables, names = list(found), [table.path.name for table in found]
    if recorded is not None and len(recorded):
        write_table(directory / "recorded.parquet", recorded.select(EVENTS.names).cast(EVENTS))
        roles = {role: EVENTS.get_field_index(role) for role in (USER, ITEM, KIND, VALUE, TIME)}
        tables.append(Table(directory / "recorded.parquet", "parquet", "utf-8", tuple(EVENTS.names), roles))
        names.append(RECORDED)
    size = sum(table.path.stat().st_size * (1 if table.form == "csv" else _UNPACKED) for table in tables)
    plan = {
        "domain": domain.model_dump(mode="json"),
        "now": now,
        "items": len(items.table),
        "items_file": items_file.path.name,
        "items_rows": items.rows,
        "bad_items": list(items.bad),
        "prepared": {sheet.name: {"rows": sheet.rows, "bad": sheet.bad} for sheet in prepared.sheets},
        "files": names,
        "timed": (timed := ["time" in table.columns for table in found]),
        "order": "time" if all(timed) else "rows" if not any(timed) and domain.source.events[0].order == "rows" else "none",
        "pieces": [{"file": at, "piece": piece.plain()} for at, table in enumerate(tables) for piece in pieces(table, piece_bytes)],
        "shards": min(max(1, round(size / shard_bytes)), _MOST_SHARDS),
    }
    write_json(directory / "plan.json", plan)


def _two_passes(domain: Domain, directory: Path, reporter: Reporter) -> dict[str, Any]:
    """Both passes, the limit checked after each; writes quarantine.csv and report.json and returns the report. Raises IngestRefused."""
    plan = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
    scattered: list[dict[str, Any]] = []
    gathered: list[dict[str, Any]] = []
    with started_for(max(len(plan["pieces"]), plan["shards"])):
        scattered = _run(scatter, "scatter", len(plan["pieces"]), directory, "reading events", reporter)
        report = report_of(plan, scattered, ())
        faults = _faults(domain, plan, report)
        if not faults:
            gathered = _run(gather, "gather", plan["shards"], directory, "sorting by user and time", reporter)
            report = report_of(plan, scattered, gathered)
            faults = _faults(domain, plan, report) or ([] if report["events"] else ["there is no good event"])
    counts = {"scatter": len(scattered), "gather": len(gathered)}
    parts = [directory / name / f"{number:05d}.csv" for name, count in counts.items() for number in range(count)]
    quarantine = write_quarantine(directory, plan, parts)
    write_json(directory / "report.json", {**report, "refused": faults} if faults else report)
    if faults:
        _tidy(directory)
        limit = domain.source.bad_rows
        accepted = f"accepted are {limit.share:.1%} of a file's rows, or {limit.rows} (source.bad_rows)"
        raise IngestRefused(f"{'; '.join(faults)}; {accepted}; all bad rows stand in {quarantine}", quarantine)
    return report


def _run(
    function: Callable[[Mapping[str, Any]], dict[str, Any]], name: str, count: int, directory: Path, what: str, reporter: Reporter
) -> list[dict[str, Any]]:
    """What `function` wrote of 0..count-1, in order; those that a run before has finished are not done again."""
    folder = directory / name
    folder.mkdir(exist_ok=True)
    left = [number for number in range(count) if not (folder / f"{number:05d}.json").is_file()]
    work = [{"directory": str(directory.absolute()), "number": number} for number in left]
    had = count - len(work)
    if had and work:
        reporter.say(f"{what}: going on after {had} of {count}")
    reporter.progress(what, had / count if count else 1.0)
    for done, _ in enumerate(each(function, work), start=had + 1):
        reporter.progress(what, done / count)
    return [json.loads((folder / f"{number:05d}.json").read_text(encoding="utf-8")) for number in range(count)]


def _faults(domain: Domain, plan: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """Why the run is to be refused, a sentence a file."""
    limit, faults = domain.source.bad_rows, []
    for name, file in report["files"].items():
        if name == RECORDED or file["bad"] <= limit.rows or file["share"] <= limit.share:
            continue
        most = sorted(file["reasons"].items(), key=lambda entry: -entry[1]["count"])
        why = ", ".join(f"{entry['count']} x {reason}" for reason, entry in most[:5])
        line, row = most[0][1]["examples"][0]
        share = f"{file['bad']} of {file['rows']} rows are bad ({file['share']:.1%})"
        faults.append(f"{name}: {share}: {why}; the first, line {line}: {row[:200]}")
    if not plan["items"]:
        faults.append(f"{plan['items_file']} has no good row")
    return faults


def _tidy(directory: Path) -> None:
    """Takes away what only a run under way needs."""
    for name in ("scatter", "gather"):
        shutil.rmtree(directory / name, ignore_errors=True)
    (directory / "recorded.parquet").unlink(missing_ok=True)
    (directory / "plan.json").unlink(missing_ok=True)


def _digest(table: pa.Table | None) -> str:
    """sha256 of a table's rows, "" for none."""
    if table is None or not len(table):
        return ""
    digest = hashlib.sha256()
    for batch in table.select(EVENTS.names).cast(EVENTS).combine_chunks().to_batches(max_chunksize=1_000_000):
        digest.update(batch.serialize())
    return digest.hexdigest()
