"""A finished training and its report -> a bundle, and, if the gate passed it, the champion that serving picks up."""

from __future__ import annotations

import json
from pathlib import Path

from configs.domain import Domain
from features.itinerary.timetable import Timetable
from pipelines import announce
from pipelines.bought import bought
from pipelines.evaluate import read_report
from pipelines.measuring import K
from pipelines.steps import DONE, Reporter, fingerprint, upstream
from pipelines.train import open_trained, statistics_of
from training import bundle
from training.bundle import TIMETABLE, TWO_STAGE, BundleError, Manifest, Verdict


class NotPromotedError(RuntimeError):
    """A version that the gate does not let through; the message says why."""


def publish(
    domain: Domain, evaluate_dir: Path, home: Path, reporter: Reporter, events_through: int = 0, promoted: bool = True, url: str = ""
) -> str:
    """The version: a new one, or the one that was made of the same training before. `promoted`: make it the champion if the
    gate passed it. `url`: the deployment's database, where a new champion is announced; empty: the home's own.
    Raises NotPromotedError if it did not (the bundle is there all the same)."""
    reporter.step("publish")
    said = json.loads((evaluate_dir / DONE).read_text(encoding="utf-8"))
    train_dir = home / said["train"]
    serving = domain.model_dump(mode="json", include={"serving", "calls", "items", "experiment", "title"})
    timetable = _timetable(domain, train_dir, home)
    more = [] if timetable is None else [domain.model_dump(mode="json", include={"itinerary"}), timetable.to_json()]
    mark = fingerprint(upstream(evaluate_dir), upstream(train_dir), events_through, serving, *more)
    version = _published(home, domain.name, mark)
    if version is None:
        report = read_report(evaluate_dir)
        trained = open_trained(train_dir, domain, home)
        part = trained.part("all")
        verdict = Verdict.model_validate(report["verdict"])
        directory = bundle.write(
            home,
            domain,
            trained.features.catalogue,
            trained.features.users,
            trained.features.histories,
            statistics_of(domain, part, trained.features.catalogue),
            trained.models(domain, "all"),
            trained.ranker if verdict.serve == TWO_STAGE else None,
            verdict,
            {name: row[f"NDCG@{K}"]["mean"] for name, row in report["rows"].items()},
            report,
            part.moment,
            events_through,
            mark,
            timetable,
            None if timetable is None else bought(trained.features, timetable),
        )
        version = directory.name
        reporter.say(f"bundle {version}: {sum(path.stat().st_size for path in directory.rglob('*')) / 2**20:.1f} MiB")
    else:
        reporter.say(f"nothing changed: bundle {version} stands")
    if promoted:
        promote(home, domain.name, version, reporter, url=url)
    return version


def promote(home: Path, domain: str, version: str | None, reporter: Reporter, dry_run: bool = False, url: str = "") -> Manifest:
    """Makes a version (None: the newest) the champion, after every file's checksum was found right. Raises NotPromotedError if the
    gate refused it, BundleError if it is not whole."""
    there = bundle.versions(home, domain)
    if not there:
        raise BundleError(f"{domain} has no finished bundle: `factotum run {domain}` makes one")
    chosen = version or there[-1]
    if chosen not in there:
        raise BundleError(f"{domain} has no version {chosen!r}; there are {', '.join(there)}")
    manifest = bundle.verify(bundle.bundles_dir(home, domain) / chosen)
    if not manifest.verdict.passed:
        raise NotPromotedError(f"{domain} {chosen} was not promoted, the champion stays: {manifest.verdict.why}")
    now = bundle.alias(home, domain, "champion")
    if now == chosen:
        reporter.say(f"{chosen} is the champion already")
    elif dry_run:
        reporter.say(f"would promote {chosen} (champion now: {now or 'none'}): {manifest.verdict.why}")
    else:
        bundle.point(home, domain, "champion", chosen)
        reporter.say(f"{chosen} is the champion now, it was {now or 'none'}; served: {manifest.verdict.serve}")
        announce.champion(home, domain, "bundle.promoted", chosen, now, url, reporter)
    return manifest


def rollback(home: Path, domain: str, version: str | None, reporter: Reporter, dry_run: bool = False, url: str = "") -> str:
    """Makes the champion of before (or a version that is named) the champion again. Raises BundleError if there is none or it
    is not whole."""
    chosen = version or bundle.pointed_before(home, domain, "champion")
    if chosen is None:
        raise BundleError(f"{domain} had no other champion before; there are {', '.join(bundle.versions(home, domain)) or 'no bundles'}")
    bundle.verify(bundle.bundles_dir(home, domain) / chosen)
    now = bundle.alias(home, domain, "champion")
    if dry_run:
        reporter.say(f"would go back from {now} to {chosen}")
    else:
        bundle.point(home, domain, "champion", chosen)
        reporter.say(f"back to {chosen} from {now}")
        announce.champion(home, domain, "bundle.rolled_back", chosen, now, url, reporter)
    return chosen


def _timetable(domain: Domain, train_dir: Path, home: Path) -> Timetable | None:
    """That of the tables the training was made of; it may have changed since without a new training (seats, ways). Raises ValueError."""
    if domain.itinerary is None:
        return None
    features = home / json.loads((train_dir / DONE).read_text(encoding="utf-8"))["features"]
    tables = home / domain.name / "ingest" / json.loads((features / DONE).read_text(encoding="utf-8"))["tables"]
    return Timetable.of_json(json.loads((tables / TIMETABLE).read_text(encoding="utf-8")))


def _published(home: Path, domain: str, mark: str) -> str | None:
    for version in reversed(bundle.versions(home, domain)):
        try:
            if bundle.read_manifest(bundle.bundles_dir(home, domain) / version).fingerprint == mark:
                return version
        except BundleError:
            continue
    return None
