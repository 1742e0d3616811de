"""Features -> fitted sources and ranker. Each fit is a unit of its own: done once for the same data and settings, run as a Ray
task (on a cluster as many at once as there are machines), resumed one by one after an interruption.

Three rounds, each with more of the past: `base` (before the label window) makes the ranker's candidates, `known` (before the
test window) is what evaluation answers from, `all` is what serving gets. No round ever sees events of the window it is used on.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from configs.domain import Domain, PopularityModel, SasrecModel, Workers
from configs.domain import Ranker as RankerWords
from features.catalogue import Catalogue
from features.compute import PairFeatures
from features.state import Histories
from features.statistics import ItemStatistics
from pipelines import cluster
from pipelines.featurize import Features
from pipelines.featurize import load as load_features
from pipelines.memory import Peak
from pipelines.steps import DONE, Reporter, Step, fingerprint, upstream, write_json
from training import build, examples
from training.candidates.popularity import statistics_as_of
from training.contract import CandidateModel, Progress, TrainingData
from training.ranker import Ranker
from training.retrieval import feature_names
from training.split import Split, Targets, split, targets

Round = Literal["base", "known", "all"]
Window = tuple[Histories, Targets]  # what was known of people, and what they took next
EPOCHS = "epochs.json"  # beside a sequence model: loss and validation of each epoch
_FITS = 3  # raise it when a change in a model makes earlier fits worthless
_CODE = 5  # raise it when a change here makes earlier trainings worthless


@dataclass(frozen=True)
class Part:
    """What one round may know: events before `moment` (microseconds UTC)."""

    histories: Histories
    moment: int


@dataclass(frozen=True)
class Trained:
    """What a finished training holds, opened."""

    directory: Path
    features: Features
    split: Split
    units: Mapping[Round, Mapping[str, Path]]
    ranker: Ranker | None
    found: float  # share of the label window's targets that were among the candidates

    def models(self, domain: Domain, which: Round) -> dict[str, CandidateModel]:
        return {name: build.load(domain.candidates[name], path / "model") for name, path in self.units[which].items()}

    def part(self, which: Round) -> Part:
        return part_of(self.features, self.split, which)


def part_of(features: Features, cut: Split, which: Round) -> Part:
    """The events of a round and the moment as of which it is."""
    if which == "base":
        return Part(features.histories.where(cut.base), cut.label_moment)
    if which == "known":
        return Part(features.histories.where(cut.base | cut.label), cut.test_moment)
    return Part(features.histories, features.moment + 1)


def label_windows(features: Features, cut: Split) -> list[Window]:
    """What was known of people, and what they took next, for each part of the label window."""
    out = []
    for mask, took in cut.labels:
        known = features.histories.where(mask)
        out.append((known, targets(features.histories, took, known, len(features.catalogue))))
    return out


def statistics_of(domain: Domain, part: Part, catalogue: Catalogue) -> ItemStatistics:
    """Counts as of a round's moment, fading as the domain's popular source says."""
    words = next(words for words in domain.candidates.values() if isinstance(words, PopularityModel))
    return statistics_as_of(words, part.histories, catalogue, part.moment)


def train(domain: Domain, features_dir: Path, home: Path, reporter: Reporter) -> Path:
    """Fits what is not fitted yet and returns the step's directory. Raises ValueError where there is too little to learn from."""
    words = domain.model_dump(mode="json", include={"candidates", "ranker", "split", "events"})
    mark = fingerprint(_CODE, words, upstream(features_dir))
    reporter.step("train")
    with Step(home / domain.name / "train" / mark) as step:
        if step.done is not None:
            reporter.say(f"nothing changed: {step.directory.name} stands")
            return step.directory
        features = load_features(features_dir, domain)
        cut = split(features.histories, domain.split, features.moment)
        units = _units(domain, features_dir, home)
        rounds: list[Round] = ["base", "known", "all"] if _refits(domain) else ["base", "known"]
        produced: dict[str, Any] = {"features": str(features_dir.relative_to(home)), "ordered": features.ordered}
        with cluster.started():
            for which in rounds:
                _fit_round(domain, features_dir, units, which, reporter)
        if not _refits(domain):
            units["all"] = units["known"]
        if domain.ranker is not None:
            produced |= _fit_ranker(domain, features, cut, units["base"], step.directory, reporter)
        produced["units"] = {which: {name: str(path.relative_to(home)) for name, path in of.items()} for which, of in units.items()}
        step.finish(produced)
        return step.directory


def open_trained(directory: Path, domain: Domain, home: Path) -> Trained:
    """Raises FileNotFoundError if the training is not finished."""
    said = json.loads((directory / DONE).read_text(encoding="utf-8"))
    features = load_features(home / said["features"], domain)
    return Trained(
        directory,
        features,
        split(features.histories, domain.split, features.moment),
        {which: {name: home / path for name, path in said["units"][which].items()} for which in get_args(Round)},
        Ranker.load(directory / "ranker") if (directory / "ranker").is_dir() else None,
        float(said.get("found", 0.0)),
    )


def _refits(domain: Domain) -> bool:
    return not domain.split.back and (domain.ranker is None or domain.ranker.refit)


def _units(domain: Domain, features_dir: Path, home: Path) -> dict[Round, dict[str, Path]]:
    cut = domain.split.model_dump(mode="json")
    kinds = domain.events.model_dump(mode="json")
    return {
        which: {
            name: home
            / domain.name
            / "fits"
            / f"{name}-{which}-{fingerprint(_FITS, words.model_dump(mode='json'), cut, kinds, which, upstream(features_dir))}"
            for name, words in domain.candidates.items()
        }
        for which in get_args(Round)
    }


_BEFORE: Mapping[Round, Round | None] = {"base": None, "known": "base", "all": "known"}


def _fit_round(domain: Domain, features_dir: Path, units: Mapping[Round, Mapping[str, Path]], which: Round, reporter: Reporter) -> None:
    """Fits every source of a round that is not there yet, side by side as far as the cluster's cores go."""
    import ray

    threads = max(1, min(os.cpu_count() or 1, int(ray.cluster_resources().get("CPU", 1))))
    gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    before = _BEFORE[which]
    waiting: dict[Any, tuple[str, Path]] = {}
    told: dict[str, float] = {}
    for name, unit in units[which].items():
        if (unit / DONE).is_file():
            continue
        neural = domain.candidates[name].model == "sasrec"
        work = {
            "domain": domain.model_dump(mode="json"),
            "features": str(features_dir),
            "unit": str(unit),
            "name": name,
            "round": which,
            "threads": threads,
            "warm": str(units[before][name] / "model") if neural and before is not None else None,
        }
        if name in domain.workers:  # the workers take what they need; what waits for them takes nothing
            task = ray.remote(num_cpus=0, max_retries=1)(fit_unit)
        else:
            task = ray.remote(num_cpus=threads, num_gpus=gpus if neural else 0.0, max_retries=1)(fit_unit)
        waiting[task.remote(work)] = (name, unit)
    try:
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=0.5)
            for reference in ready:
                name, _ = waiting.pop(reference)
                reporter.say(f"{which}: {name} fitted in {ray.get(reference):.1f} s")
            for name, unit in waiting.values():
                if (unit / "progress.json").is_file():
                    said = json.loads((unit / "progress.json").read_text(encoding="utf-8"))
                    if told.get(name) != said["share"]:
                        told[name] = said["share"]
                        reporter.progress(f"{which}: {said['what']}", said["share"])
    except BaseException:
        for reference in waiting:
            ray.cancel(reference, force=True)
        raise


def fit_unit(work: Mapping[str, Any]) -> float:
    """Fits one source for one round, in whatever process this runs; returns seconds. What is half done is begun anew."""
    began = time.monotonic()
    domain = Domain.model_validate(work["domain"])
    unit = Path(work["unit"])
    which: Round = work["round"]
    with Step(unit) as step:
        if step.done is not None:
            return 0.0
        words, wanted = domain.candidates[work["name"]], domain.workers.get(work["name"])
        warm = Path(work["warm"]) if work["warm"] else None
        threads = int(work["threads"]) if wanted is None else max(1, int(wanted.cpus))
        half = unit / "model.half"
        shutil.rmtree(half, ignore_errors=True)
        (unit / EPOCHS).unlink(missing_ok=True)

        def load() -> TrainingData:
            features = load_features(Path(work["features"]), domain)
            part = part_of(features, split(features.histories, domain.split, features.moment), which)
            return TrainingData(part.histories, features.catalogue, part.moment, domain.split.seed, threads)

        def told(what: str, share: float) -> None:
            write_json(unit / "progress.json", {"what": what, "share": share})

        if isinstance(words, SasrecModel):
            peak_bytes = _fit_sequences(words, load, wanted, half, warm, told, unit / EPOCHS)
        else:
            model, data = build.build(words), load()
            with Peak() as peak:
                model.fit(data, told)
            model.save(half)
            peak_bytes = peak.bytes
        shutil.rmtree(unit / "model", ignore_errors=True)
        half.rename(unit / "model")
        together = {} if wanted is None else {"workers": wanted.workers}
        step.finish({"source": work["name"], "round": which, "peak_bytes": peak_bytes, **together})
    return time.monotonic() - began


def _fit_sequences(
    words: SasrecModel, load: Callable[[], TrainingData], wanted: Workers | None, to: Path, warm: Path | None, told: Progress, curve: Path
) -> int:
    """Fits a sequence model here, or in several workers, and saves it; its learning curve goes into the file `curve`, epoch by epoch.
    Returns the peak of memory in bytes."""
    from training.candidates.sasrec import Sasrec
    from training.epochs import EachEpoch, Epoch

    epochs: list[dict[str, float | int | None]] = []

    def note(epoch: Epoch) -> None:
        ndcg = None if math.isnan(epoch.ndcg) else round(epoch.ndcg, 6)
        epochs.append({"epoch": epoch.number, "loss": round(epoch.loss, 6), "ndcg": ndcg, "seconds": round(epoch.seconds, 3)})
        write_json(curve, epochs)

    if wanted is not None:
        from training import distribute

        return distribute.fit(words, load, wanted, to, warm, told, note)
    model, data = Sasrec(words) if warm is None else Sasrec.load(warm), load()
    with Peak() as peak:
        model.fit(data, told, [EachEpoch(note)])
    model.save(to)
    return peak.bytes


def examples_of(
    domain: Domain,
    words: RankerWords,
    catalogue: Catalogue,
    part: Part,
    models: Mapping[str, CandidateModel],
    windows: Sequence[Window],
    progress: Progress | None = None,
) -> tuple[examples.Examples, tuple[str, ...]]:
    """The ranker's rows with the names of their columns: people as each window knew them, items as of the round. Raises
    ValueError if nobody took any candidate in any window."""
    statistics = statistics_of(domain, part, catalogue)
    pairs = PairFeatures(catalogue, statistics)
    available = statistics.available(np.asarray(catalogue.available))
    share = words.model_copy(update={"users": max(1, words.users // max(len(windows), 1))})
    made = [
        examples.make(share, models, pairs, known, wanted, len(catalogue), available, part.moment, domain.split.seed + place, progress)
        for place, (known, wanted) in enumerate(windows)
    ]
    return examples.joined(made), feature_names(tuple(models), pairs)


def _fit_ranker(
    domain: Domain, features: Features, cut: Split, units: Mapping[str, Path], directory: Path, reporter: Reporter
) -> dict[str, Any]:
    """Learns the second stage from candidates that had not seen the label window. Where there is nothing to learn from, the
    domain goes without a ranker and says why."""
    assert domain.ranker is not None
    part = part_of(features, cut, "base")
    models = {name: build.load(domain.candidates[name], path / "model") for name, path in units.items()}
    seed = domain.split.seed
    began = time.monotonic()
    try:
        with Peak() as peak:
            made, names = examples_of(
                domain, domain.ranker, features.catalogue, part, models, label_windows(features, cut), reporter.progress
            )
            threads = os.cpu_count() or 1
            ranker = Ranker.fit(domain.ranker, names, tuple(models), made.rows, made.labels, made.groups, seed, threads, reporter.progress)
    except ValueError as error:
        reporter.say(f"no ranker: {error}")
        return {"found": 0.0, "no_ranker": str(error)}
    cost = {"ranker_seconds": round(time.monotonic() - began, 3), "ranker_peak_bytes": peak.bytes}
    ranker.save(directory / "ranker")
    reporter.say(
        f"ranker: {ranker.trees} trees from {len(made.rows):,} rows of {len(made.groups):,} people; "
        f"candidates held {made.share:.1%} of what they took"
    )
    return {"found": made.share, "rows": len(made.rows), "people": len(made.groups), "trees": ranker.trees, **cost}
