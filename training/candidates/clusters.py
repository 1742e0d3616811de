"""The classic baseline: k-means of people, and for each cluster the items most of its people took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from configs.domain import ClustersModel
from features.state import UserState
from training import folder
from training.contract import Evidence, Progress, TrainingData
from training.interactions import known, taken

DIMENSIONS = 32  # of the reduced vectors of people in which k-means runs


class Clusters:
    """Score = share of the people of the nearest cluster who took the item, for its `top` items; -inf for all others."""

    def __init__(self, config: ClustersModel) -> None:
        self.config = config
        self._axes = np.empty((0, 0), dtype=np.float32)  # (m, d) what an item adds to a person's vector
        self._centres = np.empty((0, 0), dtype=np.float32)  # (c, d)
        self._items = np.empty((0, 0), dtype=np.int32)  # (c, top)
        self._shares = np.empty((0, 0), dtype=np.float32)  # (c, top), 0 beyond the last

    def fit(self, data: TrainingData, progress: Progress | None = None) -> None:
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.decomposition import TruncatedSVD
        from sklearn.preprocessing import normalize
        from threadpoolctl import threadpool_limits

        matrix = taken(data.histories, len(data.catalogue))
        matrix = matrix[np.diff(matrix.indptr) > 0]
        people, m = matrix.shape
        dimensions = min(DIMENSIONS, m)
        with threadpool_limits(data.threads):
            if dimensions < m:
                reduction = TruncatedSVD(dimensions, random_state=data.seed).fit(normalize(matrix))
                self._axes = np.ascontiguousarray(reduction.components_.T, dtype=np.float32)
            else:
                self._axes = np.eye(m, dtype=np.float32)
        vectors = normalize(matrix @ self._axes).astype(np.float32)
        if progress is not None:
            progress("clusters", 0.3)
        with threadpool_limits(1):  # sums of several threads come in any order: the same seed would not give the same clusters
            means = MiniBatchKMeans(min(self.config.clusters, people), random_state=data.seed, n_init=3, batch_size=4096).fit(vectors)
        centres = np.ascontiguousarray(means.cluster_centers_, dtype=np.float32)
        of = _nearest(vectors, centres)
        size = np.bincount(of, minlength=len(centres))
        occupied = np.flatnonzero(size)
        self._centres = centres[occupied]
        top = min(self.config.top, m)
        self._items = np.zeros((len(occupied), top), dtype=np.int32)
        self._shares = np.zeros((len(occupied), top), dtype=np.float32)
        for row, cluster in enumerate(occupied):
            counts = np.bincount(matrix[of == cluster].indices, minlength=m)
            best = np.argsort(-counts, kind="stable")[:top]
            self._items[row], self._shares[row] = best, counts[best] / size[cluster]
        if progress is not None:
            progress("clusters", 1.0)

    def _cluster(self, state: UserState) -> int | None:
        """The cluster nearest to a person, None for somebody without items."""
        rows, weights = known(state, len(self._axes))
        if not len(rows):
            return None
        vector = weights @ self._axes[rows]
        length = float(np.linalg.norm(vector))
        return int(_nearest((vector / np.float32(length or 1.0))[None, :], self._centres)[0])

    def scores(self, states: Sequence[UserState], now: int) -> NDArray[np.float32]:
        table = np.full((len(states), len(self._axes)), -np.inf, dtype=np.float32)
        for row, state in enumerate(states):
            cluster = self._cluster(state)
            if cluster is not None:
                some = self._shares[cluster] > 0
                table[row, self._items[cluster][some]] = self._shares[cluster][some]
        return table

    def because(self, state: UserState, items: NDArray[np.int32], thorough: bool = False) -> list[Evidence | None]:
        """The share of the cluster's people who took the item."""
        cluster = self._cluster(state)
        if cluster is None:
            return [None] * len(items)
        shares = dict(zip(self._items[cluster].tolist(), self._shares[cluster].tolist(), strict=True))
        return [Evidence("cluster", share) if (share := shares.get(int(item), 0.0)) > 0 else None for item in items]

    def save(self, directory: Path) -> None:
        folder.write(
            directory,
            {"config": self.config.model_dump(mode="json")},
            {"axes": self._axes, "centres": self._centres, "items": self._items, "shares": self._shares},
        )

    @classmethod
    def load(cls, directory: Path) -> Self:
        model = cls(ClustersModel.model_validate(folder.document(directory)["config"]))
        model._axes, model._centres, model._items, model._shares = (
            folder.array(directory, name) for name in ("axes", "centres", "items", "shares")
        )
        return model


def _nearest(vectors: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n,) the centre at the smallest Euclidean distance, the first of equal ones."""
    distances = (centres * centres).sum(axis=1)[None, :] - np.float32(2.0) * (vectors @ centres.T)
    return np.asarray(distances.argmin(axis=1))
