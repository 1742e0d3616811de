"""The best k of inner products, for many people and many items, in blocks of a bounded size: neither the (people, items) table nor a
copy of the items' factors ever exists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.retrieval import top

BLOCK_BYTES = 32 << 20  # of products held at once; what ranks them takes about as much again
PEOPLE = 256  # in a block, at most

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]


def best(
    people: Floats, items: Floats, k: int, excluded: Sequence[Rows] | None = None, silent: NDArray[np.bool_] | None = None
) -> tuple[Rows, Floats]:
    """people (n, f) and items (m, f) float32, which may be memory-mapped -> rows (n, min(k, m)) int32, best first, -1 where there
    are fewer, and their products float32, -inf there. Ties go to the smaller row.

    `excluded`: each person's rows that may not be among them; `silent` (m,): rows that are so for everybody. Raises ValueError if
    the widths differ."""
    if people.ndim != 2 or items.ndim != 2 or people.shape[1] != items.shape[1]:
        raise ValueError(f"expected (n, f) and (m, f); got {people.shape} and {items.shape}")
    n, m = len(people), len(items)
    k = min(k, m)
    rows, products = np.full((n, k), -1, dtype=np.int32), np.full((n, k), -np.inf, dtype=np.float32)
    if not n or not k:
        return rows, products
    many = min(n, PEOPLE)
    width = min(m, max(4 * k, BLOCK_BYTES // (4 * many)))
    for first in range(0, n, many):
        some = people[first : first + many]
        owners = columns = np.empty(0, dtype=np.int64)
        if excluded is not None:
            own = excluded[first : first + many]
            owners, columns = np.repeat(np.arange(len(own)), [len(part) for part in own]), np.concatenate(own).astype(np.int64)
        kept_rows, kept = rows[first : first + many], products[first : first + many]  # written through
        for low in range(0, m, width):
            table = some @ items[low : low + width].T
            if silent is not None:
                table[:, silent[low : low + width]] = -np.inf
            here = (columns >= low) & (columns < low + table.shape[1])
            table[owners[here], columns[here] - low] = -np.inf
            chosen = top(table, k)
            value = np.where(chosen >= 0, np.take_along_axis(table, chosen, axis=1), -np.inf)
            if low:  # what was best before stands first, so that of equal ones the smaller row stays first
                value = np.concatenate([kept, value], axis=1)
                row = np.concatenate([kept_rows, np.where(chosen >= 0, chosen + low, -1)], axis=1)
                order = np.argsort(-value, axis=1, kind="stable")[:, :k]
                kept_rows[:], kept[:] = np.take_along_axis(row, order, axis=1), np.take_along_axis(value, order, axis=1)
            else:
                kept_rows[:, : chosen.shape[1]], kept[:, : chosen.shape[1]] = chosen, value
    return rows, products
