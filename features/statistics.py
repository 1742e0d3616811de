"""What the events before a moment say of each item: how many took it, how many lately, how well it was liked, how much of it is free."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.mapped import mapped
from features.state import NO_TIME, Histories, Means, positive, withdrawn

DAY_US = 86_400_000_000
HALF_LIVES = (0.1, 0.3, 1.0, 3.0, 7.0, 14.0, 30.0, 90.0, 180.0, 365.0)  # days


@dataclass(frozen=True)
class ItemStatistics:
    """As of `moment` (microseconds UTC): nothing at or after it is counted. All arrays are (items,) float32."""

    moment: int
    takers: NDArray[np.float32]  # people of whose taste it is
    recent: NDArray[np.float32]  # the same, each weighing 0.5 ** (age / half life)
    liking: NDArray[np.float32]  # share of raters who liked it, shrunk towards everybody's share
    free: NDArray[np.float32]  # share of its capacity that nobody owns, 0..1; NaN where the capacity is not known

    @classmethod
    def as_of(
        cls,
        histories: Histories,
        items: int,
        moment: int,
        half_life_days: float | None = 90.0,
        capacity: NDArray[np.float32] | None = None,
    ) -> ItemStatistics:
        """Counts each (user, item) once. Without times (or `half_life_days` None) `recent` equals `takers`.

        `liking` = (liked + 10 p) / (judged + 10), p = the overall share: a beta prior worth ten raters.
        `free` = 1 - owned / capacity, 0 where more is owned than there is. `capacity`: (items,), NaN where it is not known (None:
        everywhere)."""
        before = histories.where(histories.times < moment) if histories.ordered else histories
        folded = before.folded
        taken = positive(folded)
        rows = folded.items[taken]
        takers = np.bincount(rows, minlength=items).astype(np.float32)
        recent = takers
        if histories.timed and half_life_days is not None:
            times = folded.times[taken]
            age = np.where(times == NO_TIME, 0.0, (moment - times) / DAY_US)
            recent = np.bincount(rows, weights=np.exp2(-np.maximum(age, 0.0) / half_life_days), minlength=items).astype(np.float32)
        liked = np.bincount(folded.items[(folded.meanings & Means.LIKED) != 0], minlength=items)
        disliked = np.bincount(folded.items[(folded.meanings & Means.DISLIKED) != 0], minlength=items)
        judged = liked + disliked
        overall = float(liked.sum() / judged.sum()) if judged.sum() else 0.5
        free = np.full(items, np.nan, dtype=np.float32)
        if capacity is not None:
            free = free_share(capacity, capacity - owned(before, items))
        return cls(moment, takers, recent, ((liked + 10.0 * overall) / (judged + 10.0)).astype(np.float32), free)

    @classmethod
    def best_half_life(cls, histories: Histories, items: int, moment: int) -> float | None:
        """The half-life in days, of HALF_LIVES, under which the counts best foresee what follows: learnt from the first 90% of the
        events before `moment`, judged by the last 10% (DCG over all places, each taken item once a person; the longest of
        equals). None without times, or with too few events to tell: then all count alike."""
        if not histories.timed:
            return None
        before = histories.where(histories.times < moment)
        if before.events < 100:
            return None
        cut = int(np.quantile(before.times, 0.9, method="lower"))
        past, later = before.where(before.times < cut).folded, before.where(before.times >= cut).folded
        known, taken = positive(past), later.items[positive(later)]
        if not known.any() or not len(taken):
            return None
        age = np.maximum(cut - past.times[known], 0) / DAY_US
        best, most = None, -1.0
        for half_life in sorted(HALF_LIVES, reverse=True):
            counts = np.bincount(past.items[known], weights=np.exp2(-age / half_life), minlength=items)
            place = np.empty(items, dtype=np.int64)
            place[np.lexsort((np.arange(items), -counts))] = np.arange(items)
            gain = float((1.0 / np.log2(place[taken] + 2.0)).sum())
            if gain > most:
                best, most = half_life, gain
        return best

    def for_items(self, items: int) -> ItemStatistics:
        """The same for a larger catalogue: what came later has been taken by nobody and is liked like the average; how much of it is
        free is not known."""
        more = items - len(self.takers)
        if more <= 0:
            return self
        zeros = np.zeros(more, dtype=np.float32)
        liking = np.full(more, self.liking.mean() if len(self.liking) else 0.5, dtype=np.float32)
        return ItemStatistics(
            self.moment,
            np.concatenate([self.takers, zeros]),
            np.concatenate([self.recent, zeros]),
            np.concatenate([self.liking, liking]),
            np.concatenate([self.free, np.full(more, np.nan, dtype=np.float32)]),
        )

    def stocked(self, capacity: NDArray[np.float32], left: NDArray[np.float32]) -> ItemStatistics:
        """The same with what is free told anew. `left`: (items,) how many can be had now, NaN where that was not said."""
        return replace(self, free=np.where(np.isnan(left), self.free, free_share(capacity, left)))

    def available(self, on_offer: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(items,) of what is on offer that of which something is left, as far as that is known."""
        gone = self.free <= 0.0
        return on_offer & ~gone if gone.any() else on_offer

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / "statistics.npy", np.stack([self.takers, self.recent, self.liking]))
        np.save(directory / "free.npy", self.free)
        np.save(directory / "moment.npy", np.array(self.moment, dtype=np.int64))

    @classmethod
    def load(cls, directory: Path) -> ItemStatistics:
        """What was saved before there was `free` knows of no capacity."""
        takers, recent, liking = mapped(directory / "statistics.npy")
        path = directory / "free.npy"
        free = mapped(path) if path.is_file() else np.full(len(takers), np.nan, dtype=np.float32)
        return cls(int(np.load(directory / "moment.npy", allow_pickle=False)), takers, recent, liking, free)


def owned(histories: Histories, items: int) -> NDArray[np.float32]:
    """(items,) how many of each item people own: of every event that means "owned" and was not undone its quantity, which is the event's
    value in a domain without ratings, 1 where none was given."""
    kinds_of, kinds = histories.kinds_of, histories.kinds
    mine = (kinds_of.means[kinds] & Means.OWNED) != 0
    undoing = (kinds_of.means[kinds] & Means.UNDO) != 0
    if undoing.any():
        shown = kinds_of.means[kinds] == Means.SHOWN
        mine &= ~withdrawn(histories.users, histories.items, undoing, ~undoing & ~shown)
    values = histories.values[mine]
    counted = np.isnan(values) | (values <= 0) | np.isfinite(kinds_of.liked_from)
    return np.bincount(histories.items[mine], weights=np.where(counted, 1.0, values), minlength=items).astype(np.float32)


def free_share(capacity: NDArray[np.float32], left: NDArray[np.float32]) -> NDArray[np.float32]:
    """(items,) float32 in 0..1: left / capacity, NaN where either is not known."""
    return np.asarray(np.clip(left / capacity, 0.0, 1.0), dtype=np.float32)
