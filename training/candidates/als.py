"""Matrix factorisation of implicit feedback: Hu, Koren & Volinsky 2008, "Collaborative Filtering for Implicit Feedback
Datasets", fitted by the library implicit.

Only the items' factors are kept. A person is always placed by solving for their factor from the state given, so somebody
who was not there while training is nothing special, and an event changes the very next answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import sposv

from configs.domain import AlsModel
from features.state import UserState
from training import folder
from training.contract import Evidence, Progress, TrainingData, shared
from training.fold_in import placed
from training.interactions import known, taken

Floats = NDArray[np.float32]


class Als:
    """Score = inner product of the person's and the item's factor; an item nobody took while training gets -inf."""

    def __init__(self, config: AlsModel) -> None:
        self.config = config
        self._open(np.empty((0, config.factors), dtype=np.float32))

    def _open(self, factors: Floats) -> None:
        self._factors = factors  # (m, f)
        self._gram = factors.T @ factors + np.float32(self.config.regularization) * np.eye(factors.shape[1], dtype=np.float32)
        lengths = np.linalg.norm(factors, axis=1)
        self._silence = np.where(lengths > 0, np.float32(0.0), np.float32(-np.inf)).astype(np.float32)
        self._lengths = np.maximum(lengths, np.float32(1e-12)).astype(np.float32)

    def fit(self, data: TrainingData, progress: Progress | None = None) -> None:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        confidence = taken(data.histories, len(data.catalogue))
        confidence.data = 1.0 + self.config.alpha * confidence.data

        def told(iteration: int, elapsed: float, loss: float | None) -> None:
            if progress is not None:
                progress("als", (iteration + 1) / self.config.iterations)

        with threadpool_limits(1, user_api="blas"):  # implicit brings its own threads
            model = AlternatingLeastSquares(
                factors=self.config.factors,
                regularization=self.config.regularization,
                alpha=1.0,
                iterations=self.config.iterations,
                num_threads=data.threads,
                random_state=data.seed,
            )
            model.fit(confidence, show_progress=False, callback=told)
        factors = np.ascontiguousarray(model.item_factors, dtype=np.float32)
        factors[np.bincount(confidence.indices, minlength=len(factors)) == 0] = 0.0
        self._open(factors)

    def _system(self, state: UserState) -> tuple[NDArray[np.int32], Floats, Floats, Floats] | None:
        """Rows (p,), confidences (p,), factors (p, f) of the person's items and A = YtY + Yt (C - I) Y + reg I (f, f); None
        for a person without items."""
        rows, weights = known(state, len(self._factors))
        if not len(rows):
            return None
        extra = np.float32(self.config.alpha) * weights
        own = self._factors[rows]
        return rows, extra + np.float32(1.0), own, self._gram + (own.T * extra) @ own

    def people(self, states: Sequence[UserState]) -> Floats:
        """(n, f) float32, each person's factor x of A x = Yt C p; 0 for a person without items."""
        had = [known(state, len(self._factors)) for state in states]
        indptr = np.concatenate([[0], np.cumsum([len(rows) for rows, _ in had], dtype=np.int64)])
        rows, weights = (np.concatenate(parts) for parts in zip(*had, strict=True))
        return placed(indptr, rows, np.float32(self.config.alpha) * weights, self._factors, self._gram)

    def scores(self, states: Sequence[UserState], now: int) -> Floats:
        if not states:
            return np.empty((0, len(self._factors)), dtype=np.float32)
        people = self.people(states)
        table: Floats = (self._factors @ people[0])[None, :] if len(states) == 1 else people @ self._factors.T
        table += self._silence
        table[~people.any(axis=1)] = -np.inf  # nobody's items, or none that anybody took while training
        return table

    def because(self, state: UserState, items: NDArray[np.int32], thorough: bool = False) -> list[Evidence | None]:
        """The person's item that adds most to the score: it is the sum over their items j of c_j y_i A^-1 y_j (section 5 of
        the paper). `value` is that addend."""
        system = self._system(state)
        if system is None:
            return [None] * len(items)
        rows, confidences, own, matrix = system
        added = self._added(own, matrix, confidences, items)
        added[rows[:, None] == items[None, :]] = -np.inf  # an item is no reason for itself
        best = added.argmax(axis=0)
        return [
            Evidence("item", float(added[place, column]), item=int(rows[place])) if added[place, column] > 0 else None
            for column, place in enumerate(best)
        ]

    def parts(self, state: UserState, items: NDArray[np.int32]) -> list[list[Evidence]]:
        """What each item of the person adds (section 5 of the paper)."""
        system = self._system(state)
        if system is None:
            return [[] for _ in items]
        rows, confidences, own, matrix = system
        added = self._added(own, matrix, confidences, items)
        added[:, np.isneginf(self._silence[items])] = 0.0
        return [
            shared([Evidence("item", float(value), item=int(row)) for row, value in zip(rows, column, strict=True)]) for column in added.T
        ]

    def _added(self, own: Floats, matrix: Floats, confidences: Floats, items: NDArray[np.int32]) -> Floats:
        """(p, items) c_j y_i A^-1 y_j."""
        added: Floats = (own @ _solve(matrix, self._factors[items].T)) * confidences[:, None]
        return added

    def similar(self, item: int) -> Floats:
        """Cosine of the factors."""
        if not 0 <= item < len(self._factors):
            raise IndexError(f"item {item} of {len(self._factors)}")
        out = (self._factors @ self._factors[item]) / (self._lengths * self._lengths[item]) + self._silence
        if np.isneginf(self._silence[item]):
            out[:] = -np.inf
        out[item] = -np.inf
        return cast(Floats, out)

    def save(self, directory: Path) -> None:
        folder.write(directory, {"config": self.config.model_dump(mode="json")}, {"factors": self._factors})

    @classmethod
    def load(cls, directory: Path) -> Self:
        model = cls(AlsModel.model_validate(folder.document(directory)["config"]))
        model._open(folder.array(directory, "factors"))
        return model


def _solve(matrix: Floats, right: Floats) -> Floats:
    """x of matrix x = right, by Cholesky: the matrix is symmetric and positive definite. Raises LinAlgError if it is not."""
    _, solution, info = sposv(matrix, right)
    if info:
        raise np.linalg.LinAlgError(f"sposv: {info}")
    return cast(Floats, solution)
