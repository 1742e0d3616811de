"""A trained world of 60 titles and 120 people, whole bundles of it, and the domain's YAML: everything real, only small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

import configs
from configs.domain import Domain
from features.catalogue import Catalogue, build
from features.compute import PairFeatures
from features.state import Histories, Kinds, histories
from features.statistics import ItemStatistics
from features.vocabulary import Vocabulary
from training import bundle, examples, split
from training.build import build as build_model
from training.bundle import TWO_STAGE, Verdict
from training.contract import CandidateModel, TrainingData
from training.ranker import Ranker
from training.retrieval import feature_names

DAY_US = 86_400_000_000
MOMENT = 1_760_000_000_000_000  # microseconds UTC: the world is as of this moment
GENRES = ("Action", "Comedy", "Drama", "Horror")
ITEMS, PEOPLE = 60, 120


@dataclass(frozen=True)
class SmallWorld:
    """People 1..60 watch Action and Comedy, 61..120 Drama and Horror. Item i has genre i % 4 and the id 1000 + i."""

    domain: Domain
    catalogue: Catalogue
    users: Vocabulary
    histories: Histories
    models: dict[str, CandidateModel]
    ranker: Ranker

    def publish(self, home: Path, events_through: int = 0, champion: bool = True, mode: str = TWO_STAGE) -> str:
        """Writes a bundle, makes it the champion and returns its version."""
        directory = bundle.write(
            home,
            self.domain,
            self.catalogue,
            self.users,
            self.histories,
            ItemStatistics.as_of(self.histories, len(self.catalogue), MOMENT),
            self.models,
            self.ranker if mode == TWO_STAGE else None,
            Verdict(passed=True, serve=mode, why="a test"),
            {},
            {},
            MOMENT,
            events_through,
            "test",
        )
        if champion:
            bundle.point(home, self.domain.name, "champion", directory.name)
        return directory.name


def domain_file(folder: Path) -> Path:
    """The anime domain with sources that learn within seconds."""
    document = yaml.safe_load((Path(configs.__file__).parent / "anime.yaml").read_text(encoding="utf-8"))
    document["candidates"] = {
        "popular": {"model": "popularity"},
        "content": {"model": "content", "dimensions": 16},
        "als": {"model": "als", "factors": 8, "iterations": 5},
        "sasrec": {"model": "sasrec", "dimensions": 8, "blocks": 1, "heads": 1, "window": 8, "epochs": 1, "batch": 64},
    }
    document["ranker"] = {"candidates": 20, "trees": 20, "leaves": 7, "leaf_rows": 5}
    document["serving"]["deadline_ms"] = 30_000  # no test depends on how fast this machine is
    document.pop("search", None)
    path = folder / "anime.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def small_world(yaml_file: Path) -> SmallWorld:
    domain = configs.load(str(yaml_file))
    rng = np.random.default_rng(5)
    ids = [str(1000 + row) for row in range(ITEMS)]
    catalogue = build(
        domain.items,
        ids,
        [f"{GENRES[row % 4]} story {row}" for row in range(ITEMS)],
        [row != ITEMS - 1 for row in range(ITEMS)],  # the last one cannot be had any more
        {
            "genre": [GENRES[row % 4] for row in range(ITEMS)],
            "type": ["TV" if row % 3 else "Movie" for row in range(ITEMS)],
            "episodes": [1 + row for row in range(ITEMS)],
            "rating": [5.0 + row % 5 for row in range(ITEMS)],
            "members": [10_000 - row for row in range(ITEMS)],
        },
    )
    users = Vocabulary([str(1 + person) for person in range(PEOPLE)])
    rows, items, times = [], [], []
    for person in range(PEOPLE):
        mine = [row for row in range(ITEMS - 1) if (row % 4 < 2) == (person < PEOPLE // 2)]
        chosen = rng.choice(mine, 14, replace=False)
        rows += [person] * len(chosen)
        items += [int(row) for row in chosen]
        times += [MOMENT - int(rng.integers(1, 200 * DAY_US)) for _ in chosen]
    n = len(rows)
    kinds = Kinds.of(domain.events)
    everything = histories(
        kinds,
        PEOPLE,
        np.array(rows, dtype=np.int32),
        np.array(items, dtype=np.int32),
        np.full(n, kinds.code("completed"), dtype=np.int8),
        rng.integers(5, 11, n).astype(np.float32),
        np.array(times, dtype=np.int64),
        True,
    )
    models = {name: build_model(words) for name, words in domain.candidates.items()}
    for model in models.values():
        model.fit(TrainingData(everything, catalogue, MOMENT, 3))
    features = PairFeatures(catalogue, ItemStatistics.as_of(everything, len(catalogue), MOMENT))
    return SmallWorld(domain, catalogue, users, everything, models, _ranker(domain, models, features, everything, catalogue))


def _ranker(
    domain: Domain, models: dict[str, CandidateModel], features: PairFeatures, everything: Histories, catalogue: Catalogue
) -> Ranker:
    """Learns to find what people took after a moment; its sources have seen it (good enough to have a real ranker)."""
    assert domain.ranker is not None
    cut = MOMENT - 40 * DAY_US
    before = everything.where(everything.times < cut)
    targets = split.targets(everything, everything.times >= cut, before, len(catalogue))
    made = examples.make(domain.ranker, models, features, before, targets, len(catalogue), catalogue.available, cut, 3)
    names = feature_names(tuple(models), features)
    return Ranker.fit(domain.ranker, names, tuple(models), made.rows, made.labels, made.groups, 3, 1)
