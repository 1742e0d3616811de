"""People and items that training never saw: 5% of each are taken out, the sources are fitted on the rest, and then asked.

Groups apart: new people, known by what they took (fold-in); new items for people who were there (content, among all items and
among the new ones); each source against popularity. Sources that learn slowly (the sequence model) are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.domain import CandidateModel, Domain, SasrecModel
from features.catalogue import Catalogue
from features.statistics import ItemStatistics
from pipelines.evaluate import protocol_of
from pipelines.featurize import load
from pipelines.measuring import Asked, Ground, K, ask, comparisons, figures
from pipelines.memory import Peak
from pipelines.steps import Reporter, Step, fingerprint, upstream, write_json
from pipelines.train import part_of, statistics_of
from serving.engine import EngineParts
from training import build
from training.contract import CandidateModel as Model
from training.contract import TrainingData
from training.split import split, targets

SHARE = 0.05
_CODE = 1


def measure_unseen(domain: Domain, features_dir: Path, home: Path, reporter: Reporter) -> dict[str, Any]:
    """The figures of each group; done once for the same data and settings."""
    quick = {name: model for name, model in domain.candidates.items() if not isinstance(model, SasrecModel)}
    plain = {name: model.model_dump(mode="json") for name, model in quick.items()}
    mark = fingerprint(_CODE, upstream(features_dir), domain.split.model_dump(mode="json"), domain.events.model_dump(mode="json"), plain)
    with Step(home / domain.name / "quality" / f"cold-{mark}") as step:
        if step.done is None:
            reporter.step("quality cold")
            with Peak() as peak:
                result = _without(domain, features_dir, quick, reporter)
            write_json(step.directory / "more.json", {**result, "peak_bytes": peak.bytes})
            step.finish({"people": result["groups"]["new people"]["people"]})
        result = json.loads((step.directory / "more.json").read_text(encoding="utf-8"))
    return {**result, "fingerprint": mark}


def _without(domain: Domain, features_dir: Path, quick: Mapping[str, CandidateModel], reporter: Reporter) -> dict[str, Any]:
    features = load(features_dir, domain)
    catalogue, items = features.catalogue, len(features.catalogue)
    cut = split(features.histories, domain.split, features.moment)
    known = part_of(features, cut, "known")
    wanted = targets(features.histories, cut.test, known.histories, items).sample(domain.split.users, domain.split.seed)
    chance = np.random.default_rng(domain.split.seed)
    new_people = np.sort(chance.permutation(wanted.users)[: max(1, round(len(wanted.users) * SHARE))])
    met = np.unique(known.histories.items)
    new_items = np.zeros(items, dtype=np.bool_)
    new_items[chance.permutation(met)[: max(1, round(len(met) * SHARE))]] = True
    histories = known.histories
    left = histories.where(~np.isin(histories.users, new_people) & ~new_items[histories.items])
    data = TrainingData(left, catalogue, known.moment, domain.split.seed)
    models: dict[str, Model] = {}
    for place, (name, model) in enumerate(quick.items()):
        models[name] = build.build(model)
        models[name].fit(data)
        reporter.progress("fitting without them", (place + 1) / len(quick))
    popular = next(name for name, model in quick.items() if model.model == "popularity")
    statistics = statistics_of(domain, replace(known, histories=left), catalogue)
    ground = Ground(statistics, np.zeros((items, 1), dtype=np.float32), np.asarray(catalogue.available), 1, domain.split.seed)
    own = histories.where(~new_items[histories.items])  # nobody is known by an item that is not there yet
    is_new = np.isin(wanted.users, new_people)
    groups: dict[str, Any] = {}
    for group, people, which, shown in (
        ("new people", is_new, ~new_items, np.asarray(catalogue.available) & ~new_items),
        ("new items", ~is_new, new_items, np.asarray(catalogue.available)),
        ("new items, among themselves", ~is_new, new_items, np.asarray(catalogue.available) & new_items),
    ):
        states, truth = [], []
        for position in np.flatnonzero(people):
            took = wanted.of(int(position))
            took = took[which[took] & shown[took]]
            state = own.state(int(wanted.users[position]))
            if len(took) and len(state.positives):
                states.append(state)
                truth.append(took)
        groups[group] = _group(
            domain, replace(catalogue, available=shown), statistics, models, popular, Asked(states, truth), known.moment, ground
        )
    return {
        "protocol": f"{protocol_of(domain, cut)}; {len(new_people):,} people and {int(new_items.sum()):,} items unknown to training",
        "groups": groups,
    }


def _group(
    domain: Domain,
    catalogue: Catalogue,
    statistics: ItemStatistics,
    models: Mapping[str, Model],
    popular: str,
    asked: Asked,
    now: int,
    ground: Ground,
) -> dict[str, Any]:
    """Each source for one group, and each against popularity."""
    if not asked.states:
        return {"people": 0, "rows": {}}
    engine = EngineParts(domain, catalogue, statistics, models, None, popular, "cold")
    answers = ask(engine, tuple(models), False, asked, now)
    rows, behind = figures(answers, asked, ground, {})
    ndcg = {way: values[f"NDCG@{K}"] for way, values in behind.items()}
    kept = {way: {metric: row[metric] for metric in (f"NDCG@{K}", f"HR@{K}", f"MRR@{K}", "coverage")} for way, row in rows.items()}
    return {"people": len(asked.states), "rows": kept, "comparisons": comparisons(ndcg, domain.split.seed)}
