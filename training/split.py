"""What may be learnt from, and what is held out. Nothing else in Factotum splits events.

Data with times are split by time: base < label window < test window, the same moments for everybody. Leaving the last event of
each person out lets a model see other people's future; it is done where the YAML asks for it, to compare with published
figures. Data without times have no order: label and test events are drawn at random within each user, and every report on them
says "unordered".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from configs.domain import Split as SplitWords
from features.state import Histories, Means, fold


@dataclass(frozen=True)
class Split:
    """Masks over the events of a Histories. `label_moment` and `test_moment` are microseconds UTC: the moments as of which
    candidates for the label window, and answers for the test window, are made (`moment` for both unless split by time).

    `labels`: pairs of masks, what was known of a person and what they took next; one pair, base and label, but for `last`, where
    the label window holds several events of each person and each is foreseen from those before it."""

    base: NDArray[np.bool_]
    label: NDArray[np.bool_]
    test: NDArray[np.bool_]
    label_moment: int
    test_moment: int
    kind: Literal["time", "last", "unordered"]
    labels: tuple[tuple[NDArray[np.bool_], NDArray[np.bool_]], ...]


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
    """Raises ValueError if there are too few events to hold any out, and for `last` without an order.

    `words.back` windows are put away first, one after the other, as if their events had not happened yet: they are in no mask."""
    if not words.back:
        return _split(histories, words, moment)
    later = _split(histories, words.model_copy(update={"back": 0}), moment)
    kept = np.flatnonzero(~later.test)
    cut = split(histories.where(~later.test), words.model_copy(update={"back": words.back - 1, "seed": words.seed + 1}), later.test_moment)

    def wide(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        out = np.zeros(histories.events, dtype=np.bool_)
        out[kept[mask]] = True
        return out

    pairs = tuple((wide(before), wide(took)) for before, took in cut.labels)
    return Split(wide(cut.base), wide(cut.label), wide(cut.test), cut.label_moment, cut.test_moment, cut.kind, pairs)


def _split(histories: Histories, words: SplitWords, moment: int) -> Split:
    if histories.events < 10:
        raise ValueError(f"{histories.events} events are too few to split: at least 10 are needed")
    if words.protocol == "last":
        return _last(histories, words, moment)
    if histories.timed:
        times = histories.times
        label_moment, test_moment = (
            int(np.quantile(times, 1.0 - share, method="lower")) for share in (words.test + words.label, words.test)
        )
        if not int(times.min()) < label_moment < test_moment:
            label_moment, test_moment = _by_distinct_times(times, words)
        base, test = times < label_moment, times >= test_moment
        label = ~base & ~test
        return Split(base, label, test, label_moment, test_moment, "time", ((base, label),))
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
    base = ~test & ~label
    return Split(base, label, test, moment, moment, "unordered", ((base, label),))


def _last(histories: Histories, words: SplitWords, moment: int) -> Split:
    """Leave one out: the last event of everybody with at least 3 is the test, the `labels` before it the label window, as far as a
    person keeps one event to be known by."""
    if not histories.ordered:
        raise ValueError("split: `protocol: last` needs an order: times, or a source whose files say `order: rows`")
    lengths = np.diff(histories.indptr)
    if not (lengths >= 3).any():
        raise ValueError("nobody has 3 events: there is no last one to leave out")
    n = np.repeat(lengths, lengths)
    left = np.repeat(histories.indptr[1:], lengths) - np.arange(histories.events)  # 1 = the last event of a person
    held = n >= 3
    test = held & (left == 1)
    label = held & (left > 1) & (left <= words.labels + 1) & (left < n)
    pairs = []
    for back in range(words.labels + 1, 1, -1):
        took = label & (left == back)
        if took.any():
            pairs.append((~held | (left > back), took))
    return Split(~test & ~label, label, test, moment, moment, "last", tuple(pairs))


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
