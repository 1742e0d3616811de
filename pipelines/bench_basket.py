"""The basket: one concert of a client's tickets is hidden; is it found among those that still fit the others?

People are parted into folds. Each is asked about by models that saw nothing of theirs: sources fitted on the other folds, a ranker
taught on one of these by sources that had not seen it. What could not be attended beside the rest of a person's tickets is no candidate;
people whose tickets clash (bought for several) are told apart, for them everything they have no ticket for is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.domain import Domain
from features.catalogue import Catalogue
from features.compute import PairFeatures, attribute_vectors
from features.itinerary.chains import clashing, fitting
from features.itinerary.timetable import Timetable
from features.state import Histories, Means
from pipelines.evaluate import parts_over
from pipelines.featurize import Features
from pipelines.measuring import Answers, Asked, Ground, K, ask, comparisons, figures
from pipelines.steps import Reporter
from pipelines.train import Part, statistics_of
from serving.engine import EngineParts
from training import build, examples
from training.contract import CandidateModel, TrainingData
from training.ranker import Ranker
from training.retrieval import feature_names
from training.split import Targets

FOLDS = 5


@dataclass(frozen=True)
class Person:
    """user: row; had: what they have tickets for, rows of the catalogue, ascending; clashes: whether nobody alone could attend it all."""

    user: int
    had: tuple[int, ...]
    clashes: bool


@dataclass(frozen=True)
class Fold:
    """Models that know nothing of `people`, and those people."""

    people: Sequence[Person]
    models: Mapping[str, CandidateModel]
    ranker: Ranker | None
    part: Part

    def parts(self, domain: Domain, catalogue: Catalogue) -> EngineParts:
        return parts_over(domain, catalogue, self.part, self.models, self.ranker)


class Baskets:
    """Everybody's tickets over one catalogue and its timetable."""

    def __init__(self, domain: Domain, features: Features, timetable: Timetable) -> None:
        self.domain, self.features, self.timetable = domain, features, timetable
        ids = features.catalogue.ids
        self.stop = np.array([timetable.rows.get(ids.id(row), -1) for row in range(len(features.catalogue))], dtype=np.int64)
        self.item = np.full(len(timetable.stops), -1, dtype=np.int64)
        self.item[self.stop[self.stop >= 0]] = np.flatnonzero(self.stop >= 0)
        self.people = self._people()
        chance = np.random.default_rng((domain.split.seed, 5))
        self.fold = chance.integers(0, FOLDS, len(self.people))
        self.hidden = np.array([int(chance.integers(0, len(person.had))) for person in self.people], dtype=np.int64)

    def _people(self) -> list[Person]:
        """Those with a ticket for at least one stop of the timetable."""
        folded = self.features.histories.folded
        mine = (folded.meanings & Means.OWNED) != 0
        users, items = folded.users[mine], folded.items[mine]
        inside = self.stop[items] >= 0
        out: list[Person] = []
        for user, own in _grouped(users[inside], items[inside]):
            had = tuple(sorted(int(item) for item in own))
            out.append(Person(user, had, bool(clashing(self.timetable, [int(self.stop[item]) for item in had]))))
        return out

    def folds(self, reporter: Reporter) -> list[Fold]:
        """Fits everything, fold after fold."""
        out = []
        for fold in range(FOLDS):
            reporter.progress("basket: fitting", fold / FOLDS)
            out.append(self._fitted(fold))
        reporter.progress("basket: fitting", 1.0)
        return out

    def _fitted(self, fold: int) -> Fold:
        """The ranker learns from the next fold, by sources that saw neither; then the sources see that one too."""
        asked, taught = self.fold == fold, self.fold == (fold + 1) % FOLDS
        ranker = None
        if self.domain.ranker is not None:
            ranker = self._ranker(np.flatnonzero(taught), self._without(asked | taught), fold)
        part = self._without(asked)
        people = [self.people[int(place)] for place in np.flatnonzero(asked)]
        return Fold(people, self._models(part), ranker, part)

    def _without(self, people: NDArray[np.bool_]) -> Part:
        gone = [self.people[int(place)].user for place in np.flatnonzero(people)]
        histories = self.features.histories
        return Part(histories.where(~np.isin(histories.users, gone)), self.features.moment + 1)

    def _models(self, part: Part) -> dict[str, CandidateModel]:
        models: dict[str, CandidateModel] = {}
        for name, words in self.domain.candidates.items():
            models[name] = build.build(words)
            models[name].fit(TrainingData(part.histories, self.features.catalogue, part.moment, self.domain.split.seed))
        return models

    def _ranker(self, taught: NDArray[np.int64], part: Part, fold: int) -> Ranker | None:
        words, catalogue = self.domain.ranker, self.features.catalogue
        assert words is not None
        models = self._models(part)
        known, wanted, closed = self.asked_of(taught)
        statistics = statistics_of(self.domain, part, catalogue)
        pairs = PairFeatures(catalogue, statistics)
        available = statistics.available(np.asarray(catalogue.available))
        seed = self.domain.split.seed + fold
        made = examples.make(words, models, pairs, known, wanted, len(catalogue), available, part.moment, seed, None, closed)
        if not len(made.rows):
            return None
        return Ranker.fit(words, feature_names(tuple(models), pairs), tuple(models), made.rows, made.labels, made.groups, seed, 2)

    def asked_of(self, places: NDArray[np.int64]) -> tuple[Histories, Targets, list[NDArray[np.int32]]]:
        """Of the people at `places` who have two tickets and more: what is known of them without the hidden one, the hidden one, and
        rows that they could not take (what they have among them)."""
        chosen = [int(place) for place in places if len(self.people[int(place)].had) > 1]
        users = np.array([self.people[place].user for place in chosen], dtype=np.int32)
        hidden = np.array([self.people[place].had[self.hidden[place]] for place in chosen], dtype=np.int32)
        histories = self.features.histories
        of_user = np.full(len(histories), -1, dtype=np.int64)
        of_user[users] = hidden
        known = histories.where(of_user[histories.users] != histories.items)
        wanted = Targets(users, np.arange(len(users) + 1, dtype=np.int64), hidden)
        return known, wanted, [self.closed(self.people[place], self.hidden[place]) for place in chosen]

    def closed(self, person: Person, hidden: int) -> NDArray[np.int32]:
        """Rows of the catalogue that do not fit beside the tickets that are left, these among them."""
        rest = [item for at, item in enumerate(person.had) if at != hidden]
        if person.clashes:
            return np.array(rest, dtype=np.int32)
        fits = fitting(self.timetable, [int(self.stop[item]) for item in rest])
        return np.flatnonzero((self.stop < 0) | ~fits[self.stop]).astype(np.int32)


def measure_basket(baskets: Baskets, folds: Sequence[Fold], reporter: Reporter) -> dict[str, Any]:
    """Figures of every way of answering, of people with two tickets and more; groups tell apart whose tickets clash."""
    domain, catalogue = baskets.domain, baskets.features.catalogue
    sources = tuple(domain.candidates)
    joined = Answers({}, {}, {})
    states, truth, closed, clashes = [], [], [], []
    for number, fold in enumerate(folds):
        places = np.flatnonzero(baskets.fold == number)
        known, wanted, outside = baskets.asked_of(places)
        asked = Asked(
            known.states(wanted.users), [wanted.of(at) for at in range(len(wanted.users))], [tuple(rows.tolist()) for rows in outside]
        )
        answers = ask(fold.parts(domain, catalogue), sources, fold.ranker is not None, asked, fold.part.moment)
        for way, lists in answers.lists.items():
            joined.lists.setdefault(way, []).extend(lists)
            joined.seconds[way] = joined.seconds.get(way, 0.0) + answers.seconds[way]
        states += list(asked.states)
        truth += list(asked.truth)
        closed += list(asked.closed)
        clashes += [baskets.people[int(place)].clashes for place in places if len(baskets.people[int(place)].had) > 1]
        reporter.progress("basket: asking", (number + 1) / len(folds))
    asked, several = Asked(states, truth, closed), np.array(clashes, dtype=np.bool_)
    whole = {way: lists for way, lists in joined.lists.items() if len(lists) == len(states)}  # a fold may have gone without a ranker
    ground = _ground(baskets)
    rows, behind = figures(Answers(whole, {}, joined.seconds), asked, ground, {"one person's": ~several, "clashing": several})
    ndcg = {way: values[f"NDCG@{K}"] for way, values in behind.items()}
    free = np.array([len(catalogue) - len(rows) for rows in closed])
    return {
        "said": "one ticket of each person hidden, found among what still fits the others; models fitted without the person's fold",
        "people": len(states),
        "clashing_people": int(several.sum()),
        "candidates": round(float(free.mean()), 1) if len(free) else 0.0,
        "rows": rows,
        "random": _by_chance(free, several),
        "comparisons": {"all": comparisons(ndcg, domain.split.seed), **_apart(ndcg, several, domain.split.seed)},
    }


def _apart(ndcg: Mapping[str, NDArray[np.float64]], several: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    groups = {"one person's": ~several, "clashing": several}
    return {name: comparisons({way: values[mask] for way, values in ndcg.items()}, seed) for name, mask in groups.items() if mask.sum() > 1}


def _by_chance(free: NDArray[np.int64], several: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """What an even draw without looking would reach on average."""
    gains = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, K + 2)))])
    shown = np.minimum(free, K)
    hr, ndcg = shown / np.maximum(free, 1), gains[shown] / np.maximum(free, 1)
    groups = {"all": np.ones(len(free), dtype=np.bool_), "one person's": ~several, "clashing": several}
    return {
        name: {f"NDCG@{K}": round(float(ndcg[mask].mean()), 6), f"HR@{K}": round(float(hr[mask].mean()), 6)}
        for name, mask in groups.items()
        if mask.any()
    }


def _ground(baskets: Baskets) -> Ground:
    catalogue, histories = baskets.features.catalogue, baskets.features.histories
    part = Part(histories, baskets.features.moment + 1)
    people = max(1, int((np.diff(histories.indptr) > 0).sum()))
    statistics = statistics_of(baskets.domain, part, catalogue)
    return Ground(statistics, attribute_vectors(catalogue), np.asarray(catalogue.available), people, baskets.domain.split.seed)


def _grouped(users: NDArray[np.int32], items: NDArray[np.int32]) -> list[tuple[int, NDArray[np.int32]]]:
    order = np.argsort(users, kind="stable")
    found, starts = np.unique(users[order], return_index=True)
    return [(int(user), part) for user, part in zip(found, np.split(items[order], starts[1:]), strict=True)]


def basket_table(report: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal."""
    clashing_people = f"{report['clashing_people']:,} of them with tickets that clash"
    out = [f"{report['said']}: {report['people']:,} people, {clashing_people}; {report['candidates']:g} stops to find it among"]
    out.append(f"{'':12}{'NDCG@10':>9}{'95%':>17}{'HR@10':>9}{'95%':>17}" + "".join(f"{name:>15}" for name in ("one person's", "clashing")))
    for way, row in report["rows"].items():
        ndcg, hit = row[f"NDCG@{K}"], row[f"HR@{K}"]
        spans = [f"{value['mean']:9.4f}{value['low']:>9.4f}-{value['high']:.4f} " for value in (ndcg, hit)]
        out.append(f"{way:12}{''.join(spans)}" + "".join(f"{said[f'NDCG@{K}']['mean']:15.4f}" for said in row["groups"].values()))
    for name, even in report["random"].items():
        out.append(f"an even draw, {name}: NDCG@{K} {even[f'NDCG@{K}']:.4f}, HR@{K} {even[f'HR@{K}']:.4f}")
    for name, compared in report["comparisons"].items():
        for way, said in compared.get("against", {}).items():
            span = f"{said['mean']:+.4f} [{said['low']:+.4f}, {said['high']:+.4f}]"
            out.append(f"{name}: {compared['best']} - {way}: {span}, p {said['p']:.4f}, Holm {said['p_holm']:.4f}")
    return out
