"""What old versions, runs and fits take of the disk, and which of them go. What an alias points at is never touched."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from configs.domain import Domain
from pipelines.steps import DONE, Reporter
from training import bundle

_KEEP_STEPS = 2  # newest runs of each step that are kept
_STEPS = ("evaluate", "train", "featurize", "ingest", "tune")  # what reads stands before what is read
_FRESH_S = 3_600.0  # a half-done directory younger than this may belong to a run under way
_KEEP_SCORED = 7  # days of batch scores


@dataclass(frozen=True)
class Piece:
    """A directory, what it is, how large, and whether it is kept (and why) or goes."""

    path: Path
    what: str
    size: int
    kept: str | None


def survey(home: Path, domain: Domain) -> list[Piece]:
    """Everything a domain has on the disk, and what `clean` would do with it."""
    folder = home / domain.name
    aliased = {bundle.alias(home, domain.name, name): name for name in get_args(bundle.Alias)}
    before = bundle.pointed_before(home, domain.name, "champion")
    newest = set(bundle.versions(home, domain.name)[-domain.keep_versions :])
    out: list[Piece] = []
    for path in sorted(p for p in bundle.bundles_dir(home, domain.name).glob("*") if p.is_dir()):
        kept = aliased.get(path.name) or ("the champion before" if path.name == before else None)
        if kept is None and path.name in newest:
            kept = f"among the newest {domain.keep_versions}"
        if kept is None and not (path / "manifest.json").is_file() and _fresh(path):
            kept = "perhaps being written"
        out.append(Piece(path, "bundle", _size(path), kept))
    needed: set[Path] = set()
    for step in _STEPS:
        runs = sorted((p for p in (folder / step).glob("*") if p.is_dir()), key=_finished)
        for path in runs:
            kept = f"among the newest {_KEEP_STEPS}" if path in runs[-_KEEP_STEPS:] else "read by what is kept" if path in needed else None
            if kept is None and not (path / DONE).is_file() and _fresh(path):
                kept = "perhaps under way"
            if kept:
                needed |= _read_by(path, step, home, folder)
            out.append(Piece(path, step, _size(path), kept))
    for path in sorted(p for p in (folder / "fits").glob("*") if p.is_dir()):
        kept = "of a kept training" if path in needed else "fresh" if _fresh(path) else None
        out.append(Piece(path, "fit", _size(path), kept))
    scored = sorted((folder / "scored").glob("date=*"))
    out += [
        Piece(path, "scores", _size(path), f"of the last {_KEEP_SCORED} days" if path in scored[-_KEEP_SCORED:] else None)
        for path in scored
    ]
    return out


def clean(home: Path, domain: Domain, reporter: Reporter, dry_run: bool = False) -> tuple[list[Piece], int]:
    """Removes what is not kept; returns all pieces and the bytes freed (or that would be)."""
    pieces = survey(home, domain)
    freed = 0
    for piece in pieces:
        if piece.kept is None:
            freed += piece.size
            if not dry_run:
                shutil.rmtree(piece.path)
            reporter.say(f"{'would remove' if dry_run else 'removed'} {piece.what} {piece.path.name}, {piece.size / 2**20:.1f} MiB")
    return pieces, freed


def _read_by(path: Path, step: str, home: Path, folder: Path) -> set[Path]:
    """What a finished run of a step cannot be opened or gone on from without."""
    try:
        said = json.loads((path / DONE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return set()
    match step:
        case "evaluate":
            return {home / said["train"]}
        case "train":
            return {home / said["features"], *(home / unit for of in said["units"].values() for unit in of.values())}
        case "featurize":
            return {folder / "ingest" / said["tables"]} if "tables" in said else set()
        case _:
            return set()


def _finished(path: Path) -> float:
    """When a run was finished; one that is not, when it last changed."""
    done = path / DONE
    return (done if done.is_file() else path).stat().st_mtime


def _fresh(path: Path) -> bool:
    return time.time() - path.stat().st_mtime < _FRESH_S


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
