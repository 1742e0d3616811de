"""The same models against a hundred random items a person, as many papers report. Such figures do not keep the order of models
(Krichene & Rendle 2020); they are made only to stand beside published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.domain import Domain
from features.catalogue import Catalogue
from features.compute import PairFeatures
from features.statistics import ItemStatistics
from pipelines.measuring import Asked, K
from training.bundle import TWO_STAGE
from training.contract import CandidateModel
from training.ranker import Ranker
from training.retrieval import described, feature_rows
from training.significance import interval

NEGATIVES = 100
_BATCH = 256


def sampled(
    domain: Domain,
    models: Mapping[str, CandidateModel],
    ranker: Ranker | None,
    catalogue: Catalogue,
    statistics: ItemStatistics,
    asked: Asked,
    now: int,
) -> dict[str, Any]:
    """HR@10 and NDCG@10 of each person's first target among NEGATIVES available items that they neither had nor took, drawn
    uniformly by seed. Ties go against the target; where a way has nothing to say of it, it is last."""
    features, available = PairFeatures(catalogue, statistics), np.asarray(catalogue.available)
    chance = np.random.default_rng((domain.split.seed, NEGATIVES))
    k = domain.ranker.candidates if domain.ranker is not None else K
    places: dict[str, list[NDArray[np.int64]]] = {}
    for start in range(0, len(asked.states), _BATCH):
        states, truth = asked.states[start : start + _BATCH], asked.truth[start : start + _BATCH]
        drawn = np.stack([_drawn(chance, available, state.excluded, took) for state, took in zip(states, truth, strict=True)])
        candidates = described(models, states, now, k, available, drawn)
        wide = drawn.shape[1]
        target = np.array([int(took[0]) for took in truth])
        own = candidates.items.reshape(-1, wide) == target[:, None]
        table = {name: candidates.scores[:, column].astype(np.float64) for column, name in enumerate(candidates.sources)}
        if ranker is not None:
            table[TWO_STAGE] = ranker.scores(feature_rows(ranker.sources, features, states, candidates, now))
        for way, flat in table.items():
            scores = flat.reshape(-1, wide)
            theirs = scores[own][:, None]
            ahead = np.where(np.isnan(theirs), True, np.nan_to_num(scores, nan=-np.inf) >= theirs) & ~own
            places.setdefault(way, []).append(1 + ahead.sum(axis=1))
    out: dict[str, Any] = {}
    for way, parts in places.items():
        place = np.concatenate(parts)
        hit = place <= K
        gain = np.where(hit, 1.0 / np.log2(place + 1.0), 0.0)
        out[way] = {
            f"NDCG@{K}": interval(gain, domain.split.seed).as_json(),
            f"HR@{K}": interval(hit.astype(np.float64), domain.split.seed).as_json(),
        }
    return out


def _drawn(
    chance: np.random.Generator, available: NDArray[np.bool_], excluded: NDArray[np.int32], took: NDArray[np.int32]
) -> NDArray[np.int32]:
    """(NEGATIVES + 1,) the first target and random others; fewer different ones where the catalogue is small: then some stand twice."""
    free = available.copy()
    free[excluded] = False
    free[took] = False
    rows = np.flatnonzero(free)
    others = chance.choice(rows, NEGATIVES, replace=len(rows) < NEGATIVES) if len(rows) else np.full(NEGATIVES, took[0])
    return np.concatenate([took[:1], others]).astype(np.int32)
