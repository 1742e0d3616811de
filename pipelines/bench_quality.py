"""`factotum bench quality DOMAIN`: how good a domain's models are, by the protocols that its data allow.

Parts, each run alone and resumed: `own` (the split of the YAML), one for each of its `protocols`, `cold` (people and items that
training never saw), and in a domain with an itinerary `basket` (what fits beside tickets, and clients' own routes). A part fits its
sources in a home of the benchmark's own, so that nothing served is touched. With `validation` everything happens one window earlier
and the test column stays unread; every reading of the test column is written to readings.jsonl with the commit and the configuration.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.domain import Domain
from features.itinerary.timetable import Timetable
from features.state import Histories, UserState
from pipelines.bench_basket import Baskets, basket_table, measure_basket
from pipelines.bench_own_routes import measure_own_routes, own_routes_table
from pipelines.bench_serve import machine
from pipelines.evaluate import evaluate, ground_of, parts_of, read_report, table
from pipelines.featurize import featurize
from pipelines.featurize import load as load_features
from pipelines.ingest import ingest
from pipelines.measuring import Asked, K, ask, comparisons, figures
from pipelines.provenance import commit
from pipelines.run import sample_of
from pipelines.sampled import NEGATIVES, sampled
from pipelines.sources.tables import SourceError
from pipelines.steps import DONE, Reporter, Step, fingerprint, upstream, write_json
from pipelines.train import Trained, open_trained, statistics_of, train
from pipelines.unseen import measure_unseen
from training.bundle import TIMETABLE, TWO_STAGE
from training.split import targets

OWN, COLD, BASKET = "own", "cold", "basket"
_ORDERS = 5  # random orders of equal times that are tried
_CODE = 1
_BASKET_CODE = 2
READINGS = "readings.jsonl"


def parts(domain: Domain) -> tuple[str, ...]:
    """Names of the parts of a domain's benchmark."""
    return (OWN, *domain.protocols, COLD, *([BASKET] if domain.itinerary is not None else []))


def run(
    domain: Domain, data: Path | None, home: Path, reporter: Reporter, only: Sequence[str] = (), validation: bool = False
) -> dict[str, Any]:
    """The figures of all parts, or of those named; also written to home/bench/quality-<domain>-<column>.json. Recorded events are no
    part of a benchmark. Raises ValueError for a part that is not there, and what the steps raise."""
    unknown = set(only) - set(parts(domain))
    if unknown:
        raise ValueError(f"no part {', '.join(sorted(unknown))}; {domain.name} has {', '.join(parts(domain))}")
    own = home / "bench" / "quality"
    began, here = time.monotonic(), machine()
    folder = data if data is not None else sample_of(domain, own, reporter)
    measured: dict[str, Any] = {}
    for part in only or parts(domain):
        try:
            measure = _unseen if part == COLD else _basket if part == BASKET else partial(_part, part=part)
            measured[part] = measure(domain, folder=folder, home=own, reporter=reporter, validation=validation)
        except SourceError as error:
            if part in (OWN, COLD, BASKET):
                raise
            measured[part] = {"skipped": str(error)}
    if not validation:
        _read(domain, own, measured)
    result = {
        "bench": "quality",
        "machine": here,
        "commit": commit(),
        "domain": domain.name,
        "data": "the sample" if data is None else data.name,
        "column": "validation" if validation else "test",
        "parts": measured,
        "seconds": round(time.monotonic() - began, 1),
        "readings": _readings(own / domain.name),
    }
    write_json(home / "bench" / f"quality-{domain.name}-{result['column']}.json", result)
    return result


def shaped(domain: Domain, part: str, validation: bool) -> Domain:
    """The domain as a part sees it: its files, split and settings; nothing learns from everything at the end."""
    split, source, candidates, ranker = domain.split, domain.source, dict(domain.candidates), domain.ranker
    if part in domain.protocols:
        protocol = domain.protocols[part]
        split, candidates = protocol.split, {**candidates, **protocol.candidates}
        source = source.model_copy(update={"events": protocol.events or source.events})
        ranker = protocol.ranker or ranker
    split = split.model_copy(update={"back": split.back + int(validation)})
    ranker = ranker.model_copy(update={"refit": False}) if ranker is not None else None
    return domain.model_copy(update={"split": split, "source": source, "candidates": candidates, "ranker": ranker})


# ------------------------------------------------------------------ a protocol


def _part(domain: Domain, part: str, folder: Path, home: Path, reporter: Reporter, validation: bool) -> dict[str, Any]:
    words = shaped(domain, part, validation)
    features = featurize(words, ingest(words, folder, home, reporter), home, reporter)
    trained_in = train(words, features, home, reporter)
    evaluated = evaluate(words, trained_in, home, reporter)
    report = read_report(evaluated)
    with Step(home / domain.name / "quality" / f"{part}-{fingerprint(_CODE, upstream(evaluated))}") as step:
        if step.done is None:
            reporter.step(f"quality {part}")
            trained = open_trained(trained_in, words, home)
            more: dict[str, Any] = {"costs": _costs(words, trained_in, trained), "sampled": _sampled(words, trained, reporter)}
            if trained.split.kind == "time":
                more["last_target"], more["equal_times"] = _last_target(words, trained, reporter)
            write_json(step.directory / "more.json", more)
            step.finish({"evaluate": upstream(evaluated)})
        more = json.loads((step.directory / "more.json").read_text(encoding="utf-8"))
    return {**report, **more, "fingerprint": upstream(evaluated)}


def _costs(domain: Domain, directory: Path, trained: Trained) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of each way's training: a source's first two rounds (the second goes on from the first where a model
    can); the two stages take those of all sources and the ranker."""
    out: dict[str, dict[str, float]] = {}
    for name in domain.candidates:
        said = [json.loads((trained.units[which][name] / DONE).read_text(encoding="utf-8")) for which in ("base", "known")]
        out[name] = {"train_s": round(sum(one["seconds"] for one in said), 2), "peak_bytes": max(one["peak_bytes"] for one in said)}
    if trained.ranker is not None:
        ranker = json.loads((directory / DONE).read_text(encoding="utf-8"))
        total = sum(cost["train_s"] for cost in out.values()) + ranker["ranker_seconds"]
        peak = max(ranker["ranker_peak_bytes"], *(cost["peak_bytes"] for cost in out.values()))
        out[TWO_STAGE] = {"train_s": round(total, 2), "ranker_s": ranker["ranker_seconds"], "peak_bytes": peak}
    return out


def _asked(domain: Domain, trained: Trained) -> Asked:
    part = trained.part("known")
    wanted = targets(trained.features.histories, trained.split.test, part.histories, len(trained.features.catalogue))
    wanted = wanted.sample(domain.split.users, domain.split.seed)
    return Asked(part.histories.states(wanted.users), [wanted.of(person) for person in range(len(wanted.users))])


def _sampled(domain: Domain, trained: Trained, reporter: Reporter) -> dict[str, Any]:
    reporter.progress(f"{NEGATIVES} sampled items", 0.0)
    features, part = trained.features, trained.part("known")
    statistics = statistics_of(domain, part, features.catalogue)
    asked = _asked(domain, trained)
    rows = sampled(domain, trained.models(domain, "known"), trained.ranker, features.catalogue, statistics, asked, part.moment)
    reporter.progress(f"{NEGATIVES} sampled items", 1.0)
    return {
        "said": f"only for comparison: against {NEGATIVES} random items a person; such figures do not keep the order of models",
        "rows": rows,
    }


def _last_target(domain: Domain, trained: Trained, reporter: Reporter) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everybody's last choice in the test window, foreseen from all that was before it, models as of the cut; and how far the figures
    move when events of equal time stand in another order."""
    engine, ground, moment = parts_of(domain, trained), ground_of(domain, trained), trained.features.moment + 1
    found: dict[str, list[float]] = {}
    report: dict[str, Any] = {}
    for order in range(_ORDERS + 1):
        chance = np.random.default_rng((domain.split.seed, order)) if order else None
        asked = _before_last(trained.features.histories, trained, chance)
        if not len(asked.states):
            return {"people": 0}, {}
        answers = ask(engine, tuple(domain.candidates), trained.ranker is not None, asked, moment)
        rows, behind = figures(answers, asked, ground, {})
        ndcg = {way: values[f"NDCG@{K}"] for way, values in behind.items()}
        if chance is None:
            report = {"people": len(asked.states), "rows": rows, "comparisons": comparisons(ndcg, domain.split.seed)}
        else:
            for way, values in ndcg.items():
                found.setdefault(way, []).append(float(values.mean()))
        reporter.progress("last target, orders of equal times", (order + 1) / (_ORDERS + 1))
    spread = {
        way: {
            "as_given": report["rows"][way][f"NDCG@{K}"]["mean"],
            "lowest": round(min(values), 6),
            "highest": round(max(values), 6),
            "deviation": round(float(np.std(values)), 6),
        }
        for way, values in found.items()
    }
    times = trained.features.histories.times
    users = trained.features.histories.users
    tied = float(((times[1:] == times[:-1]) & (users[1:] == users[:-1])).sum() / max(len(times), 1))
    said = (
        f"NDCG@{K} of the last target under {_ORDERS} random orders of events of equal time; models as they were fitted on the given order"
    )
    return report, {"said": said, "share_of_events_at_the_time_of_the_one_before": round(tied, 6), "rows": spread}


def _before_last(histories: Histories, trained: Trained, chance: np.random.Generator | None) -> Asked:
    """People whose last event is in the test window, known by all before it; those who had that item before are left out."""
    states: list[UserState] = []
    truth: list[NDArray[np.int32]] = []
    for user in range(len(histories)):
        part = slice(int(histories.indptr[user]), int(histories.indptr[user + 1]))
        if part.stop - part.start < 2 or not trained.split.test[part.stop - 1]:
            continue
        state = histories.state(user)
        order = np.arange(len(state)) if chance is None else np.lexsort((chance.random(len(state)), state.times))
        before, last = order[:-1], order[-1]
        known = replace(state, items=state.items[before], kinds=state.kinds[before], values=state.values[before], times=state.times[before])
        meaning = int(state.kinds_of.meanings(state.kinds[last : last + 1], state.values[last : last + 1])[0])
        if meaning & state.kinds_of.targets and state.items[last] not in known.excluded and len(known.positives):
            states.append(known)
            truth.append(state.items[last : last + 1].astype(np.int32))
    return Asked(states, truth)


def _unseen(domain: Domain, folder: Path, home: Path, reporter: Reporter, validation: bool) -> dict[str, Any]:
    words = shaped(domain, OWN, validation)
    return measure_unseen(words, featurize(words, ingest(words, folder, home, reporter), home, reporter), home, reporter)


def _basket(domain: Domain, folder: Path, home: Path, reporter: Reporter, validation: bool) -> dict[str, Any]:
    """The basket and own routes, of cross-validated folds of people: there is no test window, so `validation` changes nothing."""
    tables = ingest(domain, folder, home, reporter)
    features = featurize(domain, tables, home, reporter)
    timetable = Timetable.of_json(json.loads((tables / TIMETABLE).read_text(encoding="utf-8")))
    words = domain.model_dump(mode="json", include={"candidates", "ranker", "split", "events"})
    mark = fingerprint(_BASKET_CODE, upstream(features), timetable.version, words)
    with Step(home / domain.name / "quality" / f"{BASKET}-{mark}") as step:
        if step.done is None:
            reporter.step("quality basket")
            baskets = Baskets(domain, load_features(features, domain), timetable)
            folds = baskets.folds(reporter)
            measured = {"basket": measure_basket(baskets, folds, reporter), "own_routes": measure_own_routes(baskets, folds, reporter)}
            write_json(step.directory / "basket.json", measured)
            step.finish({"features": upstream(features)})
        out: dict[str, Any] = json.loads((step.directory / "basket.json").read_text(encoding="utf-8"))
    return {**out, "fingerprint": mark}


# ------------------------------------------------------------------ who looked when


def _read(domain: Domain, home: Path, measured: Mapping[str, Any]) -> None:
    """One line for each part of the test column that was looked at. Looking again at the same figures is a line too, `new` false."""
    folder = home / domain.name
    known = {entry["fingerprint"] for entry in _readings(folder)}
    made_by = commit()
    with (folder / READINGS).open("a", encoding="utf-8") as file:
        for part, said in measured.items():
            if "fingerprint" in said:
                line = {
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "part": part,
                    "commit": made_by,
                    "fingerprint": said["fingerprint"],
                    "new": said["fingerprint"] not in known,
                    "configuration": fingerprint(domain.model_dump(mode="json")),
                }
                file.write(json.dumps(line) + "\n")


def _readings(folder: Path) -> list[dict[str, Any]]:
    path = folder / READINGS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


# ------------------------------------------------------------------ lines for a terminal


def lines(result: Mapping[str, Any]) -> list[str]:
    """All tables."""
    out = [f"{result['domain']} ({result['data']}), {result['column']} column"]
    for name, part in result["parts"].items():
        out += ["", f"== {name}"]
        if "skipped" in part:
            out.append(f"skipped: {part['skipped']}")
            continue
        if name == BASKET:
            out += basket_table(part["basket"]) + own_routes_table(part["own_routes"])
            continue
        if name == COLD:
            out.append(part["protocol"])
            for group, said in part["groups"].items():
                out.append(f"{group}: {said['people']:,} people")
                out += _short(said["rows"])
            continue
        out += table(part)
        out.append(f"{'':12}{'train s':>10}{'answer s':>10}{'peak MiB':>10}")
        for way, cost in part["costs"].items():
            out.append(f"{way:12}{cost['train_s']:10.1f}{part['rows'][way]['seconds']:10.2f}{cost['peak_bytes'] / 2**20:10.0f}")
        compared = part.get("comparisons") or {}
        for way, said in compared.get("against", {}).items():
            interval = f"{said['mean']:+.4f} [{said['low']:+.4f}, {said['high']:+.4f}]"
            out.append(f"{compared['best']} - {way}: {interval}, p {said['p']:.4f}, Holm {said['p_holm']:.4f}")
        out.append(part["sampled"]["said"])
        out += _short(part["sampled"]["rows"])
        if part.get("last_target", {}).get("rows"):
            out.append(f"last target: {part['last_target']['people']:,} people")
            out += _short(part["last_target"]["rows"])
            out.append(part["equal_times"]["said"])
            for way, row in part["equal_times"]["rows"].items():
                moved = f"{row['lowest']:.4f} to {row['highest']:.4f}, deviation {row['deviation']:.4f}"
                out.append(f"{way:12} as given {row['as_given']:.4f}, {moved}")
    if result["column"] == "test":
        fresh = sum(entry["new"] for entry in result["readings"])
        out += ["", f"the test column was looked at {len(result['readings'])} times, {fresh} of them at new figures ({READINGS})"]
    return out


def _short(rows: Mapping[str, Any]) -> list[str]:
    out = []
    for way, row in rows.items():
        said = []
        for metric in (f"NDCG@{K}", f"HR@{K}"):
            value = row[metric]
            said.append(f"{metric} {value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]")
        out.append(f"{way:12} " + "  ".join(said))
    return out
