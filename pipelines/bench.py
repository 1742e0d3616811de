"""`factotum bench NAME`: speed and memory on this machine, as ratios to something measured in the same run."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from configs.deployment import Deployment
from configs.domain import Domain
from pipelines.bench_serve import machine
from pipelines.steps import Reporter, write_json

NAMES = ("serve", "batch", "ingest", "gateway", "faults", "soak", "train", "routes")
_ENOUGH_S = 5.0


def bench(
    name: str,
    domain: Domain,
    rows: int,
    home: Path,
    deployment: Deployment,
    reporter: Reporter,
    embedded: bool = False,
    requests: int = 100_000,
    rate: float | None = None,
    data: Path | None = None,
) -> dict[str, Any]:
    """Figures with the machine beside them; also written to home/bench/<name>.json.

    embedded: faults and soak run on what is there with nothing installed. `requests` (soak), `rate` (requests a second; None: the
    benchmark's own). `data` (routes): a folder with the domain's files. Raises ValueError for an unknown name.
    """
    before = machine()
    match name:
        case "serve":
            from pipelines.bench_serve import run as measure_serving

            figures = measure_serving(home, domain.name, reporter)
        case "batch":
            figures = _batch(domain, home, deployment, reporter)
        case "ingest":
            from pipelines.bench_ingest import run as measure_ingest

            figures = measure_ingest(rows, home, reporter)
        case "gateway":
            from pipelines.bench_gateway import run as measure_gateway

            figures = measure_gateway(home, domain.name, reporter)
        case "faults":
            from pipelines.bench_faults import RATE as FAULTS_RATE
            from pipelines.bench_faults import run as measure_faults

            figures = measure_faults(home, domain.name, reporter, embedded, rate or FAULTS_RATE)
        case "soak":
            from pipelines.bench_soak import RATE as SOAK_RATE
            from pipelines.bench_soak import run as measure_soak

            figures = measure_soak(home, domain.name, reporter, requests, rate or SOAK_RATE, embedded)
        case "train":
            from pipelines.bench_train import run as measure_training

            figures = measure_training(reporter)
        case "routes":
            from pipelines.bench_routes import run as measure_routes

            figures = measure_routes(home, domain, reporter, data=data)
        case "routes-big":
            from pipelines.bench_routes_big import run as measure_big

            figures = measure_big(home, domain, reporter)
        case _:
            raise ValueError(f"no benchmark {name!r}; there are {', '.join(NAMES)}")
    result = {"bench": name, "machine": before, **figures}
    (home / "bench").mkdir(parents=True, exist_ok=True)
    write_json(home / "bench" / f"{name}{'-embedded' if embedded else ''}.json", result)
    return result


def lines(name: str, figures: dict[str, Any]) -> list[str] | None:
    """The figures as a table for people; None where the benchmark has none."""
    match name:
        case "serve":
            from pipelines.bench_serve import table

            return table(figures)
        case "gateway":
            from pipelines.bench_gateway import table as of_gateway

            return of_gateway(figures)
        case "faults":
            from pipelines.bench_faults import table as of_faults

            return of_faults(figures)
        case "soak":
            from pipelines.bench_soak import table as of_soak

            return of_soak(figures)
        case "train":
            from pipelines.bench_train import table as of_training

            return of_training(figures)
        case "routes":
            from pipelines.bench_routes import table as of_routes

            return of_routes(figures)
        case "routes-big":
            from pipelines.bench_routes_big import table as of_big

            return of_big(figures)
        case _:
            return None


def _batch(domain: Domain, home: Path, deployment: Deployment, reporter: Reporter) -> dict[str, Any]:
    """Users a second of `factotum score`, beside one process that does nothing but ask the engine (the limit a core sets)."""
    from pipelines.score import score, scoring_question
    from serving.engine import Engine
    from serving.standing import Standing
    from training import bundle
    from training.bundle import BundleError

    version = bundle.alias(home, domain.name, "champion")
    if version is None:
        raise BundleError(f"{domain.name} has no champion in {home}: `factotum run {domain.name}` makes one")
    standing = Standing(Engine(bundle.load(bundle.bundles_dir(home, domain.name) / version)), 0)
    users = standing.engine.users.ids(range(min(len(standing.engine.users), 2_000)))
    now, asked, began = time.time_ns() // 1_000, 0, time.monotonic()
    while time.monotonic() - began < _ENOUGH_S:
        batch = [users[(asked + place) % len(users)] for place in range(64)]
        standing.engine.recommend([scoring_question(standing, user, domain.serving.k, now) for user in batch])
        asked += len(batch)
    alone = asked / (time.monotonic() - began)
    out = Path(tempfile.mkdtemp(prefix="factotum-score-"))
    try:
        scored = score(domain, home, out, deployment, reporter)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    per_second = float(scored["users_per_second"])
    return {
        "users": scored["users"],
        "seconds_with_start": scored["seconds"],
        "users_per_second": per_second,
        "one_process_users_per_second": round(alone, 1),
        "of_one_process": round(per_second / alone, 3),
    }
