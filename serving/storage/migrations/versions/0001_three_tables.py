"""Events, slates and items, without schemas: the tables of the first version, which had no revisions. Where they stand, they are
taken over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.String(200)


def upgrade() -> None:
    there = set(sa.inspect(op.get_bind()).get_table_names())
    if "events" not in there:
        op.create_table(
            "events",
            sa.Column("domain", sa.String(40), primary_key=True),
            sa.Column("event_id", _ID, primary_key=True),
            sa.Column("user", _ID, nullable=False),
            sa.Column("item", _ID, nullable=False),
            sa.Column("kind", sa.String(40), nullable=False),
            sa.Column("value", sa.Float),
            sa.Column("time", sa.BigInteger, nullable=False),
            sa.Column("recorded_at", sa.BigInteger, nullable=False),
        )
        op.create_index("events_by_user", "events", ["domain", "user"])
        op.create_index("events_by_recorded_at", "events", ["domain", "recorded_at"])
    if "slates" not in there:
        op.create_table(
            "slates",
            sa.Column("slate", _ID, primary_key=True),
            sa.Column("domain", sa.String(40), nullable=False),
            sa.Column("user", _ID),
            sa.Column("version", _ID, nullable=False),
            sa.Column("variant", sa.String(40), nullable=False),
            sa.Column("mode", sa.String(40), nullable=False),
            sa.Column("degraded", sa.Text, nullable=False),
            sa.Column("notes", sa.Text, nullable=False),
            sa.Column("request", sa.Text, nullable=False),
            sa.Column("items", sa.Text, nullable=False),
            sa.Column("created", sa.BigInteger, nullable=False),
        )
        op.create_index("slates_by_created", "slates", ["domain", "created"])
        op.create_index("slates_by_user", "slates", ["domain", "user"])
    if "items" not in there:
        op.create_table(
            "items",
            sa.Column("domain", sa.String(40), primary_key=True),
            sa.Column("item", _ID, primary_key=True),
            sa.Column("title", sa.Text, nullable=False),
            sa.Column("cells", sa.Text, nullable=False),
            sa.Column("available", sa.Boolean, nullable=False),
            sa.Column("recorded_at", sa.BigInteger, nullable=False),
        )
        op.create_index("items_by_recorded_at", "items", ["domain", "recorded_at"])
