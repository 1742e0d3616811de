"""A forest of LightGBM's evaluated by QuickScorer (Lucchese et al. 2015, "QuickScorer: a Fast Algorithm to Rank Documents with Additive
Ensembles of Regression Trees") over blocks of rows: several times as fast as LightGBM's own walk from root to leaf, because no step
waits for the one before, and equal to it to the last bit.

Each tree has a word of bits, one a leaf, left to right. A node whose test fails strikes out the leaves to its left; when all nodes were
asked, the lowest bit left is the leaf. Nodes are asked feature by feature, thresholds ascending, so that a whole block of rows is
compared in a few instructions and the rest of a feature is skipped where no row is above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled

BLOCK = 64  # rows compared together
MOST_LEAVES = 64
_DEFAULT_LEFT, _CATEGORICAL, _MISSING = 2, 1, 12  # bits of LightGBM's decision_type
_MISSING_NONE, _MISSING_NAN = 0, 8
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)  # times a power of two: the power stands in the first 6 bits (Leiserson et al. 1998)
_PLACES = np.empty(64, dtype=np.int64)
_PLACES[[(int(_DE_BRUIJN) << bit) % 2**64 >> 58 for bit in range(64)]] = np.arange(64)


@dataclass(frozen=True)
class Forest:
    """Nodes of all trees, by feature, then threshold. `struck` are the leaves that fall away where the test value <= threshold fails;
    `blind`: a missing value fails it too."""

    features: int
    starts: NDArray[np.int32]  # (features + 1,): nodes of feature f are starts[f]:starts[f + 1]
    thresholds: NDArray[np.float32]  # rounded down: for a float32 value the test is the same
    blind: NDArray[np.bool_]
    trees: NDArray[np.int32]
    struck: NDArray[np.uint32] | NDArray[np.uint64]  # the narrower where no tree has more than 32 leaves
    first: NDArray[np.int32]  # (trees,) where the leaves of a tree begin in `values`
    values: NDArray[np.float64]

    @classmethod
    def of(cls, text: str) -> Forest:
        """From LightGBM's model text. Raises ValueError for what this form cannot hold: more than 64 leaves, categorical tests, zeros
        as missing values, linear leaves, an average over the trees."""
        parts = text.split("\nend of trees")[0].split("\nTree=")
        head = _lines(parts[0])
        if "average_output" in parts[0].splitlines():
            raise ValueError("an average over the trees (random forest) is not a sum of them")
        nodes: list[tuple[int, float, bool, int, int]] = []
        first, values = [0], list[float]()
        for number, part in enumerate(parts[1:]):
            leaves = _tree(number, _lines(part), nodes)
            values += leaves
            first.append(len(values))
        nodes.sort(key=lambda node: (node[0], node[1]))
        features = int(head["max_feature_idx"]) + 1
        words = np.array([node[4] for node in nodes], dtype=np.uint64)
        counts = np.bincount([node[0] for node in nodes], minlength=features)
        return cls(
            features,
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            _rounded_down(np.array([node[1] for node in nodes], dtype=np.float64)),
            np.array([node[2] for node in nodes], dtype=np.bool_),
            np.array([node[3] for node in nodes], dtype=np.int32),
            words.astype(np.uint32) if np.diff(first).max(initial=0) <= 32 else words,
            np.array(first[:-1], dtype=np.int32),
            np.array(values, dtype=np.float64),
        )

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, features) float32, C order -> (n,) float64, the sum of every tree's leaf. Raises ValueError for another width."""
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise ValueError(f"rows of shape {rows.shape} for a forest of {self.features} features")
        out = np.zeros(len(rows), dtype=np.float64)
        _score(
            np.ascontiguousarray(rows, dtype=np.float32),
            self.starts,
            self.thresholds,
            self.blind,
            self.trees,
            self.struck,
            self.first,
            self.values,
            _PLACES,
            out,
        )
        return out


def _rounded_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


def _lines(part: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in part.splitlines() if "=" in line)


def _tree(number: int, said: dict[str, str], nodes: list[tuple[int, float, bool, int, int]]) -> list[float]:
    """Adds the nodes of a tree: feature, threshold, blind, tree, struck. Returns the values of its leaves, left to right."""
    count = int(said["num_leaves"])
    values = [float(value) for value in said["leaf_value"].split()]
    if count > MOST_LEAVES or said.get("is_linear", "0") != "0" or int(said.get("num_cat", "0")):
        raise ValueError(f"tree {number}: {count} leaves, {said.get('num_cat', '0')} categorical tests; at most {MOST_LEAVES} and none")
    if count == 1:
        return values
    left, right = ([int(child) for child in said[name].split()] for name in ("left_child", "right_child"))
    features = [int(feature) for feature in said["split_feature"].split()]
    thresholds = [float(value) for value in said["threshold"].split()]
    kinds = [int(kind) for kind in said["decision_type"].split()]
    order: list[int] = []  # leaves, left to right

    def visit(node: int) -> tuple[int, int]:
        """The places of the leaves under a node: from, to."""
        if node < 0:
            order.append(~node)
            return len(order) - 1, len(order)
        begin, middle = visit(left[node])
        _, end = visit(right[node])
        missing = kinds[node] & _MISSING
        if kinds[node] & _CATEGORICAL or missing not in (_MISSING_NONE, _MISSING_NAN):
            raise ValueError(f"tree {number}: a test of type {kinds[node]}")
        # Where training met no missing value LightGBM reads one as 0.
        blind = thresholds[node] < 0.0 if missing == _MISSING_NONE else not kinds[node] & _DEFAULT_LEFT
        nodes.append((features[node], thresholds[node], blind, number, ((1 << (middle - begin)) - 1) << begin))
        return begin, end

    visit(0)
    return [values[leaf] for leaf in order]


@compiled
def _score(
    rows: Any, starts: Any, thresholds: Any, blind: Any, trees: Any, struck: Any, first: Any, values: Any, places: Any, out: Any
) -> None:  # pragma: no cover - compiled
    n, features = rows.shape
    gone = np.empty((len(first), BLOCK), dtype=struck.dtype)
    column = np.empty(BLOCK, dtype=np.float32)
    nothing = struck.dtype.type(0)
    for start in range(0, n, BLOCK):
        height = min(BLOCK, n - start)
        gone[:] = nothing
        for feature in range(features):
            begin, end = starts[feature], starts[feature + 1]
            if begin == end:
                continue
            highest, missing = np.float32(-np.inf), False
            for row in range(BLOCK):
                value = rows[start + min(row, height - 1), feature]
                column[row] = value
                if value != value:
                    missing = True
                elif value > highest:
                    highest = value
            for node in range(begin, end):
                threshold, leaves = thresholds[node], struck[node]
                mine = gone[trees[node]]
                if missing and blind[node]:
                    for row in range(BLOCK):
                        mine[row] |= nothing if column[row] <= threshold else leaves
                elif threshold < highest:
                    for row in range(BLOCK):
                        mine[row] |= leaves if column[row] > threshold else nothing
                elif not missing:
                    break
        for tree in range(len(first)):
            at, mine = first[tree], gone[tree]
            for row in range(height):
                left = np.uint64(~mine[row])
                lowest = left & (~left + np.uint64(1))
                out[start + row] += values[at + places[(lowest * _DE_BRUIJN) >> np.uint64(58)]]
