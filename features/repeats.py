"""Whether anybody has an item twice: where nobody has, which is most data, folding needs no sort."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled

_SPARSE = 16  # items of the catalogue to an event


def repeats(users: NDArray[np.int32], items: NDArray[np.int32]) -> bool:
    """users, items (n,), the events of a user standing together, items >= 0 -> whether two events are of the same pair."""
    known = int(items.max(initial=-1)) + 1
    if known > _SPARSE * len(items):  # a few events of a large catalogue: a note for each of its items would take longer
        pairs = np.sort(users.astype(np.int64) * known + items)
        return bool((pairs[1:] == pairs[:-1]).any())
    return bool(_repeats(users, items, np.full(known, -1, dtype=np.int64)))


@compiled
def _repeats(users: Any, items: Any, latest: Any) -> bool:  # pragma: no cover - compiled
    """`latest` (items,): who had the item last; -1 for nobody."""
    for event in range(len(items)):
        if latest[items[event]] == users[event]:
            return True
        latest[items[event]] = users[event]
    return False
