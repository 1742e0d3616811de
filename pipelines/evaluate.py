"""How good the answers are, by the code that answers: the engine's own lists and each source's, on the held-out window.

Everything is learnt before the test window; people are asked as of its first moment (or, without times, with the held-out
events taken away), and what they took afterwards is compared with what they would have been shown. The gate lives here too.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.domain import Domain
from features.compute import attribute_vectors
from pipelines.steps import Reporter, Step, fingerprint, upstream, write_json
from pipelines.train import Trained, open_trained, statistics_of
from serving.engine import EngineParts
from serving.slate import Question
from training import metrics
from training.bundle import TWO_STAGE, Verdict
from training.significance import interval, paired
from training.split import targets

K = 10
_BATCH = 256
_CODE = 2

_PER_PERSON: Mapping[str, Callable[[metrics.Hits, metrics.Counts], metrics.PerPerson]] = {
    "HR": metrics.hit_rate,
    "NDCG": metrics.ndcg,
    "MAP": metrics.average_precision,
    "MRR": metrics.reciprocal_rank,
    "recall": metrics.recall,
}
Lists = list[NDArray[np.int32]]


def evaluate(domain: Domain, train_dir: Path, home: Path, reporter: Reporter) -> Path:
    """Writes report.json into the step's directory and returns that. Raises ValueError if nobody took anything new in the
    test window, or if a source cannot answer."""
    mark = fingerprint(_CODE, upstream(train_dir), domain.split.model_dump(mode="json"), domain.serving.model_dump(mode="json"))
    reporter.step("evaluate")
    with Step(home / domain.name / "evaluate" / mark) as step:
        if step.done is not None:
            reporter.say(f"nothing changed: {step.directory.name} stands")
            return step.directory
        report = measure(domain, open_trained(train_dir, domain, home), reporter)
        write_json(step.directory / "report.json", report)
        step.finish({"verdict": report["verdict"], "train": str(train_dir.relative_to(home))})
        for line in table(report):
            reporter.say(line)
        return step.directory


def read_report(directory: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    return report


def measure(domain: Domain, trained: Trained, reporter: Reporter) -> dict[str, Any]:
    """The report: for the two stages and for each source alone, every metric with its interval."""
    began = time.monotonic()
    features, part = trained.features, trained.part("known")
    items = len(features.catalogue)
    wanted = targets(features.histories, trained.split.test, part.histories, items).sample(domain.split.users, domain.split.seed)
    if not len(wanted.users):
        raise ValueError("nobody took anything new in the test window: there is nothing to measure")
    statistics = statistics_of(domain, part, features.catalogue)
    models = trained.models(domain, "known")
    mode = (
        TWO_STAGE if trained.ranker is not None else next(name for name, words in domain.candidates.items() if words.model == "popularity")
    )
    parts = EngineParts(domain, features.catalogue, statistics, models, trained.ranker, TWO_STAGE if trained.ranker else mode, "evaluation")
    sources = tuple(models)
    lists: dict[str, Lists] = {name: [] for name in (*([TWO_STAGE] if trained.ranker else []), *sources)}
    truth: Lists = []
    cold: list[bool] = []
    reached: dict[str, list[float]] = {name: [] for name in (*sources, "union")}
    for start in range(0, len(wanted.users), _BATCH):
        people = range(start, min(start + _BATCH, len(wanted.users)))
        questions = [
            Question(part.histories.state(int(wanted.users[person])), K, part.moment, exploration=0.0, diversity=domain.serving.diversity)
            for person in people
        ]
        ranked = parts.rank(questions) if trained.ranker else parts.rank_sources(questions)
        if ranked.candidates.failed:
            raise ValueError(f"sources failed while being measured: {', '.join(ranked.candidates.failed)}")
        bounds = np.searchsorted(ranked.candidates.users, np.arange(len(questions) + 1))
        for position, person in enumerate(people):
            took = wanted.of(person)
            truth.append(took)
            cold.append(not len(questions[position].state.positives))
            inside = slice(int(bounds[position]), int(bounds[position + 1]))
            found, ranks = ranked.candidates.items[inside], ranked.candidates.ranks[inside]
            hit = np.isin(found, took)
            reached["union"].append(float(hit.sum()) / len(took))
            for column, name in enumerate(ranked.candidates.sources):
                own = ranks[:, column]
                reached[name].append(float((hit & (own > 0)).sum()) / len(took))
                first = np.flatnonzero((own > 0) & (own <= K))
                lists[name].append(found[first[np.argsort(own[first])]])
            if trained.ranker:
                lists[TWO_STAGE].append(ranked.rankings[position].items[:K])
        reporter.progress("asking as of the test window", (people.stop) / len(wanted.users))
    counts = np.array([len(took) for took in truth], dtype=np.int64)
    people_count = max(1, int((np.diff(part.histories.indptr) > 0).sum()))
    vectors = attribute_vectors(features.catalogue)
    is_cold = np.array(cold, dtype=np.bool_)
    table_of, per_person = {}, {}
    for name, ranked_lists in lists.items():
        hits = metrics.hits_of(ranked_lists, truth, K)
        values = {f"{metric}@{K}": function(hits, counts) for metric, function in _PER_PERSON.items()}
        per_person[name] = values
        table_of[name] = {
            **{metric: interval(value, domain.split.seed).as_json() for metric, value in values.items()},
            "coverage": round(metrics.coverage(ranked_lists, items), 6),
            "gini": round(metrics.gini(ranked_lists, items), 6),
            "novelty": interval(metrics.novelty(ranked_lists, statistics.takers, people_count), domain.split.seed).as_json(),
            "diversity": interval(metrics.diversity(ranked_lists, vectors), domain.split.seed).as_json(),
            "groups": {
                group: {f"NDCG@{K}": interval(values[f"NDCG@{K}"][mask], domain.split.seed).as_json()}
                for group, mask in (("warm", ~is_cold), ("cold", is_cold))
            },
        }
    gained = {name: values[f"NDCG@{K}"] for name, values in per_person.items()}
    return {
        "domain": domain.name,
        "protocol": "split by time: learnt before the test window, asked as of its first moment"
        if features.ordered
        else "unordered: the source has no times, a random part of each person's events was held out",
        "ordered": features.ordered,
        "test_moment": part.moment,
        "people": len(wanted.users),
        "cold_people": int(is_cold.sum()),
        "items": items,
        "k": K,
        "rows": table_of,
        "candidates": {
            "each": parts.per_source,
            "recall": {name: interval(np.array(values), domain.split.seed).as_json() for name, values in reached.items()},
        },
        "importance": dict(list(trained.ranker.importance().items())[:20]) if trained.ranker else {},
        "verdict": gate(domain, gained).model_dump(),
        "against_popularity": _against(gained, domain),
        "seconds": round(time.monotonic() - began, 2),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }


def gate(domain: Domain, ndcg: Mapping[str, NDArray[np.float64]]) -> Verdict:
    """What may be served. The two stages only if their paired bootstrap interval over the best single source lies above zero
    (that source was picked on the same people, which flatters it: the gate is strict); else that source. Promotion further
    needs that what is served is not below plain popularity."""
    popular = _popular(domain)
    singles = {name: float(values.mean()) for name, values in ndcg.items() if name != TWO_STAGE}
    best = max(singles, key=lambda name: singles[name])
    serve, why = best, f"the best source, {best}, is served: there is no ranker"
    if TWO_STAGE in ndcg:
        gain = paired(ndcg[TWO_STAGE], ndcg[best], domain.split.seed)
        said = (
            f"NDCG@{K} {ndcg[TWO_STAGE].mean():.4f} against {singles[best]:.4f} of {best}, "
            f"paired difference {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
        )
        if gain.low > 0:
            serve, why = TWO_STAGE, f"the ranker beats the best single source: {said}"
        else:
            why = f"the ranker does not beat the best single source, so {best} is served alone: {said}"
    passed = float(ndcg[serve].mean()) >= singles[popular]
    return Verdict(passed=passed, serve=serve, why=why if passed else f"below popularity ({singles[popular]:.4f}); {why}")


def _popular(domain: Domain) -> str:
    return next(name for name, words in domain.candidates.items() if words.model == "popularity")


def _against(ndcg: Mapping[str, NDArray[np.float64]], domain: Domain) -> dict[str, Any]:
    """Paired differences of NDCG to plain popularity."""
    popular = _popular(domain)
    return {name: paired(values, ndcg[popular], domain.split.seed).as_json() for name, values in ndcg.items() if name != popular}


def table(report: Mapping[str, Any]) -> list[str]:
    """The report as lines for a terminal."""
    k = report["k"]
    columns = (f"NDCG@{k}", f"HR@{k}", f"MAP@{k}", f"MRR@{k}")
    out = [
        f"{report['people']:,} people ({report['cold_people']:,} of them unknown before), {report['items']:,} items; {report['protocol']}",
        f"{'':12}"
        + "".join(f"{name:>9}" for name in columns)
        + f"{'95% of NDCG':>18}{'coverage':>10}{'novelty':>9}{'diversity':>10}{'recall@' + str(report['candidates']['each']):>11}",
    ]
    for name, row in report["rows"].items():
        first = row[columns[0]]
        reach = report["candidates"]["recall"]["union" if name == TWO_STAGE else name]["mean"]
        out.append(
            f"{name:12}"
            + "".join(f"{row[column]['mean']:9.4f}" for column in columns)
            + f"{first['low']:>10.4f}-{first['high']:.4f} {row['coverage']:9.3f}"
            + f"{row['novelty']['mean']:9.2f}{row['diversity']['mean']:10.3f}{reach:11.3f}"
        )
    out.append(f"gate: {report['verdict']['why']}")
    return out
