"""The second stage: LightGBM lambdarank (Burges 2010) over candidate scores and features."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import lightgbm
import numpy as np
from numpy.typing import NDArray

from configs.domain import Ranker as RankerWords
from training.contract import Progress

_log = logging.getLogger(__name__)


class Ranker:
    """Scores feature rows; higher is better, comparable only within one person's candidates."""

    def __init__(self, booster: lightgbm.Booster, names: tuple[str, ...], sources: tuple[str, ...]) -> None:
        from training.forest import Forest

        self.names = names
        self.sources = sources  # in the order of the score columns
        self._booster = booster
        try:
            self._forest: Forest | None = Forest.of(booster.model_to_string())
            self._forest.scores(np.zeros((1, len(names)), dtype=np.float32))  # what must be compiled is compiled now, not for a request
        except ValueError as reason:
            _log.info("the ranker is asked through LightGBM: %s", reason)
            self._forest = None

    @classmethod
    def fit(
        cls,
        words: RankerWords,
        names: Sequence[str],
        sources: Sequence[str],
        rows: NDArray[np.float32],
        labels: NDArray[np.int8],
        groups: NDArray[np.int64],
        seed: int,
        threads: int,
        progress: Progress | None = None,
    ) -> Self:
        """`rows` (n, features), `labels` (n,) 1 = taken, `groups` = rows of each person in turn. A seeded tenth of the people
        decides when to stop. Raises ValueError if no row is labelled 1."""
        if not labels.any():
            raise ValueError("no candidate was taken in the label window: there is nothing to learn a ranking from")
        held = np.random.default_rng(seed).random(len(groups)) < 0.1
        if not held.any() or held.all() or not labels[np.repeat(held, groups)].any() or not labels[np.repeat(~held, groups)].any():
            held = np.arange(len(groups)) % 2 == 0 if len(groups) > 1 else np.zeros(len(groups), dtype=np.bool_)
        inside = np.repeat(held, groups)
        train = lightgbm.Dataset(rows[~inside], labels[~inside], group=groups[~held], feature_name=list(names))
        valid = [lightgbm.Dataset(rows[inside], labels[inside], group=groups[held], reference=train)] if held.any() else []

        def told(environment: lightgbm.callback.CallbackEnv) -> None:
            if progress is not None:
                progress("ranker", (environment.iteration + 1) / words.trees)

        callbacks: list[Callable[..., Any]] = [told]
        if valid:
            callbacks.append(lightgbm.early_stopping(words.early_stopping, verbose=False))
        booster = lightgbm.train(
            {
                "objective": "lambdarank",
                "metric": "ndcg",
                "eval_at": [10],
                "lambdarank_truncation_level": 20,
                "learning_rate": words.learning_rate,
                "num_leaves": words.leaves,
                "min_data_in_leaf": min(words.leaf_rows, max(1, len(rows) // 20)),
                "feature_fraction": 0.8,
                "bagging_fraction": 0.9,
                "bagging_freq": 1,
                "seed": seed,
                "deterministic": True,
                "force_col_wise": True,
                "num_threads": threads,
                "verbosity": -1,
            },
            train,
            num_boost_round=words.trees,
            valid_sets=valid,
            callbacks=callbacks,
        )
        best = booster.best_iteration if booster.best_iteration > 0 else booster.num_trees()
        return cls(
            lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best)),
            tuple(names),
            tuple(sources),
        )

    @property
    def trees(self) -> int:
        return int(self._booster.num_trees())

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) float64, what LightGBM itself would say, to the last bit (training/forest.py says how)."""
        if not len(rows):
            return np.empty(0)
        if self._forest is not None:
            return self._forest.scores(rows)
        return np.asarray(self._booster.predict(rows, num_threads=1, validate_features=False), dtype=np.float64)

    def contributions(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, features + 1): what each feature adds to the score (TreeSHAP, Lundberg 2018); the last column is the expected
        score, each row sums to `scores`."""
        return np.asarray(self._booster.predict(rows, pred_contrib=True, num_threads=1, validate_features=False), dtype=np.float64)

    def importance(self) -> dict[str, float]:
        """Share of the total gain of each feature, largest first."""
        gains = self._booster.feature_importance("gain").astype(np.float64)
        order = np.argsort(-gains)
        return {self.names[i]: round(float(gains[i] / max(gains.sum(), 1e-12)), 6) for i in order}

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ranker.txt").write_text(self._booster.model_to_string(), encoding="utf-8")
        (directory / "ranker.json").write_text(json.dumps({"names": self.names, "sources": self.sources}), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Raises FileNotFoundError, ValueError if the model's features are not those beside it."""
        said = json.loads((directory / "ranker.json").read_text(encoding="utf-8"))
        booster = lightgbm.Booster(model_str=(directory / "ranker.txt").read_text(encoding="utf-8"))
        if booster.num_feature() != len(said["names"]):
            raise ValueError(f"ranker.txt has {booster.num_feature()} features, ranker.json names {len(said['names'])}")
        return cls(booster, tuple(said["names"]), tuple(said["sources"]))
