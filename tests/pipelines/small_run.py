"""One tiny run of everything, shared by the tests of the pipelines: a sample of 300 people and 80 titles, sources quick to learn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import configs
from configs.deployment import Deployment
from configs.domain import Domain
from pipelines.run import newest, run
from pipelines.steps import Reporter

SILENT = Reporter(quiet=True)
DEPLOYMENT = Deployment.model_validate({"storage": {"settle_s": 0.001}})


def yaml_file(folder: Path, **words: Any) -> Path:
    """The anime domain, shrunk; `words` replace top words of its YAML."""
    document = yaml.safe_load((Path(configs.__file__).parent / "anime.yaml").read_text(encoding="utf-8"))
    document |= {
        "sample": {"users": 300, "items": 80, "seed": 7},
        "candidates": {
            "popular": {"model": "popularity"},
            "content": {"model": "content", "title_words": 256, "dimensions": 8},
            "als": {"model": "als", "factors": 8, "iterations": 4},
            "sasrec": {"model": "sasrec", "dimensions": 16, "blocks": 1, "heads": 1, "window": 10, "epochs": 1, "batch": 64},
        },
        "ranker": {"candidates": 20, "trees": 20, "leaves": 7, "leaf_rows": 10},
        "search": {
            "popular": {"words": {"half_life_days": {"low": 1, "high": 365, "log": True}}},
            "ranker": {"words": {"leaves": {"choices": [3, 7]}}},
        },
        **words,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "anime.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


@dataclass(frozen=True)
class SmallRun:
    yaml: Path
    domain: Domain
    home: Path
    version: str

    def copied(self, to: Path) -> SmallRun:
        """The same in a home of its own, every file as old as it was."""
        return replace(self, home=Path(shutil.copytree(self.home, to / "home")))

    def step(self, name: str) -> Path:
        return newest(self.home, self.domain.name, name)

    def made(self, *under: str) -> dict[str, int]:
        """When each file was last written (nanoseconds); locks left out."""
        root = self.home / self.domain.name
        parts = [root / part for part in under] or [root]
        return {
            str(path.relative_to(root)): path.stat().st_mtime_ns
            for part in parts
            for path in sorted(part.rglob("*"))
            if path.is_file() and path.name not in (".lock", "events_through.json")
        }

    def judged(self, verdict: Mapping[str, Any]) -> Path:
        """One more evaluation of the same training, finished just now, that says this."""
        there = self.step("evaluate")
        path = Path(shutil.copytree(there, there.with_name("judged-otherwise")))
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
        (path / "report.json").write_text(json.dumps({**report, "verdict": {**report["verdict"], **verdict}}), encoding="utf-8")
        (path / "DONE.json").touch()
        return path


@pytest.fixture(scope="session")
def whole_run(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """The run itself: for looking only. Whoever changes anything takes `small_run`."""
    folder = tmp_path_factory.mktemp("small")
    file = yaml_file(folder)
    domain = configs.load(str(file))
    return SmallRun(file, domain, folder / "home", run(domain, None, folder / "home", DEPLOYMENT, SILENT))


@pytest.fixture
def small_run(whole_run: SmallRun, tmp_path: Path) -> SmallRun:
    return whole_run.copied(tmp_path)
