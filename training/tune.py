"""Ray Tune with ASHA and Optuna over whatever can be measured: the search itself knows no model and no data.

Li et al. 2020 (ASHA); Akiba et al. 2019 (Optuna, TPE sampler). A trial is one training; it says on its way how good it is, and where
it is behind most of those that came as far before it, it is ended there. The state of a search lies in its directory: a driver
that was killed is gone on with by `resume`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, assert_never

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from configs.domain import Between, Choices, Search

#: Called by a trial with its measure, larger is better, and the share (0..1) of its training that is done. It may not return.
Told = Callable[[float, float], None]
#: Tries these words; calls `Told` at least once, the last time with share 1.
Measure = Callable[[Mapping[str, Any], Told], None]
METRIC = "score"


@dataclass(frozen=True)
class Trial:
    """One trial as it ended. `number` counts from 1 in the order in which they were made. `score` is its last measure, None for one that
    failed; `error` says how. `curve`: (share of the training, measure) at each look; where it ends below 1 the trial was stopped."""

    number: int
    words: dict[str, Any]
    score: float | None
    curve: tuple[tuple[float, float], ...]
    seconds: float
    error: str | None

    @property
    def stopped(self) -> bool:
        return self.error is None and (not self.curve or self.curve[-1][0] < 1.0)


def search(
    measure: Measure,
    space: Search,
    samples: int,
    seed: int,
    directory: Path,
    resume: bool,
    told: Callable[[int, float | None], None],
    first: Mapping[str, Any] | None = None,
) -> list[Trial]:
    """Runs `samples` trials in the Ray that is connected; returns them best first, those that went to their end before those that were
    stopped. `told`(finished, best so far) as it goes. `first`: words that the first trial is to have, one for each of the space.

    resume: goes on with the search in `directory`; finished trials are not run again, failed and unfinished ones are.
    Raises FileNotFoundError if there is none to resume, FileExistsError if there is one and `resume` is False.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # a trial that ended so long before a kill is not run again; Ray's own is 10 s
    logging.getLogger("optuna").setLevel(logging.WARNING)

    def trial(words: dict[str, Any]) -> None:
        curve: list[tuple[float, float]] = []

        def look(score: float, share: float) -> None:
            curve.append((round(share, 6), score))
            tune.report({METRIC: score, "curve": list(curve)})

        measure(words, look)

    trainable = tune.with_resources(trial, {"cpu": space.cpus, "gpu": space.gpus})
    there = tune.Tuner.can_restore(str(directory))
    if resume:
        if not there:
            raise FileNotFoundError(f"{directory} holds no search to go on with")
        tuner = tune.Tuner.restore(str(directory), trainable=trainable, resume_unfinished=True, restart_errored=True)
    elif there:
        raise FileExistsError(f"{directory} holds a search already: resume it, or remove it")
    else:
        at_once = max(1, int(ray.cluster_resources().get("CPU", 1) // space.cpus))
        optuna = OptunaSearch(metric=METRIC, mode="max", seed=seed, points_to_evaluate=[dict(first)] if first else None)
        tuner = tune.Tuner(
            trainable,
            param_space={word: _domain(range_) for word, range_ in space.words.items()},
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=samples,
                search_alg=ConcurrencyLimiter(optuna, max_concurrent=at_once),
                reuse_actors=True,  # a process that has torch and Lightning in it already takes the next trial
                scheduler=ASHAScheduler(max_t=space.looks, grace_period=1, reduction_factor=2),
            ),
            run_config=tune.RunConfig(name=directory.name, storage_path=str(directory.parent), verbose=0, callbacks=[_Told()]),
        )
    _Told.listener = told
    try:
        results = tuner.fit()
    finally:
        _Told.listener = None
    trials = []
    for position in range(len(results)):
        result = results[position]
        metrics = result.metrics or {}
        trials.append(
            Trial(
                position + 1,
                dict(result.config or {}),
                float(metrics[METRIC]) if METRIC in metrics and result.error is None else None,
                tuple((float(share), float(score)) for share, score in metrics.get("curve", ())),
                round(float(metrics.get("time_total_s", 0.0)), 2),
                None if result.error is None else str(result.error).strip().splitlines()[-1],
            )
        )
    return sorted(trials, key=lambda done: (done.score is None, done.stopped, -(done.score or 0.0), done.number))


class _Told(tune.Callback):
    """Ray writes it down with the search, and a terminal cannot be written down: whom it tells is kept beside it."""

    listener: ClassVar[Callable[[int, float | None], None] | None] = None  # of the search under way in this process

    def __init__(self) -> None:
        self._finished = 0
        self._best: float | None = None

    def _told(self, finished: int, best: float | None) -> None:
        if _Told.listener is not None:
            _Told.listener(finished, best)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        score = (trial.last_result or {}).get(METRIC)
        self._finished += 1
        self._best = score if self._best is None else max(self._best, score if score is not None else self._best)
        self._told(self._finished, self._best)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._finished += 1
        self._told(self._finished, self._best)


def _domain(tried: Choices | Between) -> Any:
    match tried:
        case Choices():
            return tune.choice(list(tried.choices))
        case Between(whole=True):
            low, high = int(tried.low), int(tried.high) + 1
            return tune.lograndint(low, high) if tried.log else tune.randint(low, high)
        case Between():
            return tune.loguniform(tried.low, tried.high) if tried.log else tune.uniform(tried.low, tried.high)
        case _:
            assert_never(tried)
