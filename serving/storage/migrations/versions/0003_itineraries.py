"""What itineraries need: seats, labels, what people chose and answered, orders, as serving/storage/tables.py had them when this was
written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from serving.storage.migrations.form import Form

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    form = Form(op.get_bind())
    form.table(
        "recommendations",
        "availability",
        sa.Column("domain", sa.String(40), primary_key=True),
        sa.Column("item", sa.String(200), primary_key=True),
        sa.Column("free", sa.Integer, nullable=False),
        sa.Column("on_sale", sa.Boolean, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        indices={
            "by_updated": ("domain", "updated"),
        },
    )
    form.table(
        "recommendations",
        "labels",
        sa.Column("domain", sa.String(40), primary_key=True),
        sa.Column("of", sa.String(20), primary_key=True),
        sa.Column("target", sa.String(500), primary_key=True),
        sa.Column("label", sa.String(40), primary_key=True),
        sa.Column("present", sa.Boolean, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        indices={
            "by_updated": ("domain", "updated"),
        },
    )
    form.table(
        "recommendations",
        "choices",
        sa.Column("domain", sa.String(40), primary_key=True),
        sa.Column("user", sa.String(200), primary_key=True),
        sa.Column("choice", sa.String(20), primary_key=True),
        sa.Column("of", sa.String(20), primary_key=True),
        sa.Column("target", sa.String(500), primary_key=True),
        sa.Column("chosen_at", sa.BigInteger, nullable=False),
    )
    form.table(
        "recommendations",
        "questionnaires",
        sa.Column("domain", sa.String(40), primary_key=True),
        sa.Column("user", sa.String(200), primary_key=True),
        sa.Column("answers", sa.Text, nullable=False),
        sa.Column("answered_at", sa.BigInteger, nullable=False),
    )
    form.table(
        "recommendations",
        "orders",
        sa.Column("order", sa.String(32), primary_key=True),
        sa.Column("domain", sa.String(40), nullable=False),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("attempt", sa.String(128), nullable=False),
        sa.Column("stops", sa.Text, nullable=False),
        sa.Column("party", sa.Integer, nullable=False),
        sa.Column("contact", sa.String(254), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("domain", "user", "attempt", name="one_order_of_an_attempt"),
    )
