"""From raw files to a champion: what is done once is not done again, and what was interrupted goes on."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import configs
from configs.deployment import Deployment
from pipelines.evaluate import evaluate, read_report, table
from pipelines.featurize import featurize, load
from pipelines.ingest import ingest
from pipelines.publish import publish
from pipelines.recorded import live_events, recorded
from pipelines.run import events_through, run, sample_of, tables_of
from pipelines.steps import Reporter
from pipelines.train import Round, open_trained, train
from serving.engine import Engine
from serving.slate import Question
from serving.storage.database import Database, address
from serving.storage.interactions import Interactions
from serving.storage.tables import StoredEvent, StoredItem
from tests.pipelines.small_run import DEPLOYMENT, SILENT, SmallRun, yaml_file
from training import bundle

SOURCES = ("popular", "content", "als", "sasrec")


def test_the_run_ends_in_a_champion_that_answers(whole_run: SmallRun) -> None:
    home, domain = whole_run.home, whole_run.domain
    assert bundle.versions(home, "anime") == [whole_run.version]
    assert bundle.alias(home, "anime", "champion") == whole_run.version
    opened = bundle.load(bundle.bundles_dir(home, "anime") / whole_run.version)
    assert set(opened.models) == set(SOURCES)
    assert opened.manifest.ordered
    engine = Engine(opened)
    slates = engine.recommend([Question(engine.histories.state(user), 10, opened.manifest.moment) for user in range(20)])
    assert all(len(slate.items) == 10 for slate in slates)
    report = read_report(whole_run.step("evaluate"))
    assert opened.manifest.metrics == {name: row["NDCG@10"]["mean"] for name, row in report["rows"].items()}
    assert opened.domain == domain


def test_the_report_says_how_it_was_measured(whole_run: SmallRun) -> None:
    report = read_report(whole_run.step("evaluate"))
    assert report["protocol"].startswith("split by time")
    assert report["ordered"] is True
    assert set(report["rows"]) == {"two-stage", *SOURCES}
    for row in report["rows"].values():
        for metric in ("HR@10", "NDCG@10", "MAP@10", "MRR@10", "recall@10", "novelty", "diversity"):
            assert row[metric]["low"] <= row[metric]["mean"] <= row[metric]["high"]
            assert row[metric]["people"] == report["people"]
        assert 0.0 < row["coverage"] <= 1.0
    recall = report["candidates"]["recall"]
    assert recall["union"]["mean"] >= max(recall[name]["mean"] for name in SOURCES)
    assert set(report["against_popularity"]) == {"two-stage", *SOURCES} - {"popular"}
    lines = table(report)
    assert "split by time" in lines[0]
    assert lines[-1] == f"gate: {report['verdict']['why']}"


def test_the_report_is_what_the_engine_answers(whole_run: SmallRun) -> None:
    """Measured once more by hand: people asked one by one through the engine, their hits counted, ties against us."""
    domain, trained = whole_run.domain, open_trained(whole_run.step("train"), whole_run.domain, whole_run.home)
    from pipelines.train import statistics_of
    from serving.engine import EngineParts
    from training.split import targets

    part = trained.part("known")
    wanted = targets(trained.features.histories, trained.split.test, part.histories, len(trained.features.catalogue))
    parts = EngineParts(
        domain,
        trained.features.catalogue,
        statistics_of(domain, part, trained.features.catalogue),
        trained.models(domain, "known"),
        trained.ranker,
        "two-stage",
        "x",
    )
    hit = []
    for place, user in enumerate(wanted.users):
        question = Question(part.histories.state(int(user)), 10, part.moment, exploration=0.0)
        (ranking,) = parts.rank([question]).rankings
        theirs = np.isin(ranking.items, wanted.of(place))
        ahead = [int(((ranking.scores >= score) & ~theirs).sum()) for score in ranking.scores[theirs]]
        hit.append(any(before < 10 for before in ahead))
        (slate,) = parts.recommend([question])
        shown = {trained.features.catalogue.ids.row(item.item) for item in slate.items}
        assert hit[-1] <= bool(shown & set(wanted.of(place).tolist()))  # what is served is never worse than what is reported
    report = read_report(whole_run.step("evaluate"))
    assert len(hit) == report["people"]
    assert np.mean(hit) == pytest.approx(report["rows"]["two-stage"]["HR@10"]["mean"], abs=1e-6)


def test_nothing_of_the_test_window_was_known(whole_run: SmallRun) -> None:
    trained = open_trained(whole_run.step("train"), whole_run.domain, whole_run.home)
    rounds: tuple[Round, ...] = ("base", "known")
    for which in rounds:
        part = trained.part(which)
        assert part.histories.times.max() < part.moment
    assert trained.part("known").moment == trained.split.test_moment


def test_a_second_run_does_nothing_again(small_run: SmallRun) -> None:
    before = small_run.made()
    assert run(small_run.domain, None, small_run.home, DEPLOYMENT, SILENT) == small_run.version
    assert small_run.made() == before


def test_other_words_of_the_ranker_refit_no_source(small_run: SmallRun) -> None:
    before = small_run.made("fits", "featurize", "ingest")
    assert small_run.domain.ranker is not None
    words = small_run.domain.model_copy(update={"ranker": small_run.domain.ranker.model_copy(update={"trees": 5})})
    again = train(words, small_run.step("featurize"), small_run.home, SILENT)
    assert small_run.made("fits", "featurize", "ingest") == before
    ranker = open_trained(again, words, small_run.home).ranker
    assert ranker is not None
    assert ranker.trees <= 5


def test_other_words_of_one_source_refit_that_source_only(small_run: SmallRun) -> None:
    before = small_run.made("fits")
    als = small_run.domain.candidates["als"].model_copy(update={"iterations": 2})
    words = small_run.domain.model_copy(update={"candidates": {**small_run.domain.candidates, "als": als}})
    train(words, small_run.step("featurize"), small_run.home, SILENT)
    after = small_run.made("fits")
    assert {name: when for name, when in after.items() if name in before} == before
    fresh = {Path(name).parts[1].rsplit("-", 1)[0] for name in after if name not in before}
    assert fresh == {"als-base", "als-known", "als-all"}


def test_an_interrupted_training_goes_on_with_what_it_had(small_run: SmallRun) -> None:
    class Interrupting(Reporter):
        def say(self, text: str) -> None:
            if "fitted" in text:
                raise KeyboardInterrupt

    als = small_run.domain.candidates["als"].model_copy(update={"iterations": 3})
    content = small_run.domain.candidates["content"].model_copy(update={"dimensions": 9})
    words = small_run.domain.model_copy(update={"candidates": {**small_run.domain.candidates, "als": als, "content": content}})
    features, before = small_run.step("featurize"), small_run.made("fits")
    with pytest.raises(KeyboardInterrupt):
        train(words, features, small_run.home, Interrupting(quiet=True))
    had = {name: when for name, when in small_run.made("fits").items() if name not in before and name.endswith("DONE.json")}
    assert 1 <= len(had) < 6
    finished = train(words, features, small_run.home, SILENT)
    after = small_run.made("fits")
    assert {name: after[name] for name in had} == had
    assert len([name for name in after if name not in before and name.endswith("DONE.json")]) == 6
    assert open_trained(finished, words, small_run.home).ranker is not None


def test_without_times_the_report_says_unordered(whole_run: SmallRun, tmp_path: Path) -> None:
    sample = sample_of(whole_run.domain, whole_run.home, SILENT)
    data = tmp_path / "data"
    data.mkdir()
    (data / "anime.csv").write_bytes((sample / "anime.csv").read_bytes())
    with (sample / "animelist.csv").open(newline="") as file, (data / "animelist.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        for row in csv.reader(file):
            writer.writerow(row[:5])
    file_ = yaml_file(
        tmp_path / "words",
        candidates={"popular": {"model": "popularity"}, "content": {"model": "content", "dimensions": 8}},
        search={},
        calls=[],
        split={"test": 0.2, "label": 0.2},
    )
    domain = configs.load(str(file_))
    home = tmp_path / "home"
    version = run(domain, data, home, DEPLOYMENT, SILENT)
    report = json.loads((bundle.bundles_dir(home, "anime") / version / "report.json").read_text())
    assert report["protocol"].startswith("unordered")
    assert report["ordered"] is False
    assert report["people"] > 250  # everybody with three events and more has some held out
    assert report["cold_people"] == 0
    assert not bundle.load(bundle.bundles_dir(home, "anime") / version).manifest.ordered


# ------------------------------------------------------------ what was recorded while serving


def record(home: Path, events: list[StoredEvent], items: list[StoredItem]) -> None:
    async def write() -> None:
        database = Database(address(home))
        try:
            await Interactions(database).record_events("anime", events)
            for item in items:
                await Interactions(database).put_item("anime", item)
        finally:
            await database.close()

    asyncio.run(write())


def happened(name: str, user: str, item: str, kind: str = "completed", value: float | None = 9.0) -> StoredEvent:
    return StoredEvent(name, user, item, kind, value, 1_751_000_000_000_000, 0)


CELLS = json.dumps({"genre": ["Comedy"], "type": "TV", "episodes": 12})


def test_recorded_events_and_items_flow_into_the_next_run(small_run: SmallRun) -> None:
    first = load(small_run.step("featurize"), small_run.domain)
    known = first.users.id(0)
    seen = first.catalogue.ids.id(int(first.histories.state(0).items[0]))
    unseen = next(row for row in range(80) if row not in first.histories.state(0).items)
    item = first.catalogue.ids.id(unseen)
    record(
        small_run.home,
        [
            happened("e1", known, item),
            happened("e2", "newcomer", seen),
            happened("e3", known, "nowhere"),
            happened("e4", known, item, "no_kind"),
        ],
        [StoredItem("fresh", "A fresh title", CELLS, True, 0)],
    )
    before = small_run.step("ingest")
    tables, through = tables_of(small_run.domain, None, small_run.home, DEPLOYMENT, SILENT)
    assert tables != before
    said = recorded(small_run.home, "anime", DEPLOYMENT, frozenset(small_run.domain.events.kinds))
    assert through == said.through > 0
    assert len(said.events) == 3  # the kind that the domain does not have is left out
    again = load(featurize(small_run.domain, tables, small_run.home, SILENT), small_run.domain)
    row = again.users.row(known)
    assert row is not None
    assert unseen in again.histories.state(row).items
    assert again.users.row("newcomer") is not None
    assert again.catalogue.row("fresh") is not None
    assert again.catalogue.row("nowhere") is None
    assert len(again.users) == len(first.users) + 1
    assert again.histories.events == first.histories.events + 2
    assert tables_of(small_run.domain, None, small_run.home, DEPLOYMENT, SILENT) == (tables, through)  # and no further


def test_events_that_have_not_settled_wait_for_the_next_run(small_run: SmallRun) -> None:
    record(small_run.home, [happened("e1", "somebody", "1")], [])
    late = Deployment.model_validate({"storage": {"settle_s": 3_600}})
    kinds = frozenset(small_run.domain.events.kinds)
    assert recorded(small_run.home, "anime", late, kinds).through == 0
    assert len(recorded(small_run.home, "anime", DEPLOYMENT, kinds).events) == 1
    events, items = live_events(small_run.home, "anime", late, 0)
    assert ([event.event_id for event in events], items) == (["e1"], [])


def test_a_database_elsewhere_is_read_and_one_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    elsewhere = Deployment.model_validate({"storage": {"url": f"sqlite:///{tmp_path / 'elsewhere.sqlite'}", "settle_s": 0.001}})
    home = tmp_path / "home"
    home.mkdir()
    assert recorded(home, "anime", elsewhere, frozenset({"completed"})).through == 0
    assert live_events(home, "anime", elsewhere, 0) == ([], [])
    assert list(tmp_path.rglob("*.sqlite")) == []

    async def write() -> None:
        database = Database(address(home, elsewhere.storage.url))
        await Interactions(database).record_events("anime", [happened("e1", "u", "1")])
        await database.close()

    asyncio.run(write())
    assert len(recorded(home, "anime", elsewhere, frozenset({"completed"})).events) == 1
    assert len(live_events(home, "anime", elsewhere, 0)[0]) == 1


def test_a_bundle_says_which_events_are_inside_it_whatever_was_ingested_since(small_run: SmallRun) -> None:
    evaluated = small_run.step("evaluate")
    assert events_through(small_run.home, "anime", evaluated) == 0
    record(small_run.home, [happened("e1", "somebody", "1")], [])
    tables_of(small_run.domain, None, small_run.home, DEPLOYMENT, SILENT)  # read, but not trained on
    assert events_through(small_run.home, "anime", evaluated) == 0
    features = load(small_run.step("featurize"), small_run.domain)
    later = featurize(small_run.domain, small_run.step("ingest"), small_run.home, SILENT)
    assert len(load(later, small_run.domain).users) >= len(features.users)
    measured = evaluate(small_run.domain, train(small_run.domain, later, small_run.home, SILENT), small_run.home, SILENT)
    through = events_through(small_run.home, "anime", measured)
    assert through > 0
    version = publish(small_run.domain, measured, small_run.home, SILENT, through)
    assert bundle.read_manifest(bundle.bundles_dir(small_run.home, "anime") / version).events_through == through


def test_the_tables_hold_what_the_sample_holds(whole_run: SmallRun) -> None:
    step = whole_run.step("ingest")
    rows = sum(pq.read_metadata(part).num_rows for part in (step / "events").glob("part-*.parquet"))
    assert rows == json.loads((step / "report.json").read_text())["events"] > 5_000
    assert ingest(whole_run.domain, sample_of(whole_run.domain, whole_run.home, SILENT), whole_run.home, SILENT) == step
