"""What the tests of serving share: a trained small world, a home with its bundle, a running service, real servers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from configs.deployment import Deployment, Http
from pipelines.servers import MockKafka, PostgresServer, RedisServer
from serving.api.application import create_app
from serving.service import Service
from serving.storage.database import Database, address
from tests.serving.itinerary_world import Season, season_file, season_world
from tests.serving.small_world import SmallWorld, domain_file, small_world


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FACTOTUM_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def yaml_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return domain_file(tmp_path_factory.mktemp("domains"))


@pytest.fixture(scope="session")
def world(yaml_file: Path) -> SmallWorld:
    return small_world(yaml_file)


@pytest.fixture(scope="session")
def season_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return season_file(tmp_path_factory.mktemp("seasons"))


@pytest.fixture(scope="session")
def season(season_yaml: Path) -> Season:
    """A domain with an itinerary."""
    return season_world(season_yaml)


@pytest.fixture
def home(tmp_path: Path, world: SmallWorld) -> Path:
    """A home folder with one bundle in service."""
    world.publish(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def quick() -> Deployment:
    """A deployment that looks around often, so that tests need not wait long."""
    return Deployment.model_validate({"limits": {"store": "file"}, "storage": {"poll_ms": 50}, "poll_bundles_ms": 50, "drain_s": 3})


@pytest.fixture
async def running() -> AsyncIterator[AsyncExitStack]:
    """Services entered here are stopped at the end, newest first."""
    async with AsyncExitStack() as stack:
        yield stack


def unhurried(home: Path, yaml_file: Path, deployment: Deployment) -> Service:
    """A service of one domain that waits longer than others would: a busy machine is neither a late answer nor a database that is away."""
    patient = deployment.model_copy(update={"http": Http(timeout_s=120.0)})
    return Service(home, [str(yaml_file)], patient, database=Database(address(home), wait_s=60.0))


async def started(service: Service, stack: AsyncExitStack) -> tuple[Service, httpx.AsyncClient]:
    """The service with its application around it, and a client that calls it without a socket."""
    app = create_app(service)
    await stack.enter_async_context(app.router.lifespan_context(app))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test"))
    return service, client


@pytest.fixture
async def service(home: Path, yaml_file: Path, quick: Deployment, running: AsyncExitStack) -> Service:
    made, _ = await started(Service(home, [str(yaml_file)], quick), running)
    return made


@pytest.fixture
async def seated(
    tmp_path: Path, season: Season, season_yaml: Path, quick: Deployment, running: AsyncExitStack
) -> tuple[Service, httpx.AsyncClient]:
    """A service of the domain with an itinerary, and a client that calls it."""
    season.publish(tmp_path / "home")
    service, client = await started(unhurried(tmp_path / "home", season_yaml, quick), running)
    await service.itineraries.warmed()
    return service, client


@pytest.fixture
async def client(service: Service, running: AsyncExitStack) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    return await running.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    if not PostgresServer.found():
        pytest.skip("PostgreSQL's programs are not installed (Debian: apt install postgresql)")
    with tempfile.TemporaryDirectory(prefix="factotum-pg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """Shared: each test takes a numbered database (`url_of`) or a prefix of its own. A test that kills it starts it again."""
    if not RedisServer.found():
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    with tempfile.TemporaryDirectory(prefix="factotum-redis-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def kafka() -> Iterator[MockKafka]:
    """librdkafka's mock broker. Shared: each test takes topics and groups of its own. A test that pauses it resumes it."""
    if not MockKafka.found():
        pytest.skip("confluent-kafka is not installed (pip install factotum[kafka])")
    with tempfile.TemporaryDirectory(prefix="factotum-kafka-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        server = MockKafka(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Each test that asks for it runs on both databases, empty."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'events.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres").url
    made = Database(url, wait_s=5.0)  # a busy machine is not a database that is away
    await empty(made)
    yield made
    await made.close()


async def empty(database: Database) -> None:
    async with database.writing() as connection:
        for table in database.tables.metadata.sorted_tables:
            await connection.execute(table.delete())
