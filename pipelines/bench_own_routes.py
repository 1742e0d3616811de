"""How often the route that a client bought for a day (three concerts and more, not clashing) is among the first k of all routes of that
day by the summed score, against an even draw and against the sum of plain popularity.

The score is what `routes/search` sums: the engine's, as serving/itinerary/scores.py puts it on a scale. It is made by models that saw
nothing of the client's fold, from the client's other days alone; of somebody without other days nothing is known, and the score is
popularity's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.itinerary.chains import clashing
from features.itinerary.objectives import Worth
from features.itinerary.search import Routes
from features.itinerary.timetable import Timetable
from features.itinerary.wishes import Objective, Wishes
from pipelines.bench_basket import Baskets, Fold, Person
from pipelines.steps import Reporter
from pipelines.train import statistics_of
from serving.itinerary.scores import on_scale
from serving.slate import Question
from training.significance import interval, paired

FIRST = (10, 100, 1_000)
_LEAST = 3  # concerts


@dataclass(frozen=True)
class Own:
    """A route that somebody bought: `rows` of the timetable, all on `day`; known: whether anything but it is known of the person."""

    rows: tuple[int, ...]
    day: int
    known: bool
    score: NDArray[np.float64]  # (stops,) of the person, from the other days
    popular: NDArray[np.float64]  # (stops,)


def measure_own_routes(baskets: Baskets, folds: Sequence[Fold], reporter: Reporter) -> dict[str, Any]:
    """Shares of own routes among the first k, with intervals over routes: among all routes of the day, and among those as long."""
    timetable, seed = baskets.timetable, baskets.domain.split.seed
    days = [day for person in baskets.people for day in _days(baskets, person)]
    found: list[Own] = []
    for number, fold in enumerate(folds):
        found += _owned(baskets, fold)
        reporter.progress("own routes: scoring", (number + 1) / len(folds))
    hits: dict[str, dict[str, list[list[bool]]]] = {scope: {"score": [], "popular": []} for scope in ("day", "length")}
    chance: dict[str, list[list[float]]] = {"day": [], "length": []}
    all_routes = lru_cache(maxsize=None)(lambda day: _of(timetable, day).by_length())
    for place, own in enumerate(found):
        lengths = all_routes(own.day)
        totals = {"day": sum(lengths.values()), "length": lengths[len(own.rows)]}
        for scope, total in totals.items():
            chance[scope].append([min(1.0, k / total) for k in FIRST])
            for way, worth in (("score", own.score), ("popular", own.popular)):
                at = _place(timetable, own, worth, len(own.rows) if scope == "length" else None)
                hits[scope][way].append([at is not None and at < k for k in FIRST])
        reporter.progress("own routes: searching", (place + 1) / len(found))
    known = np.array([own.known for own in found], dtype=np.bool_)
    groups = {"all": np.ones(len(found), dtype=np.bool_), "known from other days": known, "nothing else known": ~known}
    return {
        "said": f"routes of one day with {_LEAST} concerts and more; scores from the client's other days only",
        "days": len(days),
        "clashing_days": sum(bool(clashing(timetable, rows)) for _, _, rows in days),
        "routes": len(found),
        "known": int(known.sum()),
        "among": {
            scope: {name: _shares(hits[scope], chance[scope], mask, seed) for name, mask in groups.items() if mask.any()} for scope in hits
        },
    }


def _owned(baskets: Baskets, fold: Fold) -> list[Own]:
    timetable, histories = baskets.timetable, baskets.features.histories
    catalogue = baskets.features.catalogue
    statistics = statistics_of(baskets.domain, fold.part, catalogue)
    takers = statistics.takers.astype(np.float64)
    popular = _by_stop(baskets, on_scale(np.where(np.arange(len(catalogue)) < len(takers), takers, np.nan)))
    wanted = [day for person in fold.people for day in _days(baskets, person) if not clashing(timetable, day[2])]
    questions, known = [], []
    for user, _, own in wanted:
        state = histories.state(user)
        others = np.flatnonzero(~np.isin(state.items, baskets.item[list(own)]))
        rest = state.only(others)
        known.append(len(rest.positives) > 0)
        questions.append(Question(rest, len(catalogue), fold.part.moment, exploration=0.0))
    parts = fold.parts(baskets.domain, catalogue)
    out = []
    for start in range(0, len(questions), 256):
        for at, ranking in enumerate(parts.rank(questions[start : start + 256]).rankings, start=start):
            scores = np.full(len(catalogue), np.nan)
            scores[ranking.items] = ranking.scores
            _, day, own = wanted[at]
            out.append(Own(own, day, known[at], _by_stop(baskets, on_scale(scores)), popular))
    return out


def _days(baskets: Baskets, person: Person) -> list[tuple[int, int, tuple[int, ...]]]:
    """(user, day, rows of the timetable) of each day for which a person has tickets for three concerts and more, clashing or not."""
    by_day: dict[int, list[int]] = {}
    for row in sorted(int(baskets.stop[item]) for item in person.had):
        by_day.setdefault(int(baskets.timetable.day[row]), []).append(row)
    return [(person.user, day, tuple(rows)) for day, rows in sorted(by_day.items()) if len(rows) >= _LEAST]


def _by_stop(baskets: Baskets, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(stops,) from (items,); 0 for what is no item."""
    return np.where(baskets.item >= 0, scores[baskets.item], 0.0)


def _of(timetable: Timetable, day: int, length: int | None = None, worth: NDArray[np.float64] | None = None) -> Routes:
    return Routes(timetable, Wishes(days=(timetable.days[day],), fewest=length, most=length), worth=Worth(score=worth))


def _place(timetable: Timetable, own: Own, worth: NDArray[np.float64], length: int | None) -> int | None:
    """Place of the own route among the best, from 0; None if it is none of the first."""
    best = _of(timetable, own.day, length, worth).best(Objective.SCORE, FIRST[-1])
    return next((at for at, route in enumerate(best.routes) if route.stops == own.rows), None)


def _shares(hits: dict[str, list[list[bool]]], chance: list[list[float]], mask: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    values = {way: np.array(rows, dtype=np.float64)[mask] for way, rows in hits.items()}
    even = np.array(chance)[mask]
    return {
        f"first {k:,}": {
            "score": interval(values["score"][:, at], seed).as_json(),
            "popular": interval(values["popular"][:, at], seed).as_json(),
            "random": round(float(even[:, at].mean()), 8),
            "score - popular": paired(values["score"][:, at], values["popular"][:, at], seed).as_json(),
        }
        for at, k in enumerate(FIRST)
    }


def own_routes_table(report: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal."""
    share = report["clashing_days"] / max(report["days"], 1)
    clash = f"{report['clashing_days']:,} of {report['days']:,} such days clash ({share:.1%}: bought for several people) and are no routes"
    out = [f"{report['said']}: {report['routes']:,}, {report['known']:,} of them of clients known from other days; {clash}"]
    for scope, groups in report["among"].items():
        for name, shares in groups.items():
            for first, said in shares.items():
                score, popular, gain = said["score"], said["popular"], said["score - popular"]
                out.append(
                    f"among {'all of the day' if scope == 'day' else 'those as long'}, {name}, {first}: "
                    f"{score['mean']:.2%} [{score['low']:.2%}, {score['high']:.2%}], popular {popular['mean']:.2%}, "
                    f"an even draw {said['random']:.4%}; score - popular {gain['mean']:+.2%} [{gain['low']:+.2%}, {gain['high']:+.2%}]"
                )
    return out
