"""Four schemas, users, profiling, recommendations and system, as serving/storage/tables.py had them when this was written. What the
tables of before held moves into them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from serving.storage.migrations.form import Form

revision = "0002"
down_revision = "0001"

_SCHEMAS = ("users", "profiling", "recommendations", "system")


def upgrade() -> None:
    form = Form(op.get_bind())
    form.schemas(_SCHEMAS)
    for schema in (_users, _profiling, _recommendations, _system):
        schema(form)
    for table in ("events", "slates", "items"):
        form.move(table, "recommendations")


def _users(form: Form) -> None:
    form.table(
        "users",
        "accounts",
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("email", sa.String(254), unique=True),
        sa.Column("password", sa.String(200)),
        sa.Column("telegram_id", sa.BigInteger, unique=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("last_activity", sa.BigInteger, nullable=False),
        indices={
            "by_status": ("status",),
        },
    )
    form.table(
        "users",
        "profiles",
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("birth_date", sa.String(10)),
        sa.Column("birth_time", sa.String(8)),
        sa.Column("birth_city", sa.String(200)),
        sa.Column("subscription_status", sa.String(20), nullable=False),
        sa.Column("language", sa.String(8), nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
    )
    form.table(
        "users",
        "sessions",
        sa.Column("session", sa.String(32), primary_key=True),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("device", sa.String(200), nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("revoked_why", sa.String(40)),
        indices={
            "by_account": ("account",),
            "by_expires": ("expires",),
            "by_revoked_at": ("revoked_at",),
        },
    )
    form.table(
        "users",
        "refreshes",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("session", sa.String(32), nullable=False),
        sa.Column("issued", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
        indices={
            "by_session": ("session",),
        },
    )
    form.table(
        "users",
        "links",
        sa.Column("domain", sa.String(40), primary_key=True),
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("linked_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("domain", "user", name="one_account_of_a_user"),
        indices={
            "by_account": ("account",),
            "by_linked_at": ("linked_at",),
        },
    )
    form.table(
        "users",
        "api_keys",
        sa.Column("key", sa.String(32), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("last_used", sa.BigInteger),
        indices={
            "by_revoked_at": ("revoked_at",),
        },
    )
    form.table(
        "users",
        "one_time",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("purpose", sa.String(20), nullable=False),
        sa.Column("account", sa.String(32)),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
        indices={
            "by_account": ("account",),
            "by_expires": ("expires",),
        },
    )
    form.table(
        "users",
        "erasures",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        indices={
            "by_at": ("at",),
        },
    )
    form.table(
        "users",
        "notifications",
        sa.Column("notification", sa.String(32), primary_key=True),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("read_at", sa.BigInteger),
        indices={
            "by_account": ("account", "created"),
            "by_created": ("created",),
        },
    )


def _profiling(form: Form) -> None:
    form.table(
        "profiling",
        "astro_data",
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("natal_chart", sa.Text, nullable=False),
        sa.Column("planetary_positions", sa.Text, nullable=False),
        sa.Column("houses", sa.Text, nullable=False),
        sa.Column("aspects", sa.Text, nullable=False),
        sa.Column("calculated_at", sa.BigInteger, nullable=False),
    )
    form.table(
        "profiling",
        "biorhythms",
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("calculation_date", sa.Date, primary_key=True),
        sa.Column("physical_cycle", sa.Float, nullable=False),
        sa.Column("emotional_cycle", sa.Float, nullable=False),
        sa.Column("intellectual_cycle", sa.Float, nullable=False),
        sa.Column("intuitive_cycle", sa.Float, nullable=False),
        sa.Column("overall_energy", sa.Float, nullable=False),
        indices={
            "by_date": ("calculation_date",),
        },
        by_range="calculation_date",
    )
    form.table(
        "profiling",
        "psychology_data",
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("assessment_date", sa.BigInteger, primary_key=True),
        sa.Column("mbti_type", sa.String(8)),
        sa.Column("big5_scores", sa.Text),
        sa.Column("maslow_levels", sa.Text),
        sa.Column("values_ranking", sa.Text),
    )
    form.table(
        "profiling",
        "ml_profiles",
        sa.Column("account", sa.String(32), primary_key=True),
        sa.Column("feature_vector", sa.LargeBinary, nullable=False),
        sa.Column("optimal_activities", sa.Text, nullable=False),
        sa.Column("confidence_score", sa.Float, nullable=False),
        sa.Column("profile_version", sa.Integer, nullable=False),
        sa.Column("calculated_at", sa.BigInteger, nullable=False),
    )


def _recommendations(form: Form) -> None:
    form.table(
        "recommendations",
        "events",
        sa.Column("domain", sa.String(40), primary_key=True),
        sa.Column("event_id", sa.String(200), primary_key=True),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("item", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        indices={
            "by_recorded_at": ("domain", "recorded_at"),
            "by_user": ("domain", "user", "item"),
        },
    )
    form.table(
        "recommendations",
        "slates",
        sa.Column("slate", sa.String(200), primary_key=True),
        sa.Column("created", sa.BigInteger, primary_key=True),
        sa.Column("domain", sa.String(40), nullable=False),
        sa.Column("user", sa.String(200)),
        sa.Column("version", sa.String(200), nullable=False),
        sa.Column("variant", sa.String(40), nullable=False),
        sa.Column("mode", sa.String(40), nullable=False),
        sa.Column("degraded", sa.Text, nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("items", sa.Text, nullable=False),
        indices={
            "by_created": ("domain", "created"),
            "by_user": ("domain", "user"),
        },
        by_range="created",
    )
    form.table(
        "recommendations",
        "items",
        sa.Column("domain", sa.String(40), primary_key=True),
        sa.Column("item", sa.String(200), primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("cells", sa.Text, nullable=False),
        sa.Column("available", sa.Boolean, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        indices={
            "by_recorded_at": ("domain", "recorded_at"),
        },
    )
    form.table(
        "recommendations",
        "daily_recommendations",
        sa.Column("recommendation", sa.String(32), primary_key=True),
        sa.Column("recommendation_date", sa.Date, primary_key=True),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("generated_text", sa.Text, nullable=False),
        sa.Column("activities_list", sa.Text, nullable=False),
        sa.Column("energy_level", sa.Float),
        sa.Column("cache_key", sa.String(200), nullable=False),
        sa.Column("feedback_score", sa.Integer),
        indices={
            "by_account": ("account", "recommendation_date"),
        },
        by_range="recommendation_date",
    )
    form.table(
        "recommendations",
        "feedback",
        sa.Column("feedback", sa.String(32), primary_key=True),
        sa.Column("recommendation", sa.String(32), nullable=False),
        sa.Column("account", sa.String(32), nullable=False),
        sa.Column("rating", sa.Integer, nullable=False),
        sa.Column("completed_activities", sa.Text, nullable=False),
        sa.Column("comments", sa.Text, nullable=False),
        sa.Column("feedback_date", sa.BigInteger, nullable=False),
        indices={
            "by_account": ("account",),
            "by_recommendation": ("recommendation",),
        },
    )


def _system(form: Form) -> None:
    form.table(
        "system",
        "audit_log",
        sa.Column("entry", sa.String(32), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("event_type", sa.String(20), nullable=False),
        sa.Column("person", sa.String(64)),
        sa.Column("about", sa.String(64)),
        sa.Column("caller", sa.String(20), nullable=False),
        sa.Column("service_name", sa.String(40), nullable=False),
        sa.Column("method", sa.String(10), nullable=False),
        sa.Column("endpoint", sa.String(200), nullable=False),
        sa.Column("response_status", sa.Integer, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("ms", sa.Float, nullable=False),
        indices={
            "by_at": ("at",),
            "by_person": ("person", "at"),
            "by_about": ("about", "at"),
        },
    )
    form.table(
        "system",
        "metrics",
        sa.Column("metric", sa.String(32), primary_key=True),
        sa.Column("service_name", sa.String(40), nullable=False),
        sa.Column("metric_name", sa.String(80), nullable=False),
        sa.Column("metric_value", sa.Float, nullable=False),
        sa.Column("metric_timestamp", sa.BigInteger, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        indices={
            "by_timestamp": ("metric_timestamp",),
        },
    )
    form.table(
        "system",
        "outbox",
        sa.Column("event_id", sa.String(200), primary_key=True),
        sa.Column("type", sa.String(60), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("occurred_at", sa.BigInteger, nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("published_at", sa.BigInteger),
        sa.Column("error", sa.Text),
        indices={
            "by_due_at": ("published_at", "due_at"),
            "by_key": ("key", "published_at", "occurred_at"),
        },
    )
    form.table(
        "system",
        "inbox",
        sa.Column("consumer", sa.String(40), primary_key=True),
        sa.Column("event_id", sa.String(200), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        indices={
            "by_at": ("at",),
        },
    )
    form.table(
        "system",
        "dead_letters",
        sa.Column("consumer", sa.String(40), primary_key=True),
        sa.Column("event_id", sa.String(200), primary_key=True),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("replayed_at", sa.BigInteger),
        indices={
            "by_at": ("at",),
        },
    )
    form.table(
        "system",
        "leases",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("holder", sa.String(80), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
