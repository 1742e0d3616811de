"""Canonical tables: the only place that spells a column's name.

`events.time` is UTC in microseconds; null where the source has no times (then the whole file has none: such a domain has
no order and is never split by time). `events.value` is a rating; in a domain without a scale, how many were taken at once.
"""

from __future__ import annotations

import pyarrow as pa

USER = "user"
ITEM = "item"
TITLE = "title"
AVAILABLE = "available"
KIND = "kind"
VALUE = "value"
TIME = "time"
EVENT_ID = "event_id"
RANK = "rank"
SCORE = "score"
MODEL_VERSION = "model_version"
DATE = "date"
FILE = "file"
LINE = "line"
REASON = "reason"

#: One row an event. `value` is the rating in the domain's own scale, or a quantity where it has none; null where none was given.
EVENTS = pa.schema(
    [
        pa.field(USER, pa.string(), nullable=False),
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(KIND, pa.string(), nullable=False),
        pa.field(VALUE, pa.float32()),
        pa.field(TIME, pa.timestamp("us", tz="UTC")),
    ]
)

#: One row a refused line: which file, which line (1 = the heading of a CSV; a row's number in Parquet), why, and the row as read.
QUARANTINE = pa.schema(
    [pa.field(FILE, pa.string()), pa.field(LINE, pa.int64()), pa.field(REASON, pa.string()), pa.field("row", pa.string())]
)

#: One row a user and a recommended item, as batch scoring writes them (partitioned by `date`).
SCORED = pa.schema(
    [
        pa.field(USER, pa.string(), nullable=False),
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(RANK, pa.int16(), nullable=False),
        pa.field(SCORE, pa.float32(), nullable=False),
        pa.field(MODEL_VERSION, pa.string(), nullable=False),
    ]
)
