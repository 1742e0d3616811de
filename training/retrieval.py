"""People -> candidates of all sources -> feature rows. Pure; ranker training, tuning, evaluation, batch scoring and the
serving engine all call this one path, so what is evaluated is what is served."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.compute import PairFeatures
from features.state import UserState
from training.contract import CandidateModel, Candidates
from training.topk import top

_log = logging.getLogger(__name__)
#: What the ranker is told of each source's opinion of a pair.
SOURCE_COLUMNS = ("score", "place")


@dataclass(frozen=True)
class Retrieved:
    """`seconds` is the time each source took for the whole batch."""

    candidates: Candidates
    seconds: Mapping[str, float]


def retrieve(
    models: Mapping[str, CandidateModel],
    states: Sequence[UserState],
    now: int,
    k: int,
    items: int,
    allowed: NDArray[np.bool_] | None = None,
    excluded: Sequence[NDArray[np.int32]] | None = None,
    deadline: float | None = None,
) -> Retrieved:
    """The best k of every source for each person, united.

    `allowed`: (items,) or (people, items), False where an item may not be shown. `excluded`: rows per person; default: what
    each state itself excludes. `deadline`: time.monotonic() after which no further source is begun. A source that raises or
    is not begun stands in `failed`; if all fail the candidates are empty. Ties go to the smaller row.
    """
    n = len(states)
    outside = [state.excluded for state in states] if excluded is None else excluded
    rows = np.repeat(np.arange(n), [len(part) for part in outside])
    columns = np.concatenate(outside) if len(outside) else np.empty(0, dtype=np.int32)
    forbidden = np.flatnonzero(~allowed) if allowed is not None and allowed.ndim == 1 else None  # once, not once a source
    tables: list[NDArray[np.float32]] = []
    best: list[NDArray[np.int32]] = []
    names: list[str] = []
    failed: list[str] = []
    seconds: dict[str, float] = {}
    for name, model in models.items():
        began = time.monotonic()
        if deadline is not None and began > deadline:
            failed.append(name)
            continue
        try:
            table = _fitting(model.scores(states, now), n, items)
        except Exception:  # a broken source must not take the answer with it; it is named in `degraded`
            _log.exception("source %s failed", name)
            failed.append(name)
            continue
        if forbidden is not None:
            table[:, forbidden] = -np.inf
        elif allowed is not None:
            table[~allowed] = -np.inf
        table[rows, columns] = -np.inf
        tables.append(table)
        best.append(top(table, k))
        names.append(name)
        seconds[name] = time.monotonic() - began
    return Retrieved(_united(tuple(names), tables, best, n, items, tuple(failed)), seconds)


def described(
    models: Mapping[str, CandidateModel],
    states: Sequence[UserState],
    now: int,
    k: int,
    allowed: NDArray[np.bool_],
    items: NDArray[np.int32],
) -> Candidates:
    """These items (people, n), instead of the best of every source: each with the scores and ranks that `retrieve` would have given
    it, rank 0 beyond the k-th. For measuring how given items are ranked. A source that raises is not caught."""
    n, wide = len(states), len(allowed)
    excluded = [state.excluded for state in states]
    rows, columns = np.repeat(np.arange(n), [len(part) for part in excluded]), np.concatenate(excluded)
    order = np.argsort(items, axis=1, kind="stable")
    chosen = np.take_along_axis(items, order, axis=1)
    scores = np.full((items.size, len(models)), np.nan, dtype=np.float32)
    ranks = np.zeros((items.size, len(models)), dtype=np.int16)
    for column, model in enumerate(models.values()):
        table = _fitting(model.scores(states, now), n, wide)
        table[:, ~allowed] = -np.inf
        table[rows, columns] = -np.inf
        own = np.take_along_axis(table, chosen, axis=1)
        places = np.zeros((n, wide + 1), dtype=np.int16)
        best = top(table, k)
        np.put_along_axis(places, np.where(best >= 0, best, wide), np.arange(1, best.shape[1] + 1, dtype=np.int16)[None, :], axis=1)
        ranks[:, column] = np.take_along_axis(places[:, :wide], chosen, axis=1).ravel()
        own[np.isneginf(own)] = np.nan
        scores[:, column] = own.ravel()
    people = np.repeat(np.arange(n, dtype=np.int32), items.shape[1])
    return Candidates(tuple(models), people, chosen.ravel().astype(np.int32), scores, ranks)


def feature_names(sources: Sequence[str], features: PairFeatures) -> tuple[str, ...]:
    """Names of the columns of `feature_rows`."""
    own = (f"{name}.{column}" for column in SOURCE_COLUMNS for name in sources)
    return (*own, "sources", *features.names)


def feature_rows(
    sources: Sequence[str], features: PairFeatures, states: Sequence[UserState], candidates: Candidates, now: int
) -> NDArray[np.float32]:
    """(pairs, features) float32 for the ranker. A source of `sources` that failed this time is NaN throughout; `place` is
    1 / rank, 0 where the source did not bring the item."""
    pairs = len(candidates)
    scores = np.full((pairs, len(sources)), np.nan, dtype=np.float32)
    places = np.zeros((pairs, len(sources)), dtype=np.float32)
    for column, name in enumerate(sources):
        if name in candidates.sources:
            at = candidates.sources.index(name)
            scores[:, column] = candidates.scores[:, at]
            ranks = candidates.ranks[:, at].astype(np.float32)
            np.divide(1.0, ranks, out=places[:, column], where=ranks > 0)
    brought = (candidates.ranks > 0).sum(axis=1, dtype=np.float32)[:, None]
    about = features.rows(states, candidates.users, candidates.items, now)
    return np.concatenate([scores, places, brought, about], axis=1, dtype=np.float32)


def columns_of(wanted: Sequence[str], made: Sequence[str]) -> NDArray[np.int64] | None:
    """Which columns of `made` a ranker that learnt from `wanted` reads, None for all as they stand: a ranker of before keeps its place
    when features are added. Raises ValueError naming those that are no longer made."""
    if tuple(wanted) == tuple(made):
        return None
    gone = [name for name in wanted if name not in made]
    if gone:
        raise ValueError(f"the ranker learnt from {', '.join(gone)}, which is not computed any more: train anew")
    return np.array([list(made).index(name) for name in wanted], dtype=np.int64)


def _fitting(table: NDArray[np.float32], n: int, items: int) -> NDArray[np.float32]:
    """The table with exactly `items` columns: items that a model does not know get -inf. Raises ValueError if it has not n rows."""
    if table.ndim != 2 or len(table) != n:
        raise ValueError(f"scores of shape {table.shape} for {n} people")
    if table.shape[1] == items:
        return table
    wide = np.full((table.shape[0], items), -np.inf, dtype=np.float32)
    wide[:, : table.shape[1]] = table[:, :items]
    return wide


def _united(
    names: tuple[str, ...], tables: list[NDArray[np.float32]], best: list[NDArray[np.int32]], n: int, items: int, failed: tuple[str, ...]
) -> Candidates:
    if not names:
        none = np.empty(0, dtype=np.int32)
        return Candidates((), none, none, np.empty((0, 0), dtype=np.float32), np.empty((0, 0), dtype=np.int16), failed)
    keys = [(np.arange(n, dtype=np.int64)[:, None] * items + chosen)[chosen >= 0] for chosen in best]
    union = np.unique(np.concatenate(keys))
    users, columns = (union // items).astype(np.int32), (union % items).astype(np.int32)
    scores = np.empty((len(union), len(names)), dtype=np.float32)
    ranks = np.zeros((len(union), len(names)), dtype=np.int16)
    for s, (table, chosen, key) in enumerate(zip(tables, best, keys, strict=True)):
        gathered = table[users, columns]
        gathered[np.isneginf(gathered)] = np.nan
        scores[:, s] = gathered
        places = np.broadcast_to(np.arange(1, chosen.shape[1] + 1, dtype=np.int16), chosen.shape)[chosen >= 0]
        ranks[np.searchsorted(union, key), s] = places
    return Candidates(names, users, columns, scores, ranks, failed)
