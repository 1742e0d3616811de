"""Small worlds made from a seed, for people who have no data yet: one module a domain, found by its name."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Protocol, cast

from configs.domain import Sample


class _World(Protocol):
    def make(self, directory: Path, users: int, items: int, seed: int) -> None: ...


def names() -> tuple[str, ...]:
    """Domains that have a sample, sorted."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__"))


def mark(domain: str) -> str:
    """Tells one generator from another: a sample made by an earlier one is not taken for this one's. Raises ValueError as `make`."""
    _check(domain)
    return hashlib.sha256((Path(__file__).parent / f"{domain}.py").read_bytes()).hexdigest()[:16]


def make(domain: str, directory: Path, sample: Sample) -> None:
    """Writes the sample files of a domain into `directory` (created if need be); the same sample makes the same bytes.

    Raises ValueError if the domain has no sample.
    """
    _check(domain)
    directory.mkdir(parents=True, exist_ok=True)
    world = cast(_World, importlib.import_module(f"pipelines.samples.{domain}"))
    world.make(directory, sample.users, sample.items, sample.seed)


def _check(domain: str) -> None:
    if domain not in names():
        raise ValueError(f"there is no sample for {domain!r}: pass your own files with --data; samples exist for {', '.join(names())}")
