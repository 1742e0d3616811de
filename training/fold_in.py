"""Placing people among given factors of items: for each person the least squares of Hu, Koren & Volinsky 2008 (equation 4), solved by
Cholesky's decomposition, in one compiled loop over people.

The same loop places one person and a million, so who is asked together with whom changes nothing. Rows are taken four at a time: then a
line of the matrix is read and written once for four products, and what a processor can multiply holds the pace, not its memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compiled import fused
from training.threads import in_parts

Floats = NDArray[np.float32]
_LEAST = 32  # people worth a thread


def placed(indptr: NDArray[np.int64], rows: NDArray[np.int32], extra: Floats, factors: Floats, gram: Floats) -> Floats:
    """(n, f) float32, of each person the x that solves (gram + sum_j extra_j y_j y_j^T) x = sum_j (1 + extra_j) y_j; 0 for somebody
    without items.

    `rows`, `extra` (events,): a person's items and how far the confidence in each exceeds 1, person by person as `indptr` (n + 1,)
    says; `factors` (m, f); `gram` (f, f), Y^T Y and the regularization. Raises LinAlgError where a matrix is not positive definite."""
    out = np.zeros((len(indptr) - 1, factors.shape[1]), dtype=np.float32)
    in_parts(len(out), _LEAST, lambda first, last: _place(indptr, rows, extra, factors, gram, first, last, out))
    if not np.isfinite(out).all():
        raise np.linalg.LinAlgError(f"no factor for {int((~np.isfinite(out)).any(axis=1).sum())} of {len(out)} people")
    return out


@fused
def _place(
    indptr: Any, rows: Any, extra: Any, factors: Any, gram: Any, first: int, last: int, out: Any
) -> None:  # pragma: no cover - compiled
    # Inner loops run over whole lines, though half of each would do: lines of equal length are what compilers turn into wide
    # instructions, and what stands left of the diagonal is never read.
    f = factors.shape[1]
    one, none = np.float32(1.0), np.float32(0.0)
    matrix = np.empty((f, f), dtype=np.float32)
    four = np.empty((4, f), dtype=np.float32)
    weights = np.empty(4, dtype=np.float32)
    right = np.empty(f, dtype=np.float32)
    middle = np.empty(f, dtype=np.float32)
    for person in range(first, last):
        begin, end = indptr[person], indptr[person + 1]
        if begin == end:
            continue
        matrix[:] = gram
        right[:] = none
        for at in range(begin, end, 4):
            for place in range(4):
                if at + place < end:
                    weights[place] = extra[at + place]
                    row = rows[at + place]
                    for j in range(f):
                        four[place, j] = factors[row, j]
                else:
                    weights[place] = none
                    for j in range(f):
                        four[place, j] = none
            w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
            c0, c1, c2, c3 = one + w0, one + w1, one + w2, one + w3
            for j in range(f):
                right[j] += c0 * four[0, j] + c1 * four[1, j] + c2 * four[2, j] + c3 * four[3, j]
            for i in range(f):
                c0, c1, c2, c3 = w0 * four[0, i], w1 * four[1, i], w2 * four[2, i], w3 * four[3, i]
                for j in range(f):
                    matrix[i, j] += c0 * four[0, j] + c1 * four[1, j] + c2 * four[2, j] + c3 * four[3, j]
        # matrix = U^T U: lines k to k + 3 of U, then what they take from the lines below.
        for k in range(0, f, 4):
            for r in range(k, min(k + 4, f)):
                for s in range(k, r):
                    c0 = matrix[s, r]
                    for j in range(f):
                        matrix[r, j] -= c0 * matrix[s, j]
                c0 = one / np.sqrt(matrix[r, r])
                for j in range(f):
                    matrix[r, j] *= c0
            if k + 4 < f:
                four[:] = matrix[k : k + 4]
                for i in range(k + 4, f):
                    c0, c1, c2, c3 = four[0, i], four[1, i], four[2, i], four[3, i]
                    for j in range(f):
                        matrix[i, j] -= c0 * four[0, j] + c1 * four[1, j] + c2 * four[2, j] + c3 * four[3, j]
        # U^T z = right, then U x = z.
        for k in range(f):
            c0 = right[k] / matrix[k, k]
            middle[k] = c0
            for j in range(f):
                right[j] -= c0 * matrix[k, j]
        for k in range(f - 1, -1, -1):
            total = none
            for j in range(k + 1, f):
                total += matrix[k, j] * out[person, j]
            out[person, k] = (middle[k] - total) / matrix[k, k]
