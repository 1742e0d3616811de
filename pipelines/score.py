"""Everybody's slate ahead of time: Ray Data over all users, each task with the serving engine itself.

`out/date=YYYY-MM-DD/part-NNNNN.parquet` (features.tables.SCORED, sorted by user). A part is written whole or not at all, so a
killed run goes on with what is missing. A day is worked on in a hidden folder and takes its name when it is whole; `latest.json` is
written last: what serving falls back on is always complete, also while the same day is scored once more.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from configs.deployment import Deployment
from configs.domain import Domain
from features.tables import SCORED
from pipelines import cluster
from pipelines.recorded import live_events
from pipelines.steps import Reporter, fingerprint, write_json
from serving.engine import Engine
from serving.experiments import assign
from serving.recommender import Ask, question
from serving.slate import Question
from serving.standing import Standing
from serving.storage.tables import StoredEvent, StoredItem
from training import bundle
from training.bundle import BundleError

SHARD_USERS = 500
_BATCH = 64
_PLAN = "_plan.json"
_NO_HURRY_S = 3_600.0


def score(
    domain: Domain, home: Path, out: Path, deployment: Deployment, reporter: Reporter, k: int | None = None, now: int | None = None
) -> dict[str, Any]:
    """Scores every known user, those who came while serving too, with the champion. `now`: microseconds UTC, the moment all
    answers are as of (default: the clock's). Returns counts and speed. Raises BundleError if there is no champion."""
    began = time.monotonic()
    reporter.step("score")
    version = bundle.alias(home, domain.name, "champion")
    if version is None:
        raise BundleError(f"{domain.name} has no champion yet: `factotum run {domain.name}` makes one")
    directory = bundle.bundles_dir(home, domain.name) / version
    opened = bundle.load(directory)
    events, items = live_events(home, domain.name, deployment, opened.manifest.events_through)
    moment = now if now is not None else time.time_ns() // 1_000
    date = datetime.fromtimestamp(moment / 1e6, UTC).date().isoformat()
    finished = out / f"date={date}"
    depth = k or domain.serving.k
    mark = fingerprint(version, depth, sorted(event.event_id for event in events), [asdict(item) for item in items])
    folder, plan = finished, _read_plan(finished, mark)
    if plan is None:  # another model, or other events: nothing of before can be kept
        folder = out / f".date={date}-{mark}"
        plan = _read_plan(folder, mark)
    if plan is None:
        folder.mkdir(parents=True, exist_ok=True)
        plan = {"mark": mark, "now": moment, "version": version}
        write_json(folder / _PLAN, plan)
    live: dict[str, list[StoredEvent]] = {}
    for event in events:
        live.setdefault(event.user, []).append(event)
    users = sorted({*opened.users.ids(range(len(opened.users))), *live}, key=lambda user: user.encode())
    parts = [users[start : start + SHARD_USERS] for start in range(0, len(users), SHARD_USERS)]
    work = [
        {
            "bundle": str(directory),
            "items": [asdict(item) for item in items],
            "users": part,
            "events": [asdict(event) for user in part for event in live.get(user, ())],
            "now": plan["now"],
            "k": depth,
            "path": str(folder / f"part-{number:05d}.parquet"),
        }
        for number, part in enumerate(parts)
        if not (folder / f"part-{number:05d}.parquet").is_file()
    ]
    if len(work) < len(parts):
        reporter.say(f"going on: {len(parts) - len(work)} of {len(parts)} parts of {date} are there")
    scored = 0
    with cluster.started() if len(work) > 1 else nullcontext():
        working = time.monotonic()
        for done, answer in enumerate(cluster.each(score_part, work), start=len(parts) - len(work) + 1):
            scored += answer["users"]
            reporter.progress("users", done / len(parts))
        spent = time.monotonic() - working
    if folder != finished:
        shutil.rmtree(finished, ignore_errors=True)
        folder.replace(finished)
    write_json(out / "latest.json", {"date": date, "version": version, "mark": mark})
    for left in out.glob(".date=*"):  # begun for another model or other events, and never finished
        shutil.rmtree(left, ignore_errors=True)
    result = {
        "out": str(finished),
        "date": date,
        "version": version,
        "users": len(users),
        "scored_now": scored,
        "k": depth,
        "seconds": round(time.monotonic() - began, 2),
        "users_per_second": round(scored / spent, 1) if scored else 0.0,
    }
    reporter.say(f"{len(users):,} users, {depth} items each, in {finished}; {result['users_per_second']} users a second")
    return result


def score_part(work: Mapping[str, Any]) -> dict[str, Any]:
    """One part, in whatever process this runs."""
    standing = _standing(work["bundle"], repr(work["items"]))
    fresh = standing.stale([StoredItem(**item) for item in work["items"]])
    if fresh:
        standing.place(fresh)
    standing.fold(sorted((StoredEvent(**event) for event in work["events"]), key=lambda event: (event.recorded_at, event.event_id)))
    columns: dict[str, list[Any]] = {name: [] for name in SCORED.names}
    for start in range(0, len(work["users"]), _BATCH):
        users = work["users"][start : start + _BATCH]
        with threadpool_limits(1):  # the same sums in a task of Ray's and in this process; and a part is one core's work
            slates = standing.engine.recommend([scoring_question(standing, user, int(work["k"]), int(work["now"])) for user in users])
        for user, slate in zip(users, slates, strict=True):
            for shown in slate.items:
                for name, value in zip(SCORED.names, (user, shown.item, shown.rank, shown.score, slate.version), strict=True):
                    columns[name].append(value)
    path = Path(work["path"])
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(pa.table(columns, schema=SCORED), temporary, compression="zstd")
    temporary.replace(path)
    return {"users": len(work["users"])}


@lru_cache(maxsize=2)
def _standing(directory: str, items: str) -> Standing:
    """The bundle in service, opened once a process."""
    return Standing(Engine(bundle.load(Path(directory))), 0)


def scoring_question(standing: Standing, user: str, k: int, now: int) -> Question:
    """Exactly what a request of this person would become, without reasons."""
    domain = standing.engine.domain
    arm = assign(domain.experiment, domain.name, user)
    return replace(question(Ask(domain.name, k, user), standing, now, _NO_HURRY_S, arm), reasons=False)


def _read_plan(folder: Path, mark: str) -> dict[str, Any] | None:
    try:
        plan: dict[str, Any] = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return plan if plan["mark"] == mark else None
