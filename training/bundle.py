"""A bundle: everything serving needs in one immutable directory, its manifest with the sha256 of every file written last.

`home/<domain>/bundles/<version>/` holds the catalogue, the users, their histories, item statistics, each source's arrays and
the ranker: npz-free .npy, safetensors, LightGBM text and JSON, so that opening one never runs code. `champion` and
`challenger` beside them are small files that hold a version, changed by a rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from configs.domain import Domain
from features.catalogue import Catalogue
from features.itinerary.bought import BoughtRoutes
from features.itinerary.timetable import Timetable
from features.state import Histories, Kinds
from features.statistics import ItemStatistics
from features.vocabulary import Vocabulary
from training.build import load as load_model
from training.contract import CandidateModel
from training.ranker import Ranker

Alias: TypeAlias = Literal["champion", "challenger"]
TWO_STAGE = "two-stage"
_MANIFEST = "manifest.json"
TIMETABLE, BOUGHT = "timetable.json", "bought.json"


class BundleError(RuntimeError):
    """A bundle that may not be served; the message names the version, the file and what is wrong."""


class Verdict(BaseModel):
    """What the gate said. `serve` is what answers: "two-stage", or the one source that the ranker failed to beat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    serve: str
    why: str


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    domain: str
    version: str
    created: str  # ISO 8601, UTC
    ordered: bool
    moment: int  # microseconds UTC: the data are as of this moment
    events_through: int  # events that the database recorded before this moment (microseconds UTC) are inside
    fingerprint: str  # of the data and configuration it was trained from
    verdict: Verdict
    metrics: dict[str, Any]
    files: dict[str, str]  # path within the bundle -> sha256


@dataclass(frozen=True)
class Bundle:
    directory: Path
    manifest: Manifest
    domain: Domain
    kinds: Kinds
    catalogue: Catalogue
    users: Vocabulary
    histories: Histories
    statistics: ItemStatistics
    models: Mapping[str, CandidateModel]
    ranker: Ranker | None
    timetable: Timetable | None = None  # of a domain with an itinerary
    bought: BoughtRoutes | None = None

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def mode(self) -> str:
        return self.manifest.verdict.serve


def bundles_dir(home: Path, domain: str) -> Path:
    return home / domain / "bundles"


def new_version() -> str:
    """A name that sorts by time and never repeats."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ-") + secrets.token_hex(3)


def write(
    home: Path,
    domain: Domain,
    catalogue: Catalogue,
    users: Vocabulary,
    histories: Histories,
    statistics: ItemStatistics,
    models: Mapping[str, CandidateModel],
    ranker: Ranker | None,
    verdict: Verdict,
    metrics: dict[str, Any],
    report: Mapping[str, Any],
    moment: int,
    events_through: int,
    fingerprint: str,
    timetable: Timetable | None = None,
    bought: BoughtRoutes | None = None,
) -> Path:
    """Writes a new bundle and returns its directory. It exists for readers only once its manifest does."""
    version = new_version()
    directory = bundles_dir(home, domain.name) / version
    directory.mkdir(parents=True)
    (directory / "domain.json").write_text(domain.model_dump_json(indent=1), encoding="utf-8")
    (directory / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    catalogue.save(directory / "catalogue")
    users.save(directory / "users")
    histories.save(directory / "histories")
    statistics.save(directory / "statistics")
    for name, model in models.items():
        model.save(directory / "sources" / name)
    if ranker is not None:
        ranker.save(directory / "ranker")
    for name, document in ((TIMETABLE, timetable), (BOUGHT, bought)):
        if document is not None:
            (directory / name).write_text(json.dumps(document.to_json(), ensure_ascii=False), encoding="utf-8")
    best = np.argsort(-statistics.takers.astype(np.float64) * (1 << 24) - catalogue.prior(), kind="stable")[:100]
    leading = [{"item": catalogue.ids.id(int(row)), "title": catalogue.titles[row], "takers": int(statistics.takers[row])} for row in best]
    (directory / "top.json").write_text(json.dumps(leading, ensure_ascii=False, indent=1), encoding="utf-8")
    manifest = Manifest(
        domain=domain.name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        ordered=histories.ordered,
        moment=moment,
        events_through=events_through,
        fingerprint=fingerprint,
        verdict=verdict,
        metrics=metrics,
        files={str(path.relative_to(directory)): _sha256(path) for path in sorted(directory.rglob("*")) if path.is_file()},
    )
    _replace(directory / _MANIFEST, manifest.model_dump_json(indent=1))
    return directory


def read_manifest(directory: Path) -> Manifest:
    """Raises BundleError if there is none or it cannot be read."""
    path = directory / _MANIFEST
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"bundle {directory.name}: no {_MANIFEST}: it was never finished, or is gone") from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise BundleError(f"bundle {directory.name}: {_MANIFEST} cannot be read: {error}") from error


def verify(directory: Path) -> Manifest:
    """The manifest, after the checksum of every file was found right, and no file was found that it does not name. Raises BundleError
    naming the file."""
    manifest = read_manifest(directory)
    there = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    unknown = sorted(there - set(manifest.files) - {_MANIFEST})
    if unknown:
        raise BundleError(f"bundle {directory.name}: {unknown[0]} is not named by {_MANIFEST}")
    for name, expected in manifest.files.items():
        path = directory / name
        if name not in there:
            raise BundleError(f"bundle {directory.name}: {name} is missing")
        found = _sha256(path)
        if found != expected:
            raise BundleError(f"bundle {directory.name}: {name} has sha256 {found[:12]}…, the manifest says {expected[:12]}…")
    return manifest


def load(directory: Path) -> Bundle:
    """Verifies, then opens. Raises BundleError."""
    manifest = verify(directory)
    try:
        domain = Domain.model_validate_json((directory / "domain.json").read_text(encoding="utf-8"))
        kinds = Kinds.of(domain.events)
        ranker = Ranker.load(directory / "ranker") if (directory / "ranker").is_dir() else None
        models = {
            name: load_model(words, directory / "sources" / name)
            for name, words in domain.candidates.items()
            if (directory / "sources" / name).is_dir()
        }
        bundle = Bundle(
            directory,
            manifest,
            domain,
            kinds,
            Catalogue.load(directory / "catalogue"),
            Vocabulary.load(directory / "users"),
            Histories.load(directory / "histories", kinds),
            ItemStatistics.load(directory / "statistics"),
            models,
            ranker,
            Timetable.of_json(_document(directory / TIMETABLE)) if TIMETABLE in manifest.files else None,
            BoughtRoutes.of_json(_document(directory / BOUGHT)) if BOUGHT in manifest.files else None,
        )
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"bundle {directory.name}: {type(error).__name__}: {error}") from error
    if bundle.mode != TWO_STAGE and bundle.mode not in models:
        raise BundleError(
            f"bundle {directory.name}: it says that {bundle.mode!r} is served, but holds only {', '.join(models) or 'nothing'}"
        )
    if bundle.mode == TWO_STAGE and ranker is None:
        raise BundleError(f"bundle {directory.name}: it says {TWO_STAGE!r} but holds no ranker")
    return bundle


def _document(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def versions(home: Path, domain: str) -> list[str]:
    """Finished bundles, oldest first."""
    folder = bundles_dir(home, domain)
    return sorted(path.parent.name for path in folder.glob(f"*/{_MANIFEST}"))


def alias(home: Path, domain: str, name: Alias) -> str | None:
    """The version an alias points at, None if it points nowhere."""
    try:
        return (bundles_dir(home, domain) / name).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def point(home: Path, domain: str, name: Alias, version: str) -> None:
    """Makes an alias point at a version, in one rename. The one before is kept in `<name>.history` for a rollback.
    Raises BundleError if there is no such finished version."""
    if version not in versions(home, domain):
        raise BundleError(f"{domain} has no version {version!r}; there are {', '.join(versions(home, domain)) or 'none'}")
    folder = bundles_dir(home, domain)
    with (folder / f"{name}.history").open("a", encoding="utf-8") as history:
        history.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {version}\n")
    _replace(folder / name, version + "\n")


def pointed_before(home: Path, domain: str, name: Alias) -> str | None:
    """The version the alias pointed at before the present one and that still exists; None if there is none."""
    try:
        lines = (bundles_dir(home, domain) / f"{name}.history").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    there, now = set(versions(home, domain)), alias(home, domain, name)
    for line in reversed(lines):
        version = line.split()[-1]
        if version != now and version in there:
            return version
    return None


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
