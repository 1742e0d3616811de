"""Item-based collaborative filtering (Sarwar et al. 2001; Deshpande & Karypis 2004): items taken by the same people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from configs.domain import NeighboursModel
from features.state import Histories, UserState, positive
from training import folder
from training.contract import Evidence, Progress, TrainingData, shared
from training.interactions import recent, taken

BLOCK_BYTES = 64 << 20  # of similarities held at once while fitting
BM25_K1, BM25_B = 1.2, 0.75  # Robertson's usual constants


class Neighbours:
    """Score = sum over the person's last `history` items of strength times similarity (times `fade` for each place further back),
    over the `neighbours` items most like each of them; -inf for an item that is near none."""

    def __init__(self, config: NeighboursModel) -> None:
        self.config = config
        self._rows = np.empty((0, 0), dtype=np.int32)  # (m, k) the items most like each, best first
        self._values = np.empty((0, 0), dtype=np.float32)  # (m, k) how like, 0 beyond the last

    def fit(self, data: TrainingData, progress: Progress | None = None) -> None:
        """Raises ValueError if there is nothing to learn from, or for `following` without an order."""
        m = len(data.catalogue)
        if self.config.similarity == "following":
            by_item, matrix = _followers(data.histories, m, self.config.reach), None
        else:
            matrix = _weighted(taken(data.histories, m), self.config.similarity)
            by_item = matrix.T.tocsr()
        k = min(self.config.neighbours, max(1, m - 1))
        self._rows, self._values = np.zeros((m, k), dtype=np.int32), np.zeros((m, k), dtype=np.float32)
        step = max(1, BLOCK_BYTES // (8 * m))
        for start in range(0, m, step):
            part = by_item[start : start + step]
            block = np.asarray((part if matrix is None else part @ matrix).todense(), dtype=np.float32)
            block[np.arange(len(block)), np.arange(start, start + len(block))] = 0.0
            best = np.argsort(-block, axis=1, kind="stable")[:, :k] if k * 4 > m else _largest(block, k)
            self._rows[start : start + step] = best
            self._values[start : start + step] = np.take_along_axis(block, best, axis=1)
            if progress is not None:
                progress("neighbours", min(1.0, (start + step) / m))

    def scores(self, states: Sequence[UserState], now: int) -> NDArray[np.float32]:
        m = len(self._rows)
        table = np.empty((len(states), m), dtype=np.float32)
        for row, state in enumerate(states):
            rows, weights = self._own(state)
            added = (self._values[rows] * weights[:, None]).ravel()
            table[row] = np.bincount(self._rows[rows].ravel(), weights=added, minlength=m)
        table[table == 0.0] = -np.inf
        return table

    def _own(self, state: UserState) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The person's items that count, oldest first, and how much."""
        rows, weights = recent(state, len(self._rows), self.config.history)
        if self.config.fade < 1.0:
            weights = weights * np.float32(self.config.fade) ** np.arange(len(rows) - 1, -1, -1, dtype=np.float32)
        return rows, weights

    def because(self, state: UserState, items: NDArray[np.int32], thorough: bool = False) -> list[Evidence | None]:
        """The person's item that adds most; `value` is what it adds."""
        rows, weights = self._own(state)
        if not len(rows):
            return [None] * len(items)
        near, values = self._rows[rows], self._values[rows] * weights[:, None]
        out: list[Evidence | None] = []
        for item in items:
            added = np.where(near == item, values, np.float32(0.0)).max(axis=1)
            best = int(added.argmax())
            out.append(Evidence("item", float(added[best]), item=int(rows[best])) if added[best] > 0 else None)
        return out

    def parts(self, state: UserState, items: NDArray[np.int32]) -> list[list[Evidence]]:
        """What each of the person's items adds."""
        rows, weights = self._own(state)
        near, values = self._rows[rows], self._values[rows] * weights[:, None]
        out = []
        for item in items:
            added = np.where(near == item, values, np.float32(0.0)).sum(axis=1)
            out.append(shared([Evidence("item", float(value), item=int(row)) for row, value in zip(rows, added, strict=True)]))
        return out

    def similar(self, item: int) -> NDArray[np.float32]:
        """-inf also for items that are not among its neighbours."""
        if not 0 <= item < len(self._rows):
            raise IndexError(f"item {item} of {len(self._rows)}")
        out = np.full(len(self._rows), -np.inf, dtype=np.float32)
        near = self._values[item] > 0
        out[self._rows[item][near]] = self._values[item][near]
        return out

    def save(self, directory: Path) -> None:
        folder.write(directory, {"config": self.config.model_dump(mode="json")}, {"rows": self._rows, "values": self._values})

    @classmethod
    def load(cls, directory: Path) -> Self:
        model = cls(NeighboursModel.model_validate(folder.document(directory)["config"]))
        model._rows, model._values = folder.array(directory, "rows"), folder.array(directory, "values")
        return model


def _weighted(matrix: Any, similarity: str) -> Any:
    """The (users, items) matrix whose inner products of columns are the similarities.

    cosine: columns of length 1. The others see an item as a text whose words are the people who took it, so that somebody
    with a long list says less: tfidf = log1p(strength) log(items / items of the person), columns of length 1; bm25 = the same
    with s (k1 + 1) / (s + k1 (1 - b + b takers / mean takers)) in place of log1p(s) (Robertson & Zaragoza 2009)."""
    items = matrix.shape[1]
    weighted = matrix.tocsr().astype(np.float32)
    if similarity != "cosine":
        sizes = np.diff(weighted.indptr)
        rarity = np.log(items / np.maximum(sizes, 1)).astype(np.float32)
        if similarity == "tfidf":
            weighted.data = np.log1p(weighted.data)
        else:
            lengths = np.asarray(weighted.sum(axis=0)).ravel()
            relative = (1.0 - BM25_B + BM25_B * lengths / max(float(lengths.mean()), 1e-12)).astype(np.float32)
            weighted.data = weighted.data * (BM25_K1 + 1.0) / (weighted.data + BM25_K1 * relative[weighted.indices])
        weighted.data = (weighted.data * np.repeat(rarity, sizes)).astype(np.float32)
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=0)).ravel())
    return (weighted @ sparse.diags(1.0 / np.maximum(lengths, 1e-12))).tocsr().astype(np.float32)


def _followers(histories: Histories, items: int, reach: int) -> Any:
    """(items, items) scipy CSR float32: how often column follows row, each time counted 1 / distance in places, over the square
    root of how often both were taken. Raises ValueError without an order, or if nothing was taken."""
    if not histories.ordered:
        raise ValueError("neighbours: `similarity: following` needs events in order")
    folded = histories.folded
    mask = positive(folded)
    if not mask.any():
        raise ValueError("no event says that anybody took an item: there is nothing to learn from")
    users, rows = folded.users[mask], folded.items[mask]
    counted = sparse.csr_matrix((items, items), dtype=np.float32)
    for distance in range(1, reach + 1):
        same = users[distance:] == users[:-distance]
        before, after = rows[:-distance][same], rows[distance:][same]
        counted += sparse.csr_matrix((np.full(len(before), 1.0 / distance, dtype=np.float32), (before, after)), shape=(items, items))
    scale = sparse.diags(1.0 / np.sqrt(np.maximum(np.bincount(rows, minlength=items), 1)))
    return (scale @ counted @ scale).tocsr().astype(np.float32)


def _largest(block: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(n, k) columns of the k largest of each row, best first, equal ones by column."""
    chosen = np.sort(np.argpartition(block, -k, axis=1)[:, -k:], axis=1)
    values = np.take_along_axis(block, chosen, axis=1)
    return np.take_along_axis(chosen, np.argsort(-values, axis=1, kind="stable"), axis=1)
