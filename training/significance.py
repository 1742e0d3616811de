"""How sure a difference is: bootstrap intervals over people (Efron & Tibshirani 1993, percentile), paired where two
rankings answered the same people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% bootstrap interval over `people`."""

    mean: float
    low: float
    high: float
    people: int

    def as_json(self) -> dict[str, float | int]:
        return {"mean": round(self.mean, 6), "low": round(self.low, 6), "high": round(self.high, 6), "people": self.people}


def interval(values: NDArray[np.float64], seed: int = 0, rounds: int = 1_000) -> Interval:
    """The mean of `values` (people,) and where it lies in 95% of resamples of people. Empty: zeros."""
    n = len(values)
    if not n:
        return Interval(0.0, 0.0, 0.0, 0)
    generator = np.random.default_rng(seed)
    block = max(1, min(rounds, 20_000_000 // n))  # resamples are drawn in blocks: memory stays under some 200 MB
    means = np.concatenate(
        [values[generator.integers(0, n, (min(block, rounds - start), n))].mean(axis=1) for start in range(0, rounds, block)]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), n)


def paired(first: NDArray[np.float64], second: NDArray[np.float64], seed: int = 0, rounds: int = 1_000) -> Interval:
    """Interval of mean(first - second) over the same people in the same order. Raises ValueError if the lengths differ."""
    if len(first) != len(second):
        raise ValueError(f"paired values must be of one length, got {len(first)} and {len(second)}")
    return interval(first - second, seed, rounds)
