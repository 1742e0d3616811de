"""Where things run: addresses, replicas, limits. Secrets are not here: they come from the environment only."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from configs.domain import Positive, Word

Port = Annotated[int, Field(ge=1, le=65_535)]


class Http(Word):
    host: str = "127.0.0.1"
    port: Port = 8000
    timeout_s: Positive = 15.0  # a request that takes longer is given up with 408
    body_limit: Annotated[int, Field(ge=1_024)] = 65_536  # bytes; above it a request is refused with 413
    history_limit: Annotated[int, Field(ge=1)] = 1_000  # ids in a request's history
    events_limit: Annotated[int, Field(ge=1)] = 500  # events in one POST


class Replicas(Word):
    """`packed`: the engine lives in the gateway's process (small machine). `spread`: gateways and recommenders are
    deployments of their own and scale apart (cluster)."""

    layout: Literal["packed", "spread"] = "packed"
    gateways: Annotated[int, Field(ge=1, le=1_000)] = 2
    recommenders: Annotated[int, Field(ge=1, le=1_000)] = 2
    most_gateways: Annotated[int, Field(ge=1, le=1_000)] | None = None  # Ray adds replicas up to here under load; none: no more
    most_recommenders: Annotated[int, Field(ge=1, le=1_000)] | None = None
    busy: Positive = 16.0  # requests under way at a replica, on average, above which one more is started
    cpus: Annotated[float, Field(ge=0.0)] = 0.5  # reserved for each replica
    ongoing: Annotated[int, Field(ge=1)] = 64  # requests a replica takes at once
    queued: Annotated[int, Field(ge=1)] = 512  # more wait so many, then 503 with Retry-After


class Storage(Word):
    """`url` as SQLAlchemy reads it; empty = SQLite in the home folder. FACTOTUM_DATABASE_URL overrides it."""

    url: str = ""
    poll_ms: Positive = 200.0  # how often a replica looks for events written by others
    settle_s: Positive = 10.0  # an event may become visible so long after it was stamped
    spool: Annotated[int, Field(ge=100)] = 20_000  # slates kept in memory while the database is away


def _network(text: str) -> str:
    ip_network(text)  # its ValueError says what is wrong
    return text


Network = Annotated[str, AfterValidator(_network)]
Count = Annotated[int, Field(ge=1)]


class Access(Word):
    """Who may come in, and for how long. The keys that tokens are signed with come from the environment."""

    issuer: str = "factotum"
    audience: str = "factotum"
    access_minutes: Positive = 15.0  # an access token lives so long
    refresh_days: Positive = 30.0  # a session ends so long after its last refresh
    session_days: Positive = 180.0  # and so long after its login at the latest
    reset_minutes: Positive = 30.0  # the mail for a new password is good for so long
    telegram_seconds: Positive = 300.0  # a signed Telegram payload is believed for so long, and once
    registration: bool = True  # whether anybody may make an account
    origins: tuple[str, ...] = ()  # pages of other origins that may call (CORS); none unless named here
    proxies: tuple[Network, ...] = ()  # proxies beyond this machine whose word about the client's address is believed
    argon2_kib: Annotated[int, Field(ge=8_192)] = 19_456  # memory of one password hash (OWASP: 19 MiB, 2 passes, 1 lane)
    argon2_passes: Count = 2


class Limits(Word):
    """Requests a minute, in a moving window. `store`: where the counts are; `auto` takes Redis where FACTOTUM_REDIS_URL names one,
    this process where there is one gateway, a file of the home folder where several share a machine and its SQLite."""

    person: Count = 50
    key: Count = 600  # of a machine's key, unless the key is exempt
    anonymous: Count | None = None  # of one address without a token, on open domains; none: not counted
    credentials: Count = 20  # log-ins, registrations and resets of one address, and of one account
    store: Literal["auto", "process", "file", "redis"] = "auto"


class Caching(Word):
    """Levels: this process, then Redis where FACTOTUM_REDIS_URL names one. Lifetimes in seconds, by kind of data."""

    entries: Count = 2_000  # in this process, of each kind
    near_s: Positive = 2.0  # what another replica changed may be seen so late from this process's own level
    similar_s: Positive = 600.0
    key_s: Positive = 30.0
    view_s: Positive = 300.0  # analytics
    profile_s: Positive = 3_600.0
    sentence_s: Positive = 86_400.0


class Breakers(Word):
    """A dependency that failed `failures` times in a row is left alone, then tried once: first after an eighth of `open_s`, after twice
    that each time it failed again, at most `open_s`. The database and Redis are asked four times a second whether they are back."""

    failures: Count = 5
    open_s: Positive = 5.0


class Bus(Word):
    """How what happened reaches those it concerns. `process`: the relay delivers by itself; `kafka`: through topics."""

    kind: Literal["process", "kafka"] = "process"
    brokers: str = ""  # host:port, with commas between; FACTOTUM_KAFKA_BROKERS overrides it
    prefix: str = "factotum"  # of the topics' names
    poll_ms: Positive = 200.0
    attempts: Count = 8  # then it is a dead letter
    backoff_s: Positive = 0.5  # before the second attempt; doubled each time, with jitter
    longest_backoff_s: Positive = 300.0


class Mail(Word):
    """FACTOTUM_SMTP_URL (smtp://user:password@host:587, smtps://...) names the server; without it nothing is sent, and that is said."""

    sender: str = "factotum@localhost"
    timeout_s: Positive = 10.0


class Retention(Word):
    """Days that each kind of data is kept; none: for ever. A person's own data go when they erase them."""

    slates: Positive = 30.0
    events: Positive | None = None
    audit: Positive = 180.0
    sessions: Positive = 30.0  # after their end
    notifications: Positive = 180.0
    outbox: Positive = 7.0  # after delivery
    dead_letters: Positive = 90.0
    metrics: Positive = 90.0


class Deployment(Word):
    environment: Literal["development", "production"] = "development"  # production: keys must be given, and be strong
    public_url: str = "http://127.0.0.1:8000"  # how people reach it: the links in mails begin with it
    http: Http = Http()
    replicas: Replicas = Replicas()
    storage: Storage = Storage()
    access: Access = Access()
    limits: Limits = Limits()
    caching: Caching = Caching()
    breakers: Breakers = Breakers()
    bus: Bus = Bus()
    mail: Mail = Mail()
    retention: Retention = Retention()
    poll_bundles_ms: Positive = 500.0  # how often a replica looks whether another bundle was promoted
    drain_s: Positive = 8.0
    proxy: Literal["haproxy", "ray"] = "haproxy"
    metrics: bool = True

    @property
    def gateways(self) -> int:
        """The most gateway replicas there may be at once."""
        return max(self.replicas.gateways, self.replicas.most_gateways or 0)

    @model_validator(mode="after")
    def _one_count_for_all(self) -> Self:
        if self.limits.store == "process" and self.gateways > 1:
            raise ValueError(
                f"limits.store: process counts in each gateway by itself, and there may be {self.gateways}; allowed are redis, "
                "file (one machine) and auto, or replicas.gateways: 1"
            )
        return self
