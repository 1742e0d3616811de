"""Question -> Slate: candidates, rank, rerank, reasons. Pure Python: no Ray, no HTTP, no storage, no clock.

The same object answers requests, is evaluated and scores in batch. It is immutable: a new item or bundle makes a new engine.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from configs.domain import Domain
from features.catalogue import Catalogue, Cell
from features.compute import PairFeatures, attribute_vectors
from features.state import Histories, Kinds, UserState
from features.statistics import DAY_US, ItemStatistics
from features.vocabulary import Vocabulary
from serving import explain, rerank
from serving.filters import Filters
from serving.slate import Question, Range, Reason, Slate, SlateItem, Words
from training.bundle import TWO_STAGE, Bundle
from training.contract import CandidateModel, Candidates, FindsSimilar, FollowsStock, PlacesNewItems
from training.ranker import Ranker
from training.retrieval import columns_of, feature_names, feature_rows, retrieve
from training.topk import top

_POOL = 5  # diversity looks at so many times k of the ranking
_DEFAULT_PER_SOURCE = 60


@dataclass(frozen=True)
class Ranking:
    """What was found for one person, best first. `at` are positions in the batch's candidates, -1 for an item that fills up."""

    items: NDArray[np.int32]
    scores: NDArray[np.float64]
    at: NDArray[np.int64]


@dataclass(frozen=True)
class Ranked:
    """The rankings of a batch, and what they were made of."""

    candidates: Candidates
    rankings: list[Ranking]
    rows: NDArray[np.float32] | None  # feature rows of the candidates, None where the ranker was not asked
    seconds: Mapping[str, float]


class Engine:
    def __init__(
        self,
        bundle: Bundle,
        catalogue: Catalogue | None = None,
        models: Mapping[str, CandidateModel] | None = None,
        left: Mapping[str, int] | None = None,
    ) -> None:
        """The engine of a bundle; `catalogue` and `models` stand in for the bundle's own after an item was added. `left`: how many of an
        item, by id, can still be had; of those not named the bundle knows how many could when it was made."""
        self.bundle = bundle
        self.catalogue = catalogue or bundle.catalogue
        self.models, self._left = dict(models or bundle.models), left
        statistics = bundle.statistics.for_items(len(self.catalogue))
        if left is not None:
            capacity, now = self.catalogue.capacity(), np.full(len(self.catalogue), np.nan, dtype=np.float32)
            for item, count in left.items():
                if (row := self.catalogue.row(item)) is not None:
                    now[row] = count
            statistics = statistics.stocked(capacity, now)
            told = statistics.free * capacity
            self.models = {name: model.stocked(told) if isinstance(model, FollowsStock) else model for name, model in self.models.items()}
        self._parts = EngineParts(bundle.domain, self.catalogue, statistics, self.models, bundle.ranker, bundle.mode, bundle.version)

    @property
    def version(self) -> str:
        return self.bundle.version

    @property
    def domain(self) -> Domain:
        return self.bundle.domain

    @property
    def users(self) -> Vocabulary:
        return self.bundle.users

    @property
    def histories(self) -> Histories:
        return self.bundle.histories

    @property
    def kinds(self) -> Kinds:
        return self.bundle.kinds

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self.models)

    def recommend(self, questions: Sequence[Question]) -> list[Slate]:
        """One slate a question, in order. Raises FilterError for a filter the catalogue cannot answer."""
        return self._parts.recommend(questions)

    def similar(self, item: int, k: int) -> tuple[SlateItem, ...]:
        """The k items most like one, by content where there is such a source. Raises IndexError for an unknown row."""
        return self._parts.similar(item, k)

    def popular(self, k: int) -> tuple[SlateItem, ...]:
        """The k most popular available items."""
        return self._parts.popular(k)

    def check(self, filters: Mapping[str, Words | Range]) -> None:
        """Raises FilterError if the catalogue cannot answer one of them."""
        self._parts.filters.mask(filters)

    def allowed(self, filters: Mapping[str, Words | Range]) -> NDArray[np.bool_]:
        """(items,) bool, read-only to the caller: available and allowed by every filter. Raises FilterError."""
        return self._parts.filters.mask(filters)

    def scores(self, question: Question) -> NDArray[np.float64]:
        """(items,) float64, higher is better: what the ranking says of every item that this question may be answered with, however many it
        asks for; NaN for the others (excluded, filtered out, not available). Raises FilterError."""
        whole = replace(question, k=len(self.catalogue), exploration=0.0)
        ranking = self._parts.rank([whole]).rankings[0]
        scores = np.full(len(self.catalogue), np.nan)
        scores[ranking.items] = ranking.scores
        return scores

    def with_item(self, item: str, title: str, cells: Mapping[str, Cell], available: bool = True) -> Engine:
        """An engine that also knows this item, at once reachable by the sources that can place it.
        Raises CellError, ValueError for what the domain's schema does not allow."""
        return self.over(self.catalogue.with_item(item, title, cells, available))

    def over(self, catalogue: Catalogue) -> Engine:
        """An engine over a later form of its own catalogue (several items added at once)."""
        models = {name: model.place(catalogue) if isinstance(model, PlacesNewItems) else model for name, model in self.models.items()}
        return Engine(self.bundle, catalogue, models, self._left)

    def with_left(self, left: Mapping[str, int]) -> Engine:
        """An engine that knows how many of these items, by id, can be had now; what it was told before it forgets."""
        return Engine(self.bundle, self.catalogue, self.models, left)


class EngineParts:
    """The working parts, also used before a bundle exists: evaluation runs on exactly this."""

    def __init__(
        self,
        domain: Domain,
        catalogue: Catalogue,
        statistics: ItemStatistics,
        models: Mapping[str, CandidateModel],
        ranker: Ranker | None,
        mode: str,
        version: str,
    ) -> None:
        self._statistics = statistics.for_items(len(catalogue))
        catalogue = replace(catalogue, available=self._statistics.available(np.asarray(catalogue.available)))
        self._domain, self._catalogue, self._models = domain, catalogue, models
        self._ranker, self._mode, self._version = ranker, mode, version
        self._features = PairFeatures(catalogue, self._statistics)
        self._columns = None if ranker is None else columns_of(ranker.names, feature_names(ranker.sources, self._features))
        self._vectors = attribute_vectors(catalogue)
        self.filters = Filters(catalogue)
        self._kinds = Kinds.of(domain.events)
        self._popular = next(name for name, words in domain.candidates.items() if words.model == "popularity" and name in models)
        self.per_source = domain.ranker.candidates if domain.ranker is not None else _DEFAULT_PER_SOURCE
        order = np.lexsort((np.arange(len(catalogue)), -catalogue.prior().astype(np.float64), -self._statistics.recent.astype(np.float64)))
        self._fill_order = order.astype(np.int32)

    # ------------------------------------------------------------ candidates and rank

    def rank(self, questions: Sequence[Question]) -> Ranked:
        """Rankings of a batch of questions that ask the same `sources` as of the same moment, each long enough for its own k
        where the catalogue allows it."""
        asked = questions[0].sources
        models = self._models_for(asked)
        items = len(self._catalogue)
        states = [question.state for question in questions]
        now = questions[0].now
        masks = [self.filters.mask(question.filters) for question in questions]
        allowed = masks[0] if all(mask is masks[0] for mask in masks) else np.stack(masks)
        excluded = [_also(question.state.excluded, question.exclude) for question in questions]
        budget = min((question.budget_s for question in questions if question.budget_s is not None), default=None)
        depth = max(self._depth(question) for question in questions)
        began = time.monotonic()
        found = retrieve(models, states, now, depth, items, allowed, excluded, None if budget is None else began + budget)
        candidates = found.candidates
        retrieved = time.monotonic()
        rows: NDArray[np.float32] | None = None
        if asked is None and self._mode == TWO_STAGE and self._ranker is not None:
            rows = feature_rows(self._ranker.sources, self._features, states, candidates, now)
            rows = rows if self._columns is None else rows[:, self._columns]
            scores = self._ranker.scores(rows)
        else:
            scores = self._by_source(candidates, asked[0] if asked else self._mode)
        cold = np.array([not len(state.positives) for state in states], dtype=np.bool_)
        if cold.any() and asked is None:  # nothing is known: the popular source's own order, in which named preferences come first
            scores = np.where(cold[candidates.users], self._by_source(candidates, self._popular), scores)
        bounds = np.searchsorted(candidates.users, np.arange(len(questions) + 1))
        rankings: list[Ranking] = []
        for position, question in enumerate(questions):
            part = slice(int(bounds[position]), int(bounds[position + 1]))
            order = np.lexsort((candidates.items[part], -scores[part]))
            ranking = Ranking(candidates.items[part][order], scores[part][order], order + part.start)
            rankings.append(self._filled(ranking, question, masks[position], excluded[position]))
        seconds = {
            **{f"source.{name}": value for name, value in found.seconds.items()},
            "candidates": retrieved - began,
            "rank": time.monotonic() - retrieved,
        }
        return Ranked(candidates, rankings, rows, seconds)

    def rank_sources(self, questions: Sequence[Question]) -> Ranked:
        """The same with every source asked, whatever is served: for measuring sources side by side."""
        return self.rank([replace(question, sources=tuple(self._models)) for question in questions])

    def _depth(self, question: Question) -> int:
        """How many each source brings for this question."""
        pool = self._domain.serving.exploration.pool
        if question.sources is not None:
            return question.k + 2 * pool
        return max(self.per_source, question.k + (pool if self._explored(question) else 0))

    def _explored(self, question: Question) -> float:
        """The share of the slate's places that chance fills."""
        words = self._domain.serving.exploration
        return question.exploration if question.exploration is not None else words.warm if len(question.state.positives) else words.cold

    def _models_for(self, asked: tuple[str, ...] | None) -> Mapping[str, CandidateModel]:
        if asked is not None:
            return {name: self._models[name] for name in asked}
        if self._mode == TWO_STAGE:
            return self._models
        return {name: self._models[name] for name in dict.fromkeys((self._mode, self._popular))}

    def _by_source(self, candidates: Candidates, source: str) -> NDArray[np.float64]:
        """(pairs,) the order of one source; what it did not bring comes after, by the reciprocal ranks of the others."""
        ranks = candidates.ranks.astype(np.float64)
        reciprocal = np.divide(1.0, 60.0 + ranks, out=np.zeros_like(ranks), where=ranks > 0).sum(axis=1)
        if source not in candidates.sources:
            return np.asarray(reciprocal)
        own = candidates.scores[:, candidates.sources.index(source)].astype(np.float64)
        known = ~np.isnan(own)
        lowest = np.full(int(candidates.users[-1]) + 1 if len(candidates) else 0, np.inf)
        np.minimum.at(lowest, candidates.users[known], own[known])  # each person's own: who else is asked must not matter
        floor = np.where(np.isinf(lowest), 0.0, lowest)[candidates.users]
        return np.asarray(np.where(known, own, floor - 1.0 + reciprocal))

    def _filled(self, ranking: Ranking, question: Question, allowed: NDArray[np.bool_], excluded: NDArray[np.int32]) -> Ranking:
        """k is honoured whenever the catalogue allows: the popular list fills up, with scores below the last."""
        short = question.k - len(ranking.items)
        if short <= 0:
            return ranking
        free = allowed.copy()
        free[ranking.items] = False
        free[excluded] = False
        more = self._fill_order[free[self._fill_order]][:short]
        last = float(ranking.scores[-1]) if len(ranking.scores) else 0.0
        return Ranking(
            np.concatenate([ranking.items, more]),
            np.concatenate([ranking.scores, last - 1e-3 * np.arange(1, len(more) + 1)]),
            np.concatenate([ranking.at, np.full(len(more), -1)]),
        )

    # ------------------------------------------------------------ what is shown

    def recommend(self, questions: Sequence[Question]) -> list[Slate]:
        slates: list[Slate | None] = [None] * len(questions)
        groups: dict[tuple[tuple[str, ...] | None, int, int], list[int]] = {}
        for position, question in enumerate(questions):  # of one depth: what another asks for must not bring more candidates
            groups.setdefault((question.sources, question.now, self._depth(question)), []).append(position)
        for members in groups.values():
            ranked = self.rank([questions[position] for position in members])
            for place, position in enumerate(members):
                slates[position] = self._slate(questions[position], ranked, ranked.rankings[place])
        return [slate for slate in slates if slate is not None]

    def _slate(self, question: Question, ranked: Ranked, ranking: Ranking) -> Slate:
        began = time.monotonic()
        depth = min(len(ranking.items), max(_POOL * question.k, question.k + self._domain.serving.exploration.pool))
        order = np.arange(depth)
        if question.diversity > 0.0:
            head = rerank.mmr(ranking.scores[:depth], self._vectors[ranking.items[:depth]], question.k, question.diversity)
            order = np.concatenate([head, np.setdiff1d(order, head)])
        warm = len(question.state.positives) > 0
        seed = (
            question.seed
            if question.seed is not None
            else rerank.seed_of(question.user, question.now // DAY_US, self._version, question.state.items.tobytes())
        )
        shown = rerank.explore(order, question.k, self._explored(question), self._domain.serving.exploration.pool, seed)
        reranked = time.monotonic()
        items = self._items(question, ranked, ranking, shown)
        seconds = {**ranked.seconds, "rerank": reranked - began, "reasons": time.monotonic() - reranked}
        notes = (
            ()
            if warm or question.sources is not None
            else ("cold start: nothing is known of this person yet, so popular titles come first",)
        )
        return Slate(
            slate=secrets.token_hex(16),
            domain=self._domain.name,
            version=self._version,
            variant=question.variant,
            mode="+".join(question.sources) if question.sources is not None else self._mode,
            items=items,
            degraded=ranked.candidates.failed,
            notes=notes,
            stages_ms={name: round(value * 1000.0, 3) for name, value in seconds.items()},
        )

    def _items(self, question: Question, ranked: Ranked, ranking: Ranking, shown: rerank.Shown) -> tuple[SlateItem, ...]:
        catalogue, candidates = self._catalogue, ranked.candidates
        rows, at = ranking.items[shown.positions], ranking.at[shown.positions]
        ranks = np.zeros((len(rows), len(candidates.sources)), dtype=np.int16)
        ranks[at >= 0] = candidates.ranks[at[at >= 0]]
        evidence = explain.gather(self._models, question, candidates.sources, rows, ranks)
        contributed: NDArray[np.float64] | None = None
        ranked_by_model = ranked.rows is not None and len(question.state.positives) > 0  # a newcomer's order is the popular source's own
        if question.explain and ranked_by_model and ranked.rows is not None and self._ranker is not None:
            contributed = np.zeros((len(rows), len(self._ranker.names) + 1))
            if (at >= 0).any():
                contributed[at >= 0] = self._ranker.contributions(ranked.rows[at[at >= 0]])
        out: list[SlateItem] = []
        for place, row in enumerate(rows):
            brought = tuple(name for name, rank in zip(candidates.sources, ranks[place], strict=True) if rank > 0)
            if contributed is not None and self._ranker is not None and at[place] >= 0:
                strengths, features = explain.split_contributions(self._ranker.names, self._ranker.sources, contributed[place])
            else:
                strengths = {name: 1.0 / float(rank) for name, rank in zip(candidates.sources, ranks[place], strict=True) if rank > 0}
                features = {}
            why = explain.reasons(evidence[place], strengths, features, catalogue) or (
                Reason("popular", float(self._statistics.takers[row]), 1, 1.0, source=self._popular),
            )
            said = explain.sentence(why, self._title, catalogue.schema, question.language) if question.explain else None
            out.append(
                SlateItem(
                    item=catalogue.ids.id(int(row)),
                    title=catalogue.titles[row],
                    score=round(float(ranking.scores[shown.positions[place]]), 6),
                    rank=place + 1,
                    sources=brought or (self._popular,),
                    reasons=why,
                    propensity=round(float(shown.propensities[place]), 6),
                    explanation=said,
                )
            )
        return tuple(out)

    def _title(self, item: str) -> str:
        row = self._catalogue.row(item)
        return item if row is None else self._catalogue.titles[row]

    # ------------------------------------------------------------ without a person

    def popular(self, k: int) -> tuple[SlateItem, ...]:
        question = Question(UserState.empty(self._kinds), k, self._statistics.moment, sources=(self._popular,), exploration=0.0)
        return self.recommend([question])[0].items

    def similar(self, item: int, k: int) -> tuple[SlateItem, ...]:
        if not 0 <= item < len(self._catalogue):
            raise IndexError(f"row {item}: the catalogue has {len(self._catalogue)}")
        finders = [(name, model) for name, model in self._models.items() if isinstance(model, FindsSimilar)]
        placing = [pair for pair in finders if isinstance(pair[1], PlacesNewItems)]
        if not finders:
            return ()
        name, model = (placing or finders)[0]
        likeness = model.similar(item).copy()
        likeness[~self._catalogue.available[: len(likeness)]] = -np.inf
        likeness[item] = -np.inf
        order = top(likeness[None], k)[0]
        order = order[order >= 0]
        state = UserState.of_items(self._kinds, [item], self._kinds.strongest, self._statistics.moment)
        because = model.because(state, order)
        out = []
        for place, (row, said) in enumerate(zip(order, because, strict=True)):
            why = explain.reasons({name: [said]} if said is not None else {}, {name: 1.0}, {}, self._catalogue)
            out.append(
                SlateItem(
                    self._catalogue.ids.id(int(row)),
                    self._catalogue.titles[row],
                    round(float(likeness[row]), 6),
                    place + 1,
                    (name,),
                    why,
                    1.0,
                )
            )
        return tuple(out)


def _also(rows: NDArray[np.int32], more: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([rows, np.array(more, dtype=np.int32)]) if more else rows
