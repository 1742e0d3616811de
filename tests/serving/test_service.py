"""A replica: what it keeps current, what it answers when a part is late or away, what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from configs.deployment import Deployment
from features.tables import SCORED
from pipelines.servers import PostgresServer
from serving.engine import Engine
from serving.live import NotReadyError
from serving.recommender import Ask, LocalRecommender
from serving.service import Service, recommender_alone
from serving.slate import Slate
from serving.standing import Standing
from serving.storage.database import Database, now_us
from serving.storage.slates import Slates
from serving.storage.tables import StoredEvent, StoredItem
from tests.serving.callers import machine
from tests.serving.conftest import started
from tests.serving.small_world import GENRES, SmallWorld
from training import bundle


async def until(holds: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Waits for something that has to come true."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)


def likes(user: str, item: str, name: str, kind: str = "like") -> StoredEvent:
    return StoredEvent(name, user, item, kind, None, now_us())


def items_of(slate: Slate) -> list[str]:
    return [item.item for item in slate.items]


def test_making_a_service_touches_nothing(tmp_path: Path, yaml_file: Path) -> None:
    Service(tmp_path / "home", [str(yaml_file)], Deployment())
    assert list(tmp_path.iterdir()) == []


async def test_without_a_bundle_it_starts_and_says_so(
    tmp_path: Path, world: SmallWorld, yaml_file: Path, quick: Deployment, running: AsyncExitStack
) -> None:
    service, client = await started(Service(tmp_path, [str(yaml_file)], quick), running)
    with pytest.raises(NotReadyError):
        service.standing("anime")
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["parts"]["domains"]["anime"]["state"]) == (503, "missing")
    refused = await client.post("/v1/anime/recommendations", json={})
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    world.publish(tmp_path)
    await until(lambda: service.live.report()["anime"]["state"] == "ready")
    assert (await client.post("/v1/anime/recommendations", json={})).status_code == 200


async def test_an_event_changes_the_next_answer_here_and_soon_on_every_other_replica(
    home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment
) -> None:
    one, _ = await started(Service(home, [str(yaml_file)], quick), running)
    two, _ = await started(Service(home, [str(yaml_file)], quick), running)
    ask = Ask("anime", 5, user="1")
    first = items_of(await one.recommend(ask))
    assert items_of(await two.recommend(ask)) == first
    await one.record("anime", [likes("1", first[0], "e1")])
    assert first[0] not in items_of(await one.recommend(ask))
    sent = time.monotonic()

    async def crossed() -> bool:
        return first[0] not in items_of(await two.recommend(ask))

    await until(crossed)
    print(f"crossed after {time.monotonic() - sent:.3f} s")
    assert items_of(await one.recommend(ask)) == items_of(await two.recommend(ask))
    await two.record("anime", [likes("1", first[0], "e2", "undo")])
    assert first[0] in items_of(await two.recommend(ask))


@pytest.mark.postgres
async def test_the_same_over_postgresql(
    home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment, postgres: PostgresServer
) -> None:
    cleared = Database(postgres.url)
    async with cleared.writing() as connection:
        for table in (cleared.tables.events, cleared.tables.items, cleared.tables.slates):
            await connection.execute(table.delete())
    await cleared.close()
    there = quick.model_copy(update={"storage": quick.storage.model_copy(update={"url": postgres.url})})
    one, client = await started(Service(home, [str(yaml_file)], there), running)
    two, _ = await started(Service(home, [str(yaml_file)], there), running)
    await one.record("anime", [likes("pg", "1001", "pg1")])
    await until(lambda: "pg" in two.standing("anime").people)
    slate = (await client.post("/v1/anime/recommendations", json={"user_id": "pg"})).json()["slate"]
    await until(lambda: len(one.slates) == 0)
    stored = await two.find_slate("anime", slate)
    assert stored is not None
    assert stored.user == "pg"
    assert not (home / "factotum.db").exists()


async def test_a_slate_is_found_on_another_replica_at_once(home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment) -> None:
    service, one = await started(Service(home, [str(yaml_file)], quick), running)
    _, two = await started(Service(home, [str(yaml_file)], quick), running)
    key = await machine(service, "users:read")
    served = (await one.post("/v1/anime/recommendations", json={"user_id": "1", "k": 3})).json()
    found = await two.get(f"/v1/anime/slates/{served['slate']}", headers=key)
    assert found.status_code == 200
    assert found.json()["items"] == served["items"]


async def test_events_survive_a_restart(home: Path, yaml_file: Path, quick: Deployment) -> None:
    async with AsyncExitStack() as stack:
        service, _ = await started(Service(home, [str(yaml_file)], quick), stack)
        await service.record("anime", [likes("newcomer", "1003", "e1"), likes("1", "1003", "e2", "dislike")])
    async with AsyncExitStack() as stack:
        service, _ = await started(Service(home, [str(yaml_file)], quick), stack)
        state = service.standing("anime").people.state("newcomer")
        assert state is not None
        assert len(state) == 1
        assert await service.record("anime", [likes("newcomer", "1003", "e1")]) == set()
        again = service.standing("anime").people.state("newcomer")
        assert again is not None
        assert len(again) == 1


async def test_a_late_stamp_is_not_overlooked(home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment) -> None:
    """An event stamped before one that was already folded in, but visible only now, as when its writer was held up."""
    service, _ = await started(Service(home, [str(yaml_file)], quick), running)
    await service.record("anime", [likes("a", "1001", "e1")])
    with sqlite3.connect(home / "factotum.db") as connection:
        late = "insert into recommendations_events values ('anime', 'late', 'b', '1002', 'like', null, ?, ?)"
        connection.execute(late, (now_us(), now_us() - 5_000_000))
    await until(lambda: "b" in service.standing("anime").people)


async def test_what_the_bundle_already_holds_is_not_folded_twice(
    home: Path, world: SmallWorld, yaml_file: Path, running: AsyncExitStack, quick: Deployment
) -> None:
    service, _ = await started(Service(home, [str(yaml_file)], quick), running)
    await service.record("anime", [likes("old", "1001", "e1")])
    through = now_us() + 1
    await asyncio.sleep(0.01)
    await service.record("anime", [likes("new", "1001", "e2")])
    version = world.publish(home, events_through=through)
    await until(lambda: service.standing("anime").version == version)
    people = service.standing("anime").people
    assert ("old" in people, "new" in people) == (False, True)  # this bundle's histories were made without "old", on purpose


async def test_a_promoted_bundle_takes_over_with_everything_that_happened_since(
    home: Path, world: SmallWorld, yaml_file: Path, running: AsyncExitStack, quick: Deployment
) -> None:
    service, client = await started(Service(home, [str(yaml_file)], quick), running)
    before = service.standing("anime").version
    await service.record("anime", [likes("newcomer", "1002", "e1")])
    await service.add_item("anime", StoredItem("9001", "Added while serving", '{"genre": ["Comedy"]}', True))
    await service.record("anime", [likes("newcomer", "9001", "e2")])
    version = world.publish(home)
    failed: list[int] = []
    while service.standing("anime").version != version:
        answer = await client.post("/v1/anime/recommendations", json={"user_id": "newcomer"})
        failed += [answer.status_code] if answer.status_code != 200 else []
    assert failed == []
    assert before != version
    state = service.standing("anime").people.state("newcomer")
    assert state is not None
    assert service.standing("anime").engine.catalogue.ids.ids(state.items) == ["1002", "9001"]
    text = (await client.get("/metrics")).text
    assert f'version="{version}"' in text
    assert f'version="{before}"' not in text


@pytest.mark.parametrize("harm", ["changed", "missing", "no manifest"])
async def test_a_broken_bundle_is_refused_by_name_and_the_old_one_goes_on(
    harm: str, home: Path, world: SmallWorld, yaml_file: Path, running: AsyncExitStack, quick: Deployment
) -> None:
    service, client = await started(Service(home, [str(yaml_file)], quick), running)
    before = service.standing("anime").version
    version = world.publish(home, champion=False)
    folder = bundle.bundles_dir(home, "anime") / version
    bundle.point(home, "anime", "champion", version)
    victim = folder / ("manifest.json" if harm == "no manifest" else "histories/items.npy")
    # written again as a whole: the pointer may have been followed before the harm was done
    bundle.point(home, "anime", "champion", before)
    if harm == "changed":
        raw = bytearray(victim.read_bytes())
        raw[-1] ^= 1
        victim.write_bytes(raw)
        bundle.point(home, "anime", "champion", version)
    elif harm == "missing":
        victim.unlink()
        bundle.point(home, "anime", "champion", version)
    else:
        victim.unlink()
        (bundle.bundles_dir(home, "anime") / "champion").write_text(version + "\n")
    await until(lambda: "refused" in service.live.report()["anime"])
    said = (await client.get("/readyz")).json()
    refused = said["parts"]["domains"]["anime"]["refused"]
    assert said["status"] == "degraded"
    assert refused["version"] == version
    assert victim.name in refused["why"]
    answer = (await client.post("/v1/anime/recommendations", json={"user_id": "1"})).json()
    assert answer["model_version"] == before
    await asyncio.sleep(0.3)  # several looks later it has been tried once
    assert service.metrics.registry.get_sample_value("factotum_bundles_refused_total", {"domain": "anime"}) == 1
    whole = world.publish(home)
    await until(lambda: service.standing("anime").version == whole)
    assert "refused" not in service.live.report()["anime"]


async def test_an_item_added_here_is_known_there_and_can_be_recommended(
    home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment
) -> None:
    one, _ = await started(Service(home, [str(yaml_file)], quick), running)
    two, _ = await started(Service(home, [str(yaml_file)], quick), running)
    await one.add_item("anime", StoredItem("9001", "Comedy story 99", '{"genre": ["Comedy"], "type": "TV", "episodes": 2}', True))
    await one.record("anime", [likes("fan", "9001", "e1")])  # may reach the other replica before the item does
    await until(lambda: two.standing("anime").engine.catalogue.row("9001") is not None)
    await until(lambda: (state := two.standing("anime").people.state("fan")) is not None and len(state) == 1)
    row = two.standing("anime").engine.catalogue.row("1001")
    assert row is not None
    assert "9001" in [item.item for item in await two.similar("anime", row, 20)]


class _Broken:
    """A recommender that is late, or fails."""

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        self._seconds, self._error = seconds, error

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def recommend(self, ask: Ask) -> Slate:
        await asyncio.sleep(self._seconds)
        raise self._error or AssertionError("it should have been given up")


@pytest.mark.parametrize("broken", [_Broken(60.0), _Broken(0.0, RuntimeError("no memory"))], ids=["late", "broken"])
async def test_when_the_recommender_does_not_answer_the_popular_list_does(
    broken: _Broken, home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment
) -> None:
    service, _ = await started(Service(home, [str(yaml_file)], quick, broken), running)
    seen = service.standing("anime").people.state("1")
    assert seen is not None
    ask = Ask("anime", 8, user="1", filters={"genre": ("Comedy",)}, exclude=("1005",), deadline_s=0.1)
    slate = await service.recommend(ask)
    catalogue = service.standing("anime").engine.catalogue
    assert (slate.degraded, slate.mode, len(slate.items)) == (("recommender",), "popular", 8)
    assert "most popular" in slate.notes[0]
    rows = [catalogue.row(item) for item in items_of(slate)]
    assert all(row is not None and GENRES[row % 4] == "Comedy" and row not in seen.excluded for row in rows)
    assert "1005" not in items_of(slate)
    assert service.metrics.registry.get_sample_value("factotum_degraded_total", {"domain": "anime", "part": "recommender"}) == 1


async def test_the_latest_scored_file_comes_before_the_popular_list(
    home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment
) -> None:
    folder = home / "anime" / "scored"
    rows = [("1", "1059", 1, 0.99), ("1", "1002", 2, 0.9), ("1", "1006", 3, 0.8), ("1", "gone", 4, 0.7), ("2", "1010", 1, 0.9)]
    table = pa.table([list(column) for column in zip(*[(*row, "v7") for row in rows], strict=True)], schema=SCORED)
    for date in ("2026-01-01", "2026-01-02"):
        (folder / f"date={date}").mkdir(parents=True)
        pq.write_table(table if date.endswith("2") else table.slice(0, 0), folder / f"date={date}" / "part-0.parquet")
    (folder / "latest.json").write_text(json.dumps({"date": "2026-01-02", "version": "v7"}))
    service, _ = await started(Service(home, [str(yaml_file)], quick, _Broken(0.0, RuntimeError("away"))), running)
    slate = await service.recommend(Ask("anime", 4, user="1"))
    assert items_of(slate)[:2] == ["1002", "1006"]  # 1059 cannot be had any more
    assert (slate.mode, len(slate.items), slate.items[0].sources) == ("scored", 4, ("scored",))
    assert "2026-01-02" in slate.notes[0]
    assert "v7" in slate.notes[0]
    other = await service.recommend(Ask("anime", 4, user="3"))
    assert other.mode == "popular"


async def test_while_the_database_is_away_answers_go_on_and_writes_are_refused(
    home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment
) -> None:
    database = Database(f"sqlite+aiosqlite:///{home / 'factotum.db'}", wait_s=0.1)
    service, client = await started(Service(home, [str(yaml_file)], quick, database=database), running)
    event = {"event_id": "e1", "user_id": "x", "item_id": "1001", "kind": "like"}
    key = await machine(service, "users:read")
    assert (await client.get("/v1/anime/users/x", headers=key)).status_code == 404  # from now on the key is known here
    holder = sqlite3.connect(home / "factotum.db", isolation_level=None, check_same_thread=False)
    await asyncio.to_thread(holder.execute, "BEGIN EXCLUSIVE")  # a thread: whoever writes at the moment needs this loop to finish
    refused = await client.post("/v1/anime/events", json=event)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["content-type"] == "application/problem+json"
    assert (await client.get("/v1/anime/users/x", headers=key)).status_code == 404
    served = (await client.post("/v1/anime/recommendations", json={"user_id": "1"})).json()
    assert len(served["items"]) == 10
    assert (await client.get(f"/v1/anime/slates/{served['slate']}", headers=key)).status_code == 200  # from the spool
    holder.execute("COMMIT")
    holder.close()
    assert (await client.post("/v1/anime/events", json=event)).status_code == 200
    await until(lambda: len(service.slates) == 0)
    assert await Slates(database).find("anime", served["slate"]) is not None


@pytest.mark.postgres
async def test_it_starts_without_its_database_and_catches_up(
    home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment, postgres: PostgresServer
) -> None:
    there = quick.model_copy(update={"storage": quick.storage.model_copy(update={"url": postgres.url})})
    async with AsyncExitStack() as stack:
        service, _ = await started(Service(home, [str(yaml_file)], there), stack)
        await service.record("anime", [likes("patient", "1001", f"patient-{now_us()}")])
    postgres.stop()
    try:
        service, client = await started(Service(home, [str(yaml_file)], there, database=Database(postgres.url, wait_s=0.5)), running)
        assert (await client.post("/v1/anime/recommendations", json={"user_id": "1"})).status_code == 200
        said = (await client.get("/readyz")).json()
        assert (said["status"], said["parts"]["database"]["state"]) == ("degraded", "away")
        refused = await client.post("/v1/anime/events", json={"event_id": "e", "user_id": "x", "item_id": "1001", "kind": "like"})
        assert refused.status_code == 503
    finally:
        postgres.start()
    await until(lambda: "patient" in service.standing("anime").people)
    await until(lambda: service.live.database_away is None)
    assert (await client.get("/readyz")).json()["status"] == "ready"


async def test_a_replica_that_only_recommends_follows_the_events_too(
    home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment
) -> None:
    alone = recommender_alone(home, [str(yaml_file)], quick)
    service, _ = await started(Service(home, [str(yaml_file)], quick, alone), running)
    first = items_of(await service.recommend(Ask("anime", 5, user="1")))
    await service.record("anime", [likes("1", first[0], "e1")])
    assert alone.live is not service.live

    async def crossed() -> bool:
        return first[0] not in items_of(await service.recommend(Ask("anime", 5, user="1")))

    await until(crossed)


def test_folding_and_placing_from_several_threads_loses_nothing(home: Path) -> None:
    version = bundle.alias(home, "anime", "champion")
    assert version is not None
    standing = Standing(Engine(bundle.load(bundle.bundles_dir(home, "anime") / version)), settle_us=10_000_000)
    early = [StoredEvent(f"n{n}", "crowd", f"90{n:02}", "like", None, n, now_us()) for n in range(20)]  # of items that come later

    def fold(part: int) -> None:
        for n in range(100):
            standing.fold([StoredEvent(f"{part}-{n}", "crowd", str(1000 + n % 50), "click", None, n, now_us())])

    def place() -> None:
        for n in range(20):
            standing.place([StoredItem(f"90{n:02}", f"New {n}", "{}", True, now_us())])

    standing.fold(early)
    with ThreadPoolExecutor(5) as pool:
        work = [pool.submit(fold, part) for part in range(4)]
        work.append(pool.submit(place))
        for done in work:
            done.result()
    state = standing.people.state("crowd")
    assert state is not None
    assert len(state) == 420
    assert standing.fold(early) == 0


async def test_questions_answered_together_are_answered_as_alone(service: Service) -> None:
    asks = [Ask("anime", 5, user=str(1 + n), seed=1) for n in range(20)] + [Ask("anime", 3, history=("1001", "1005"), seed=1)]
    alone = [items_of(await service.recommend(ask)) for ask in asks]
    together = await asyncio.gather(*(service.recommend(ask) for ask in asks))
    assert [items_of(slate) for slate in together] == alone


async def test_one_bad_question_does_not_spoil_its_neighbours(service: Service) -> None:
    asks = [Ask("anime", 5, user="1", sources=("nonesuch",) if n == 3 else None) for n in range(8)]
    slates = await asyncio.gather(*(service.recommend(ask) for ask in asks))
    assert ["recommender" in slate.degraded for slate in slates] == [n == 3 for n in range(8)]


async def test_arms_of_an_experiment_change_what_they_say(
    tmp_path: Path, home: Path, world: SmallWorld, running: AsyncExitStack, quick: Deployment
) -> None:
    document = world.domain.model_dump(mode="json") | {
        "experiment": {"plain": {"share": 0.5}, "other": {"share": 0.5, "bundle": "challenger"}}
    }
    domain_path = tmp_path / "anime.yaml"
    await asyncio.to_thread(domain_path.write_text, yaml.safe_dump(document))
    changed = SmallWorld(
        world.domain.model_validate(document),
        *[getattr(world, n) for n in ("catalogue", "users", "histories", "models", "ranker")],
    )
    champion = changed.publish(home)
    challenger = changed.publish(home, champion=False)
    bundle.point(home, "anime", "challenger", challenger)
    service, _ = await started(Service(home, [str(domain_path)], quick), running)
    slates = [await service.recommend(Ask("anime", 3, user=str(n))) for n in range(1, 40)]
    assert {(slate.variant, slate.version) for slate in slates} == {("plain", champion), ("other", challenger)}


async def test_stopping_writes_the_slates_and_removes_its_figures(home: Path, yaml_file: Path, quick: Deployment) -> None:
    async with AsyncExitStack() as stack:
        service, client = await started(Service(home, [str(yaml_file)], quick), stack)
        served = [(await client.post("/v1/anime/recommendations", json={"user_id": "1"})).json()["slate"] for _ in range(3)]
    with sqlite3.connect(home / "factotum.db") as connection:
        assert {row[0] for row in connection.execute("select slate from recommendations_slates")} == set(served)
    assert list((home / "metrics").iterdir()) == []
    assert isinstance(service.recommender, LocalRecommender)


async def test_two_replicas_show_each_others_figures(home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment) -> None:
    one, client = await started(Service(home, [str(yaml_file)], quick), running)
    two, other = await started(Service(home, [str(yaml_file)], quick), running)
    two.metrics.replica, two.noticeboard._mine = "two", home / "metrics" / "two.prom"  # both live in this process here
    await other.get("/top")
    two.noticeboard.write()
    text = (await client.get("/metrics")).text
    assert 'factotum_requests_total{method="GET",route="/top",status="200",replica="two"} 1.0' in text
    assert f'replica="{one.metrics.replica}"' in text
    assert text.count("# TYPE factotum_requests_total counter") == 1


def test_the_same_home_can_be_copied(home: Path, tmp_path: Path) -> None:
    """A bundle names no place outside of itself."""
    shutil.copytree(home, tmp_path / "elsewhere")
    version = bundle.alias(tmp_path / "elsewhere", "anime", "champion")
    assert version is not None
    shutil.rmtree(home)
    assert bundle.load(bundle.bundles_dir(tmp_path / "elsewhere", "anime") / version).version == version
