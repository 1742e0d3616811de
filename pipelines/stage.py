"""What the benchmarks of faults and of endurance stand on: a home of their own with a copy of the champion, the servers that production
has (PostgreSQL, Redis, librdkafka's mock broker in Kafka's place) or what is there with nothing installed, the application on Ray Serve
with two gateways, accounts with tokens, and a machine's key that the limit exempts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import configs
from configs.deployment import Deployment
from configs.domain import Domain
from features.state import Means
from pipelines.bench_serve import Target, served
from pipelines.load import Client
from pipelines.mix import Mix, Person
from pipelines.servers import MockKafka, PostgresServer, RedisServer
from pipelines.steps import Reporter
from serving.access.secrets import Secrets
from serving.access.tokens import Tokens
from serving.accounts import Accounts
from serving.engine import Engine
from serving.metrics import Metrics
from serving.ownership import Ownership
from serving.standing import Standing
from serving.storage.database import Database, address
from training import bundle

GATEWAYS = 2
SCOPES = ("recommend", "events:write", "users:read", "limits:exempt")
_PEOPLE = 400
_TOKEN_MINUTES = 600.0  # longer than any run: what is measured is not the refreshing of tokens


@dataclass(frozen=True)
class Stage:
    home: Path
    domain: Domain
    target: Target
    database_url: str
    postgres: PostgresServer | None
    redis: RedisServer | None
    kafka: MockKafka | None
    standing: Standing
    people: tuple[str, ...]
    persons: tuple[Person, ...]
    key: str

    @property
    def parts(self) -> str:
        return "PostgreSQL, Redis, librdkafka's mock broker" if self.postgres is not None else "SQLite, in-process relay, counts in a file"

    def mix(self, client: Client, label: str) -> Mix:
        """The usual questions. `label`: the beginning of its events' ids."""
        catalogue = self.standing.engine.catalogue
        items = [catalogue.ids.id(row) for row in range(len(catalogue)) if catalogue.available[row]]
        kinds = self.standing.engine.kinds
        codes = np.arange(len(kinds.names), dtype=np.int8)
        means = kinds.meanings(codes, np.full(len(codes), np.nan, dtype=np.float32))
        kind = next(name for name, meant in zip(kinds.names, means, strict=True) if meant & Means.SEEN)

        @cache
        def consumed(user: str) -> frozenset[str]:
            state = self.standing.people.state(user)
            return frozenset() if state is None else frozenset(catalogue.ids.ids(int(row) for row in state.excluded))

        return Mix(client, self.domain.name, self.people, consumed, items, kind, self.key, self.persons, label)


@contextmanager
def staged(home: Path, domain: str, persons: int, embedded: bool, reporter: Reporter) -> Iterator[Stage]:
    """Raises FileNotFoundError if the domain has no champion in `home`, ServerError if a server's programs are missing."""
    words = configs.load(domain)
    champion = bundle.alias(home, words.name, "champion")
    if champion is None:
        raise FileNotFoundError(f"{words.name} has no champion in {home}: `factotum run {domain}` makes one")
    with ExitStack() as stack:
        # a folder beside the user's temporary ones, open to be passed through: PostgreSQL runs as a user of its own where we are root
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="factotum-bench-", ignore_cleanup_errors=True)))
        folder.chmod(0o711)
        own = folder / "home"
        shutil.copytree(bundle.bundles_dir(home, words.name) / champion, bundle.bundles_dir(own, words.name) / champion)
        bundle.point(own, words.name, "champion", champion)
        environment: dict[str, str] = {}
        postgres, redis, kafka = None, None, None
        settings: dict[str, object] = {
            "replicas": {"gateways": GATEWAYS},
            "access": {"access_minutes": _TOKEN_MINUTES},
        }
        if not embedded:
            postgres, redis, kafka = PostgresServer(folder / "postgres"), RedisServer(folder / "redis"), MockKafka(folder / "kafka")
            for server in (postgres, redis, kafka):
                stack.callback(server.stop)
                server.start()
            environment = {
                "FACTOTUM_DATABASE_URL": postgres.url,
                "FACTOTUM_REDIS_URL": redis.url,
                "FACTOTUM_KAFKA_BROKERS": kafka.brokers,
            }
            settings["bus"] = {"kind": "kafka"}
        url = address(own, postgres.url if postgres is not None else "")
        accounts, key = asyncio.run(_enrolled(own, url, persons))
        reporter.say(f"{persons} accounts; a machine's key with {', '.join(SCOPES)}: the limit does not count it")
        standing = Standing(Engine(bundle.load(bundle.bundles_dir(own, words.name) / champion)), 0)
        everyone = standing.engine.users
        people = tuple(everyone.ids(range(min(len(everyone), _PEOPLE))))
        began = time.monotonic()
        deployment = Deployment.model_validate(settings)
        target = stack.enter_context(served(own, domain, deployment, environment))
        reporter.say(f"ready after {time.monotonic() - began:.1f} s")
        yield Stage(own, words, target, url, postgres, redis, kafka, standing, people, accounts, key)


async def _enrolled(home: Path, url: str, persons: int) -> tuple[tuple[Person, ...], str]:
    """Accounts with tokens, and a key, written as the application writes them."""
    deployment = Deployment.model_validate({"access": {"access_minutes": _TOKEN_MINUTES, "argon2_kib": 8_192, "argon2_passes": 1}})
    database, metrics = Database(url), Metrics()
    secrets = Secrets.from_environment(home, "development")
    tokens = Tokens(secrets, deployment.access)
    ownership = Ownership(database, secrets, deployment, metrics)
    accounts = Accounts(database, secrets, deployment, metrics, ownership, tokens)
    try:
        made = []
        for number in range(persons):
            entry = await accounts.register(f"person{number}@bench.example", f"a long phrase of number {number}", "bench")
            made.append(Person(entry.account, entry.access))
        _, raw = await accounts.keys.create("bench", SCOPES)
        return tuple(made), raw
    finally:
        await accounts.close()
        await database.close()
