"""A replica while something it needs is away, hangs or comes back: real PostgreSQL and Redis, killed and stopped in the middle.

Every bound in here (`within`) is many times what is needed: it tells an answer from a hang, and times nothing.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from configs.deployment import Deployment
from pipelines.servers import PostgresServer, RedisServer
from serving.access.breakers import State
from serving.recommender import Ask, LateError
from serving.service import Service
from serving.slate import Slate
from serving.storage.database import Database
from tests.serving.callers import machine
from tests.serving.conftest import started
from tests.serving.test_service import until

_READS = [
    ("POST", "/v1/anime/recommendations", {"user_id": "1"}),
    ("POST", "/v1/anime/recommendations", {"history": ["1001", "1002"]}),
    ("POST", "/recommend_content_based", {"anime_id": 1001}),
    ("POST", "/recommend_collaborative", {"user_id": 1}),
    ("GET", "/top", None),
    ("GET", "/v1/anime/users/1", None),
]


@pytest.fixture
def postgres_of_mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that may be killed."""
    if not PostgresServer.found():
        pytest.skip("PostgreSQL's programs are not installed (Debian: apt install postgresql)")
    with tempfile.TemporaryDirectory(prefix="factotum-pg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def redis_of_mine(tmp_path: Path) -> Iterator[RedisServer]:
    if not RedisServer.found():
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def of_postgres(quick: Deployment, postgres_of_mine: PostgresServer) -> Deployment:
    return quick.model_copy(update={"storage": quick.storage.model_copy(update={"url": postgres_of_mine.url})})


async def within(seconds: float, answer: Awaitable[httpx.Response]) -> httpx.Response:
    async with asyncio.timeout(seconds):
        return await answer


def event(name: str) -> dict[str, str]:
    return {"event_id": name, "user_id": "writer", "item_id": "1001", "kind": "like"}


def states(ready: httpx.Response) -> dict[str, str]:
    return {name: said["state"] for name, said in ready.json()["parts"]["dependencies"].items()}


async def reads(client: httpx.AsyncClient, headers: dict[str, str]) -> list[httpx.Response]:
    """Each kind of question once."""
    return [await within(5.0, client.request(method, path, json=body, headers=headers)) for method, path, body in _READS]


async def whole(client: httpx.AsyncClient) -> bool:
    return bool((await client.get("/readyz")).json()["status"] == "ready")


@pytest.mark.postgres
@pytest.mark.parametrize("how", ["killed", "hanging"])
async def test_the_database_goes_in_the_middle_of_writes_and_comes_back(
    how: str, home: Path, yaml_file: Path, running: AsyncExitStack, of_postgres: Deployment, postgres_of_mine: PostgresServer
) -> None:
    database = Database(postgres_of_mine.url, wait_s=1.0)
    service, client = await started(Service(home, [str(yaml_file)], of_postgres, database=database), running)
    key = await machine(service, "users:read", "events:write", "limits:exempt")
    accepted: set[str] = set()
    refused: list[httpx.Response] = []
    writing = True

    async def write_on(writer: int) -> None:
        number = 0
        while writing:
            number += 1
            name = f"{writer}-{number}"
            answer = await within(15.0, client.post("/v1/anime/events", json=event(name), headers=key))
            if answer.status_code == 200:
                accepted.add(name)
            else:
                refused.append(answer)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for writer in range(3):
            group.create_task(write_on(writer))
        await until(lambda: len(accepted) > 20)
        assert await whole(client)
        if how == "killed":
            postgres_of_mine.kill()
        else:
            postgres_of_mine.pause()
        await until(lambda: service.breakers.state("database") == "open")
        answered = await reads(client, key)
        assert [answer.status_code for answer in answered] == [200] * len(_READS)
        assert all("database" in answer.headers["degraded"] for answer in answered)
        assert "database" in answered[0].json()["degraded"]
        slate = answered[0].json()["slate"]
        kept = await within(5.0, client.get(f"/v1/anime/slates/{slate}", headers=key))
        assert kept.status_code == 200  # from the spool
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["parts"]["dependencies"]["database"]["why"]
        during = len(accepted)
        await asyncio.sleep(0.5)
        assert len(accepted) == during  # nothing is said to be written that cannot be

        if how == "killed":
            await asyncio.to_thread(postgres_of_mine.start)
        else:
            postgres_of_mine.resume()
        await until(lambda: len(accepted) > during + 20, seconds=20.0)
        writing = False
    assert refused
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    await until(lambda: whole(client), seconds=20.0)
    assert states(await client.get("/readyz"))["database"] == "closed"
    assert not accepted - set(await service.interactions.event_ids_since("anime", 0))
    await until(lambda: len(service.slates) == 0)
    assert (await client.get(f"/v1/anime/slates/{slate}", headers=key)).json()["slate"] == slate  # from the database now
    healed = await reads(client, key)
    assert not any("degraded" in answer.headers for answer in healed)


_HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
held.execute("ROLLBACK")
"""


async def test_sqlite_locked_by_another_process(home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment) -> None:
    database = Database(f"sqlite+aiosqlite:///{home / 'factotum.db'}", wait_s=1.0)
    service, client = await started(Service(home, [str(yaml_file)], quick, database=database), running)
    key = await machine(service, "users:read", "events:write", "limits:exempt")
    assert (await client.post("/v1/anime/events", json=event("before"), headers=key)).status_code == 200
    command = [sys.executable, "-c", _HOLD, str(home / "factotum.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:  # noqa: ASYNC220 (it starts at once)
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        # all at once: none waits for those before it
        writes = [within(10.0, client.post("/v1/anime/events", json=event(f"during-{n}"), headers=key)) for n in range(30)]
        answers = await asyncio.gather(*writes)
        assert {answer.status_code for answer in answers} == {503}
        assert all(answer.headers["retry-after"] for answer in answers)
        assert [answer.status_code for answer in await reads(client, key)] == [200] * len(_READS)
        holder.stdin.close()
        await asyncio.to_thread(holder.wait)

    async def written() -> bool:
        return (await client.post("/v1/anime/events", json=event("after"), headers=key)).status_code == 200

    await until(written)
    assert set(await service.interactions.event_ids_since("anime", 0)) == {"before", "after"}


@pytest.mark.redis
@pytest.mark.parametrize("how", ["killed", "hanging"])
async def test_redis_goes_and_comes_back(
    how: str, home: Path, yaml_file: Path, running: AsyncExitStack, redis_of_mine: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTOTUM_REDIS_URL", redis_of_mine.url)
    there = Deployment.model_validate({"storage": {"poll_ms": 50}, "limits": {"key": 10_000}, "drain_s": 3})
    service, client = await started(Service(home, [str(yaml_file)], there), running)
    key = await machine(service, "users:read", "events:write")
    assert not any("degraded" in answer.headers for answer in await reads(client, key))
    assert {name: state for name, state in states(await client.get("/readyz")).items() if name in ("cache", "limiter")} == {
        "cache": "closed",
        "limiter": "closed",
    }
    if how == "killed":
        redis_of_mine.kill()
    else:
        redis_of_mine.pause()
    made = 0

    async def make() -> int:
        nonlocal made
        made += 1
        return made

    async def opened() -> bool:
        await service.levels.get("view", f"x{made}", make)
        answers = await reads(client, key)
        assert [answer.status_code for answer in answers] == [200] * len(_READS)
        assert all(answer.headers["degraded"] == "limits" for answer in answers)
        found: list[State] = [service.breakers.state(name) for name in ("cache", "limiter")]
        return "closed" not in found

    await until(opened, seconds=30.0)
    assert (await within(5.0, client.post("/v1/anime/events", json=event("meanwhile"), headers=key))).status_code == 200
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    if how == "killed":
        redis_of_mine.start()
    else:
        redis_of_mine.resume()
    await until(lambda: whole(client))
    assert not any("degraded" in answer.headers for answer in await reads(client, key))


@pytest.mark.redis
@pytest.mark.postgres
async def test_it_starts_without_anything_and_becomes_whole_by_itself(
    home: Path,
    yaml_file: Path,
    running: AsyncExitStack,
    of_postgres: Deployment,
    postgres_of_mine: PostgresServer,
    redis_of_mine: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FACTOTUM_REDIS_URL", redis_of_mine.url)
    postgres_of_mine.kill()
    redis_of_mine.kill()
    database = Database(postgres_of_mine.url, wait_s=1.0)
    deployment = of_postgres.model_copy(update={"limits": of_postgres.limits.model_copy(update={"store": "redis", "anonymous": 1_000})})
    service, client = await started(Service(home, [str(yaml_file)], deployment, database=database), running)
    answer = await within(5.0, client.post("/v1/anime/recommendations", json={"user_id": "1"}))
    assert (answer.status_code, len(answer.json()["items"])) == (200, 10)
    assert set(answer.headers["degraded"].split(",")) == {"database", "limits"}
    refused = await within(5.0, client.post("/v1/anime/events", json=event("too early")))
    assert refused.status_code == 503
    await asyncio.gather(asyncio.to_thread(postgres_of_mine.start), asyncio.to_thread(redis_of_mine.start))
    await until(lambda: whole(client), seconds=20.0)

    async def written() -> bool:
        return (await client.post("/v1/anime/events", json=event("now"))).status_code == 200

    await until(written)
    await until(lambda: len(service.slates) == 0)
    key = await machine(service, "users:read")
    slate = answer.json()["slate"]
    assert (await client.get(f"/v1/anime/slates/{slate}", headers=key)).json()["degraded"] == ["database"]


class _Port:
    """A recommender that can be made late."""

    def __init__(self, real: Callable[[Ask], Awaitable[Slate]]) -> None:
        self._real = real
        self.late, self.asked = False, 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def recommend(self, ask: Ask) -> Slate:
        self.asked += 1
        if self.late:
            raise LateError("no answer in time")
        return await self._real(ask)


async def test_a_recommender_that_is_late_again_and_again_is_left_alone(
    home: Path, yaml_file: Path, running: AsyncExitStack, quick: Deployment
) -> None:
    service, client = await started(Service(home, [str(yaml_file)], quick), running)
    port = _Port(service.recommender.recommend)
    behind, client = await started(Service(home, [str(yaml_file)], quick, recommender=port), running)
    question = {"user_id": "1", "k": 5}
    assert (await client.post("/v1/anime/recommendations", json=question)).json()["degraded"] == []
    port.late, port.asked = True, 0
    answers = [await client.post("/v1/anime/recommendations", json=question) for _ in range(40)]
    assert all(len(answer.json()["items"]) == 5 and answer.json()["degraded"] == ["recommender"] for answer in answers)
    assert {answer.headers["degraded"] for answer in answers} == {"recommender"}
    assert 5 <= port.asked < 40  # most were answered without asking
    assert states(await client.get("/readyz"))["recommender"] == "open"
    port.late = False

    async def healed() -> bool:
        return bool((await client.post("/v1/anime/recommendations", json=question)).json()["degraded"] == [])

    await until(healed)
    assert behind.breakers.state("recommender") == "closed"
