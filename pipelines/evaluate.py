"""How good the answers are, by the code that answers: the engine's own lists and each source's, on the held-out window.

Everything is learnt before the test window; people are asked as of its first moment (or, without times, with the held-out
events taken away), and what they took afterwards is compared with what they would have been shown. The gate lives here too.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.domain import Domain
from features.catalogue import Catalogue
from features.compute import attribute_vectors
from pipelines.measuring import Asked, Ground, K, ask, comparisons, figures
from pipelines.steps import Reporter, Step, atomic, fingerprint, upstream, write_json
from pipelines.train import Part, Trained, open_trained, statistics_of
from serving.engine import EngineParts
from training.bundle import TWO_STAGE, Verdict
from training.contract import CandidateModel
from training.ranker import Ranker
from training.significance import interval, paired
from training.split import Split, targets

_CODE = 3
VALUES = "per_person.npz"


def evaluate(domain: Domain, train_dir: Path, home: Path, reporter: Reporter) -> Path:
    """Writes report.json into the step's directory and returns that. Raises ValueError if nobody took anything new in the
    test window, or if a source cannot answer."""
    mark = fingerprint(_CODE, upstream(train_dir), domain.split.model_dump(mode="json"), domain.serving.model_dump(mode="json"))
    reporter.step("evaluate")
    with Step(home / domain.name / "evaluate" / mark) as step:
        if step.done is not None:
            reporter.say(f"nothing changed: {step.directory.name} stands")
            return step.directory
        report, values = measure(domain, open_trained(train_dir, domain, home), reporter)
        with atomic(step.directory / VALUES) as temporary, temporary.open("wb") as file:
            np.savez(file, **values)  # type: ignore[arg-type]
        write_json(step.directory / "report.json", report)
        step.finish({"verdict": report["verdict"], "train": str(train_dir.relative_to(home))})
        for line in table(report):
            reporter.say(line)
        return step.directory


def read_report(directory: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    return report


def measure(domain: Domain, trained: Trained, reporter: Reporter) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The report: for the two stages and for each source alone, every metric with its interval; and what it was made from, arrays
    over people: `users` (rows), and `way/metric`."""
    began = time.monotonic()
    features, part = trained.features, trained.part("known")
    items = len(features.catalogue)
    wanted = targets(features.histories, trained.split.test, part.histories, items).sample(domain.split.users, domain.split.seed)
    if not len(wanted.users):
        raise ValueError("nobody took anything new in the test window: there is nothing to measure")
    asked = Asked(part.histories.states(wanted.users), [wanted.of(person) for person in range(len(wanted.users))])
    answers = ask(
        parts_of(domain, trained),
        tuple(domain.candidates),
        trained.ranker is not None,
        asked,
        part.moment,
        lambda share: reporter.progress("asking as of the test window", share),
    )
    cold = asked.cold
    rows, behind = figures(answers, asked, ground_of(domain, trained), {"warm": ~cold, "cold": cold})
    gained = {way: values[f"NDCG@{K}"] for way, values in behind.items()}
    report = {
        "domain": domain.name,
        "protocol": protocol_of(domain, trained.split),
        "ordered": features.ordered,
        "test_moment": part.moment,
        "people": len(wanted.users),
        "cold_people": int(cold.sum()),
        "items": int(np.asarray(features.catalogue.available).sum()),
        "k": K,
        "rows": rows,
        "candidates": {
            "each": domain.ranker.candidates if domain.ranker else 0,
            "recall": {name: interval(np.array(values), domain.split.seed).as_json() for name, values in answers.reached.items()},
        },
        "importance": dict(list(trained.ranker.importance().items())[:20]) if trained.ranker else {},
        "verdict": gate(domain, gained).model_dump(),
        "comparisons": comparisons(gained, domain.split.seed),
        "against_popularity": _against(gained, domain),
        "seconds": round(time.monotonic() - began, 2),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    arrays: dict[str, NDArray[Any]] = {f"{way}/{metric}": value for way, values in behind.items() for metric, value in values.items()}
    return report, {"users": wanted.users, **arrays}


def parts_of(domain: Domain, trained: Trained) -> EngineParts:
    """The engine's own parts, over what was learnt before the test window."""
    return parts_over(domain, trained.features.catalogue, trained.part("known"), trained.models(domain, "known"), trained.ranker)


def parts_over(
    domain: Domain, catalogue: Catalogue, part: Part, models: Mapping[str, CandidateModel], ranker: Ranker | None
) -> EngineParts:
    """The engine's own parts over models that know what `part` holds."""
    mode = TWO_STAGE if ranker is not None else _popular(domain)
    return EngineParts(domain, catalogue, statistics_of(domain, part, catalogue), models, ranker, mode, "evaluation")


def ground_of(domain: Domain, trained: Trained) -> Ground:
    """What lists are measured against, as of the test window."""
    part, catalogue = trained.part("known"), trained.features.catalogue
    people = max(1, int((np.diff(part.histories.indptr) > 0).sum()))
    statistics = statistics_of(domain, part, catalogue)
    return Ground(statistics, attribute_vectors(catalogue), np.asarray(catalogue.available), people, domain.split.seed)


def protocol_of(domain: Domain, cut: Split) -> str:
    """The protocol in words."""
    said = {
        "time": "split by time: learnt before the test window, asked as of its first moment",
        "last": "leave one out: the last event of each person is the test (models see other people's future, which flatters them)",
        "unordered": "unordered: the source has no times, a random part of each person's events was held out",
    }[cut.kind]
    return said + (f"; validation, {domain.split.back} window before the test" if domain.split.back else "")


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
