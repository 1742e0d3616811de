"""From raw files to a champion: ingest, featurize, train, evaluate, publish. Each step is skipped where nothing changed."""

from __future__ import annotations

from pathlib import Path

from configs.deployment import Deployment
from configs.domain import Domain
from pipelines.evaluate import evaluate
from pipelines.featurize import featurize
from pipelines.ingest import ingest
from pipelines.publish import publish
from pipelines.recorded import recorded
from pipelines.samples import make
from pipelines.steps import DONE, Reporter, fingerprint, latest, write_json
from pipelines.train import train

EVENTS_THROUGH = "events_through.json"


def run(domain: Domain, data: Path | None, home: Path, deployment: Deployment, reporter: Reporter, promoted: bool = True) -> str:
    """The version published. Raises what its steps raise."""
    tables, through = tables_of(domain, data, home, deployment, reporter)
    features = featurize(domain, tables, home, reporter)
    trained = train(domain, features, home, reporter)
    evaluated = evaluate(domain, trained, home, reporter)
    return publish(domain, evaluated, home, reporter, through, promoted)


def tables_of(domain: Domain, data: Path | None, home: Path, deployment: Deployment, reporter: Reporter) -> tuple[Path, int]:
    """Ingest of the files and of what was recorded while serving; up to which moment the latter is inside."""
    said = recorded(home, domain.name, deployment, frozenset(domain.events.kinds))
    tables = ingest(domain, data if data is not None else sample_of(domain, home, reporter), home, reporter, said.events, said.items)
    write_json(tables / EVENTS_THROUGH, {"events_through": said.through})
    return tables, said.through


def sample_of(domain: Domain, home: Path, reporter: Reporter) -> Path:
    """The folder of the domain's sample, made from its seed unless it is there."""
    folder = home / domain.name / "sample" / fingerprint(domain.sample.model_dump(mode="json"))
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
