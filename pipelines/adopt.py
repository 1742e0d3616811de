"""What a search found becomes the training configuration, and stops being it: NAME.adopted.yaml beside the domain's YAML.

The YAML itself, with its comments, is never written. What was adopted stands in a file of its own, which can be read, committed and
deleted; `configs.load` reads both, and refuses what was adopted once the YAML says something else in its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

import configs
from configs import ConfigError
from configs.domain import Adopted
from pipelines.steps import atomic
from pipelines.tune import RANKER, TRIALS

_HEAD = """# Settings that `factotum tune` found and `factotum adopt` put in the place of those in {name}.
# Read together with it by every command; delete this file, or one part of it, to go back.
"""


def adopt(name: str, model: str, home: Path, trial: int | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Takes the best trial of the newest search for `model` (or its trial `trial`) into the configuration of the domain `name` (a name
    or a YAML's path). Only words that were searched are taken. Returns what was adopted over what.

    Raises FileNotFoundError if there was no search; ValueError if the trial did not come to its end, is no better than the settings
    in force, or the search was for other settings than those in force; ConfigError."""
    domain, before = configs.load(name), configs.adopted(name)
    result = newest_search(home, domain.name, model)
    section = domain.ranker if model == RANKER else domain.candidates.get(model)
    if section is None:
        raise ValueError(f"{domain.name} has no {model}")
    now = section.model_dump(mode="json")
    if now != result["now"]:
        then = ", ".join(f"{word} was {result['now'].get(word)!r}" for word in sorted(now) if now[word] != result["now"].get(word))
        raise ValueError(f"the newest search for {model} was made when {then}: search again")
    chosen = _chosen(result, trial)
    words = {word: value for word, value in chosen["words"].items() if value != now[word]}
    if not words:
        raise ValueError(f"trial {chosen['trial']} has the settings that are in force already: there is nothing to adopt")
    present = next((one for one in result["trials"] if one["trial"] == result["now_is"]), None)
    if trial is None and present is not None and present["score"] is not None and not chosen["score"] > present["score"]:
        raise ValueError(f"no trial is better than the settings in force ({present['score']:.4f}): there is nothing to adopt")
    written = configs.written(name)
    beneath = (written.ranker if model == RANKER else written.candidates[model]).model_dump(mode="json")  # type: ignore[union-attr]
    kept = {**(before[model].words if model in before else {}), **words}
    entry = Adopted(
        words=kept,
        over={word: beneath[word] for word in kept},
        score=chosen["score"],
        before=None if present is None else present["score"],
        trials=len(result["trials"]),
        search=Path(result["directory"]).name,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if not dry_run:
        _write(name, {**before, model: entry})
    return {
        "domain": domain.name,
        "model": model,
        "trial": chosen["trial"],
        "adopted": words,
        "over": {word: now[word] for word in words},
        "score": chosen["score"],
        "before": entry.before,
        "file": str(configs.adopted_path(configs.yaml_path(name))),
        "dry_run": dry_run,
    }


def undo(name: str, model: str, dry_run: bool = False) -> dict[str, Any]:
    """Takes back what was adopted for `model`: the YAML's own settings are in force again. Raises ValueError if nothing was adopted.
    Works also where the two contradict each other and nothing else does."""
    entries = configs.adopted(name)
    if model not in entries:
        raise ValueError(f"nothing was adopted for {model!r}; adopted are {', '.join(entries) or 'none'}")
    taken = entries.pop(model)
    if not dry_run:
        _write(name, entries)
    return {"domain": configs.written(name).name, "model": model, "taken_back": taken.words, "again": taken.over, "dry_run": dry_run}


def newest_search(home: Path, domain: str, model: str) -> dict[str, Any]:
    """What the newest finished search for a model found. Raises FileNotFoundError."""
    found = list((home / domain / "tune").glob(f"{model}-*/{TRIALS}"))
    if not found:
        raise FileNotFoundError(f"{domain} was not searched for {model} in {home}: `factotum tune {domain} --model {model}` does it")
    result: dict[str, Any] = json.loads(max(found, key=lambda path: path.stat().st_mtime_ns).read_text(encoding="utf-8"))
    return result


def _chosen(result: Mapping[str, Any], trial: int | None) -> Mapping[str, Any]:
    trials = result["trials"]
    chosen = trials[0] if trial is None else next((one for one in trials if one["trial"] == trial), None)
    if chosen is None:
        raise ValueError(f"no trial {trial}: the newest search has 1 to {len(trials)}")
    if chosen["score"] is None or chosen["stopped"]:
        raise ValueError(f"trial {chosen['trial']} did not come to its end: {chosen['error'] or 'it was stopped on the way'}")
    return chosen  # type: ignore[no-any-return]


def _write(name: str, entries: Mapping[str, Adopted]) -> None:
    """Raises ConfigError where the folder of the YAML cannot be written to."""
    path = configs.adopted_path(configs.yaml_path(name))
    try:
        if not entries:
            path.unlink(missing_ok=True)
            return
        said = {source: entry.model_dump(mode="json", exclude_none=True) for source, entry in entries.items()}
        for source, entry in entries.items():
            said[source]["over"] = dict(entry.over)  # a word that was none stays told
        with atomic(path) as temporary:
            text = _HEAD.format(name=configs.yaml_path(name).name) + yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); copy the YAML to a folder of your own and name its path"
        ) from error
