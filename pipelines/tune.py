"""The search over a source's (or the ranker's) words: measured on the label window, which serving's test never touches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from configs.domain import CandidateModel, Domain, Ranker
from features.catalogue import Catalogue
from pipelines import cluster
from pipelines.featurize import load as load_features
from pipelines.measuring import K
from pipelines.steps import Reporter, fingerprint, upstream, write_json
from pipelines.train import Part, examples_of, label_windows, open_trained, part_of
from training import build, metrics
from training.contract import CandidateModel as Model
from training.contract import TrainingData
from training.ranker import Ranker as FittedRanker
from training.retrieval import retrieve
from training.split import Targets, split, targets

RANKER = "ranker"
_STAGES = 4  # a sequence model is looked at so many times on the way, and may be stopped there
_BATCH = 256
_MOST_PEOPLE = 2_000


def tune(
    domain: Domain, features_dir: Path, train_dir: Path | None, name: str, samples: int, home: Path, resume: bool, reporter: Reporter
) -> dict[str, Any]:
    """Tries `samples` settings of one source, or of the ranker (which needs a finished training: `train_dir`). Writes
    trials.json with all of them, best first, and returns what stands there. The training configuration is not changed.

    Raises ValueError if the YAML has no search for it; FileNotFoundError, FileExistsError about `resume`."""
    from training.tune import search  # Ray Tune takes seconds to import

    space = domain.search.get(name)
    if space is None:
        raise ValueError(f"search: {domain.name} says nothing about {name!r}; it has {', '.join(domain.search) or 'none'}")
    reporter.step("tune")
    words = (domain.ranker if name == RANKER else domain.candidates[name]).model_dump(mode="json")  # type: ignore[union-attr]
    mark = fingerprint(upstream(features_dir), words, space.model_dump(mode="json"), domain.split.model_dump(mode="json"))
    directory = home / domain.name / "tune" / f"{name}-{mark}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    plain = domain.model_dump(mode="json")
    features, train = str(features_dir), str(train_dir) if train_dir else None

    def measure(tried: Mapping[str, Any]) -> Iterator[float]:
        own = Domain.model_validate(plain)
        if name == RANKER:
            if train is None:
                raise ValueError("the ranker is tuned on fitted sources: train first")
            yield from _ranker_scores(own, Path(train), home, tried)
        else:
            yield from _source_scores(own, Path(features), name, tried, max(1, int(space.cpus)))

    def told(finished: int, best: float | None) -> None:
        reporter.progress(f"trials, best NDCG@{K} {best:.4f}" if best is not None else "trials", finished / samples)

    with cluster.started():
        trials = search(measure, space, samples, domain.split.seed, directory, resume, told)
    result = {
        "domain": domain.name,
        "model": name,
        "metric": f"NDCG@{K} on the label window",
        "now": words,
        "trials": [{"words": t.words, "score": t.score, "stages": t.stages, "seconds": t.seconds, "error": t.error} for t in trials],
        "directory": str(directory),
    }
    write_json(directory / "trials.json", result)
    for trial in trials[:5]:
        reporter.say(f"{trial.score if trial.score is not None else float('nan'):.4f}  {json.dumps(trial.words)}")
    return result


def _source_scores(domain: Domain, features_dir: Path, name: str, tried: Mapping[str, Any], threads: int) -> Iterator[float]:
    features = load_features(features_dir, domain)
    cut = split(features.histories, domain.split, features.moment)
    part = part_of(features, cut, "base")
    wanted = targets(features.histories, cut.label, part.histories, len(features.catalogue)).sample(_MOST_PEOPLE, domain.split.seed)
    words: Any = TypeAdapter(CandidateModel).validate_python({**domain.candidates[name].model_dump(), **tried})
    data = TrainingData(part.histories, features.catalogue, part.moment, domain.split.seed, threads)
    stages = _STAGES if words.model == "sasrec" and words.epochs >= _STAGES else 1
    for stage in range(stages):
        share = (stage + 1) / stages
        staged = words.model_copy(update={"epochs": max(1, round(words.epochs * share))}) if stages > 1 else words
        model = build.build(staged)
        model.fit(data)
        yield _ndcg(model, features.catalogue, part, wanted)


def _ndcg(model: Model, catalogue: Catalogue, part: Part, wanted: Targets) -> float:
    lists, truth = [], []
    for start in range(0, len(wanted.users), _BATCH):
        people = range(start, min(start + _BATCH, len(wanted.users)))
        states = [part.histories.state(int(wanted.users[person])) for person in people]
        found = retrieve({"it": model}, states, part.moment, K, len(catalogue), np.asarray(catalogue.available)).candidates
        if found.failed:
            raise RuntimeError("the model failed to score")
        for position, person in enumerate(people):
            mine = np.flatnonzero(found.users == position)
            lists.append(found.items[mine[np.argsort(found.ranks[mine, 0])]])
            truth.append(wanted.of(person))
    counts = np.array([len(took) for took in truth], dtype=np.int64)
    return float(metrics.ndcg(metrics.hits_of(lists, truth, K), counts).mean()) if lists else 0.0


def _ranker_scores(domain: Domain, train_dir: Path, home: Path, tried: Mapping[str, Any]) -> Iterator[float]:
    """People of the label window are parted in two by seed: one half teaches, the other measures."""
    assert domain.ranker is not None
    words = Ranker.model_validate({**domain.ranker.model_dump(), **tried})
    trained = open_trained(train_dir, domain, home)
    part, features = trained.part("base"), trained.features
    models = trained.models(domain, "base")
    windows = [(known, wanted.sample(2 * _MOST_PEOPLE, domain.split.seed)) for known, wanted in label_windows(features, trained.split)]
    made, names = examples_of(domain, words, features.catalogue, part, models, windows)
    half = np.random.default_rng(domain.split.seed + 1).random(len(made.groups)) < 0.5
    inside = np.repeat(half, made.groups)
    ranker = FittedRanker.fit(
        words,
        names,
        tuple(models),
        made.rows[inside],
        made.labels[inside],
        made.groups[half],
        domain.split.seed,
        1,
    )
    scores, labels = ranker.scores(made.rows[~inside]), made.labels[~inside]
    hits, counts = [], []
    ends = np.cumsum(made.groups[~half])
    for end, length in zip(ends, made.groups[~half], strict=True):
        mine = slice(int(end - length), int(end))
        top = np.argsort(-scores[mine], kind="stable")[:K]
        hits.append(np.pad(labels[mine][top] > 0, (0, K - len(top))))
        counts.append(int(labels[mine].sum()))
    yield float(metrics.ndcg(np.array(hits), np.array(counts, dtype=np.int64)).mean())
