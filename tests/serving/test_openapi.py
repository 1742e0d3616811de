"""Schemathesis over the whole OpenAPI document of a real server: no 5xx, every answer is one of those documented and fits its schema.

Each kind of caller goes through all phases: examples, coverage of the schemas' borders, fuzzing, and chains of calls along the
document's links. Seeds are fixed. Left out is one check, `positive_data_acceptance`: whether an id names an item, or a
kind belongs to a domain, no schema can say; such questions get 422 or 404 with the reason.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from configs.deployment import Deployment
from pipelines.serve import free_port
from serving.access.identity import ROLES, Role
from serving.access.secrets import Secrets
from serving.access.tokens import Tokens
from serving.accounts import Accounts
from serving.metrics import Metrics
from serving.ownership import Ownership
from serving.storage.database import Database, address
from tests.serving.itinerary_world import Season
from tests.serving.small_world import SmallWorld

ROOT = Path(__file__).resolve().parent.parent.parent

#: Requests are not counted against anybody: what 429 looks like is another test's subject.
_DEPLOYMENT = "limits: {person: 1000000, key: 1000000, credentials: 1000000, store: file}\naccess: {argon2_kib: 8192, argon2_passes: 1}\n"

#: Chains start at any POST; schemathesis would else start only where it finds the maker of every field that looks like an id.
_CHAINS = "[phases.stateful.inference]\nalgorithms = []\n\n[phases.stateful.generation]\nmax-examples = 40\n"

#: What refuses data that a schema forbids: schemathesis' own list, and 413, for a body of forbidden data may be too long as well.
_REFUSALS = '[checks.negative_data_rejection]\nexpected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415", "422", "429"]\n'

#: A stream of server-sent events has no end; tests/serving/test_notifications.py reads it.
_ENDLESS = "/v1/notifications/stream"


@dataclass(frozen=True)
class Running:
    address: str
    home: Path
    domain_file: Path


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, world: SmallWorld, yaml_file: Path, season: Season, season_yaml: Path
) -> Iterator[Running]:
    """The whole application under uvicorn, in a process of its own: a domain without an itinerary, and one with."""
    home = tmp_path_factory.mktemp("openapi") / "home"
    world.publish(home)
    season.publish(home)
    (home / "deployment.yaml").write_text(_DEPLOYMENT, encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "serving.api.plain:application", "--host", "127.0.0.1", "--port", str(port)]
    # An idle connection that the server closes at the moment the next request goes out looks like a crash to schemathesis, and ends
    # its chains of calls: uvicorn's five seconds are shorter than its longest thoughts.
    command += ["--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "120"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FACTOTUM_")}
    words = {"FACTOTUM_HOME": str(home)}
    words |= {"FACTOTUM_DOMAINS": f"{yaml_file},{season_yaml}", "FACTOTUM_DEPLOYMENT": str(home / "deployment.yaml")}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**kept, **words, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, process, home / "server.log")
            yield Running(address, home, yaml_file)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120.0
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text(errors="replace")[-4_000:]
        with suppress(OSError), urllib.request.urlopen(f"{address}/readyz", timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace")[-4_000:])


def explored(running: Running, folder: Path, headers: dict[str, str], examples: int, seed: int) -> None:
    """Every route in every phase. Fails with what schemathesis says."""
    found = _said(running, folder, headers, seed, ["--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(examples)])
    assert "Stateful" in found


def chained(running: Running, folder: Path, headers: dict[str, str], seed: int) -> None:
    """Calls that follow from each other, on the routes of a domain, where the document has links."""
    stateful = _said(running, folder, headers, seed, ["--phases", "stateful", "--include-path-regex", r"^/v1/\{domain\}"])
    covered = int(stateful.split("API Links:")[1].split("covered")[0])
    assert covered > 0, f"no chain of calls was followed:\n{stateful}"


def _said(running: Running, folder: Path, headers: dict[str, str], seed: int, words: list[str]) -> str:
    (folder / "schemathesis.toml").write_text(f"{_CHAINS}\n{_REFUSALS}", encoding="utf-8")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run"]
    command += [f"{running.address}/openapi.json", *words, "--exclude-path", _ENDLESS, "--exclude-checks", "positive_data_acceptance"]
    command += ["--seed", str(seed), "--generation-database", "none", "--continue-on-failure", "--no-shrink"]
    command += ["--no-color", "--warnings", "off", "--request-timeout", "30"]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout[-8_000:]}\n{done.stderr[-2_000:]}"
    return done.stdout


async def enrolled(home: Path, role: Role) -> str:
    """A token of a new account. Its session is not in the database, so that no call for ending sessions ends it."""
    deployment = Deployment.model_validate({"access": {"argon2_kib": 8_192, "argon2_passes": 1}})
    database, metrics = Database(address(home)), Metrics()
    secrets = Secrets.from_environment(home, "development")
    tokens = Tokens(secrets, deployment.access)
    accounts = Accounts(database, secrets, deployment, metrics, Ownership(database, secrets, deployment, metrics), tokens)
    try:
        made = await accounts.create(f"{role}@example.org", "a phrase that is long enough", role)
        assert made is not None
        return tokens.issue(made.account, os.urandom(16).hex(), role)[0]
    finally:
        await accounts.close()
        await database.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.xdist_group("openapi")
def test_nobody_in_particular(running: Running, tmp_path: Path) -> None:
    explored(running, tmp_path, {}, examples=6, seed=1)
    chained(running, tmp_path, {}, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.xdist_group("openapi")
@pytest.mark.parametrize("role", ROLES)
def test_somebody_with_a_token(running: Running, tmp_path: Path, role: Role) -> None:
    token = asyncio.run(enrolled(running.home, role))
    explored(running, tmp_path, {"Authorization": f"Bearer {token}"}, examples=3, seed=2)
