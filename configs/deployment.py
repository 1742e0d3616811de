"""Where things run: addresses, replicas, limits. Secrets are not here: they come from the environment only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

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
    slate_days: Positive = 30.0


class Deployment(Word):
    http: Http = Http()
    replicas: Replicas = Replicas()
    storage: Storage = Storage()
    poll_bundles_ms: Positive = 500.0  # how often a replica looks whether another bundle was promoted
    drain_s: Positive = 8.0
    proxy: Literal["haproxy", "ray"] = "haproxy"
    metrics: bool = True
