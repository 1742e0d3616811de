"""How sure a difference is: bootstrap intervals over people (Efron & Tibshirani 1993, percentile), paired where two
rankings answered the same people; a permutation test of the same difference; and Holm's correction where many are looked at."""

from __future__ import annotations

from collections.abc import Mapping
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


def permutation(first: NDArray[np.float64], second: NDArray[np.float64], seed: int = 0, rounds: int = 10_000) -> float:
    """Two-sided p-value of mean(first - second) = 0 over the same people: each person's difference keeps or changes its sign at
    random (paired randomisation test, Smucker et al. 2007). (more extreme + 1) / (rounds + 1), so it is never 0.

    Raises ValueError if the lengths differ. Without people, or with no difference at all: 1."""
    if len(first) != len(second):
        raise ValueError(f"paired values must be of one length, got {len(first)} and {len(second)}")
    differences = first - second
    differences = differences[differences != 0.0]  # a zero has no sign to change
    n = len(differences)
    if not n:
        return 1.0
    generator = np.random.default_rng(seed)
    seen = abs(float(differences.sum()))
    block = max(1, min(rounds, 20_000_000 // n))
    extreme = 0
    for start in range(0, rounds, block):
        signs = generator.integers(0, 2, (min(block, rounds - start), n), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ differences) >= seen * (1.0 - 1e-12)).sum())
    return (extreme + 1) / (rounds + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values (Holm 1979): the i-th smallest of m times (m - i + 1), never below the one before, at most 1. Each may be
    compared with the level wanted for all together."""
    out: dict[str, float] = {}
    worst = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[name]))
        out[name] = worst
    return {name: out[name] for name in p_values}
