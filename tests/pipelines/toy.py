"""A domain of plain files for the tests of ingest: two kinds of status, a scale from 1 to 10, a count."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from configs.domain import Domain
from features.tables import ITEM, KIND, TIME, USER, VALUE
from pipelines.steps import Reporter

NOW = 1_700_000_000_000_000  # microseconds UTC, 2023-11-14
HEADING = ["user_id", "item_id", "rating", "status", "count", "event_time"]
ITEMS = [
    ["item_id", "title", "genre", "length"],
    ["1", "Alpha", "Drama, War", "24"],
    ["2", "Beta", "", "Unknown"],
    ["3", "Gamma", "Comedy", "12"],
]


def domain(**source: Any) -> Domain:
    """The toy domain; words of `source` replace those of its YAML."""
    return Domain.model_validate(
        {
            "name": "toy",
            "title": "Toy",
            "items": {"attributes": {"genre": {"type": "tags"}, "length": {"type": "number", "low": 0}}},
            "events": {
                "scale": {"low": 1, "high": 10, "liked_from": 7, "disliked_to": 4},
                "kinds": {"seen": {"means": ["seen"]}, "planned": {"means": ["interest"]}, "undo": {"means": ["undo"]}},
            },
            "source": {
                "items": {"files": ["items.csv", "items.csv.gz", "items.parquet"]},
                "events": [
                    {
                        "files": ["events.csv", "events.csv.gz", "events.parquet"],
                        "progress": ["count"],
                        "kinds": {"1": "seen", "2": "planned", "Plan to Watch": "planned"},
                    }
                ],
                "bad_rows": {"share": 1.0, "rows": 1_000_000},
                "future_tolerance_s": 3_600,
                **source,
            },
            "candidates": {"popular": {"model": "popularity"}},
        }
    )


def row(user: object, item: object, when: object, rating: object = "", status: object = "seen", count: object = "") -> list[str]:
    """A row of the events' file."""
    return [str(cell) for cell in (user, item, rating, status, count, when)]


def text(rows: Iterable[Sequence[str]], end: str = "\n") -> str:
    """Rows as a CSV."""
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end).writerows(rows)
    return out.getvalue()


def folder(directory: Path, events: str | bytes, items: Sequence[Sequence[str]] = ITEMS, name: str = "events.csv") -> Path:
    """A data folder with these files."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "items.csv").write_text(text(items), encoding="utf-8")
    data = events.encode() if isinstance(events, str) else events
    (directory / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return directory


def parquet(directory: Path, events: str, items: Sequence[Sequence[str]] = ITEMS) -> Path:
    """The same as Parquet, with the types that Arrow guesses (ids as integers, times as timestamps)."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, raw in (("items", text(items)), ("events", events)):
        pq.write_table(pa.csv.read_csv(pa.BufferReader(raw.encode())), directory / f"{name}.parquet", row_group_size=3)
    return directory


def events(step: Path) -> list[tuple[Any, ...]]:
    """All events of an ingest's directory as (user, item, kind, value, microseconds), in the order of the parts."""
    out: list[tuple[Any, ...]] = []
    for part in sorted((step / "events").glob("part-*.parquet")):
        table = pq.read_table(part)
        table = table.set_column(table.schema.get_field_index(TIME), TIME, table.column(TIME).cast(pa.int64()))
        out.extend(tuple(one[name] for name in (USER, ITEM, KIND, VALUE, TIME)) for one in table.to_pylist())
    return out


def silent() -> Reporter:
    return Reporter(quiet=True)
