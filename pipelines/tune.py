"""The search over a source's (or the ranker's) words: measured on the label window, which serving's test never touches.

A trial costs one training: a sequence model is looked at between its epochs, not trained anew for each look, and the ranker's rows are
made once for all trials that share them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from configs.domain import Between, CandidateModel, Choices, Domain, Ranker, SasrecModel, Search
from features.catalogue import Catalogue
from pipelines import cluster, tracking, trials_page
from pipelines.featurize import load as load_features
from pipelines.measuring import K
from pipelines.provenance import commit
from pipelines.steps import Reporter, atomic, fingerprint, upstream, write_json
from pipelines.train import Part, examples_of, label_windows, open_trained, part_of
from training import build, metrics
from training.contract import CandidateModel as Model
from training.contract import TrainingData
from training.examples import Examples
from training.ranker import Ranker as FittedRanker
from training.retrieval import retrieve
from training.split import Targets, split, targets
from training.tune import Told

RANKER = "ranker"
TRIALS = "trials.json"
_CODE = 2  # raise it when a change here makes earlier searches worthless
_BATCH = 256
_MOST_PEOPLE = 2_000
_WINDOWS = {
    "time": "the label window, by time: learnt before it, asked as of its first moment",
    "last": "the label window of leave one out: the events of each person before the last one",
    "unordered": "the label window, unordered: a random part of each person's events",
}


def tune(
    domain: Domain,
    features_dir: Path,
    train_dir: Path | None,
    name: str,
    samples: int,
    home: Path,
    resume: bool,
    reporter: Reporter,
    seed: int | None = None,
) -> dict[str, Any]:
    """Tries `samples` settings of one source, or of the ranker (which needs a finished training: `train_dir`); first the present ones,
    where the ranges of the YAML hold them. Writes trials.json with all of them, best first, and trials.html, a picture of them, and
    returns what stands in the first. The training configuration is not changed (pipelines/adopt.py does that).

    `seed`: of the models and of what is tried next; default: the split's. Raises ValueError if the YAML has no search for it, or if
    runs are to be sent where they cannot be; FileNotFoundError, FileExistsError about `resume`."""
    from training.tune import search  # Ray Tune takes seconds to import

    space = domain.search.get(name)
    if space is None:
        raise ValueError(f"search: {domain.name} says nothing about {name!r}; it has {', '.join(domain.search) or 'none'}")
    if name == RANKER and train_dir is None:
        raise ValueError("the ranker is tuned on fitted sources: train first")
    tracking.check()
    reporter.step("tune")
    seed = domain.split.seed if seed is None else seed
    words = (domain.ranker if name == RANKER else domain.candidates[name]).model_dump(mode="json")  # type: ignore[union-attr]
    made_from = upstream(train_dir) if name == RANKER and train_dir is not None else upstream(features_dir)
    mark = fingerprint(_CODE, made_from, words, space.model_dump(mode="json"), domain.split.model_dump(mode="json"), seed)
    directory = home / domain.name / "tune" / f"{name}-{mark}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    plain = domain.model_dump(mode="json")
    features, train = str(features_dir), str(train_dir) if train_dir else ""

    def measure(tried: Mapping[str, Any], told: Told) -> None:
        own = Domain.model_validate(plain)
        if name == RANKER:
            _measure_ranker(own, Path(train), home, directory, tried, seed, told)
        else:
            _measure_source(own, Path(features), name, tried, space, seed, told)

    def finished(many: int, best: float | None) -> None:
        reporter.progress(f"trials, best NDCG@{K} {best:.4f}" if best is not None else "trials", many / samples)

    present = _present(space, words)
    with cluster.started():
        trials = search(measure, space, samples, seed, directory, resume, finished, present)
    opened = load_features(features_dir, domain)
    result = {
        "domain": domain.name,
        "model": name,
        "metric": f"NDCG@{K}",
        "window": _WINDOWS[split(opened.histories, domain.split, opened.moment).kind],
        "seed": seed,
        "commit": commit(),
        "now": words,
        "now_is": 1 if present is not None else None,
        "space": space.model_dump(mode="json"),
        "trials": [
            {
                "trial": t.number,
                "words": t.words,
                "score": t.score,
                "stopped": t.stopped,
                "curve": [list(look) for look in t.curve],
                "seconds": t.seconds,
                "error": t.error,
            }
            for t in trials
        ],
        "directory": str(directory),
    }
    write_json(directory / TRIALS, result)
    with atomic(directory / "trials.html") as temporary:
        temporary.write_text(trials_page.page_of(result), encoding="utf-8")
    sent = tracking.send(result)
    if sent:
        reporter.say(f"{sent} runs sent to MLflow")
    return result


def lines(result: Mapping[str, Any]) -> list[str]:
    """The trials as a table, best first."""
    names = list(result["space"]["words"])
    wide = {name: max(len(name), *(len(_short(trial["words"].get(name))) for trial in result["trials"])) for name in names}
    out = [
        f"{result['domain']} {result['model']}: {result['metric']} on {result['window']}",
        f"{'trial':>5} {'score':>8} {'done':>5} {'seconds':>8}  " + "  ".join(name.rjust(wide[name]) for name in names),
    ]
    for trial in result["trials"]:
        score = "failed" if trial["score"] is None else f"{trial['score']:.4f}"
        done = f"{trial['curve'][-1][0]:.0%}" if trial["curve"] else "-"
        said = "  ".join(_short(trial["words"].get(name)).rjust(wide[name]) for name in names)
        note = "  (present settings)" if trial["trial"] == result["now_is"] else ""
        out.append(f"{trial['trial']:>5} {score:>8} {done:>5} {trial['seconds']:>8.1f}  {said}{note}")
    out += [f"{trial['trial']}: {trial['error']}" for trial in result["trials"] if trial["error"]]
    out.append(f"a picture: {result['directory']}/trials.html")
    out.append(f"to use the best: factotum adopt {result['domain']} --model {result['model']}")
    return out


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _present(space: Search, words: Mapping[str, Any]) -> dict[str, Any] | None:
    """The present value of each word that is searched; None if one of them lies outside its range."""
    for word, tried in space.words.items():
        match tried:
            case Choices():
                inside = words[word] in tried.choices
            case Between():
                number = isinstance(words[word], int | float) and not isinstance(words[word], bool)
                inside = number and tried.low <= words[word] <= tried.high
        if not inside:
            return None
    return {word: words[word] for word in space.words}


# ------------------------------------------------------------------ a source


def _measure_source(domain: Domain, features_dir: Path, name: str, tried: Mapping[str, Any], space: Search, seed: int, told: Told) -> None:
    features = load_features(features_dir, domain)
    cut = split(features.histories, domain.split, features.moment)
    part = part_of(features, cut, "base")
    wanted = targets(features.histories, cut.label, part.histories, len(features.catalogue)).sample(_MOST_PEOPLE, domain.split.seed)
    words: Any = TypeAdapter(CandidateModel).validate_python({**domain.candidates[name].model_dump(), **tried})
    data = TrainingData(part.histories, features.catalogue, part.moment, seed, max(1, int(space.cpus)))
    model = build.build(words)
    if isinstance(words, SasrecModel):
        from training.candidates.sasrec import Sasrec
        from training.epochs import EachEpoch, Epoch

        looked = {max(1, round(words.epochs * look / space.looks)) for look in range(1, space.looks)}

        def look(epoch: Epoch) -> None:
            if epoch.number in looked and epoch.number < epoch.of:
                told(_ndcg(epoch.model(), features.catalogue, part, wanted), epoch.number / epoch.of)

        assert isinstance(model, Sasrec)
        model.fit(data, callbacks=[EachEpoch(look)])
    else:
        model.fit(data)
    told(_ndcg(model, features.catalogue, part, wanted), 1.0)


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


# ------------------------------------------------------------------ the ranker


def _measure_ranker(domain: Domain, train_dir: Path, home: Path, directory: Path, tried: Mapping[str, Any], seed: int, told: Told) -> None:
    """People of the label window are parted in two by seed: one half teaches, the other measures."""
    assert domain.ranker is not None
    words = Ranker.model_validate({**domain.ranker.model_dump(), **tried})
    made, names = _rows(domain, words, train_dir, home, directory)
    half = np.random.default_rng(domain.split.seed + 1).random(len(made.groups)) < 0.5
    inside = np.repeat(half, made.groups)
    ranker = FittedRanker.fit(words, names, tuple(domain.candidates), made.rows[inside], made.labels[inside], made.groups[half], seed, 1)
    scores, labels = ranker.scores(made.rows[~inside]), made.labels[~inside]
    hits, counts = [], []
    ends = np.cumsum(made.groups[~half])
    for end, length in zip(ends, made.groups[~half], strict=True):
        mine = slice(int(end - length), int(end))
        top = np.argsort(-scores[mine], kind="stable")[:K]
        hits.append(np.pad(labels[mine][top] > 0, (0, K - len(top))))
        counts.append(int(labels[mine].sum()))
    told(float(metrics.ndcg(np.array(hits), np.array(counts, dtype=np.int64)).mean()), 1.0)


def _rows(domain: Domain, words: Ranker, train_dir: Path, home: Path, directory: Path) -> tuple[Examples, tuple[str, ...]]:
    """The ranker's rows, from a file of the search's directory where a trial with the same needs made them before: they take longer
    than the ranker itself. Trials that begin at the same moment each make them; the files are the same."""
    mark = fingerprint(words.model_dump(mode="json", include={"candidates", "users", "negatives"}))
    path = directory / f"rows-{mark}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            found, wanted = (int(number) for number in kept["found"])
            return Examples(kept["rows"], kept["labels"], kept["groups"], found, wanted), tuple(json.loads(str(kept["names"])))
    trained = open_trained(train_dir, domain, home)
    windows = [(known, took.sample(2 * _MOST_PEOPLE, domain.split.seed)) for known, took in label_windows(trained.features, trained.split)]
    models = trained.models(domain, "base")
    made, names = examples_of(domain, words, trained.features.catalogue, trained.part("base"), models, windows)
    directory.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            rows=made.rows,
            labels=made.labels,
            groups=made.groups,
            found=np.array([made.found, made.targets]),
            names=np.array(json.dumps(names)),
        )
    return made, names
