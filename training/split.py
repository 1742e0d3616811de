"""What may be learnt from, and what is held out. Nothing else in Factotum splits events.

Ordered data are split by time: base < label window < test window, the same moments for everybody (leave-one-out would let a
model see other people's future). Data without times have no order: label and test events are drawn at random within each
user, and every report on them says "unordered".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.domain import Split as SplitWords
from features.state import Histories, Means, fold


@dataclass(frozen=True)
class Split:
    """Masks over the events of a Histories. `label_moment` and `test_moment` are microseconds UTC: the moments as of which
    candidates for the label window, and answers for the test window, are made (`moment` for both if unordered)."""

    base: NDArray[np.bool_]
    label: NDArray[np.bool_]
    test: NDArray[np.bool_]
    label_moment: int
    test_moment: int
    ordered: bool


@dataclass(frozen=True)
class Targets:
    """New items that people took in a window, users ascending; `indptr` over `users`."""

    users: NDArray[np.int32]  # (u,)
    indptr: NDArray[np.int64]  # (u + 1,)
    items: NDArray[np.int32]

    def of(self, position: int) -> NDArray[np.int32]:
        return self.items[self.indptr[position] : self.indptr[position + 1]]

    def sample(self, most: int, seed: int) -> Targets:
        """At most so many users, drawn by seed, order kept."""
        if len(self.users) <= most:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.users), most, replace=False))
        parts = [self.of(int(position)) for position in chosen]
        return Targets(
            self.users[chosen], np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64), np.concatenate(parts)
        )


def split(histories: Histories, words: SplitWords, moment: int) -> Split:
    """Raises ValueError if there are too few events to hold any out."""
    if histories.events < 10:
        raise ValueError(f"{histories.events} events are too few to split: at least 10 are needed")
    if histories.ordered:
        times = histories.times
        label_moment, test_moment = (
            int(np.quantile(times, 1.0 - share, method="lower")) for share in (words.test + words.label, words.test)
        )
        if not int(times.min()) < label_moment < test_moment:
            label_moment, test_moment = _by_distinct_times(times, words)
        base, test = times < label_moment, times >= test_moment
        return Split(base, ~base & ~test, test, label_moment, test_moment, True)
    lengths = np.diff(histories.indptr)
    draw = np.random.default_rng(words.seed).random(histories.events)
    order = np.lexsort((draw, histories.users))
    place = np.empty(histories.events, dtype=np.int64)
    place[order] = np.arange(histories.events) - np.repeat(histories.indptr[:-1], lengths)
    n = np.repeat(lengths, lengths)
    tests = np.where(n >= 3, np.maximum(1, np.round(n * words.test)), 0)
    labels = np.where(n >= 3, np.maximum(1, np.round(n * words.label)), 0)
    test = place < tests
    label = ~test & (place < tests + labels)
    return Split(~test & ~label, label, test, moment, moment, False)


def _by_distinct_times(times: NDArray[np.int64], words: SplitWords) -> tuple[int, int]:
    """The same where many events share few times: cut between distinct times. Raises ValueError if there are fewer than 3."""
    distinct = np.unique(times)
    if len(distinct) < 3:
        raise ValueError(f"events at {len(distinct)} distinct times cannot be split by time: at least 3 are needed")
    last = len(distinct) - 1
    test = min(last, max(2, round(len(distinct) * (1.0 - words.test))))
    label = min(test - 1, max(1, round(len(distinct) * (1.0 - words.test - words.label))))
    return int(distinct[label]), int(distinct[test])


def targets(histories: Histories, window: NDArray[np.bool_], before: Histories, items: int) -> Targets:
    """Items with a target event inside `window` (events,) that `before` does not already exclude, and that were not disliked."""
    kinds_of = histories.kinds_of
    users = histories.users
    found = fold(
        kinds_of, users[window], histories.items[window], histories.kinds[window], histories.values[window], histories.times[window]
    )
    wanted = ((found.meanings & kinds_of.targets) != 0) & ((found.meanings & Means.DISLIKED) == 0)
    known = before.folded
    closed = (known.meanings & kinds_of.excluded) != 0
    key = found.users.astype(np.int64) * items + found.items
    wanted &= ~np.isin(key, known.users[closed].astype(np.int64) * items + known.items[closed])
    people, rows = found.users[wanted], found.items[wanted]
    unique, counts = np.unique(people, return_counts=True)
    return Targets(
        unique.astype(np.int32), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), rows[np.argsort(people, kind="stable")]
    )
