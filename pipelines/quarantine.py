"""Bad rows: counted by file and reason, and set aside where people can read them."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from features.tables import FILE, LINE, QUARANTINE, REASON
from pipelines.steps import atomic

#: Line, reason, the row as read.
BadRow = tuple[int, str, str]
_EXAMPLES = 3


def counted(bad: Sequence[BadRow]) -> dict[str, Any]:
    """reason -> {count, examples: the first rows as [line, row]}."""
    out: dict[str, Any] = {}
    for line, reason, row in bad:
        entry = out.setdefault(reason, {"count": 0, "examples": []})
        entry["count"] += 1
        if len(entry["examples"]) < _EXAMPLES:
            entry["examples"].append([line, row])
    return out


def report_of(plan: Mapping[str, Any], scattered: Sequence[Mapping[str, Any]], gathered: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What report.json says: for each file its rows and its bad ones by reason, and what came of them all."""
    bad_items: list[BadRow] = [(line, reason, row) for line, reason, row in plan["bad_items"]]
    prepared = plan["prepared"]
    rows: Counter[str] = Counter({plan["items_file"]: plan["items_rows"], **{name: sheet["rows"] for name, sheet in prepared.items()}})
    reasons: dict[str, dict[str, Any]] = {name: {} for name in (*prepared, plan["items_file"], *plan["files"])}
    found = [(plan["items_file"], counted(bad_items))]
    found += [(name, counted([(line, reason, row) for line, reason, row in sheet["bad"]])) for name, sheet in prepared.items()]
    for answer in scattered:
        rows[plan["files"][answer["file"]]] += answer["rows"]
        found.append((plan["files"][answer["file"]], answer["bad"]))
    for answer in gathered:
        found.extend(answer["bad"].items())
    for name, more in found:
        for reason, entry in more.items():
            into = reasons[name].setdefault(reason, {"count": 0, "examples": []})
            into["count"] += entry["count"]
            into["examples"] = sorted(into["examples"] + entry["examples"])[:_EXAMPLES]
    files = {}
    for name, entries in reasons.items():
        bad = sum(entry["count"] for entry in entries.values())
        files[name] = {"rows": rows[name], "bad": bad, "share": round(bad / rows[name], 6) if rows[name] else 0.0, "reasons": entries}
    times = [answer[key] for answer in gathered for key in ("first_time", "last_time") if answer[key] is not None]
    return {
        "files": files,
        "items": plan["items"],
        "users": sum(answer["users"] for answer in gathered),
        "events": sum(answer["events"] for answer in gathered),
        "bad": sum(entry["bad"] for entry in files.values()),
        "ordered": plan["order"] != "none",
        "order": plan["order"],  # time, rows (in order, but without times) or none
        "first_time": min(times, default=None),
        "last_time": max(times, default=None),
        "now": plan["now"],
    }


def write_quarantine(directory: Path, plan: Mapping[str, Any], parts: Iterable[Path]) -> Path:
    """Joins the parts that the passes wrote to quarantine.csv, with the columns of features.tables.QUARANTINE; never whole in memory."""
    path = directory / "quarantine.csv"
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(QUARANTINE.names)
        writer.writerows((name, *row) for name, sheet in plan["prepared"].items() for row in sheet["bad"])
        writer.writerows((plan["items_file"], *row) for row in plan["bad_items"])
        for part in parts:
            with part.open(encoding="utf-8", newline="") as rows:
                shutil.copyfileobj(rows, file)
    return path


def quarantined(directory: Path) -> list[dict[str, str | int]]:
    """The bad rows of a step's directory: file, line, reason, row."""
    with (directory / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        return [{FILE: row[FILE], LINE: int(row[LINE]), REASON: row[REASON], "row": row["row"]} for row in csv.DictReader(file)]


def write_bad(path: Path, rows: Iterable[tuple[str, int, str, str]]) -> None:
    """One task's part of the quarantine: file, line, reason, row, without a heading."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="", errors="replace") as file:
        csv.writer(file).writerows(rows)
