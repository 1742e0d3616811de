"""The best k: of a table of scores, and of inner products, for many people and many items, in blocks of a bounded size, so that neither
the (people, items) table nor a copy of the items' factors ever exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from training.threads import in_parts

BLOCK_BYTES = 32 << 20  # of products held at once; what ranks them takes about as much again
PEOPLE = 256  # in a block, at most
_GROUPS = 16  # into which a row is parted to find a border that k of its values reach
_LEAST = 1 << 19  # values worth a thread

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]


def top(table: Floats, k: int) -> Rows:
    """(n, m) float32 -> (n, min(k, m)) int32: columns of the k largest of each row, best first, ties to the smaller column; -1 where a
    row has fewer than k values above -inf. NaN counts as -inf."""
    n, m = table.shape
    out = np.full((n, min(k, m)), -1, dtype=np.int32)
    if out.size:
        lines = np.ascontiguousarray(table, dtype=np.float32)
        in_parts(n, _LEAST // m, lambda first, last: _top(lines, first, last, out))
    return out


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


# ------------------------------------------------------------------ compiled
#
# A heap of the best so far, the worst of them at its root. Most values are no match for the root; that many of them are compared with
# it one by one is what takes the time, so the row is first parted into groups: the k-th largest of their maxima is reached by k values
# at least, and what is below it is nobody's concern.


@compiled
def _top(table: Any, first: int, last: int, out: Any) -> None:  # pragma: no cover - compiled
    m, k = table.shape[1], out.shape[1]
    lowest = np.nextafter(np.float32(-np.inf), np.float32(0.0))
    values, columns = np.empty(k, dtype=np.float32), np.empty(k, dtype=np.int32)
    width = m // _GROUPS
    maxima = np.empty(width, dtype=np.float32)  # of every width-th value
    for row in range(first, last):
        line = table[row]
        border = lowest
        if width >= 2 * k:
            for j in range(width):
                maxima[j] = line[j]
            for group in range(1, _GROUPS):
                part = line[group * width : (group + 1) * width]
                for j in range(width):
                    maxima[j] = max(maxima[j], part[j])
            if _fill(maxima, lowest, values, columns) == k:
                border = values[0]
        size = _fill(line, border, values, columns)
        for place in range(size - 1, -1, -1):
            out[row, place] = columns[0]
            _sink(values, columns, place, values[place], columns[place])


@compiled
def _fill(line: Any, border: Any, values: Any, columns: Any) -> int:  # pragma: no cover - compiled
    """The best values >= border, as a heap; returns how many."""
    k, size = len(values), 0
    for column in range(len(line)):
        value = line[column]
        if value >= border:
            if size < k:
                at = size
                while at > 0 and _behind(value, column, values[(at - 1) // 2], columns[(at - 1) // 2]):
                    values[at], columns[at] = values[(at - 1) // 2], columns[(at - 1) // 2]
                    at = (at - 1) // 2
                values[at], columns[at] = value, column
                size += 1
            elif value > values[0]:  # an equal one stands further right
                _sink(values, columns, k, value, column)
    return size


@compiled
def _sink(values: Any, columns: Any, size: int, value: Any, column: Any) -> None:  # pragma: no cover - compiled
    """Puts a value into a heap of so many in the place of the root."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _behind(values[child + 1], columns[child + 1], values[child], columns[child]):
            child += 1
        if not _behind(values[child], columns[child], value, column):
            break
        values[at], columns[at] = values[child], columns[child]
        at = child
    values[at], columns[at] = value, column


@compiled
def _behind(value: Any, column: Any, other: Any, others: Any) -> bool:  # pragma: no cover - compiled
    return bool(value < other or (value == other and column > others))
