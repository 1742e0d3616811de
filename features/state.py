"""What is known of a user at a moment: the events so far, folded.

`Histories` holds everybody's raw events in one set of arrays; `UserState` is one person. Folding (undoing, what an event
means, the last word on each item) is one vectorised function, used for a million users while training and for one person
while answering, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.domain import Events
from features.mapped import mapped
from features.repeats import repeats

NO_TIME = np.iinfo(np.int64).min  # stands where a source has no times
_TOGETHER = 8  # people asked for at once are folded together from this many on
_AT_ONCE = 4_096  # and at most so many, which bounds what is copied


class Means(IntFlag):
    """What an event says, as bits of a uint8."""

    SEEN = 1
    LIKED = 2
    DISLIKED = 4
    OWNED = 8
    INTEREST = 16
    SHOWN = 32
    UNDO = 64


def mask_of(words: Sequence[str]) -> int:
    """The bits of the YAML's words: ("seen", "liked") -> 3."""
    bits = 0
    for word in words:
        bits |= Means[word.upper()]
    return bits


#: What makes an item part of a person's taste: any of these, and not disliked.
POSITIVE = int(Means.SEEN | Means.LIKED | Means.OWNED | Means.INTEREST)


@dataclass(frozen=True)
class Kinds:
    """The kinds of events of a domain, by code: `names[code]`, `means[code]`, `weights[code]`, and the scale of ratings."""

    names: tuple[str, ...]
    means: NDArray[np.uint8]
    weights: NDArray[np.float32]
    liked_from: float  # inf where the domain has no ratings
    disliked_to: float  # -inf likewise
    low: float
    high: float
    targets: int
    excluded: int

    @classmethod
    def of(cls, events: Events) -> Kinds:
        scale = events.scale
        return cls(
            names=tuple(events.kinds),
            means=np.array([mask_of(kind.means) for kind in events.kinds.values()], dtype=np.uint8),
            weights=np.array([kind.weight for kind in events.kinds.values()], dtype=np.float32),
            liked_from=scale.liked_from if scale else np.inf,
            disliked_to=scale.disliked_to if scale else -np.inf,
            low=scale.low if scale else 0.0,
            high=scale.high if scale else 1.0,
            targets=mask_of(events.targets),
            excluded=mask_of(events.excluded),
        )

    @property
    def strongest(self) -> int:
        """The code of the kind that weighs most: what a bare list of known items is taken to mean."""
        return int(np.argmax(self.weights))

    def code(self, name: str) -> int:
        """Raises ValueError for an unknown kind."""
        return self.names.index(name)

    def meanings(self, kinds: NDArray[np.int8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(n,) uint8: what each event means, its rating counted in."""
        bits = self.means[kinds]
        with np.errstate(invalid="ignore"):
            bits = bits | np.where(values >= self.liked_from, np.uint8(Means.LIKED), np.uint8(0))
            bits = bits | np.where(values <= self.disliked_to, np.uint8(Means.DISLIKED), np.uint8(0))
        return bits.astype(np.uint8)

    def strengths(self, kinds: NDArray[np.int8], values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) float32 training weights: the kind's, times 0.5 to 1.5 along the scale where a rating was given."""
        weights = self.weights[kinds]
        if not np.isfinite(self.liked_from):
            return weights
        along = (values - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.where(np.isnan(values), weights, weights * (0.5 + along)).astype(np.float32)


@dataclass(frozen=True)
class Folded:
    """The last word on each (user, item), users ascending, within a user oldest first. All arrays are (n,)."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    meanings: NDArray[np.uint8]  # of the last event; SEEN, OWNED of earlier ones stay
    weights: NDArray[np.float32]
    values: NDArray[np.float32]  # last rating given, NaN if none
    times: NDArray[np.int64]


def fold(
    kinds_of: Kinds,
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    kinds: NDArray[np.int8],
    values: NDArray[np.float32],
    times: NDArray[np.int64],
) -> Folded:
    """Folds raw events. They must stand by user, within a user oldest first; an `undo` withdraws the user's latest
    standing event about that item. Events that only mean "shown" leave no trace here."""
    bits = kinds_of.meanings(kinds, values)
    keep = (bits & np.uint8(0xFF ^ int(Means.SHOWN))) != 0
    undoing = (bits & Means.UNDO) != 0
    if undoing.any():
        keep &= ~withdrawn(users, items, undoing, keep)
    if not keep.all():
        users, items, kinds, values, times, bits = users[keep], items[keep], kinds[keep], values[keep], times[keep], bits[keep]
    weights = kinds_of.strengths(kinds, values)
    if len(items) < 2 or not repeats(users, items):
        return Folded(users, items, bits, weights, values, times)
    order = np.lexsort((items, users))  # stable: within a pair, oldest first
    u, i = users[order], items[order]
    last = np.empty(len(order), dtype=np.bool_)
    last[-1] = True
    np.logical_or(u[1:] != u[:-1], i[1:] != i[:-1], out=last[:-1])
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sticky = np.bitwise_or.reduceat(bits[order] & np.uint8(Means.SEEN | Means.OWNED), starts)
    rated = values[order]
    position = np.where(np.isnan(rated), -1, np.arange(len(rated)))
    latest_rated = np.maximum.reduceat(position, starts)
    chosen = order[ends]
    back = np.argsort(chosen, kind="stable")
    chosen, sticky, latest_rated = chosen[back], sticky[back], latest_rated[back]
    return Folded(
        users[chosen],
        items[chosen],
        bits[chosen] | sticky,
        weights[chosen],
        np.where(latest_rated >= 0, rated[latest_rated], np.float32(np.nan)).astype(np.float32),
        times[chosen],
    )


def withdrawn(
    users: NDArray[np.int32], items: NDArray[np.int32], undoing: NDArray[np.bool_], standing: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which events fall away: every undo itself, and the latest standing event before it of the same user and item."""
    out = undoing.copy()
    undone = {(int(users[i]), int(items[i])) for i in np.flatnonzero(undoing)}
    stacks: dict[tuple[int, int], list[int]] = {pair: [] for pair in undone}
    touched = np.flatnonzero(np.isin(users, [pair[0] for pair in undone]) & np.isin(items, [pair[1] for pair in undone]))
    for position in touched:
        stack = stacks.get((int(users[position]), int(items[position])))
        if stack is None:
            continue
        if not undoing[position]:
            if standing[position]:
                stack.append(int(position))
        elif stack:
            out[stack.pop()] = True
    return out


@dataclass(frozen=True)
class UserState:
    """One person as of a moment: raw events, oldest first, and what was said of them (`preferences`).

    `preferences` maps an attribute to the words a person named ("genre" -> ("Comedy",)): all that is known of a newcomer.
    """

    kinds_of: Kinds
    items: NDArray[np.int32]  # (n,)
    kinds: NDArray[np.int8]
    values: NDArray[np.float32]  # NaN where no rating was given
    times: NDArray[np.int64]  # microseconds UTC, NO_TIME where unknown
    preferences: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ordered: bool = False  # True: the events stand in the order of time even where that is unknown

    @classmethod
    def empty(cls, kinds_of: Kinds, preferences: Mapping[str, tuple[str, ...]] | None = None) -> UserState:
        none = np.empty(0, dtype=np.int32)
        return cls(kinds_of, none, none.astype(np.int8), none.astype(np.float32), none.astype(np.int64), preferences or {})

    @classmethod
    def of_items(
        cls, kinds_of: Kinds, items: Sequence[int], kind: int, now: int, preferences: Mapping[str, tuple[str, ...]] | None = None
    ) -> UserState:
        """Somebody known only by a list of items, oldest first."""
        n = len(items)
        return cls(
            kinds_of,
            np.array(items, dtype=np.int32),
            np.full(n, kind, dtype=np.int8),
            np.full(n, np.nan, dtype=np.float32),
            np.full(n, now, dtype=np.int64),
            preferences or {},
        )

    def __len__(self) -> int:
        return len(self.items)

    def then(self, item: int, kind: int, value: float, time: int) -> UserState:
        """The state after one more event, put where its time belongs (equal times: after)."""
        place = int(np.searchsorted(self.times, time, side="right"))
        return UserState(
            self.kinds_of,
            np.insert(self.items, place, item),
            np.insert(self.kinds, place, kind),
            np.insert(self.values, place, value),
            np.insert(self.times, place, time),
            self.preferences,
            self.ordered,
        )

    def until(self, moment: int) -> UserState:
        """What was known before `moment` (microseconds UTC)."""
        n = int(np.searchsorted(self.times, moment, side="left"))
        return UserState(self.kinds_of, self.items[:n], self.kinds[:n], self.values[:n], self.times[:n], self.preferences, self.ordered)

    def only(self, events: NDArray[np.int64]) -> UserState:
        """The state made of some of the events, their positions ascending."""
        return UserState(
            self.kinds_of,
            self.items[events],
            self.kinds[events],
            self.values[events],
            self.times[events],
            self.preferences,
            self.ordered,
        )

    @cached_property
    def folded(self) -> Folded:
        return fold(self.kinds_of, np.zeros(len(self), dtype=np.int32), self.items, self.kinds, self.values, self.times)

    @cached_property
    def positives(self) -> NDArray[np.int32]:
        """(p,) items of this person's taste, oldest first, each once."""
        return np.asarray(self.folded.items[positive(self.folded)])

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """(p,) float32 strengths of `positives`."""
        return np.asarray(self.folded.weights[positive(self.folded)])

    @cached_property
    def disliked(self) -> NDArray[np.int32]:
        return np.asarray(self.folded.items[dislikes(self.folded)])

    @cached_property
    def excluded(self) -> NDArray[np.int32]:
        """Items that are not to be recommended again, as the YAML's `excluded` says."""
        return np.asarray(self.folded.items[excludes(self.folded, self.kinds_of)])


def positive(folded: Folded) -> NDArray[np.bool_]:
    """(n,) which folded events belong to a person's taste and weigh something."""
    return np.asarray(((folded.meanings & POSITIVE) != 0) & ~dislikes(folded) & (folded.weights > 0))


def dislikes(folded: Folded) -> NDArray[np.bool_]:
    """(n,) which folded events say that a person dislikes the item."""
    return np.asarray((folded.meanings & Means.DISLIKED) != 0)


def excludes(folded: Folded, kinds_of: Kinds) -> NDArray[np.bool_]:
    """(n,) which folded events keep the item from being recommended again."""
    return np.asarray((folded.meanings & kinds_of.excluded) != 0)


def _foresee(states: Sequence[UserState]) -> None:
    """Fills what each state would find out of its events when it is asked."""
    kinds_of = states[0].kinds_of
    users = np.repeat(np.arange(len(states), dtype=np.int32), [len(state) for state in states])
    items, kinds = np.concatenate([state.items for state in states]), np.concatenate([state.kinds for state in states])
    values, times = np.concatenate([state.values for state in states]), np.concatenate([state.times for state in states])
    folded = fold(kinds_of, users, items, kinds, values, times)

    def parts(mask: NDArray[np.bool_], *columns: NDArray[np.generic]) -> Iterator[tuple[NDArray[np.generic], ...]]:
        """The masked columns, person by person."""
        kept = tuple(column[mask] for column in columns)
        borders = np.searchsorted(folded.users[mask], np.arange(len(states) + 1)).tolist()
        return (tuple(column[begin:end] for column in kept) for begin, end in pairwise(borders))

    columns = (np.zeros_like(folded.users), folded.items, folded.meanings, folded.weights, folded.values, folded.times)
    found = zip(
        states,
        parts(np.ones(len(folded.items), dtype=np.bool_), *columns),
        parts(positive(folded), folded.items, folded.weights),
        parts(dislikes(folded), folded.items),
        parts(excludes(folded, kinds_of), folded.items),
        strict=True,
    )
    for state, whole, (positives, weights), (disliked,), (excluded,) in found:
        state.__dict__.update(folded=Folded(*whole), positives=positives, weights=weights, disliked=disliked, excluded=excluded)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Histories:
    """Everybody's raw events: those of user u stand at indptr[u]:indptr[u+1], oldest first (file order where `ordered` is
    False). A source may have an order and yet no times: then all times are NO_TIME. Arrays may be memory-mapped."""

    kinds_of: Kinds
    indptr: NDArray[np.int64]  # (users + 1,)
    items: NDArray[np.int32]  # (events,)
    kinds: NDArray[np.int8]
    values: NDArray[np.float32]
    times: NDArray[np.int64]
    ordered: bool

    def __len__(self) -> int:
        """How many users."""
        return len(self.indptr) - 1

    @property
    def events(self) -> int:
        return len(self.items)

    @cached_property
    def timed(self) -> bool:
        """Whether there is an order and every event has a time."""
        return self.ordered and not bool((self.times == NO_TIME).any())

    def state(self, user: int) -> UserState:
        part = slice(int(self.indptr[user]), int(self.indptr[user + 1]))
        return UserState(self.kinds_of, self.items[part], self.kinds[part], self.values[part], self.times[part], ordered=self.ordered)

    def states(self, users: Sequence[int] | NDArray[np.int32]) -> list[UserState]:
        """As `state` of each, and what `UserState` says of their events is found for all of them together: a third of the time that one
        by one takes."""
        made = [self.state(int(user)) for user in users]
        if len(made) < _TOGETHER:
            return made
        for first in range(0, len(made), _AT_ONCE):
            _foresee(made[first : first + _AT_ONCE])
        return made

    @property
    def users(self) -> NDArray[np.int32]:
        """(events,) int32: the user of each event."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def folded(self) -> Folded:
        return fold(self.kinds_of, self.users, self.items, self.kinds, self.values, self.times)

    def where(self, mask: NDArray[np.bool_]) -> Histories:
        """The same users with only the events where `mask` (events,) holds."""
        kept = np.concatenate([[0], np.cumsum(mask)])[self.indptr].astype(np.int64)
        return Histories(self.kinds_of, kept, self.items[mask], self.kinds[mask], self.values[mask], self.times[mask], self.ordered)

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("indptr", "items", "kinds", "values", "times"):
            np.save(directory / f"{name}.npy", getattr(self, name))
        np.save(directory / "ordered.npy", np.array(self.ordered))

    @classmethod
    def load(cls, directory: Path, kinds_of: Kinds) -> Histories:
        """Opens the arrays memory-mapped. Raises FileNotFoundError."""
        arrays = {name: mapped(directory / f"{name}.npy") for name in ("indptr", "items", "kinds", "values", "times")}
        ordered = bool(np.load(directory / "ordered.npy", allow_pickle=False))
        return cls(kinds_of, arrays["indptr"], arrays["items"], arrays["kinds"], arrays["values"], arrays["times"], ordered)


def histories(
    kinds_of: Kinds,
    user_count: int,
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    kinds: NDArray[np.int8],
    values: NDArray[np.float32],
    times: NDArray[np.int64],
    ordered: bool,
) -> Histories:
    """Histories of events in any order (equal times keep the order given)."""
    order = np.lexsort((times, users)) if ordered else np.argsort(users, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=user_count))]).astype(np.int64)
    return Histories(kinds_of, indptr, items[order], kinds[order], values[order], times[order], ordered)
