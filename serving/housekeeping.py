"""What one replica does for all, by a lease: old rows go and partitions are made every hour, figures are kept every minute."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from configs.deployment import Deployment
from serving.metrics import Metrics, Noticeboard
from serving.storage import retention
from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.leases import Leases

HOUR_S, MINUTE_S = 3_600.0, 60.0
_SAMPLE = re.compile(r"^(factotum_\w+)\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

log = logging.getLogger("factotum.housekeeping")


class Housekeeping:
    """Acts from `start` to `stop`. Whoever finds a lease taken looks again when its time may be up."""

    def __init__(self, database: Database, deployment: Deployment, noticeboard: Noticeboard, metrics: Metrics) -> None:
        self._database, self._deployment = database, deployment
        self._noticeboard, self._metrics = noticeboard, metrics
        self._leases = Leases(database)
        self._before: Mapping[_Key, float] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._every(HOUR_S, "housekeeping", self.sweep), name="housekeeping"),
            asyncio.create_task(self._every(MINUTE_S, "figures", self.keep_figures), name="figures"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _every(self, seconds: float, name: str, act: Callable[[], Awaitable[None]]) -> None:
        """The lease is never given back: held until it is due again, it also says that it was done."""
        while True:
            try:
                if await self._leases.take(name, 0.9 * seconds):
                    await act()
                else:
                    self._before = None if name == "figures" else self._before  # the counts of another time would not fit
            except DatabaseAwayError as error:
                log.warning("housekeeping waits: the database is away", extra={"fields": {"what": name, "why": str(error)}})
            except Exception:
                self._metrics.errors.labels(name).inc()
                log.exception("housekeeping failed", extra={"fields": {"what": name}})
            await asyncio.sleep(seconds)

    async def sweep(self) -> None:
        """Raises DatabaseAwayError."""
        made = await retention.maintain(self._database)
        swept = await retention.sweep(self._database, self._deployment.retention)
        went = {f"{what.kind}:{what.table}": what.rows for what in swept if what.rows}
        if made or went or any(what.partitions for what in swept):
            log.info("old data went", extra={"fields": {"partitions_made": made, "rows": went}})

    async def keep_figures(self) -> None:
        """A row of system.metrics for each figure of the time since the last call; the first call only looks. Raises DatabaseAwayError."""
        text = (await asyncio.to_thread(self._noticeboard.text)).decode()
        counts = await asyncio.to_thread(_counts, text)
        before, self._before = self._before, counts
        if before is None:
            return
        grown = {key: max(0.0, value - before.get(key, 0.0)) for key, value in counts.items()}  # a replica that began anew has less
        stamp = now_us()
        rows = [
            {
                "metric": secrets.token_hex(16),
                "service_name": "gateway",
                "metric_name": name,
                "metric_value": value,
                "metric_timestamp": stamp,
                "tags": json.dumps({"replicas": len({key.replica for key in counts})}),
            }
            for name, value in figures(grown).items()
        ]
        if rows:
            async with self._database.writing() as connection:
                await connection.execute(sa.insert(self._database.tables.metrics), rows)


@dataclass(frozen=True)
class _Key:
    """One sample of one replica. `labels`: without the replica's."""

    name: str
    replica: str
    labels: tuple[tuple[str, str], ...] = field(default=())

    def label(self, name: str) -> str:
        return dict(self.labels).get(name, "")


_WANTED = ("factotum_requests_total", "factotum_request_seconds_bucket", "factotum_errors_total", "factotum_cache_total",
           "factotum_degraded_total", "factotum_slates_written_total", "factotum_slates_lost_total")  # fmt: skip


def _counts(text: str) -> dict[_Key, float]:
    """The counters that figures are made of, from a text in Prometheus' format with a `replica` in each sample."""
    counts = {}
    for line in text.splitlines():
        if not line.startswith(_WANTED):
            continue
        sample = _SAMPLE.match(line)
        if sample is None:
            continue
        labels = dict(_LABEL.findall(sample[2]))
        replica = labels.pop("replica", "")
        counts[_Key(sample[1], replica, tuple(sorted(labels.items())))] = float(sample[3])
    return counts


def figures(grown: Mapping[_Key, float]) -> dict[str, float]:
    """What the growth of counters says: name -> value. Times in milliseconds, shares between 0 and 1; a share of nothing is left out."""

    def total(name: str, label: str = "", begins: str = "") -> float:
        return sum(value for key, value in grown.items() if key.name == name and key.label(label).startswith(begins))

    out = {
        "requests": total("factotum_requests_total"),
        "requests_failed": total("factotum_requests_total", "status", "5"),
        "errors": total("factotum_errors_total"),
        "degraded": total("factotum_degraded_total"),
        "slates_written": total("factotum_slates_written_total"),
        "slates_lost": total("factotum_slates_lost_total"),
    }
    buckets: dict[float, float] = {}
    for key, value in grown.items():
        if key.name == "factotum_request_seconds_bucket":
            bound = float(key.label("le"))
            buckets[bound] = buckets.get(bound, 0.0) + value
    late = _quantile(buckets, 0.95)
    if late is not None:
        out["request_p95_ms"] = 1_000.0 * late
    looked = total("factotum_cache_total")
    if looked:
        missed = total("factotum_cache_total", "outcome", "miss")
        out["cache_hit_ratio"] = (looked - missed) / looked
    return out


def _quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """The upper bound of the bucket that holds the quantile (the last finite bound beyond), seconds; None where nothing was counted."""
    bounds = sorted(buckets)
    whole = buckets[bounds[-1]] if bounds else 0.0
    if whole <= 0:
        return None
    finite = [bound for bound in bounds if bound != float("inf")]
    return next((bound for bound in finite if buckets[bound] >= share * whole), finite[-1] if finite else None)
