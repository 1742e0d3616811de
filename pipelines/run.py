"""From raw files to a champion: ingest, featurize, train, evaluate, publish. Each step is skipped where nothing changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs.deployment import Deployment
from configs.domain import Domain
from pipelines.evaluate import evaluate
from pipelines.featurize import featurize
from pipelines.ingest import ingest
from pipelines.publish import publish
from pipelines.recorded import recorded
from pipelines.samples import make, mark
from pipelines.steps import DONE, Reporter, fingerprint, latest, write_json
from pipelines.train import train

EVENTS_THROUGH = "events_through.json"


def run(domain: Domain, data: Path | None, home: Path, deployment: Deployment, reporter: Reporter, promoted: bool = True) -> str:
    """The version published. Raises what its steps raise."""
    tables, through = tables_of(domain, data, home, deployment, reporter)
    features = featurize(domain, tables, home, reporter)
    trained = train(domain, features, home, reporter)
    evaluated = evaluate(domain, trained, home, reporter)
    return publish(domain, evaluated, home, reporter, through, promoted, deployment.storage.url)


def tables_of(domain: Domain, data: Path | None, home: Path, deployment: Deployment, reporter: Reporter) -> tuple[Path, int]:
    """Ingest of the files and of what was recorded while serving; up to which moment the latter is inside."""
    said = recorded(home, domain.name, deployment, frozenset(domain.events.kinds))
    tables = ingest(domain, data if data is not None else sample_of(domain, home, reporter), home, reporter, said.events, said.items)
    write_json(tables / EVENTS_THROUGH, {"events_through": said.through})
    return tables, said.through


def events_through(home: Path, domain: str, evaluate_dir: Path) -> int:
    """Up to which moment (microseconds UTC) recorded events are inside what was evaluated, followed back to its own ingest: a later
    one may have read more. Raises FileNotFoundError if one of the steps is gone."""
    train_dir = home / _said(evaluate_dir)["train"]
    features_dir = home / _said(train_dir)["features"]
    tables = home / domain / "ingest" / _said(features_dir)["tables"]
    return int(json.loads((tables / EVENTS_THROUGH).read_text(encoding="utf-8"))["events_through"])


def _said(directory: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((directory / DONE).read_text(encoding="utf-8"))
    return said


def sample_of(domain: Domain, home: Path, reporter: Reporter) -> Path:
    """The folder of the domain's sample, made from its seed unless it is there."""
    folder = home / domain.name / "sample" / fingerprint(domain.sample.model_dump(mode="json"), mark(domain.name))
    if not (folder / DONE).is_file():
        reporter.say(f"no data given: making a sample of {domain.sample.users:,} users and {domain.sample.items:,} {domain.items.nouns}")
        folder.mkdir(parents=True, exist_ok=True)
        make(domain.name, folder, domain.sample)
        write_json(folder / DONE, domain.sample.model_dump(mode="json"))
    return folder


def newest(home: Path, domain: str, step: str) -> Path:
    """The directory of a step that was finished last. Raises FileNotFoundError saying which command makes one."""
    found = latest(home, domain, step)
    if found is None:
        raise FileNotFoundError(f"{domain} has no finished {step} in {home}: `factotum {step} {domain}` comes first")
    return found
