"""What a route is like: its portrait of forty figures, each with its formula, for any route that is shown.

`core_portraits.py` has the eleven that every chain of a day gets; the same names mean the same here. Off-programme events count in the
walks, the waits and `events`, nowhere else. Shares are 0 to 1; a share of nothing is 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from features.itinerary.objectives import (
    CHANGE_COST,
    EDITORS_LABELS,
    RECOMMENDED_POINTS,
    WAIT_COST,
    WALK_COST,
    composers,
    rarity,
)
from features.itinerary.timetable import IMPASSABLE, Stop, Timetable

#: Composers of the timetable who count as the most played; a composer is rare from this rarity on (objectives.rarity).
MOST_PLAYED, RARE = 5, 0.8
#: A route leans to comfort or depth when its two axes stand further apart than this many standard deviations of the timetable's routes.
_LEANS = 1.0
_SAMPLE, _SEED = 200, 20_220_701
_DENSE, _CALM = 1.0, 0.7  # concerts an hour


@dataclass(frozen=True)
class Recommended:
    """Names that editors recommend: stop ids, artists, works. `of` reads them from the labels of concerts."""

    concerts: frozenset[str] = frozenset()
    artists: frozenset[str] = frozenset()
    works: frozenset[str] = frozenset()

    @classmethod
    def of(cls, timetable: Timetable, labels: Iterable[str] = EDITORS_LABELS) -> Recommended:
        """Concerts that bear one of the labels, and who and what is played there."""
        wanted = set(labels)
        chosen = [stop for stop in timetable.stops if wanted & set(stop.labels) and not stop.optional]
        return cls(
            frozenset(stop.id for stop in chosen),
            frozenset(name for stop in chosen for name in stop.artists),
            frozenset(name for stop in chosen for name in stop.works),
        )


@dataclass(frozen=True)
class Portrait:
    """Forty figures; minutes are minutes, prices minor units of the currency.

    Counts: days that have a stop; concerts; events off the programme; different halls, genres, artists, composers, works (of concerts);
    programmes_twice: concerts whose programme was heard before on the route; labels: how many concerts bear each label.
    Time: music = minutes of concerts; walking, waiting = sums over hops (waiting = gap - walk); whole = from each day's first begin to its
    last end, summed; music_share, walking_share, waiting_share = each / (music + walking + waiting); longest_walk, longest_wait of one hop;
    longest_day = most of `whole` on one day; begins, ends = earliest begin and latest end, minutes of the day; concerts_a_day =
    concerts / days; density = concerts / (whole / 60).
    Money: cost = sum of prices; cost_a_concert = cost / concerts of known price; unpriced = concerts without a price.
    Halls: changes = hops to another hall; changes_a_concert = changes / concerts.
    Music: works_a_concert = works listed / concerts; artists_a_concert likewise; a composer's appearance is a concert where he is played:
    most_played_share = appearances of the timetable's five most played / all appearances; rare_share = appearances of composers with
    rarity >= 0.8; family = concerts labelled family or children; recommended = concerts that editors recommend, recommended_artists,
    recommended_works = different ones recommended / different ones. genre_diversity = entropy of the genres of its concerts / log(genres of
    the timetable); composers_balance = entropy of appearances / log(composers), 1 for a single one (nobody outweighs anybody).
    Axes: comfort = music / (music + 2 walking + waiting + 5 changes); depth = mean of rare_share, recommended_works and
    genre_diversity; comfort_minutes = music - 2 walking - waiting - 5 changes, depth_points = sum of rarity over different composers + half
    a point a recommended concert: what the objectives comfort and depth maximise.
    zone: "comfort", "depth" or "balance": which axis stands higher, in standard deviations of a fair sample of the timetable's routes, by
    more than one. cluster: pace (calm below 0.7, dense from 1 concert an hour, else even) and the genre of at least 60% of the concerts,
    or "mixed".
    """

    days: int
    concerts: int
    events: int
    halls: int
    genres: int
    artists: int
    composers: int
    works: int
    programmes_twice: int
    family: int
    recommended: int
    music: int
    walking: int
    waiting: int
    whole: int
    music_share: float
    walking_share: float
    waiting_share: float
    longest_walk: int
    longest_wait: int
    longest_day: int
    begins: int
    ends: int
    concerts_a_day: float
    density: float
    cost: int
    cost_a_concert: float
    unpriced: int
    changes: int
    changes_a_concert: float
    works_a_concert: float
    artists_a_concert: float
    most_played_share: float
    rare_share: float
    recommended_artists: float
    recommended_works: float
    genre_diversity: float
    composers_balance: float
    comfort: float
    depth: float
    comfort_minutes: int
    depth_points: float
    zone: str
    cluster: str
    labels: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def portrait(timetable: Timetable, route: Sequence[int], recommended: Recommended | None = None) -> Portrait:
    """Of a route's rows, in any order. recommended: None = by the concerts' labels. Raises ValueError for no rows or unknown ones."""
    rows = sorted(set(route))
    if not rows or rows[0] < 0 or rows[-1] >= len(timetable.stops):
        raise ValueError(f"a portrait is of one stop or more, rows 0 to {len(timetable.stops) - 1}")
    said = recommended or _by_labels(timetable)
    bare = _bare(timetable, rows, said)
    return Portrait(**bare, zone=_zone(timetable, bare["comfort"], bare["depth"], said))


def _bare(timetable: Timetable, rows: Sequence[int], said: Recommended) -> dict[str, Any]:
    """All but the zone, which needs the portraits of others."""
    stops = [timetable.stops[row] for row in rows]
    concerts = [stop for stop in stops if not stop.optional]
    count = len(concerts)
    by_day: dict[int, list[Stop]] = {}
    for stop in stops:
        by_day.setdefault(stop.day, []).append(stop)
    hops = [(a, b) for those in by_day.values() for a, b in pairwise(those)]
    walks = [max(0, int(timetable.walk[a.hall, b.hall])) if timetable.walk[a.hall, b.hall] != IMPASSABLE else 0 for a, b in hops]
    waits = [b.begins - a.ends - walk for (a, b), walk in zip(hops, walks, strict=True)]
    wholes = [max(stop.ends for stop in those) - those[0].begins for those in by_day.values()]
    music, walking, waiting, whole = sum(stop.minutes for stop in concerts), sum(walks), sum(waits), sum(wholes)
    changes = sum(a.hall != b.hall for a, b in hops)
    spent = music + walking + waiting
    artists, works = {name for stop in concerts for name in stop.artists}, {name for stop in concerts for name in stop.works}
    appearances = Counter(name for stop in concerts for name in set(stop.composers))
    genres = Counter(stop.genre for stop in concerts if stop.genre is not None)
    names, of_stop = composers(timetable)
    played = dict(zip(names, of_stop.sum(axis=0).tolist(), strict=True))
    rare = dict(zip(names, rarity(timetable).tolist(), strict=True))
    most_played = set(sorted(names, key=lambda name: (-played[name], name))[:MOST_PLAYED])
    programmes = Counter(stop.programme for stop in concerts if stop.programme is not None)
    all_genres = len({stop.genre for stop in timetable.stops if stop.genre is not None and not stop.optional})
    priced = sum(stop.price is not None for stop in concerts)
    cost = sum(stop.price or 0 for stop in stops)
    heard = sum(appearances.values())
    rare_share = _share(sum(times for name, times in appearances.items() if rare[name] >= RARE), heard)
    recommended_works = _share(len(works & said.works), len(works))
    genre_diversity = _entropy(genres) / math.log(all_genres) if all_genres > 1 else 0.0
    pains = WALK_COST * walking + WAIT_COST * waiting + CHANGE_COST * changes
    chosen = sum(stop.id in said.concerts for stop in concerts)
    density = _share(60 * count, whole)
    return {
        "days": len(by_day),
        "concerts": count,
        "events": len(stops) - count,
        "halls": len({stop.hall for stop in concerts}),
        "genres": len(genres),
        "artists": len(artists),
        "composers": len(appearances),
        "works": len(works),
        "programmes_twice": sum(times - 1 for times in programmes.values()),
        "family": sum(bool({"family", "children"} & set(stop.labels)) for stop in concerts),
        "recommended": chosen,
        "music": music,
        "walking": walking,
        "waiting": waiting,
        "whole": whole,
        "music_share": _share(music, spent),
        "walking_share": _share(walking, spent),
        "waiting_share": _share(waiting, spent),
        "longest_walk": max(walks, default=0),
        "longest_wait": max(waits, default=0),
        "longest_day": max(wholes),
        "begins": min(stop.begins for stop in stops),
        "ends": max(stop.ends for stop in stops),
        "concerts_a_day": _share(count, len(by_day)),
        "density": density,
        "cost": cost,
        "cost_a_concert": _share(cost, priced),
        "unpriced": count - priced,
        "changes": changes,
        "changes_a_concert": _share(changes, count),
        "works_a_concert": _share(sum(len(stop.works) for stop in concerts), count),
        "artists_a_concert": _share(sum(len(stop.artists) for stop in concerts), count),
        "most_played_share": _share(sum(times for name, times in appearances.items() if name in most_played), heard),
        "rare_share": rare_share,
        "recommended_artists": _share(len(artists & said.artists), len(artists)),
        "recommended_works": recommended_works,
        "genre_diversity": genre_diversity,
        "composers_balance": _entropy(appearances) / math.log(len(appearances)) if len(appearances) > 1 else float(bool(appearances)),
        "comfort": _share(music, music + pains),
        "depth": (rare_share + recommended_works + genre_diversity) / 3.0,
        "comfort_minutes": music - pains,
        "depth_points": sum(rare[name] for name in appearances) + RECOMMENDED_POINTS * chosen,
        "cluster": _cluster(density, genres, count),
        "labels": dict(sorted(Counter(label for stop in concerts for label in stop.labels).items())),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _entropy(counts: Counter[Any]) -> float:
    total = sum(counts.values())
    return -sum(times / total * math.log(times / total) for times in counts.values()) if total else 0.0


def _cluster(density: float, genres: Counter[str], concerts: int) -> str:
    pace = "calm" if density < _CALM else "dense" if density >= _DENSE else "even"
    most = genres.most_common(1)
    return f"{pace}, {most[0][0] if most and most[0][1] >= 0.6 * concerts else 'mixed'}"


def _by_labels(timetable: Timetable) -> Recommended:
    kept: Recommended | None = timetable._kept.get("recommended")
    if kept is None:
        kept = Recommended.of(timetable)
        timetable._kept["recommended"] = kept
    return kept


def _zone(timetable: Timetable, comfort: float, depth: float, said: Recommended) -> str:
    """By a fair sample of all routes of the timetable, drawn once."""
    from features.itinerary.search import Routes

    key = ("axes", said)
    axes = timetable._kept.get(key)
    if axes is None:
        sample = Routes(timetable).sample(_SAMPLE, _SEED)
        bare = [_bare(timetable, route, said) for route in sample]
        both = np.array([[one["comfort"], one["depth"]] for one in bare])
        axes = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-9)
        timetable._kept[key] = axes
    lean = float((comfort - axes[0][0]) / axes[1][0] - (depth - axes[0][1]) / axes[1][1])
    return "comfort" if lean > _LEANS else "depth" if lean < -_LEANS else "balance"
