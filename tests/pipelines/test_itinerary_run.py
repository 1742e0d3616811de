"""A season's whole run: timetable and bought routes come into the bundle; other ways make a bundle and no training. The basket and
own routes on the sample, by models that are quick to learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import configs
from configs.domain import Domain
from features.itinerary.chains import clashing
from features.itinerary.timetable import Timetable
from pipelines import samples
from pipelines.bench_basket import FOLDS, Baskets, basket_table, measure_basket
from pipelines.bench_own_routes import measure_own_routes, own_routes_table
from pipelines.featurize import load as load_features
from pipelines.run import newest, run
from pipelines.steps import upstream
from tests.pipelines.small_run import DEPLOYMENT, SILENT
from training import bundle

_WORDS = configs.load("festival")
QUICK: Domain = _WORDS.model_copy(
    update={
        "candidates": {name: _WORDS.candidates[name] for name in ("popular", "neighbours")},
        "search": {},
        "protocols": {},
        "ranker": None,
        "sample": _WORDS.sample.model_copy(update={"users": 150, "items": 30}),
    }
)


@pytest.fixture(scope="module")
def season(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Data, home and version of one run."""
    data, home = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("home")
    samples.make(QUICK.name, data, QUICK.sample)
    return data, home, run(QUICK, data, home, DEPLOYMENT, SILENT)


def opened(home: Path, version: str) -> bundle.Bundle:
    return bundle.load(bundle.bundles_dir(home, QUICK.name) / version)


def test_timetable_and_bought_routes_are_in_the_bundle(season: tuple[Path, Path, str]) -> None:
    _, home, version = season
    found = opened(home, version)
    assert {"timetable.json", "bought.json"} <= set(found.manifest.files)
    assert found.timetable is not None
    assert found.bought is not None
    assert found.bought.version == found.timetable.version
    assert sum(not stop.optional for stop in found.timetable.stops) == 30
    rows = [[found.timetable.rows[name] for name in ids] for ids in found.bought.stops]
    assert all(not clashing(found.timetable, route) for route in rows)
    assert found.bought.clashing.sum() > 0
    whole = found.histories.folded
    several = 0
    for user in range(len(found.histories)):
        days = {
            found.timetable.stops[found.timetable.rows[found.catalogue.ids.id(int(item))]].day for item in whole.items[whole.users == user]
        }
        several += len(days) > 1
    assert found.bought.people[-1] == several


def test_ways_alone_make_a_bundle_and_no_training(season: tuple[Path, Path, str], tmp_path: Path) -> None:
    data, home, version = season
    steps = {step: upstream(newest(home, QUICK.name, step)) for step in ("ingest", "featurize", "train", "evaluate")}
    assert run(QUICK, data, home, DEPLOYMENT, SILENT) == version
    heading, first, *others = (data / "transitions.csv").read_text(encoding="utf-8").splitlines()
    way, minutes = first.rsplit(",", 1)
    longer = "\n".join((heading, f"{way},{int(minutes) + 1}", *others, ""))
    (data / "transitions.csv").write_text(longer, encoding="utf-8")
    again = run(QUICK, data, home, DEPLOYMENT, SILENT)
    assert again != version
    assert {step: upstream(newest(home, QUICK.name, step)) for step in steps} == steps
    before, after = opened(home, version).timetable, opened(home, again).timetable
    assert before is not None
    assert after is not None
    assert int((after.walk - before.walk).sum()) == 1
    assert after.version != before.version  # other routes exist


def test_the_basket_and_own_routes(season: tuple[Path, Path, str]) -> None:
    _, home, _ = season
    features = load_features(newest(home, QUICK.name, "featurize"), QUICK)
    tables = newest(home, QUICK.name, "ingest")
    timetable = Timetable.of_json(json.loads((tables / bundle.TIMETABLE).read_text(encoding="utf-8")))
    baskets = Baskets(QUICK, features, timetable)
    assert {person.clashes for person in baskets.people} == {True, False}
    folds = baskets.folds(SILENT)
    for number, fold in enumerate(folds):
        users = [person.user for person in fold.people]
        assert not np.isin(fold.part.histories.users, users).any()  # nothing of theirs was learnt from
        assert users == [person.user for person, own in zip(baskets.people, baskets.fold, strict=True) if own == number]
    for place in range(len(baskets.people)):
        person, hidden = baskets.people[place], int(baskets.hidden[place])
        closed = set(baskets.closed(person, hidden).tolist())
        assert person.had[hidden] not in closed  # what is looked for can be found
        assert closed >= set(person.had) - {person.had[hidden]}
        if not person.clashes and len(person.had) > 1:
            rest = [int(baskets.stop[item]) for item in person.had if item != person.had[hidden]]
            free = [item for item in range(len(features.catalogue)) if item not in closed]
            assert all(not clashing(timetable, [*rest, int(baskets.stop[item])]) for item in free)
    report = measure_basket(baskets, folds, SILENT)
    assert report["people"] == sum(len(person.had) > 1 for person in baskets.people)
    assert set(report["rows"]) == {"popular", "neighbours"}
    assert 0 < report["random"]["all"]["HR@10"] < 1
    assert len(basket_table(report)) > 4
    own = measure_own_routes(baskets, folds, SILENT)
    days = [
        [int(baskets.stop[item]) for item in person.had if timetable.day[baskets.stop[item]] == day]
        for person in baskets.people
        for day in range(3)
    ]
    clashes = [bool(clashing(timetable, sorted(rows))) for rows in days if len(rows) >= 3]
    assert (own["days"], own["clashing_days"]) == (len(clashes), sum(clashes))
    assert 0 < own["clashing_days"] < own["days"] == own["routes"] + own["clashing_days"]
    said = f"{sum(clashes):,} of {len(clashes):,} such days clash ({sum(clashes) / len(clashes):.1%}: bought for several people)"
    assert said in own_routes_table(own)[0]
    for scope in own["among"].values():
        shares = [scope["all"][f"first {k:,}"]["score"]["mean"] for k in (10, 100, 1_000)]
        assert shares == sorted(shares)
    assert scope["all"]["first 1,000"]["random"] <= 1.0
    assert len(own_routes_table(own)) > 6
    assert len(folds) == FOLDS
