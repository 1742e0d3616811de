"""How good a ranking is: arrays in, one number a person out (means and intervals are significance.py's).

Those of a ranking take `hits` (people, k) bool: whether the item at each place is a target, best place first, False beyond the end of a
short list; and `wanted` (people,) int: how many targets the person had, found or not. People are never left out because no
candidate hit. Those of lists take the ranked rows themselves; those of probabilities what was foretold and what came.
Each formula is written beside its function; libraries give the same names to different formulas.
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


def surprisal(lists: Sequence[NDArray[np.int32]], takers: NDArray[np.float32], people: int) -> PerPerson:
    """Mean over the list of -log2(max(takers, 1) / people) / log2(people), between 0 and 1: the self-information that `novelty`
    gives in bits, as a share of the most there can be (Zhou et al. 2010). With one person or none: zeros."""
    if people < 2:
        return np.zeros(len(lists))
    share = -np.log2(np.minimum(np.maximum(takers, 1.0) / people, 1.0)) / np.log2(people)
    return np.array([float(share[ranked].mean()) if len(ranked) else 0.0 for ranked in lists])


def serendipity(lists: Sequence[NDArray[np.int32]], wanted: Sequence[NDArray[np.int32]], takers: NDArray[np.float32], k: int) -> PerPerson:
    """Sum over the hits among the first k of the share of items that are more popular than the hit, divided by k: a hit counts the
    more the less obvious it is. (Kaminskas & Bridge 2016: relevance times unexpectedness; unexpectedness is the item's
    place in the order of popularity, ties sharing the better place.)"""
    items = len(takers)
    above = items - np.searchsorted(np.sort(takers), takers, side="right")
    unexpected = above / max(items - 1, 1)
    out = np.zeros(len(lists))
    for person, (ranked, targets) in enumerate(zip(lists, wanted, strict=True)):
        first = ranked[:k]
        out[person] = float(unexpected[first[np.isin(first, targets)]].sum()) / k
    return out


def popularity_bias(lists: Sequence[NDArray[np.int32]], takers: NDArray[np.float32], profiles: Sequence[NDArray[np.int32]]) -> PerPerson:
    """Mean takers of what is shown over mean takers of what the person had taken, minus 1: 0 = as popular as their own taste,
    1 = twice as popular (popularity lift, Abdollahpouri et al. 2020). People without a list or without a past: 0."""
    out = np.zeros(len(lists))
    for person, (ranked, own) in enumerate(zip(lists, profiles, strict=True)):
        taste = float(takers[own].mean()) if len(own) else 0.0
        if len(ranked) and taste > 0.0:
            out[person] = float(takers[ranked].mean()) / taste - 1.0
    return out


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


# ------------------------------------------------------------------ probabilities

Probabilities = NDArray[np.float64]  # (n,), each between 0 and 1
Outcomes = NDArray[np.bool_]  # (n,), whether it came


def brier(foretold: Probabilities, came: Outcomes) -> float:
    """Mean of (p - y)^2, lower is better (Brier 1950). Raises ValueError as `_checked` says."""
    p, y = _checked(foretold, came)
    return float(np.mean((p - y) ** 2))


def brier_skill(foretold: Probabilities, came: Outcomes) -> float:
    """1 - Brier / (Brier of always foretelling the share that came): 0 = no better than that share, 1 = perfect, below 0 = worse.
    Where all came or none did, nothing can be gained: 0 for a perfect foretelling, else minus infinity."""
    p, y = _checked(foretold, came)
    floor = float(y.mean() * (1.0 - y.mean()))
    own = float(np.mean((p - y) ** 2))
    if floor == 0.0:
        return 0.0 if own == 0.0 else -np.inf
    return 1.0 - own / floor


def log_loss(foretold: Probabilities, came: Outcomes, floor: float = 1e-15) -> float:
    """Mean of -log of the probability given to what came, natural logarithm; p is kept within [floor, 1 - floor]."""
    p, y = _checked(foretold, came)
    p = np.clip(p, floor, 1.0 - floor)
    return float(-np.mean(y * np.log(p) + (1.0 - y) * np.log1p(-p)))


def calibration_error(foretold: Probabilities, came: Outcomes, bins: int = 10) -> float:
    """ECE over bins of equal mass: sum over bins of (size / n) * |mean p - share that came| (Naeini et al. 2015; equal mass as in
    Nguyen & O'Connor 2015, because rare products put nearly everything into the first bin of equal width). Equal
    probabilities always share a bin, so that an order among them cannot matter; there may then be fewer bins."""
    p, y = _checked(foretold, came)
    order = np.argsort(p, kind="stable")
    p, y = p[order], y[order]
    edges = np.unique(np.searchsorted(p, p[np.minimum(np.arange(1, bins) * len(p) // bins, len(p) - 1)], side="left"))
    error = 0.0
    for part_p, part_y in zip(np.split(p, edges), np.split(y, edges), strict=True):
        if len(part_p):
            error += len(part_p) / len(p) * abs(float(part_p.mean()) - float(part_y.mean()))
    return error


def _checked(foretold: Probabilities, came: Outcomes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Raises ValueError for nothing at all, unequal lengths, or what is no probability."""
    p, y = np.asarray(foretold, dtype=np.float64), np.asarray(came, dtype=np.float64)
    if p.shape != y.shape or p.ndim != 1 or not len(p):
        raise ValueError(f"expected two arrays of one length, at least 1; got {p.shape} and {y.shape}")
    if not bool(np.all((p >= 0.0) & (p <= 1.0))):
        raise ValueError("probabilities lie between 0 and 1")
    return p, y
