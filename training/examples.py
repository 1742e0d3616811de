"""The ranker's training rows: candidates made before the label window, marked by what people took in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.domain import Ranker as RankerWords
from features.compute import PairFeatures
from features.state import Histories
from training.contract import CandidateModel, Progress
from training.retrieval import feature_names, feature_rows, retrieve
from training.split import Targets

_BATCH = 256


@dataclass(frozen=True)
class Examples:
    rows: NDArray[np.float32]  # (n, features)
    labels: NDArray[np.int8]  # (n,) 1 = taken in the label window
    groups: NDArray[np.int64]  # (people,) rows of each person in turn
    found: int  # targets that were among the candidates
    targets: int  # targets in all

    @property
    def share(self) -> float:
        """Share of the targets that were among the candidates."""
        return self.found / max(self.targets, 1)


def make(
    words: RankerWords,
    models: Mapping[str, CandidateModel],
    features: PairFeatures,
    known: Histories,
    wanted: Targets,
    items: int,
    available: NDArray[np.bool_],
    moment: int,
    seed: int,
    progress: Progress | None = None,
    excluded: Sequence[NDArray[np.int32]] | None = None,
) -> Examples:
    """`models`, `features` and `known` must be of events before `moment` only; `wanted` is what followed. `excluded`: rows that each
    person of `wanted` could not take (None: what their state excludes).

    Of each person who took at least one candidate all taken ones and at most `words.negatives` others are kept, drawn by
    seed, so that popular and hard ones stay in proportion. People of whom nothing is known are answered without the ranker
    and make no rows; where nobody took any candidate there are none.
    """
    generator = np.random.default_rng(seed)
    warm = np.array([len(known.state(int(user)).positives) > 0 for user in wanted.users], dtype=np.bool_)
    people = np.flatnonzero(warm)
    if len(people) > words.users:
        people = np.sort(generator.choice(people, words.users, replace=False))
    parts: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int8]] = []
    groups: list[int] = []
    found = total = 0
    for start in range(0, len(people), _BATCH):
        batch = people[start : start + _BATCH]
        states = known.states(wanted.users[batch])
        closed = None if excluded is None else [excluded[int(person)] for person in batch]
        candidates = retrieve(models, states, moment, words.candidates, items, available, closed).candidates
        if candidates.failed:
            raise ValueError(f"sources failed while making the ranker's rows: {', '.join(candidates.failed)}")
        targets = np.concatenate([position * items + wanted.of(int(person)).astype(np.int64) for position, person in enumerate(batch)])
        taken = np.isin(candidates.users.astype(np.int64) * items + candidates.items, targets)
        total += len(targets)
        found += int(taken.sum())
        rows = feature_rows(tuple(models), features, states, candidates, moment)
        bounds = np.searchsorted(candidates.users, np.arange(len(batch) + 1))
        keep: list[NDArray[np.int64]] = []
        for position in range(len(batch)):
            mine = np.arange(bounds[position], bounds[position + 1])
            positive, negative = mine[taken[mine]], mine[~taken[mine]]
            if not len(positive):
                continue
            if len(negative) > words.negatives:
                negative = generator.choice(negative, words.negatives, replace=False)
            # In the order of their rows, not taken ones first: LightGBM's own NDCG breaks ties by position, and would stop too early.
            both = np.sort(np.concatenate([positive, negative]))
            keep.append(both)
            groups.append(len(both))
        if keep:
            chosen = np.concatenate(keep)
            parts.append(rows[chosen])
            labels.append(taken[chosen].astype(np.int8))
        if progress is not None:
            progress("ranker's rows", min(1.0, (start + _BATCH) / max(len(people), 1)))
    if not parts:
        width = len(feature_names(tuple(models), features))
        nothing = np.empty((0, width), dtype=np.float32), np.empty(0, dtype=np.int8), np.empty(0, dtype=np.int64)
        return Examples(*nothing, found, total)
    return Examples(np.concatenate(parts), np.concatenate(labels), np.array(groups, dtype=np.int64), found, total)


def joined(parts: Sequence[Examples]) -> Examples:
    """All rows, one part after the other. Raises ValueError if nobody took any candidate in any of them."""
    if not any(len(part.rows) for part in parts):
        raise ValueError("nobody took any candidate in the label window: there is nothing to learn a ranking from")
    return Examples(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.groups for part in parts]),
        sum(part.found for part in parts),
        sum(part.targets for part in parts),
    )
