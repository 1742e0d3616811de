"""The part of the report that says how good a domain's models are: one section a file of `factotum bench quality`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.domain import Domain
from pipelines.bench_basket import basket_table
from pipelines.bench_own_routes import own_routes_table
from pipelines.document import MISSED, OPEN, REACHED, Block, Cells, Heading, Listing, Picture, Said, Side
from pipelines.drawing import Axis, Point, bars, curves, intervals, number, scatter
from pipelines.steps import DONE
from pipelines.train import EPOCHS
from training.bundle import TWO_STAGE

_MAIN = ("NDCG", "HR", "MAP", "MRR")
_BEYOND = ("recall", "precision", "coverage", "gini", "novelty", "surprisal", "serendipity", "diversity", "popularity_bias")


def section(result: Mapping[str, Any], domain: Domain | None, home: Path) -> Iterator[Block]:
    """`result`: a quality-<domain>-<column>.json; `domain`: as it is configured now, for what others publish (None: not known here)."""
    yield Heading(2, f"{result['domain']}: how good, {result['column']} column")
    command = f"factotum bench quality {result['domain']}"
    command += "" if result["data"] == "the sample" else f" --data {result['data']}"
    yield Said(
        f"Data: {result['data']}; commit {result['commit'][:13] or 'unknown'}; {result['seconds']:,.0f} s in all. Made by",
        command + (" --validation" if result["column"] == "validation" else ""),
    )
    yield Said(machine_line(result["machine"]))
    for name, part in result["parts"].items():
        yield Heading(3, f"{result['domain']}, part {name}")
        if "skipped" in part:
            yield Said(f"Skipped: {part['skipped']}")
        elif "groups" in part:
            yield from _cold(part)
        elif "basket" in part:
            yield Listing([*basket_table(part["basket"]), "", *own_routes_table(part["own_routes"])])
        else:
            published = domain.published.get(name, ()) if domain is not None else ()
            yield from _part(part, published, _epochs(home, result["domain"], part))
    if result["column"] == "test":
        yield from _readings(result)


def machine_line(machine: Mapping[str, Any]) -> str:
    """The machine in a sentence."""
    parts = [f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('memory_gib')} GiB"]
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in machine.items() if name not in ("cpu", "cores", "memory_gib")]
    return "Machine: " + "; ".join(parts) + "."


def mean(value: Mapping[str, Any], digits: int = 4) -> str:
    """A mean with its interval, as the tables show it."""
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


_ROUNDS = "base: from what was before the label window; known: from what was before the test window, going on from the first."


# ------------------------------------------------------------------ a protocol


def _part(part: Mapping[str, Any], published: Any, epochs: Mapping[str, Any]) -> Iterator[Block]:
    rows, k = part["rows"], part["k"]
    ndcg = f"NDCG@{k}"
    yield Said(
        f"{part['people']:,} people ({part['cold_people']:,} of them unknown before), {part['items']:,} items, all of them ranked, what a "
        f"person has left out, ties against us. {part['protocol'][0].upper()}{part['protocol'][1:]}. Intervals: 95%, bootstrap over people."
    )
    best = max(rows, key=lambda way: rows[way][ndcg]["mean"])
    shown = [f"{metric}@{k}" for metric in _MAIN]
    yield Cells(["", *shown], [[way, *(mean(row[metric]) for metric in shown)] for way, row in rows.items()], list(rows).index(best))
    lines = {f"{one.model} {one.figures[ndcg]:.4f}": one.figures[ndcg] for one in published if ndcg in one.figures}
    highest = dict(sorted(lines.items(), key=lambda pair: -pair[1])[:1])
    yield Side(
        [
            Picture(
                intervals(f"{ndcg} of each way", {way: _three(row[ndcg]) for way, row in rows.items()}, Axis(ndcg, low=0.0), highest),
                f"{ndcg} with its interval" + ("; dashed: the best published figure that we know." if highest else "."),
            ),
            Picture(
                scatter(
                    "Accuracy against coverage",
                    [Point(row["coverage"], row[ndcg]["mean"], way, int(way == TWO_STAGE)) for way, row in rows.items()],
                    Axis("coverage: share of the items in anybody's list", low=0.0),
                    Axis(ndcg, low=0.0),
                ),
                "Accuracy against coverage: right and up is better.",
            ),
        ]
    )
    if published:
        yield from _beside(rows, published, k)
    yield Said(f"What else the lists of {k} are like, and what they cost:")
    yield _costs(part)
    yield from _compared(part)
    reach = part["candidates"]["recall"]
    if reach and part["candidates"]["each"]:
        found = ", ".join(f"{name} {value['mean']:.3f}" for name, value in reach.items())
        yield Said(f"Share of what people took among the {part['candidates']['each']} candidates of each source, and of all: {found}.")
    yield from _learnt(part, epochs)
    groups = {group for row in rows.values() for group in row["groups"] if row["groups"][group][ndcg]["people"]}
    if len(groups) > 1:
        names = sorted(groups, reverse=True)
        heads = [f"{metric}@{k}, {group} ({rows[best]['groups'][group][ndcg]['people']:,})" for group in names for metric in ("NDCG", "HR")]
        yield Said("People of whom something was known (warm), and of whom nothing was (cold):")
        yield Cells(
            ["", *heads],
            [[way, *(mean(row["groups"][g][f"{m}@{k}"]) for g in names for m in ("NDCG", "HR"))] for way, row in rows.items()],
        )
    if part.get("last_target", {}).get("rows"):
        yield from _last_target(part, k)
    if "sampled" in part:
        yield Said(f"{part['sampled']['said'][0].upper()}{part['sampled']['said'][1:]}.")
        metrics = (f"NDCG@{k}", f"HR@{k}")
        yield Cells(["", *metrics], [[way, *(mean(row[metric]) for metric in metrics)] for way, row in part["sampled"]["rows"].items()])


def _three(value: Mapping[str, Any]) -> tuple[float, float, float]:
    return value["mean"], value["low"], value["high"]


def _beside(rows: Mapping[str, Any], published: Any, k: int) -> Iterator[Block]:
    """Ours among those of others, best first."""
    metrics = (f"HR@{k}", f"NDCG@{k}")
    lines = [
        (one.figures.get(metrics[1], 0.0), [one.model, *(_digits(one.figures.get(metric)) for metric in metrics), one.source, one.note])
        for one in published
    ]
    lines += [
        (row[metrics[1]]["mean"], [f"ours: {way}", *(f"{row[metric]['mean']:.4f}" for metric in metrics), "this report", ""])
        for way, row in rows.items()
    ]
    lines.sort(key=lambda pair: -pair[0])
    yield Said("Beside what others publish for the same file, split and items (their figures, not run by us):")
    yield Cells(["model", *metrics, "source", "note"], [line for _, line in lines], text=(3, 4))


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _costs(part: Mapping[str, Any]) -> Cells:
    named = {metric: f"{metric}@{part['k']}" if metric in ("recall", "precision") else metric for metric in _BEYOND}
    beyond = [metric for metric in named.values() if all(metric in row for row in part["rows"].values())]
    body = []
    for way, row in part["rows"].items():
        cost = part.get("costs", {}).get(way, {})
        values = [row[metric] if isinstance(row[metric], int | float) else row[metric]["mean"] for metric in beyond]
        spent = [
            f"{cost['train_s']:,.1f}" if "train_s" in cost else "",
            f"{row['seconds']:,.2f}",
            f"{cost['peak_bytes'] / 2**20:,.0f}" if "peak_bytes" in cost else "",
        ]
        body.append([way, *(f"{value:.3f}" for value in values), *spent])
    return Cells(["", *(metric.replace("_", " ") for metric in beyond), "train s", "answer s", "peak MiB"], body)


def _compared(part: Mapping[str, Any]) -> Iterator[Block]:
    compared = part.get("comparisons") or {}
    if compared.get("against"):
        yield Said(
            f"{compared['best']}, the best of them, against each other one: paired bootstrap, permutation test, and Holm's correction over "
            "all of these (the best was picked on the same people, which flatters it):"
        )
        yield Cells(
            ["", "difference", "p", "p, Holm"],
            [
                [way, f"{said['mean']:+.4f} [{said['low']:+.4f}, {said['high']:+.4f}]", f"{said['p']:.4f}", f"{said['p_holm']:.4f}"]
                for way, said in compared["against"].items()
            ],
        )
    yield Said(f"The gate: {part['verdict']['why']}.")


def _learnt(part: Mapping[str, Any], epochs: Mapping[str, Any]) -> Iterator[Block]:
    pictures = []
    for what, name in (("ndcg", "NDCG@10 on the people held out inside the training"), ("loss", "loss")):
        lines = {way: [(one["epoch"], one[what]) for one in curve if one[what] is not None] for way, curve in epochs.items()}
        pictures.append(
            Picture(curves(f"Learning curves: {name}", lines, Axis("epoch"), Axis(what)), f"Learning curves: {name}. {_ROUNDS}")
        )
    if part.get("importance"):
        first = dict(list(part["importance"].items())[:12])
        drawn = bars("What the ranker goes by", first, lambda value: f"{value:.1%}")
        pictures.append(Picture(drawn, "What the ranker goes by: each feature's share of the gain of its trees."))
    yield Side(pictures)


def _last_target(part: Mapping[str, Any], k: int) -> Iterator[Block]:
    last, metrics = part["last_target"], (f"NDCG@{k}", f"HR@{k}")
    yield Said(f"Everybody's last choice in the window alone, from all that was before it: {last['people']:,} people.")
    yield Cells(["", *metrics], [[way, *(mean(row[metric]) for metric in metrics)] for way, row in last["rows"].items()])
    tied = part.get("equal_times") or {}
    if tied:
        share = tied["share_of_events_at_the_time_of_the_one_before"]
        yield Said(f"{share:.1%} of the events have the time of the one before. {tied['said']}:")
        head = ("as_given", "lowest", "highest", "deviation")
        yield Cells(
            ["", *(name.replace("_", " ") for name in head)],
            [[way, *(f"{row[name]:.4f}" for name in head)] for way, row in tied["rows"].items()],
        )


def _cold(part: Mapping[str, Any]) -> Iterator[Block]:
    yield Said(f"{part['protocol'][0].upper()}{part['protocol'][1:]}.")
    for group, said in part["groups"].items():
        if not said["people"]:
            yield Said(f"{group}: nobody took any.")
            continue
        metrics = [metric for metric in next(iter(said["rows"].values())) if metric != "coverage"]
        rows = [[way, *(mean(row[metric]) for metric in metrics), f"{row['coverage']:.3f}"] for way, row in said["rows"].items()]
        yield Said(f"{group[0].upper()}{group[1:]}: {said['people']:,} people.")
        best = max(range(len(rows)), key=lambda place: list(said["rows"].values())[place][metrics[0]]["mean"])
        yield Cells(["", *metrics, "coverage"], rows, best)


def _readings(result: Mapping[str, Any]) -> Iterator[Block]:
    readings = result["readings"]
    fresh = [entry for entry in readings if entry["new"]]
    yield Heading(3, f"{result['domain']}: readings of the test column")
    yield Said(
        f"It was looked at {len(readings)} times, {len(fresh)} of them at new figures; settings are chosen on the validation column."
    )
    yield Cells(
        ["when (UTC)", "part", "commit", "configuration", "new"],
        [[_when(e["at"]), e["part"], e["commit"][:13], e["configuration"], "yes" if e["new"] else ""] for e in readings[-30:]],
    )


def _when(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _epochs(home: Path, domain: str, part: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Source, round -> its learning curve, for the sources of this part that left one. Nothing where their home was cleaned away."""
    own = home / "bench" / "quality"
    try:
        evaluated = json.loads((own / domain / "evaluate" / part["fingerprint"] / DONE).read_text(encoding="utf-8"))
        units = json.loads((own / evaluated["train"] / DONE).read_text(encoding="utf-8"))["units"]
    except (OSError, KeyError):
        return {}
    found = {}
    for which in ("base", "known"):
        for name, path in units.get(which, {}).items():
            curve = own / path / EPOCHS
            if curve.is_file():
                found[f"{name}, {which}"] = json.loads(curve.read_text(encoding="utf-8"))
    return found


# ------------------------------------------------------------------ goals


def goals(domain: Domain, result: Mapping[str, Any] | None) -> Iterator[list[str]]:
    """A line for each goal of the domain: what, wanted, seen, verdict. `result`: the test column, None where it was not measured."""
    for goal in domain.goals:
        where = "" if goal.part == "own" else f", {goal.part}"
        names = {
            "train_s": f"seconds to train {goal.row}",
            "table_s": "seconds for the whole table",
            "seconds": "seconds for the whole benchmark",
            "gain": "gain over the best source, low end",
        }
        what = names.get(goal.figure, f"{goal.row} {goal.figure}")
        seen = None if result is None else _seen(result, goal.part, goal.row, goal.figure)
        wanted = f"≥ {number(goal.least)}" if goal.least is not None else f"≤ {number(goal.most or 0.0)}"
        if goal.figure == "gain":
            wanted = f"> {number(goal.least or 0.0)}"
        if seen is None:
            verdict = OPEN
        elif goal.figure == "gain":
            verdict = REACHED if seen > (goal.least or 0.0) else MISSED
        else:
            verdict = (
                REACHED if (goal.least is not None and seen >= goal.least) or (goal.most is not None and seen <= goal.most) else MISSED
            )
        shown = "" if seen is None else f"{seen:+.4f}" if goal.figure == "gain" else f"{seen:.4f}" if seen < 10 else f"{seen:,.0f}"
        yield [f"{domain.name}: {what}{where}", wanted, shown, verdict]


def _seen(result: Mapping[str, Any], name: str, row: str, figure: str) -> float | None:
    """None where it was not measured: the part or the row is missing, or the run had only some of the parts."""
    if figure == "seconds":
        return float(result["seconds"])
    part = result["parts"].get(name)
    if part is None or "rows" not in part:
        return None
    costs = part.get("costs", {})
    if figure == "train_s":
        return float(costs[row]["train_s"]) if row in costs else None
    if figure == "table_s":
        every = costs.get(TWO_STAGE)
        return float(every["train_s"] + part["seconds"]) if every else None
    if figure == "gain":
        return _gain(part)
    return float(part["rows"][row][figure]["mean"]) if figure in part["rows"].get(row, {}) else None


def _gain(part: Mapping[str, Any]) -> float | None:
    compared = part.get("comparisons") or {}
    against = compared.get("against", {})
    if compared.get("best") == TWO_STAGE:
        ndcg = f"NDCG@{part['k']}"
        strongest = max(against, key=lambda way: part["rows"][way][ndcg]["mean"])
        return float(against[strongest]["low"])
    return -float(against[TWO_STAGE]["high"]) if TWO_STAGE in against else None
