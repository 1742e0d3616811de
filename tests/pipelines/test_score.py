"""Answers made ahead are the answers that would have been given, and a killed run goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from configs.domain import Domain
from features.tables import SCORED
from pipelines import cluster
from pipelines import score as scoring
from pipelines.score import score
from serving import recommender
from serving.live import Live
from serving.metrics import Metrics
from serving.recommender import Ask, LocalRecommender
from serving.scored import ScoredFiles
from serving.slate import Slate
from serving.storage.database import Database, address
from serving.storage.interactions import Interactions
from serving.storage.tables import StoredEvent, StoredItem
from tests.pipelines.small_run import DEPLOYMENT, SILENT, SmallRun
from training import bundle
from training.bundle import BundleError

NOW = 1_752_000_000_000_000  # microseconds UTC, 2025-07-08
DATE = "date=2025-07-08"
K = 6


def happened(name: str, user: str, item: str, kind: str = "completed", value: float | None = 9.0) -> StoredEvent:
    return StoredEvent(name, user, item, kind, value, NOW - 5_000_000, 0)


async def _write(home: Path, events: list[StoredEvent], items: list[StoredItem]) -> None:
    database = Database(address(home))
    try:
        for item in items:
            await Interactions(database).put_item("anime", item)
        await Interactions(database).record_events("anime", events)
    finally:
        await database.close()


def rows(folder: Path) -> dict[str, list[tuple[str, float]]]:
    table = pq.read_table(sorted(folder.glob("part-*.parquet")))
    out: dict[str, list[tuple[str, float]]] = {}
    for row in table.sort_by([("user", "ascending"), ("rank", "ascending")]).to_pylist():
        out.setdefault(row["user"], []).append((row["item"], row["score"]))
        assert row["rank"] == len(out[row["user"]])
    return out


async def online(home: Path, domain: Domain, users: list[str]) -> dict[str, Slate]:
    """What the application answers, by the very object that answers in it."""
    database = Database(address(home))
    metrics = Metrics()
    answering = LocalRecommender(Live(home, {"anime": domain}, DEPLOYMENT, database, metrics), metrics, owns_live=True)
    await answering.start()
    try:
        await asyncio.sleep(0.5)
        return {user: await answering.recommend(Ask("anime", K, user=user, deadline_s=600.0)) for user in users}
    finally:
        await answering.stop()
        await database.close()


def test_everybody_gets_what_the_application_would_have_answered(small_run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    home, domain = small_run.home, small_run.domain
    opened = bundle.load(bundle.bundles_dir(home, "anime") / small_run.version)
    busy, fan = opened.users.id(3), opened.users.id(4)
    ids = opened.catalogue.ids
    cells = json.dumps({"genre": ["Comedy"], "type": "TV", "episodes": 12})
    seen = set(opened.histories.state(3).items.tolist())
    other = [ids.id(row) for row in range(80) if row not in seen][:4]
    asyncio.run(
        _write(
            home,
            [
                *(happened(f"e{number}", busy, item) for number, item in enumerate(other)),
                happened("n1", "newcomer", ids.id(0)),
                happened("n2", "newcomer", ids.id(1), "dislike", None),
                happened("s1", "onlooker", ids.id(0), "impression", None),
                happened("f1", fan, "fresh"),
            ],
            [StoredItem("fresh", "A fresh title", cells, True, 0)],
        )
    )
    said = score(domain, home, home / "anime" / "scored", DEPLOYMENT, SILENT, K, NOW)
    made = rows(Path(said["out"]))
    users = [*opened.users.ids(range(len(opened.users))), "newcomer", "onlooker"]
    assert set(made) == set(users)
    assert said["users"] == said["scored_now"] == len(users)
    monkeypatch.setattr(recommender, "now_us", lambda: NOW)
    answers = asyncio.run(online(home, domain, users))
    for user, slate in answers.items():
        assert [item for item, _ in made[user]] == [item.item for item in slate.items], user
        np.testing.assert_allclose([value for _, value in made[user]], [item.score for item in slate.items], atol=1e-5)
    assert not set(other) & {item for item, _ in made[busy]}
    assert ids.id(1) not in {item for item, _ in made["newcomer"]}
    assert made["newcomer"] != made["onlooker"]
    assert "fresh" not in {item for item, _ in made[fan]}
    # And what serving falls back on finds them.
    found = ScoredFiles(home, "anime").of(busy)
    assert found is not None
    assert list(zip(found.items, found.scores, strict=True)) == made[busy]
    assert (found.version, found.date) == (small_run.version, "2025-07-08")


def test_the_files_are_as_features_tables_says(small_run: SmallRun, tmp_path: Path) -> None:
    score(small_run.domain, small_run.home, tmp_path / "out", DEPLOYMENT, SILENT, K, NOW)
    part = tmp_path / "out" / DATE / "part-00000.parquet"
    assert pq.read_schema(part).equals(SCORED)
    users = pq.read_table(part, columns=["user"])["user"].to_pylist()
    assert users == sorted(users)
    latest = json.loads((tmp_path / "out" / "latest.json").read_text())
    assert (latest["date"], latest["version"]) == ("2025-07-08", small_run.version)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [DATE, "latest.json"]


@pytest.fixture
def many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SHARD_USERS", 90)


def made_at(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


def test_only_what_is_missing_is_made(small_run: SmallRun, tmp_path: Path, many_parts: None) -> None:
    first = score(small_run.domain, small_run.home, tmp_path / "out", DEPLOYMENT, SILENT, K, NOW)
    folder = tmp_path / "out" / DATE
    before, all_rows = made_at(folder), rows(folder)
    assert len(before) == 4
    again = score(small_run.domain, small_run.home, tmp_path / "out", DEPLOYMENT, SILENT, K, NOW + 1)
    assert (again["users"], again["scored_now"]) == (first["users"], 0)
    assert made_at(folder) == before
    (folder / "part-00002.parquet").unlink()
    assert score(small_run.domain, small_run.home, tmp_path / "out", DEPLOYMENT, SILENT, K, NOW + 2)["scored_now"] == 90
    after = made_at(folder)
    assert {name for name in after if after[name] != before[name]} == {"part-00002.parquet"}
    assert rows(folder) == all_rows  # as of the moment of the first run


class KilledError(RuntimeError):
    """What stands for the end of the process."""


def breaking(after: int) -> Any:
    def each(function: Any, work: list[Mapping[str, Any]], memory_bytes: int | None = None) -> Iterator[dict[str, Any]]:
        for number, piece in enumerate(work):
            if number == after:
                raise KilledError
            yield dict(function(piece))

    return each


def test_an_interrupted_run_goes_on_and_until_then_the_old_day_stands(
    small_run: SmallRun, tmp_path: Path, many_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    score(small_run.domain, small_run.home, out, DEPLOYMENT, SILENT, K, NOW)
    before, latest = made_at(out / DATE), (out / "latest.json").read_text()
    asyncio.run(_write(small_run.home, [happened("e1", "newcomer", "1")], []))
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "each", breaking(2))
        with pytest.raises(KilledError):
            score(small_run.domain, small_run.home, out, DEPLOYMENT, SILENT, K, NOW + 10)
    assert made_at(out / DATE) == before  # the same day is being made again: readers go on with what they have
    assert (out / "latest.json").read_text() == latest
    (half,) = out.glob(".date=*")
    had = made_at(half)
    assert len(had) == 2
    said = score(small_run.domain, small_run.home, out, DEPLOYMENT, SILENT, K, NOW + 20)
    assert said["users"] == said["scored_now"] + 180
    after = made_at(out / DATE)
    assert {name: after[name] for name in had} == had
    assert json.loads((out / "latest.json").read_text())["mark"] != json.loads(latest)["mark"]
    assert list(out.glob(".date=*")) == []
    assert "newcomer" in rows(out / DATE)


def test_serving_finds_a_day_that_was_made_again(small_run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    out = small_run.home / "anime" / "scored"
    score(small_run.domain, small_run.home, out, DEPLOYMENT, SILENT, K, NOW)
    files = ScoredFiles(small_run.home, "anime")
    assert files.of("newcomer") is None
    asyncio.run(_write(small_run.home, [happened("e1", "newcomer", "1")], []))
    score(small_run.domain, small_run.home, out, DEPLOYMENT, SILENT, K, NOW + 10)
    files._looked = float("-inf")  # five seconds later
    found = files.of("newcomer")
    assert found is not None
    assert len(found.items) == K


def test_without_a_champion_there_is_nothing_to_score_with(small_run: SmallRun, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="anime has no champion yet: `factotum run anime` makes one"):
        score(small_run.domain, tmp_path / "empty", tmp_path / "out", DEPLOYMENT, SILENT)
