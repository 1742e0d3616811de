"""The tables, the same on SQLite and PostgreSQL, and one row of those that hold interactions as a plain value.

PostgreSQL has them in four schemas (users, profiling, recommendations, system); SQLite has no schemas, so there the schema's
name stands before the table's: users.sessions is users_sessions. Moments are microseconds UTC, ids text, JSON text. Long because
the whole database can be read in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from features.tables import AVAILABLE, EVENT_ID, ITEM, KIND, TIME, TITLE, USER, VALUE
from features.vocabulary import MAX_ID_BYTES

DOMAIN = "domain"
RECORDED_AT = "recorded_at"
SCHEMAS = ("users", "profiling", "recommendations", "system")
HASH = 64  # hexadecimal digits of a SHA-256
HANDLE = 32  # hexadecimal digits of an id made here
TARGET = 500  # characters of what a label or a choice is about: an id, a name, a work's title


class Tables:
    """All tables in one of the two forms. `prefixed`: as SQLite has them."""

    def __init__(self, prefixed: bool) -> None:
        self.metadata = sa.MetaData()
        self._prefixed = prefixed

        # -------------------------------------------------------- users

        #: Who logs in. `email` in lower case; `password` as argon2 writes it; either may be missing (Telegram alone).
        self.accounts = self._table(
            "users",
            "accounts",
            sa.Column("account", sa.String(HANDLE), primary_key=True),
            sa.Column("email", sa.String(254), unique=True),
            sa.Column("password", sa.String(200)),
            sa.Column("telegram_id", sa.BigInteger, unique=True),
            sa.Column("role", sa.String(20), nullable=False),  # user, analyst, admin
            sa.Column("status", sa.String(20), nullable=False),  # active, disabled
            sa.Column("created", sa.BigInteger, nullable=False),
            sa.Column("last_activity", sa.BigInteger, nullable=False),
            indices=[("by_status", "status")],
        )
        #: What a person says of themselves. Dates and times as ISO 8601 text: a birth time may be missing or rough.
        self.profiles = self._table(
            "users",
            "profiles",
            sa.Column("account", sa.String(HANDLE), primary_key=True),
            sa.Column("birth_date", sa.String(10)),
            sa.Column("birth_time", sa.String(8)),
            sa.Column("birth_city", sa.String(200)),
            sa.Column("subscription_status", sa.String(20), nullable=False),
            sa.Column("language", sa.String(8), nullable=False),
            sa.Column("updated", sa.BigInteger, nullable=False),
        )
        self.sessions = self._table(
            "users",
            "sessions",
            sa.Column("session", sa.String(HANDLE), primary_key=True),
            sa.Column("account", sa.String(HANDLE), nullable=False),
            sa.Column("created", sa.BigInteger, nullable=False),
            sa.Column("seen", sa.BigInteger, nullable=False),  # its last refresh
            sa.Column("expires", sa.BigInteger, nullable=False),
            sa.Column("device", sa.String(200), nullable=False),
            sa.Column("revoked_at", sa.BigInteger),
            sa.Column("revoked_why", sa.String(40)),  # logout, reuse, password, role, erased, admin
            indices=[("by_account", "account"), ("by_revoked_at", "revoked_at"), ("by_expires", "expires")],
        )
        #: Every refresh token there was, as its hash: one that comes a second time betrays a theft.
        self.refreshes = self._table(
            "users",
            "refreshes",
            sa.Column("hash", sa.String(HASH), primary_key=True),
            sa.Column("session", sa.String(HANDLE), nullable=False),
            sa.Column("issued", sa.BigInteger, nullable=False),
            sa.Column("used_at", sa.BigInteger),
            indices=[("by_session", "session")],
        )
        #: Which domain's user an account is. An account has at most one user in a domain, and a user one account.
        self.links = self._table(
            "users",
            "links",
            sa.Column(DOMAIN, sa.String(40), primary_key=True),
            sa.Column("account", sa.String(HANDLE), primary_key=True),
            sa.Column(USER, sa.String(MAX_ID_BYTES), nullable=False),
            sa.Column("linked_at", sa.BigInteger, nullable=False),
            sa.UniqueConstraint(DOMAIN, USER, name="one_account_of_a_user"),
            indices=[("by_account", "account"), ("by_linked_at", "linked_at")],
        )
        #: Machines' keys, as hashes. `scopes` separated by blanks.
        self.api_keys = self._table(
            "users",
            "api_keys",
            sa.Column("key", sa.String(HANDLE), primary_key=True),
            sa.Column("hash", sa.String(HASH), nullable=False, unique=True),
            sa.Column("name", sa.String(100), nullable=False),
            sa.Column("scopes", sa.Text, nullable=False),
            sa.Column("created", sa.BigInteger, nullable=False),
            sa.Column("expires", sa.BigInteger),
            sa.Column("revoked_at", sa.BigInteger),
            sa.Column("last_used", sa.BigInteger),
            indices=[("by_revoked_at", "revoked_at")],
        )
        #: What may be used once: a link to a new password, a signed Telegram payload.
        self.one_time = self._table(
            "users",
            "one_time",
            sa.Column("hash", sa.String(HASH), primary_key=True),
            sa.Column("purpose", sa.String(20), nullable=False),
            sa.Column("account", sa.String(HANDLE)),
            sa.Column("expires", sa.BigInteger, nullable=False),
            sa.Column("used_at", sa.BigInteger),
            indices=[("by_expires", "expires"), ("by_account", "account")],
        )
        #: What was taken back or erased, as keyed hashes: replicas learn from it whom to forget, and nobody can read who it was.
        self.erasures = self._table(
            "users",
            "erasures",
            sa.Column("hash", sa.String(HASH), primary_key=True),
            sa.Column("what", sa.String(20), nullable=False),  # account, session, link, user
            sa.Column("at", sa.BigInteger, nullable=False),
            indices=[("by_at", "at")],
        )
        #: What a person is told. `payload` is JSON: what happened, in machine form; the sentence is made when it is shown.
        self.notifications = self._table(
            "users",
            "notifications",
            sa.Column("notification", sa.String(HANDLE), primary_key=True),
            sa.Column("account", sa.String(HANDLE), nullable=False),
            sa.Column("kind", sa.String(40), nullable=False),
            sa.Column("payload", sa.Text, nullable=False),
            sa.Column("created", sa.BigInteger, nullable=False),
            sa.Column("read_at", sa.BigInteger),
            indices=[("by_account", "account", "created"), ("by_created", "created")],
        )

        # -------------------------------------------------------- profiling

        self.astro_data = self._table(
            "profiling",
            "astro_data",
            sa.Column("account", sa.String(HANDLE), primary_key=True),
            sa.Column("natal_chart", sa.Text, nullable=False),
            sa.Column("planetary_positions", sa.Text, nullable=False),
            sa.Column("houses", sa.Text, nullable=False),
            sa.Column("aspects", sa.Text, nullable=False),
            sa.Column("calculated_at", sa.BigInteger, nullable=False),
        )
        self.biorhythms = self._table(
            "profiling",
            "biorhythms",
            sa.Column("account", sa.String(HANDLE), primary_key=True),
            sa.Column("calculation_date", sa.Date, primary_key=True),
            sa.Column("physical_cycle", sa.Float, nullable=False),
            sa.Column("emotional_cycle", sa.Float, nullable=False),
            sa.Column("intellectual_cycle", sa.Float, nullable=False),
            sa.Column("intuitive_cycle", sa.Float, nullable=False),
            sa.Column("overall_energy", sa.Float, nullable=False),
            indices=[("by_date", "calculation_date")],
            by_range="calculation_date",
        )
        self.psychology_data = self._table(
            "profiling",
            "psychology_data",
            sa.Column("account", sa.String(HANDLE), primary_key=True),
            sa.Column("assessment_date", sa.BigInteger, primary_key=True),
            sa.Column("mbti_type", sa.String(8)),
            sa.Column("big5_scores", sa.Text),
            sa.Column("maslow_levels", sa.Text),
            sa.Column("values_ranking", sa.Text),
        )
        self.ml_profiles = self._table(
            "profiling",
            "ml_profiles",
            sa.Column("account", sa.String(HANDLE), primary_key=True),
            sa.Column("feature_vector", sa.LargeBinary, nullable=False),  # float32, little-endian
            sa.Column("optimal_activities", sa.Text, nullable=False),
            sa.Column("confidence_score", sa.Float, nullable=False),
            sa.Column("profile_version", sa.Integer, nullable=False),
            sa.Column("calculated_at", sa.BigInteger, nullable=False),
        )

        # -------------------------------------------------------- recommendations

        #: What happened. `time` is when it happened, `recorded_at` when a replica stamped it.
        self.events = self._table(
            "recommendations",
            "events",
            sa.Column(DOMAIN, sa.String(40), primary_key=True),
            sa.Column(EVENT_ID, sa.String(MAX_ID_BYTES), primary_key=True),
            sa.Column(USER, sa.String(MAX_ID_BYTES), nullable=False),
            sa.Column(ITEM, sa.String(MAX_ID_BYTES), nullable=False),
            sa.Column(KIND, sa.String(40), nullable=False),
            sa.Column(VALUE, sa.Float),
            sa.Column(TIME, sa.BigInteger, nullable=False),
            sa.Column(RECORDED_AT, sa.BigInteger, nullable=False),
            indices=[("by_user", DOMAIN, USER, ITEM), ("by_recorded_at", DOMAIN, RECORDED_AT)],
        )
        #: Every answer served, with what is needed to judge it later. `request` and `items` are JSON.
        self.slates = self._table(
            "recommendations",
            "slates",
            sa.Column("slate", sa.String(MAX_ID_BYTES), primary_key=True),
            sa.Column("created", sa.BigInteger, primary_key=True),
            sa.Column(DOMAIN, sa.String(40), nullable=False),
            sa.Column(USER, sa.String(MAX_ID_BYTES)),
            sa.Column("version", sa.String(MAX_ID_BYTES), nullable=False),
            sa.Column("variant", sa.String(40), nullable=False),
            sa.Column("mode", sa.String(40), nullable=False),
            sa.Column("degraded", sa.Text, nullable=False),  # names separated by commas, empty if nothing was missing
            sa.Column("notes", sa.Text, nullable=False),  # JSON list of sentences
            sa.Column("request", sa.Text, nullable=False),
            sa.Column("items", sa.Text, nullable=False),
            indices=[("by_created", DOMAIN, "created"), ("by_user", DOMAIN, USER)],
            by_range="created",
        )
        #: Items added while serving; `cells` is JSON, attribute -> cell as it came.
        self.items = self._table(
            "recommendations",
            "items",
            sa.Column(DOMAIN, sa.String(40), primary_key=True),
            sa.Column(ITEM, sa.String(MAX_ID_BYTES), primary_key=True),
            sa.Column(TITLE, sa.Text, nullable=False),
            sa.Column("cells", sa.Text, nullable=False),
            sa.Column(AVAILABLE, sa.Boolean, nullable=False),
            sa.Column(RECORDED_AT, sa.BigInteger, nullable=False),
            indices=[("by_recorded_at", DOMAIN, RECORDED_AT)],
        )
        self.daily_recommendations = self._table(
            "recommendations",
            "daily_recommendations",
            sa.Column("recommendation", sa.String(HANDLE), primary_key=True),
            sa.Column("recommendation_date", sa.Date, primary_key=True),
            sa.Column("account", sa.String(HANDLE), nullable=False),
            sa.Column("generated_text", sa.Text, nullable=False),
            sa.Column("activities_list", sa.Text, nullable=False),
            sa.Column("energy_level", sa.Float),
            sa.Column("cache_key", sa.String(200), nullable=False),
            sa.Column("feedback_score", sa.Integer),
            indices=[("by_account", "account", "recommendation_date")],
            by_range="recommendation_date",
        )
        self.feedback = self._table(
            "recommendations",
            "feedback",
            sa.Column("feedback", sa.String(HANDLE), primary_key=True),
            sa.Column("recommendation", sa.String(HANDLE), nullable=False),
            sa.Column("account", sa.String(HANDLE), nullable=False),
            sa.Column("rating", sa.Integer, nullable=False),  # 1 to 5
            sa.Column("completed_activities", sa.Text, nullable=False),
            sa.Column("comments", sa.Text, nullable=False),
            sa.Column("feedback_date", sa.BigInteger, nullable=False),
            indices=[("by_account", "account"), ("by_recommendation", "recommendation")],
        )

        # -------------------------------------------------------- itineraries

        #: What changes of a stop while serving. `free`: seats, -1 = unknown, as the source or an administrator last said; `on_sale`: as an
        #: administrator last said. Each is written without touching the other.
        self.availability = self._table(
            "recommendations",
            "availability",
            sa.Column(DOMAIN, sa.String(40), primary_key=True),
            sa.Column(ITEM, sa.String(MAX_ID_BYTES), primary_key=True),
            sa.Column("free", sa.Integer, nullable=False),
            sa.Column("on_sale", sa.Boolean, nullable=False),
            sa.Column("updated", sa.BigInteger, nullable=False),
            indices=[("by_updated", DOMAIN, "updated")],
        )
        #: What administrators set beside the labels of the timetable. One that was taken back stays, so that replicas learn of it.
        self.labels = self._table(
            "recommendations",
            "labels",
            sa.Column(DOMAIN, sa.String(40), primary_key=True),
            sa.Column("of", sa.String(20), primary_key=True),  # stop, artist, composer, work, route
            sa.Column("target", sa.String(TARGET), primary_key=True),
            sa.Column("label", sa.String(40), primary_key=True),
            sa.Column("present", sa.Boolean, nullable=False),
            sa.Column("updated", sa.BigInteger, nullable=False),
            indices=[("by_updated", DOMAIN, "updated")],
        )
        #: What a person said of stops and routes.
        self.choices = self._table(
            "recommendations",
            "choices",
            sa.Column(DOMAIN, sa.String(40), primary_key=True),
            sa.Column(USER, sa.String(MAX_ID_BYTES), primary_key=True),
            sa.Column("choice", sa.String(20), primary_key=True),  # favourite, bought, yes, no
            sa.Column("of", sa.String(20), primary_key=True),  # stop, route
            sa.Column("target", sa.String(TARGET), primary_key=True),
            sa.Column("chosen_at", sa.BigInteger, nullable=False),
        )
        #: What a newcomer answered last. `answers` is JSON.
        self.questionnaires = self._table(
            "recommendations",
            "questionnaires",
            sa.Column(DOMAIN, sa.String(40), primary_key=True),
            sa.Column(USER, sa.String(MAX_ID_BYTES), primary_key=True),
            sa.Column("answers", sa.Text, nullable=False),
            sa.Column("answered_at", sa.BigInteger, nullable=False),
        )
        #: Who wants which stops. `attempt`: what tells an order from the same one sent again; `stops` is a JSON list of ids.
        self.orders = self._table(
            "recommendations",
            "orders",
            sa.Column("order", sa.String(HANDLE), primary_key=True),
            sa.Column(DOMAIN, sa.String(40), nullable=False),
            sa.Column(USER, sa.String(MAX_ID_BYTES), nullable=False),
            sa.Column("attempt", sa.String(128), nullable=False),
            sa.Column("stops", sa.Text, nullable=False),
            sa.Column("party", sa.Integer, nullable=False),
            sa.Column("contact", sa.String(254), nullable=False),
            sa.Column("note", sa.Text, nullable=False),
            sa.Column("created", sa.BigInteger, nullable=False),
            sa.UniqueConstraint(DOMAIN, USER, "attempt", name="one_order_of_an_attempt"),
        )

        # -------------------------------------------------------- system

        #: Every request. `person` is a keyed hash; what was asked is not kept: privacy wins over the wish to see it.
        self.audit_log = self._table(
            "system",
            "audit_log",
            sa.Column("entry", sa.String(HANDLE), primary_key=True),
            sa.Column("at", sa.BigInteger, nullable=False),
            sa.Column("event_type", sa.String(20), nullable=False),  # READ, CREATE, UPDATE, DELETE, LOGIN, REFUSED, ERROR
            sa.Column("person", sa.String(HASH)),
            sa.Column("about", sa.String(HASH)),  # whom a caller with an account or a key asked about, hashed alike
            sa.Column("caller", sa.String(20), nullable=False),  # anonymous, account, key
            sa.Column("service_name", sa.String(40), nullable=False),
            sa.Column("method", sa.String(10), nullable=False),
            sa.Column("endpoint", sa.String(200), nullable=False),  # the route's template, never the address
            sa.Column("response_status", sa.Integer, nullable=False),
            sa.Column("request_id", sa.String(64), nullable=False),
            sa.Column("ms", sa.Float, nullable=False),
            indices=[("by_at", "at"), ("by_person", "person", "at"), ("by_about", "about", "at")],
        )
        self.metrics = self._table(
            "system",
            "metrics",
            sa.Column("metric", sa.String(HANDLE), primary_key=True),
            sa.Column("service_name", sa.String(40), nullable=False),
            sa.Column("metric_name", sa.String(80), nullable=False),
            sa.Column("metric_value", sa.Float, nullable=False),
            sa.Column("metric_timestamp", sa.BigInteger, nullable=False),
            sa.Column("tags", sa.Text, nullable=False),
            indices=[("by_timestamp", "metric_timestamp")],
        )
        #: What happened and must be told, written in the transaction of the thing itself.
        self.outbox = self._table(
            "system",
            "outbox",
            sa.Column("event_id", sa.String(MAX_ID_BYTES), primary_key=True),
            sa.Column("type", sa.String(60), nullable=False),
            sa.Column("version", sa.Integer, nullable=False),
            sa.Column("occurred_at", sa.BigInteger, nullable=False),
            sa.Column("key", sa.String(MAX_ID_BYTES), nullable=False),  # what must stay in order: a person, a domain
            sa.Column("payload", sa.Text, nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False, default=0),
            sa.Column("due_at", sa.BigInteger, nullable=False),
            sa.Column("published_at", sa.BigInteger),
            sa.Column("error", sa.Text),
            indices=[("by_due_at", "published_at", "due_at"), ("by_key", "key", "published_at", "occurred_at")],
        )
        #: What a consumer has taken: written in the transaction of its effect, so that the effect is one.
        self.inbox = self._table(
            "system",
            "inbox",
            sa.Column("consumer", sa.String(40), primary_key=True),
            sa.Column("event_id", sa.String(MAX_ID_BYTES), primary_key=True),
            sa.Column("state", sa.String(20), nullable=False),  # done; begun = an effect outside the database was started; dead
            sa.Column("at", sa.BigInteger, nullable=False),
            indices=[("by_at", "at")],
        )
        self.dead_letters = self._table(
            "system",
            "dead_letters",
            sa.Column("consumer", sa.String(40), primary_key=True),
            sa.Column("event_id", sa.String(MAX_ID_BYTES), primary_key=True),
            sa.Column("envelope", sa.Text, nullable=False),
            sa.Column("error", sa.Text, nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("at", sa.BigInteger, nullable=False),
            sa.Column("replayed_at", sa.BigInteger),
            indices=[("by_at", "at")],
        )
        #: Who does what only one may do; gone to the next when the time is up.
        self.leases = self._table(
            "system",
            "leases",
            sa.Column("name", sa.String(80), primary_key=True),
            sa.Column("holder", sa.String(80), nullable=False),
            sa.Column("until", sa.BigInteger, nullable=False),
        )

    def _table(
        self,
        schema: str,
        name: str,
        *parts: sa.schema.SchemaItem,
        indices: list[tuple[str, ...]] | None = None,
        by_range: str | None = None,
    ) -> sa.Table:
        """`indices`: a name and columns each. `by_range`: PostgreSQL keeps the table in partitions by this column."""
        whole = f"{schema}_{name}" if self._prefixed else name
        also = [sa.Index(f"{schema}_{name}_{called}", *columns) for called, *columns in indices or ()]
        options: dict[str, Any] = {"postgresql_partition_by": f"RANGE ({by_range})"} if by_range and not self._prefixed else {}
        return sa.Table(
            whole, self.metadata, *parts, *also, schema=None if self._prefixed else schema, info={"by_range": by_range}, **options
        )


SQLITE = Tables(prefixed=True)
POSTGRESQL = Tables(prefixed=False)


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
