"""How good a ranking is: arrays in, one number a person out (means and intervals are significance.py's).

All take `hits` (people, k) bool: whether the item at each place is a target, best place first, False beyond the end of a
short list; and `wanted` (people,) int: how many targets the person had, found or not. People are never left out because no
candidate hit. Each formula is written beside its function; libraries give the same names to different formulas.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]
Counts = NDArray[np.int64]
PerPerson = NDArray[np.float64]


def hits_of(lists: Sequence[NDArray[np.int32]], wanted: Sequence[NDArray[np.int32]], k: int) -> Hits:
    """(people, k) bool from ranked rows and target rows of each person."""
    out = np.zeros((len(lists), k), dtype=np.bool_)
    for person, (ranked, targets) in enumerate(zip(lists, wanted, strict=True)):
        found = np.isin(ranked[:k], targets)
        out[person, : len(found)] = found
    return out


def hit_rate(hits: Hits, wanted: Counts) -> PerPerson:
    """HR@k = 1 if any of the first k is a target."""
    return np.asarray(hits.any(axis=1).astype(np.float64), dtype=np.float64)


def recall(hits: Hits, wanted: Counts) -> PerPerson:
    """hits / wanted."""
    return np.asarray(hits.sum(axis=1) / np.maximum(wanted, 1))


def precision(hits: Hits, wanted: Counts) -> PerPerson:
    """hits / k, also for lists shorter than k."""
    return np.asarray(hits.sum(axis=1) / hits.shape[1])


def ndcg(hits: Hits, wanted: Counts) -> PerPerson:
    """DCG / IDCG, DCG = sum over hits of 1 / log2(place + 1), IDCG = the same for min(wanted, k) hits at the top
    (Jarvelin & Kekalainen 2002, binary gains)."""
    k = hits.shape[1]
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    return np.asarray((hits * discount).sum(axis=1) / np.maximum(ideal[np.minimum(wanted, k)], discount[-1]))


def average_precision(hits: Hits, wanted: Counts) -> PerPerson:
    """AP@k = sum over hits of precision at that place, divided by min(wanted, k). MAP is its mean over people."""
    places = np.arange(1, hits.shape[1] + 1)
    return np.asarray((hits * np.cumsum(hits, axis=1) / places).sum(axis=1) / np.maximum(np.minimum(wanted, hits.shape[1]), 1))


def reciprocal_rank(hits: Hits, wanted: Counts) -> PerPerson:
    """1 / place of the first hit, 0 without one. MRR is its mean."""
    first = hits.argmax(axis=1)
    return np.asarray(np.where(hits.any(axis=1), 1.0 / (first + 1), 0.0))


def coverage(lists: Sequence[NDArray[np.int32]], items: int) -> float:
    """Share of the catalogue that stands in at least one list."""
    return len(np.unique(np.concatenate(lists))) / items if len(lists) and items else 0.0


def gini(lists: Sequence[NDArray[np.int32]], items: int) -> float:
    """Gini coefficient of how often each item of the catalogue is shown: 0 = all alike, 1 = one item takes all."""
    shown = np.sort(np.bincount(np.concatenate(lists), minlength=items)) if len(lists) else np.zeros(items)
    total = shown.sum()
    if not total:
        return 0.0
    return float((2.0 * np.arange(1, items + 1) - items - 1) @ shown / (items * total))


def novelty(lists: Sequence[NDArray[np.int32]], takers: NDArray[np.float32], people: int) -> PerPerson:
    """Mean over the list of -log2((takers + 1) / (people + 1)): bits of surprise that somebody took the item
    (Vargas & Castells 2011, self-information)."""
    surprise = -np.log2((takers + 1.0) / (people + 1.0))
    return np.array([float(surprise[ranked].mean()) if len(ranked) else 0.0 for ranked in lists])


def diversity(lists: Sequence[NDArray[np.int32]], vectors: NDArray[np.float32]) -> PerPerson:
    """Intra-list diversity: mean of 1 - cosine over the pairs of a list; `vectors` (items, d) have length 1 or 0."""
    out = np.zeros(len(lists))
    for person, ranked in enumerate(lists):
        n = len(ranked)
        if n > 1:
            total = vectors[ranked].sum(axis=0)
            own = float((vectors[ranked] ** 2).sum())
            out[person] = 1.0 - (float(total @ total) - own) / (n * (n - 1))
    return out
