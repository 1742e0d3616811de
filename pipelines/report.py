"""`factotum report`: one page with everything that was measured, from what the benchmarks and searches left in the home.

Nothing is measured here and no verdict is written by hand: each is computed from a figure and the goal beside it, and what was not
reached, or not measured, stands on the page like the rest.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import configs
from configs import ConfigError
from configs.domain import Domain
from pipelines import bench, report_quality, trials_page
from pipelines.document import MISSED, OPEN, REACHED, Block, Cells, Heading, Listing, Picture, Said, Side, html, markdown
from pipelines.drawing import Axis, curves
from pipelines.provenance import commit
from pipelines.report_quality import machine_line, section
from pipelines.steps import atomic
from pipelines.tune import TRIALS
from training import metrics, significance

TITLE = "Factotum: what was measured"


def report(home: Path, to: Path, text: Path | None, seconds: float) -> dict[str, Any]:
    """Writes the page to `to` and, if `text` is given, the same as Markdown. `seconds`: now, since 1970. Returns what was read and how
    many goals were reached. Raises FileNotFoundError if nothing was measured in this home."""
    read = read_benches(home)
    found = searches(home)
    if not read and not found:
        raise FileNotFoundError(f"{home / 'bench'} holds no figures: `factotum bench` makes them, `factotum tune` searches")
    rows = goal_rows(read, _domains(read))
    blocks = list(_blocks(home, read, found, rows, datetime.fromtimestamp(seconds, UTC)))
    _write(to, html(TITLE, blocks))
    if text is not None:
        _write(text, markdown(blocks))
    return {
        "page": str(to),
        **({"text": str(text)} if text is not None else {}),
        "from": [*read, *(f"{one['domain']}: search for {one['model']}" for one in found)],
        "reached": sum(row[3] == REACHED for row in rows),
        "not_reached": sum(row[3] == MISSED for row in rows),
        "not_measured": sum(row[3] == OPEN for row in rows),
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """What was written, for a terminal."""
    goals = f"goals: {result['reached']} reached, {result['not_reached']} not reached, {result['not_measured']} not measured"
    return [f"from {', '.join(result['from'])}", goals, *(result[name] for name in ("page", "text") if name in result)]


def read_benches(home: Path) -> dict[str, dict[str, Any]]:
    """Name of the file without its ending -> what it says, for each file of home/bench. Raises ValueError for one that is no JSON."""
    out = {}
    for path in sorted((home / "bench").glob("*.json")):
        try:
            out[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON: {error}") from error
    return {name: said for name, said in out.items() if isinstance(said, dict)}


def searches(home: Path) -> list[dict[str, Any]]:
    """The newest search for each model of each domain, in the home and in the benchmark's own."""
    newest: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
    for path in (*home.glob(f"*/tune/*/{TRIALS}"), *home.glob(f"bench/quality/*/tune/*/{TRIALS}")):
        said, when = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime_ns
        key = said["domain"], said["model"]
        if "space" in said and when > newest.get(key, (0, {}))[0]:
            newest[key] = when, said
    return [said for _, (_, said) in sorted(newest.items())]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


# ------------------------------------------------------------------ goals


def _domains(read: Mapping[str, Any]) -> dict[str, Domain]:
    """The domains that ship, and nothing of a measured one that does not."""
    out = {}
    for name in {*configs.names(), *(said["domain"] for said in read.values() if isinstance(said.get("domain"), str))}:
        try:
            out[name] = configs.load(name)
        except ConfigError:
            continue  # measured from a YAML that is not here: its figures are shown, its goals are not known
    return dict(sorted(out.items()))


def goal_rows(read: Mapping[str, Mapping[str, Any]], domains: Mapping[str, Domain]) -> list[list[str]]:
    """What, wanted, seen, verdict: the domains' goals, then those of the benchmarks of speed and of routes."""
    rows: list[list[str]] = []
    for name, domain in domains.items():
        rows += report_quality.goals(domain, read.get(f"quality-{name}-test"))
    for row in read.get("train", {}).get("rows", []):
        if row["goal"]:
            seen = row["ours"] if row["ratio"] is None else row["ratio"]
            verdict = OPEN if row["reached"] is None else REACHED if row["reached"] else MISSED
            shown = "" if verdict == OPEN else f"{seen:.3g}" + ("x" if row["ratio"] is not None else f" {row['unit']}")
            rows.append([f"speed: {row['name'].strip()}", row["goal"].replace(">=", "≥"), shown, verdict])
    for row in read.get("routes", {}).get("rows", []):
        if row["goal"]:
            wanted = row["goal"].replace(">=", "≥").replace("<=", "≤")
            shown = f"{row['value']:.3g} {row['unit']}".rstrip()
            rows.append([f"routes: {row['name']}", wanted, shown, REACHED if row["reached"] else MISSED])
    return rows


# ------------------------------------------------------------------ the document


def _blocks(
    home: Path, read: Mapping[str, dict[str, Any]], found: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[str]], now: datetime
) -> Iterator[Block]:
    domains = _domains(read)
    quality = sorted(name for name in read if name.startswith("quality-"))  # of a domain the test column stands before validation
    yield Heading(1, TITLE)
    made = f"from {len(read)} benchmarks and {len(found)} searches, at commit {commit()[:13] or 'unknown'}"
    yield Said(f"Written {now:%Y-%m-%d %H:%M} UTC {made}, by", "factotum report")
    yield Heading(2, "Goals")
    if rows:
        counts = ", ".join(f"{sum(row[3] == verdict for row in rows)} {verdict}" for verdict in (REACHED, MISSED, OPEN))
        yield Said(f"{counts}. Each verdict is computed from the figure in its line; those of quality are of the test column.")
        yield Cells(["goal", "wanted", "seen", "verdict"], rows)
    else:
        yield Said("No domain that ships says any.")
    for name in quality:
        yield from section(read[name], domains.get(read[name]["domain"]), home)
    if "train" in read:
        yield from _speed(read["train"])
    for name, said in read.items():
        if name != "train" and name not in quality:
            yield from _other(name, said)
    if found:
        yield Heading(2, "Searches")
        for one in found:
            yield from trials_page.blocks(one)
    yield from _formulas()


def _speed(said: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading(2, "Speed of learning and answering")
    yield Said("Made by", "factotum bench train")
    yield Said(machine_line(said["machine"]))
    size = f"{said['people']:,} people, {said['items']:,} items, {said['events']:,} events made from a seed"
    settings = f"{size}, {said['epochs']} epochs, {said['threads']} cores"
    versions = (said.get("theirs") or {}).get("versions")
    theirs = " Theirs: " + ", ".join(f"{name} {value}" for name, value in versions.items()) + ", in the same run." if versions else ""
    yield Said(f"{settings}.{theirs}")
    body = []
    for row in said["rows"]:
        verdict = "" if not row["goal"] else OPEN if row["reached"] is None else REACHED if row["reached"] else MISSED
        other = "" if row["theirs"] is None else f"{row['theirs']:.4g}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        body.append([row["name"].strip(), f"{row['ours']:.4g}", other, row["unit"], ratio, row["goal"].replace(">=", "≥"), verdict])
    yield Cells(["measure", "ours", "theirs", "unit", "ratio", "goal", ""], body)


_CALLED = {
    "serve": "Serving under load",
    "gateway": "What the gateway adds",
    "faults": "When a part fails",
    "faults-embedded": "When a part fails, nothing installed",
    "soak": "Memory over many requests",
    "soak-embedded": "Memory over many requests, nothing installed",
    "batch": "Scoring everybody",
    "ingest": "Ingest and features",
}


def _other(name: str, said: Mapping[str, Any]) -> Iterator[Block]:
    """A benchmark that has a table for people is shown by it; of any other, its figures by their names."""
    yield Heading(2, _CALLED.get(name, name.replace("-", " ").replace("_", " ").capitalize()))
    kind = str(said.get("bench", name))
    yield Said("Made by", f"factotum bench {kind}{' --embedded' if name.endswith('-embedded') else ''}")
    try:
        told = bench.lines(kind, dict(said))
    except (KeyError, TypeError, ValueError):
        told = None  # a file of another version: its figures as they are
    curve = (said.get("total") or {}).get("curve") if isinstance(said.get("total"), dict) else None
    if curve:
        drawn = curves("MiB of all processes", {"all processes": [(at, mib) for at, mib in curve]}, Axis("seconds"), Axis("MiB", low=0.0))
        yield Side([Picture(drawn, "Memory of all processes (PSS) while it ran.")])
    if told is not None:
        yield Listing(told)
        return
    if isinstance(said.get("machine"), dict):
        yield Said(machine_line(said["machine"]))
    yield from _plain(said)


def _plain(said: Mapping[str, Any], above: str = "") -> Iterator[Block]:
    """Figures by their names: single ones in a table, lists of like things in one each, what holds others below them."""
    single: list[list[str]] = []
    deeper: list[tuple[str, dict[str, Any] | list[dict[str, Any]]]] = []
    for name, value in said.items():
        if name in ("bench", "machine"):
            continue
        called = f"{above}{name}".replace("_", " ")
        if isinstance(value, dict) or (isinstance(value, list) and value and all(isinstance(one, dict) for one in value)):
            deeper.append((called, value))
        elif not isinstance(value, list):
            single.append([called, _figure(value)])
        elif len(value) <= 12 and not any(isinstance(one, list | dict) for one in value):
            single.append([called, ", ".join(_figure(one) for one in value)])
    if single:
        yield Cells(["figure", ""], single)
    for called, value in deeper:
        if isinstance(value, dict):
            if value and all(isinstance(one, dict) for one in value.values()) and _alike(list(value.values())):
                yield from _table(called, [{"": name, **one} for name, one in value.items()])
            else:
                yield from _plain(value, f"{called}, ")
        else:
            yield from _table(called, value)


def _alike(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are lines of one table: the same names, and nothing deeper."""
    return len({tuple(row) for row in rows}) == 1 and not any(isinstance(value, dict | list) for row in rows for value in row.values())


def _table(called: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    head = list(dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, dict | list)))
    if head:
        yield Said(f"{called[0].upper()}{called[1:]}:")
        yield Cells([name.replace("_", " ") for name in head], [[_figure(row.get(name)) for name in head] for row in rows[:60]])


def _figure(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _formulas() -> Iterator[Block]:
    """What each metric is, in the words of the function that computes it: they cannot drift apart."""
    yield Heading(2, "What the figures mean")
    yield Said("Libraries give the same names to different formulas. These are the words of the functions that were called:")
    rows = []
    for module in (metrics, significance):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_") and name != "hits_of":
                rows.append([name.replace("_", " "), re.sub(r"\s+", " ", inspect.getdoc(function) or "").strip()])
    yield Cells(["metric", "formula"], rows, text=(1,))
