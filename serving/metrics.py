"""What can be watched: Prometheus metrics of one process, in a registry of its own, and their union over the processes of a machine.

A load balancer sends a scrape to any one replica. So each replica leaves a copy of its figures in the home folder, and
`/metrics` of any of them shows all, told apart by the label `replica`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

STALE_S = 15.0  # a copy older than this belongs to a replica that is gone
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.replica = f"{os.getpid()}-{time.time_ns() // 1_000_000 % 1_000_000:06d}"
        self.requests = Counter("factotum_requests", "Requests answered", ("route", "method", "status"), registry=registry)
        self.request_seconds = Histogram("factotum_request_seconds", "Time to answer", ("route",), buckets=_SECONDS, registry=registry)
        self.in_flight = Gauge("factotum_requests_in_flight", "Requests being answered", registry=registry)
        self.errors = Counter("factotum_errors", "Things that went wrong inside", ("part",), registry=registry)
        self.stage_seconds = Histogram(
            "factotum_stage_seconds", "Time of a stage of a recommendation", ("domain", "stage"), buckets=_SECONDS, registry=registry
        )
        self.degraded = Counter("factotum_degraded", "Answers in which a part was missing", ("domain", "part"), registry=registry)
        self.queue = Gauge("factotum_recommender_queue", "Questions waiting for the engine", registry=registry)
        self.batch = Histogram("factotum_recommender_batch", "Questions answered at once", buckets=(1, 2, 4, 8, 16, 32), registry=registry)
        self.model = Gauge("factotum_model_info", "The bundle that answers", ("domain", "version", "mode"), registry=registry)
        self.bundles_refused = Counter("factotum_bundles_refused", "Bundles that could not be loaded", ("domain",), registry=registry)
        self.bundles_swapped = Counter("factotum_bundles_swapped", "Bundles taken into service", ("domain",), registry=registry)
        self.cache = Counter("factotum_cache", "Look-ups in a cache", ("cache", "outcome"), registry=registry)
        self.slates_written = Counter("factotum_slates_written", "Slates stored", registry=registry)
        self.slates_lost = Counter("factotum_slates_lost", "Slates that overflowed the spool", registry=registry)
        self.slates_waiting = Gauge("factotum_slates_waiting", "Slates not stored yet", registry=registry)
        self.events = Counter("factotum_events_recorded", "Events stored", ("domain", "kind"), registry=registry)
        self.events_repeated = Counter("factotum_events_repeated", "Events that had been stored before", ("domain",), registry=registry)
        self.events_followed = Counter("factotum_events_followed", "Events of other replicas folded in", ("domain",), registry=registry)
        self.database_up = Gauge("factotum_database_up", "1 while the database answers", registry=registry)
        self.limited = Counter("factotum_limited", "Requests beyond a limit", ("kind",), registry=registry)
        self.unauthorised = Counter("factotum_unauthorised", "Requests refused for who called", ("why",), registry=registry)
        self.logins = Counter("factotum_logins", "Log-ins", ("how", "outcome"), registry=registry)
        self.refreshes_reused = Counter("factotum_refreshes_reused", "Refresh tokens that came a second time", registry=registry)
        self.gate_seconds = Histogram(
            "factotum_gate_seconds", "Time of identity and limits before a request's route", buckets=_SECONDS, registry=registry
        )
        self.breaker = Gauge("factotum_breaker_state", "0 closed, 1 half open, 2 open", ("dependency",), registry=registry)
        self.breaker_opened = Counter("factotum_breaker_opened", "Times that a breaker opened", ("dependency",), registry=registry)
        self.audited = Counter("factotum_audit_written", "Audit entries stored", registry=registry)
        self.audit_lost = Counter("factotum_audit_lost", "Audit entries that overflowed the spool", registry=registry)
        self.audit_waiting = Gauge("factotum_audit_waiting", "Audit entries not stored yet", registry=registry)
        self.outbox_lag = Gauge("factotum_outbox_lag_seconds", "Age of the oldest event that is due and not delivered", registry=registry)
        self.outbox_waiting = Gauge("factotum_outbox_waiting", "Events not delivered yet", registry=registry)
        self.delivered = Counter("factotum_delivered", "Events taken by a consumer", ("consumer", "outcome"), registry=registry)
        self.dead_letters = Gauge("factotum_dead_letters", "Events that no consumer could take, and nobody replayed", registry=registry)
        self.notified = Counter("factotum_notifications", "Notifications to people", ("kind",), registry=registry)
        self.mails = Counter("factotum_mails", "Mails", ("outcome",), registry=registry)

    def text(self) -> bytes:
        """This process alone, in Prometheus' text format."""
        return generate_latest(self.registry)


class Noticeboard:
    """Where the replicas of a machine leave copies of their figures: one small file each, replaced whole."""

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self._folder = folder
        self._metrics = metrics
        self._mine = folder / f"{metrics.replica}.prom"

    def write(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._mine.with_suffix(".draft")
        draft.write_bytes(self._metrics.text())
        draft.replace(self._mine)

    def remove(self) -> None:
        self._mine.unlink(missing_ok=True)

    def text(self) -> bytes:
        """All replicas of this machine, each sample with its `replica`."""
        copies = {self._metrics.replica: self._metrics.text().decode()}
        for path in sorted(self._folder.glob("*.prom")):
            try:
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink(missing_ok=True)
                elif path.stem != self._metrics.replica:
                    copies[path.stem] = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                continue  # its replica ended meanwhile
        return _united(copies).encode()


def _united(copies: dict[str, str]) -> str:
    """Several texts in Prometheus' format as one: each family once, its samples labelled. Works on lines: parsing a text into
    objects would take a hundred times as long, and a scrape must not hold up answers."""
    families: dict[str, list[str]] = {}
    for replica, text in copies.items():
        label = f'replica="{replica}"'
        for block in text.split("# HELP ")[1:]:
            heading, kind, *samples = block.splitlines()
            if heading.partition(" ")[0].endswith("_created"):
                continue  # when a counter began; Prometheus does not need it
            lines = families.setdefault(f"# HELP {heading}\n{kind}", [])
            for sample in samples:
                name, _, value = sample.rpartition(" ")
                labelled = f"{name[:-1]},{label}}}" if name.endswith("}") else f"{name}{{{label}}}"
                lines.append(f"{labelled} {value}")
    return "".join(f"{heading}\n" + "".join(f"{line}\n" for line in lines) for heading, lines in families.items())
