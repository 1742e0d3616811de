"""Who took what, in the two shapes the candidate models read: everybody as a sparse matrix, one person as a short list."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.state import NO_TIME, Histories, UserState, positive


def taken(histories: Histories, items: int) -> Any:
    """(users, items) scipy CSR float32: the strength of each item of a person's taste. Raises ValueError if there is none."""
    folded = histories.folded
    mask = positive(folded)
    if not mask.any():
        raise ValueError("no event says that anybody took an item: there is nothing to learn from")
    users, rows = folded.users[mask], folded.items[mask]
    return sparse.csr_matrix((folded.weights[mask].astype(np.float32), (users, rows)), shape=(len(histories), items))


def known(state: UserState, items: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The person's items below row `items`, oldest first, and their strengths."""
    rows, weights = state.positives, state.weights
    if len(rows) and int(rows.max()) >= items:
        inside = rows < items
        rows, weights = rows[inside], weights[inside]
    return rows, weights


def recent(state: UserState, items: int, most: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """At most `most` of `known`: the last ones.

    Items without a time have no order, and the last ones of a file sorted by id would be a biased choice: of these every
    so-manieth is kept, so that whatever came later with a time stays."""
    rows, weights = known(state, items)
    n = len(rows)
    if n <= most:
        return rows, weights
    folded = state.folded
    mask = positive(folded) & (folded.items < items)
    timed = int((folded.times[mask] != NO_TIME).sum())
    if state.ordered or timed >= most:
        return rows[n - most :], weights[n - most :]
    kept = np.concatenate([np.linspace(0, n - timed - 1, most - timed).round().astype(np.int64), np.arange(n - timed, n)])
    return rows[kept], weights[kept]
