"""From a ranking to what is shown: diversity, exploration and the filling of empty places. Pure functions over rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shown:
    """Positions of the ranking that are shown, in order, and how likely each was to be shown at all."""

    positions: NDArray[np.int64]
    propensities: NDArray[np.float64]


def mmr(scores: NDArray[np.float64], vectors: NDArray[np.float32], k: int, diversity: float) -> NDArray[np.int64]:
    """(min(k, n),) positions by maximal marginal relevance (Carbonell & Goldstein 1998):
    argmax (1 - d) * relevance - d * largest cosine to what was chosen. `scores` (n,) descending are scaled to 0..1 first;
    `vectors` (n, w) have length 1 or 0. diversity 0 gives the ranking itself."""
    n = len(scores)
    if diversity <= 0.0 or n <= 1:
        return np.arange(min(k, n))
    spread = float(scores[0] - scores[-1])
    relevance = (scores - scores[-1]) / spread if spread > 0 else np.linspace(1.0, 0.0, n)
    chosen: list[int] = []
    alike = np.zeros(n)
    open_places = np.ones(n, dtype=np.bool_)
    for _ in range(min(k, n)):
        worth = np.where(open_places, (1.0 - diversity) * relevance - diversity * alike, -np.inf)
        best = int(np.argmax(worth))  # the first of equals: the better ranked
        chosen.append(best)
        open_places[best] = False
        alike = np.maximum(alike, vectors @ vectors[best])
    return np.array(chosen)


def explore(order: NDArray[np.int64], k: int, share: float, pool: int, seed: int) -> Shown:
    """The first k of `order`, the last round(share * k) places of them drawn evenly, without replacement, from the `pool`
    positions that follow the kept ones. Propensity: 1 for a kept one, drawn / pool size for a drawn one."""
    k = min(k, len(order))
    draws = min(round(share * k), k)
    kept = order[: k - draws]
    rest = order[k - draws : k - draws + max(pool, draws)]
    if not draws or len(rest) <= draws:
        return Shown(order[:k], np.ones(k))
    drawn = np.sort(np.random.default_rng(seed).choice(len(rest), draws, replace=False))
    return Shown(np.concatenate([kept, rest[drawn]]), np.concatenate([np.ones(len(kept)), np.full(draws, draws / len(rest))]))


def seed_of(user: str | None, day: int, version: str, history: bytes = b"") -> int:
    """Chance that repeats: the same person, day and model draw the same. Somebody unnamed is known by what they sent."""
    digest = hashlib.blake2b(
        f"{user}|{day}|{version}|".encode("utf-8", "replace") + (history if user is None else b""), digest_size=8
    ).digest()
    return int.from_bytes(digest, "big")
