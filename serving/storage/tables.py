"""The tables of the database, the same on SQLite and PostgreSQL, and one row of each as a plain value."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from features.tables import AVAILABLE, EVENT_ID, ITEM, KIND, TIME, TITLE, USER, VALUE
from features.vocabulary import MAX_ID_BYTES

DOMAIN = "domain"
RECORDED_AT = "recorded_at"

metadata = sa.MetaData()

#: What happened. `time` is when it happened, `recorded_at` when a replica stamped it; both in microseconds UTC.
events = sa.Table(
    "events",
    metadata,
    sa.Column(DOMAIN, sa.String(40), primary_key=True),
    sa.Column(EVENT_ID, sa.String(MAX_ID_BYTES), primary_key=True),
    sa.Column(USER, sa.String(MAX_ID_BYTES), nullable=False),
    sa.Column(ITEM, sa.String(MAX_ID_BYTES), nullable=False),
    sa.Column(KIND, sa.String(40), nullable=False),
    sa.Column(VALUE, sa.Float),
    sa.Column(TIME, sa.BigInteger, nullable=False),
    sa.Column(RECORDED_AT, sa.BigInteger, nullable=False),
    sa.Index("events_by_user", DOMAIN, USER),
    sa.Index("events_by_recorded_at", DOMAIN, RECORDED_AT),
)

#: Every answer served, with what is needed to judge it later. `request` and `items` are JSON as text.
slates = sa.Table(
    "slates",
    metadata,
    sa.Column("slate", sa.String(MAX_ID_BYTES), primary_key=True),
    sa.Column(DOMAIN, sa.String(40), nullable=False),
    sa.Column(USER, sa.String(MAX_ID_BYTES)),
    sa.Column("version", sa.String(MAX_ID_BYTES), nullable=False),
    sa.Column("variant", sa.String(40), nullable=False),
    sa.Column("mode", sa.String(40), nullable=False),
    sa.Column("degraded", sa.Text, nullable=False),  # names separated by commas, empty if nothing was missing
    sa.Column("notes", sa.Text, nullable=False),  # JSON list of sentences
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("items", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Index("slates_by_created", DOMAIN, "created"),
    sa.Index("slates_by_user", DOMAIN, USER),
)

#: Items added while serving; `cells` is JSON as text, attribute -> cell as it came.
items = sa.Table(
    "items",
    metadata,
    sa.Column(DOMAIN, sa.String(40), primary_key=True),
    sa.Column(ITEM, sa.String(MAX_ID_BYTES), primary_key=True),
    sa.Column(TITLE, sa.Text, nullable=False),
    sa.Column("cells", sa.Text, nullable=False),
    sa.Column(AVAILABLE, sa.Boolean, nullable=False),
    sa.Column(RECORDED_AT, sa.BigInteger, nullable=False),
    sa.Index("items_by_recorded_at", DOMAIN, RECORDED_AT),
)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    event_id: str
    user: str
    item: str
    kind: str
    value: float | None
    time: int
    recorded_at: int = 0  # stamped by the database layer when it is written


@dataclass(frozen=True, slots=True)
class StoredItem:
    item: str
    title: str
    cells: str
    available: bool
    recorded_at: int = 0


@dataclass(frozen=True, slots=True)
class StoredSlate:
    slate: str
    domain: str
    user: str | None
    version: str
    variant: str
    mode: str
    degraded: tuple[str, ...]
    notes: str
    request: str
    items: str
    created: int
