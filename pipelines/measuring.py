"""Asks the engine and each of its sources on behalf of people whose next choices are known, and turns their lists into figures.

Ties are broken against us: among equal scores what the person took comes last, in the lists of the sources and of the two stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.state import UserState
from features.statistics import ItemStatistics
from serving.engine import EngineParts
from serving.slate import Question
from training import metrics
from training.bundle import TWO_STAGE
from training.significance import holm, interval, paired, permutation

K = 10
_BATCH = 256

PER_PERSON: Mapping[str, Callable[[metrics.Hits, metrics.Counts], metrics.PerPerson]] = {
    "HR": metrics.hit_rate,
    "NDCG": metrics.ndcg,
    "MAP": metrics.average_precision,
    "MRR": metrics.reciprocal_rank,
    "recall": metrics.recall,
    "precision": metrics.precision,
}
Lists = list[NDArray[np.int32]]


@dataclass(frozen=True)
class Asked:
    """One entry a person: what was known of them, the rows of what they took afterwards (at least one), and rows that they could not take
    (none where empty; what their state excludes is excluded anyway)."""

    states: Sequence[UserState]
    truth: Lists
    closed: Sequence[tuple[int, ...]] = ()

    @property
    def cold(self) -> NDArray[np.bool_]:
        """(people,) of whom nothing was known."""
        return np.array([not len(state.positives) for state in self.states], dtype=np.bool_)


@dataclass
class Answers:
    """The first K of each way of answering, one list a person; `reached`: the share of each person's targets among a source's
    candidates, and among the union; `seconds` each way took in all."""

    lists: dict[str, Lists]
    reached: dict[str, list[float]]
    seconds: dict[str, float] = field(default_factory=dict)


def ask(
    parts: EngineParts, sources: Sequence[str], two_stage: bool, asked: Asked, now: int, progress: Callable[[float], None] | None = None
) -> Answers:
    """Lists of the two stages, where there is a ranker, and of each source alone. Raises ValueError if a source failed."""
    ways = (*([TWO_STAGE] if two_stage else []), *sources)
    answers = Answers({way: [] for way in ways}, {name: [] for name in (*sources, "union")}, dict.fromkeys(ways, 0.0))
    for start in range(0, len(asked.states), _BATCH):
        batch = range(start, min(start + _BATCH, len(asked.states)))
        closed = asked.closed or [()] * len(asked.states)
        questions = [Question(asked.states[person], K, now, exclude=closed[person], exploration=0.0) for person in batch]
        ranked = parts.rank(questions) if two_stage else parts.rank_sources(questions)
        candidates = ranked.candidates
        if candidates.failed:
            raise ValueError(f"sources failed while being measured: {', '.join(candidates.failed)}")
        for name in sources:
            answers.seconds[name] += ranked.seconds[f"source.{name}"]
        if two_stage:
            answers.seconds[TWO_STAGE] += ranked.seconds["candidates"] + ranked.seconds["rank"]
        bounds = np.searchsorted(candidates.users, np.arange(len(questions) + 1))
        for position, person in enumerate(batch):
            inside = slice(int(bounds[position]), int(bounds[position + 1]))
            took, items = asked.truth[person], candidates.items[inside]
            hit = np.isin(items, took)
            answers.reached["union"].append(float(hit.sum()) / len(took))
            for column, name in enumerate(candidates.sources):
                answers.reached[name].append(float((hit & (candidates.ranks[inside, column] > 0)).sum()) / len(took))
                scores = candidates.scores[inside, column]
                known = np.flatnonzero(~np.isnan(scores))
                answers.lists[name].append(_first(items[known], scores[known], hit[known]))
            if two_stage:
                ranking = ranked.rankings[position]
                answers.lists[TWO_STAGE].append(_first(ranking.items, ranking.scores, np.isin(ranking.items, took)))
        if progress is not None:
            progress(batch.stop / len(asked.states))
    return answers


def _first(items: NDArray[np.int32], scores: NDArray[Any], hit: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The K best, a target behind what scores as much as it."""
    return np.asarray(items[np.lexsort((items, hit, -scores))[:K]])


@dataclass(frozen=True)
class Ground:
    """What the figures are measured against. `vectors` (items, words) of length 1 for diversity; `people` who took anything."""

    statistics: ItemStatistics
    vectors: NDArray[np.float32]
    available: NDArray[np.bool_]
    people: int
    seed: int


def figures(
    answers: Answers, asked: Asked, ground: Ground, groups: Mapping[str, NDArray[np.bool_]]
) -> tuple[dict[str, Any], dict[str, dict[str, NDArray[np.float64]]]]:
    """(a row for each way of answering, the values behind it: way -> metric -> (people,))."""
    counts = np.array([len(took) for took in asked.truth], dtype=np.int64)
    takers, items = ground.statistics.takers, int(ground.available.sum())
    profiles = [state.positives for state in asked.states]
    rows: dict[str, Any] = {}
    behind: dict[str, dict[str, NDArray[np.float64]]] = {}
    for way, lists in answers.lists.items():
        hits = metrics.hits_of(lists, asked.truth, K)
        values = {f"{metric}@{K}": function(hits, counts) for metric, function in PER_PERSON.items()}
        behind[way] = values
        beyond = {
            "novelty": metrics.novelty(lists, takers, ground.people),
            "surprisal": metrics.surprisal(lists, takers, ground.people),
            "serendipity": metrics.serendipity(lists, asked.truth, takers, K),
            "popularity_bias": metrics.popularity_bias(lists, takers, profiles),
            "diversity": metrics.diversity(lists, ground.vectors),
        }
        rows[way] = {
            **{metric: interval(value, ground.seed).as_json() for metric, value in {**values, **beyond}.items()},
            "coverage": round(metrics.coverage(lists, items), 6),
            "gini": round(_gini(lists, ground.available), 6),
            "seconds": round(answers.seconds[way], 3),
            "groups": {
                group: {f"{metric}@{K}": interval(values[f"{metric}@{K}"][mask], ground.seed).as_json() for metric in ("NDCG", "HR")}
                for group, mask in groups.items()
            },
        }
    return rows, behind


def _gini(lists: Lists, available: NDArray[np.bool_]) -> float:
    """Over the items that may be shown."""
    place = np.cumsum(available) - 1
    return metrics.gini([place[ranked] for ranked in lists], int(available.sum()))


def comparisons(values: Mapping[str, NDArray[np.float64]], seed: int) -> dict[str, Any]:
    """The best way against each other one: paired bootstrap interval, p of the permutation test, and Holm's p over all of them.

    The best was picked on the same people, which flatters it."""
    if len(values) < 2:
        return {}
    best = max(values, key=lambda way: float(values[way].mean()))
    others = [way for way in values if way != best]
    p = {way: permutation(values[best], values[way], seed) for way in others}
    adjusted = holm(p)
    return {
        "best": best,
        "against": {
            way: {**paired(values[best], values[way], seed).as_json(), "p": round(p[way], 6), "p_holm": round(adjusted[way], 6)}
            for way in others
        },
    }
