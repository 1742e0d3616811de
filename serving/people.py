"""Who is known, and what of them: the bundle's histories (memory-mapped, shared) and above them everybody touched since."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from features.state import Histories, Kinds, Means, UserState
from features.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Happening:
    """One event in the engine's own terms. `value` is NaN where no rating was given, `time` microseconds UTC."""

    user: str
    item: int  # row of the catalogue
    kind: int  # code of Kinds
    value: float
    time: int


class People:
    """`state` may be called from any thread at any time: a person's state is immutable and replaced whole.
    `fold` and `forget` are called by one thread at a time. `erased`: whether what the bundle knows of a person must not be used any
    more, because they had it erased."""

    def __init__(self, users: Vocabulary, histories: Histories, kinds: Kinds, erased: Callable[[str], bool] | None = None) -> None:
        self._users, self._histories, self._kinds, self._erased = users, histories, kinds, erased
        self._touched: dict[str, UserState] = {}

    def __len__(self) -> int:
        """How many people are known."""
        return len(self._users) + sum(1 for user in list(self._touched) if user not in self._users)

    def __contains__(self, user: str) -> bool:
        return user in self._touched or (user in self._users and not self.erased(user))

    def erased(self, user: str) -> bool:
        """Whether a person had everything erased since the bundle was made."""
        return self._erased is not None and self._erased(user)

    def forget(self, gone: Callable[[str], bool]) -> None:
        """Drops what was folded in of the people that `gone` names."""
        for user in [user for user in self._touched if gone(user)]:
            del self._touched[user]

    def state(self, user: str) -> UserState | None:
        """What is known of a person now; None for somebody unknown."""
        touched = self._touched.get(user)
        if touched is not None:
            return touched
        row = self._users.row(user)
        return None if row is None or self.erased(user) else self._histories.state(row)

    def fold(self, happened: Iterable[Happening]) -> None:
        """Puts events where their times belong; the order given decides between equal times. An event that only means "shown"
        makes its person known and leaves no other trace."""
        by_user: dict[str, list[Happening]] = {}
        for event in happened:
            by_user.setdefault(event.user, []).append(event)
        for user, theirs in by_user.items():
            state = self.state(user) or UserState.empty(self._kinds)
            telling = [event for event in theirs if self._tells(event)]
            if len(telling) == 1:
                state = state.then(telling[0].item, telling[0].kind, telling[0].value, telling[0].time)
            elif telling:
                state = _merged(state, telling)
            self._touched[user] = state

    def _tells(self, event: Happening) -> bool:
        return not np.isnan(event.value) or int(self._kinds.means[event.kind]) != int(Means.SHOWN)


def _merged(state: UserState, happened: list[Happening]) -> UserState:
    times = np.concatenate([state.times, np.array([event.time for event in happened], dtype=np.int64)])
    order = np.argsort(times, kind="stable")
    return UserState(
        state.kinds_of,
        np.concatenate([state.items, np.array([event.item for event in happened], dtype=np.int32)])[order],
        np.concatenate([state.kinds, np.array([event.kind for event in happened], dtype=np.int8)])[order],
        np.concatenate([state.values, np.array([event.value for event in happened], dtype=np.float32)])[order],
        times[order],
        state.preferences,
        state.ordered,
    )
