"""What the gate adds to a call, and whether fifty a minute are fifty.

Added: one process under uvicorn on the loopback interface holds one service and listens twice, once with everything that stands in front
of the routes (identity, limit, log, audit, metrics) and once with the routes alone. One caller asks in turns: routes alone, nobody's call,
a person's with a token, a machine's with a key. What a percentile has more than that of the routes alone is what the gate adds.

Exact: 5,000 calls by two people within a minute, spread evenly over one process or over three, for each place where the count can be.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets as chance
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import configs
from configs.deployment import Deployment
from pipelines.load import Client
from pipelines.serve import free_port
from pipelines.servers import RedisServer
from pipelines.steps import Reporter
from serving.access.secrets import Secrets
from serving.access.tokens import Tokens
from serving.accounts import Accounts
from serving.metrics import Metrics
from serving.ownership import Ownership
from serving.storage.database import Database, address
from training import bundle

CALLS = 5_000
PASS = 50  # a minute, each person
GOAL_MS = 2.0  # p95 that the gate may add
_ROUNDS = 3_000  # of one question in each way
_WARM = 300
_EACH = 8  # questions a person asks in a run: none comes to the limit
_CLIENTS = 16
_START_S = 120.0
WAYS = ("alone", "nobody", "token", "key")
STORES = ("process", "file", "redis")


@dataclass(frozen=True)
class Ports:
    full: int
    alone: int


def run(home: Path, domain: str, reporter: Reporter, rounds: int = _ROUNDS, calls: int = CALLS) -> dict[str, Any]:
    """Raises FileNotFoundError without a champion, RuntimeError if a process does not start. Without redis-server Redis is left out."""
    home = home.absolute()
    words = configs.load(domain)
    champion = bundle.alias(home, words.name, "champion")
    if champion is None:
        raise FileNotFoundError(f"{words.name} has no champion in {home}: `factotum run {domain}` makes one")
    reporter.step("bench gateway")
    item = bundle.load(bundle.bundles_dir(home, words.name) / champion).catalogue.ids.id(0)
    added: dict[str, Any] = {}
    exact: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="factotum-bench-", ignore_cleanup_errors=True)))
        redis = RedisServer(folder / "redis") if RedisServer.found() else None
        if redis is not None:
            stack.callback(redis.stop)
            redis.start()
        for store in STORES:
            if store == "redis" and redis is None:
                reporter.say("redis-server is not installed: left out")
                continue
            for processes in (1, 3):
                if store == "process" and processes > 1:
                    exact.append({"store": store, "processes": processes, "passed": None, "why": "refused by the configuration"})
                    continue
                own = folder / f"{store}-{processes}"
                own.mkdir()
                (own / words.name).symlink_to(home / words.name)
                settings = {"replicas": {"gateways": processes}, "limits": {"store": store, "person": PASS}}
                environment = {"FACTOTUM_REDIS_URL": redis.url_of(processes)} if redis is not None and store == "redis" else {}
                tokens, key = asyncio.run(_enrolled(own, _WARM // _EACH + rounds // _EACH + 4))
                with _processes(own, domain, settings, environment, processes) as ports:
                    if processes == 1:
                        added[store] = asyncio.run(_added(ports[0], f"/v1/{words.name}/items/{item}", tokens[2:], key, rounds))
                        reporter.say(f"{store}: a token adds {added[store]['added_ms']['token']['p95']} ms at p95")
                    figures = asyncio.run(_exact(ports, f"/v1/{words.name}", tokens[:2], calls))
                    exact.append({"store": store, "processes": processes, **figures})
                    reporter.say(f"{store}, {processes} processes: {figures['passed']} of {calls} passed in {figures['seconds']} s")
    return {"domain": words.name, "route": "GET /v1/{domain}/items/{item_id}", "rounds": rounds, "added": added, "exact": exact}


async def _enrolled(home: Path, persons: int) -> tuple[list[str], str]:
    """Access tokens of so many accounts, and a key that is exempt. The accounts are not written: the gate asks no database for a token."""
    deployment = Deployment.model_validate({"replicas": {"gateways": 1}})
    database, metrics = Database(address(home)), Metrics()
    secrets = Secrets.from_environment(home, "development")
    tokens = Tokens(secrets, deployment.access)
    accounts = Accounts(database, secrets, deployment, metrics, Ownership(database, secrets, deployment, metrics), tokens)
    try:
        _, key = await accounts.keys.create("bench", ("recommend", "limits:exempt"))
    finally:
        await accounts.close()
        await database.close()
    return [tokens.issue(chance.token_hex(16), chance.token_hex(16), "user")[0] for _ in range(persons)], key


# ---------------------------------------------------------------- what it adds


async def _added(ports: Ports, path: str, tokens: Sequence[str], key: str, rounds: int) -> dict[str, Any]:
    clients = {way: Client("127.0.0.1", ports.alone if way == "alone" else ports.full) for way in WAYS}
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    turns = np.random.default_rng(3)
    try:
        for number in range(_WARM + rounds):
            for way in turns.permutation(WAYS):
                who = {"token": {"Authorization": f"Bearer {tokens[number // _EACH]}"}, "key": {"X-API-Key": key}}.get(str(way))
                request = clients[way].request("GET", path, None, who)
                began = time.perf_counter()
                answer = await clients[way].ask(request)
                seconds = time.perf_counter() - began
                if answer.status != 200:
                    raise RuntimeError(f"{way}: {answer.status} {answer.body[:200]!r}")
                if number >= _WARM:
                    took[str(way)].append(seconds * 1e3)
        within = await _within(clients["nobody"])
    finally:
        for client in clients.values():
            client.close()
    shares = {"p50": 50, "p95": 95, "p99": 99}
    at = {way: {name: float(np.percentile(times, share)) for name, share in shares.items()} for way, times in took.items()}
    return {
        "ms": {way: {name: round(value, 3) for name, value in of.items()} for way, of in at.items()},
        "added_ms": {way: {name: round(at[way][name] - at["alone"][name], 3) for name in shares} for way in WAYS[1:]},
        "gate_seconds": within,
    }


async def _within(client: Client) -> dict[str, Any]:
    """The gate's own histogram of identity and limit: its mean, and the bound below which 95 % of the requests stayed."""
    text = (await client.ask(client.request("GET", "/metrics"))).body.decode()
    values: dict[str, float] = {}
    bounds: list[tuple[str, float]] = []
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("factotum_gate_seconds_bucket"):
            bounds.append((name.split('le="')[1].split('"')[0], float(value)))
        else:
            values[name.partition("{")[0]] = float(value) if name.startswith("factotum_gate_seconds") else 0.0
    count = values["factotum_gate_seconds_count"]
    p95 = next(bound for bound, value in bounds if value >= 0.95 * count)
    return {"requests": int(count), "mean_ms": round(values["factotum_gate_seconds_sum"] / count * 1e3, 3), "p95_at_most_s": p95}


# ---------------------------------------------------------------- whether it is exact


async def _exact(ports: Sequence[Ports], path: str, tokens: Sequence[str], calls: int) -> dict[str, Any]:
    clients = [Client("127.0.0.1", port.full) for port in ports]
    statuses: Counter[tuple[int, int]] = Counter()
    alone = 0  # answers for which the shared count was away, in the header Degraded
    waiting = iter(range(calls))
    start = time.monotonic()

    async def caller() -> None:
        nonlocal alone
        for number in waiting:
            person, client = number % 2, clients[number // 2 % len(clients)]
            answer = await client.ask(client.request("GET", path, None, {"Authorization": f"Bearer {tokens[person]}"}))
            statuses[person, answer.status] += 1
            alone += "limits" in (answer.header("degraded") or "")

    try:
        await asyncio.gather(*(caller() for _ in range(_CLIENTS)))
    finally:
        for client in clients:
            client.close()
    seconds = time.monotonic() - start
    return {
        "calls": calls,
        "passed": sum(count for (_, status), count in statuses.items() if status == 200),
        "each": [statuses[person, 200] for person in (0, 1)],
        "refused": sum(count for (_, status), count in statuses.items() if status == 429),
        "other": sum(count for (_, status), count in statuses.items() if status not in (200, 429)),
        "counted_alone": alone,
        "seconds": round(seconds, 1),
        "within_a_minute": seconds < 60.0,
    }


# ---------------------------------------------------------------- processes


@contextmanager
def _processes(home: Path, domain: str, settings: dict[str, Any], environment: dict[str, str], count: int) -> Iterator[list[Ports]]:
    """So many processes over one home, each on two ports of its own; ended when their input ends."""
    here = Path(__file__).resolve().parent.parent
    with ExitStack() as stack:
        made: list[tuple[subprocess.Popen[bytes], Ports]] = []
        for number in range(count):
            ports = Ports(free_port(), free_port())
            said = {"home": str(home), "domain": domain, "deployment": settings, "full": ports.full, "alone": ports.alone}
            log = stack.enter_context((home / f"process-{number}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.bench_gateway", json.dumps(said)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=here,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **environment},
            )
            stack.callback(_end, process)
            made.append((process, ports))
        for number, (process, _) in enumerate(made):
            assert process.stdout is not None
            if b"ready" not in process.stdout.readline():
                log_text = (home / f"process-{number}.log").read_text(errors="replace")[-2_000:]
                raise RuntimeError(f"a gateway did not start:\n{log_text}")
        yield [ports for _, ports in made]


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    try:
        process.wait(20.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """`python -m pipelines.bench_gateway JSON`: one service behind two ports, until the standard input ends."""
    import uvloop

    said = json.loads(sys.argv[1])
    return uvloop.run(_serve(said))


async def _serve(said: dict[str, Any]) -> int:
    import uvicorn

    from serving import logs
    from serving.api.application import create_app
    from serving.service import Service

    logs.setup()
    service = Service(Path(said["home"]), [said["domain"]], Deployment.model_validate(said["deployment"]))
    full, alone = create_app(service), create_app(service)
    alone.user_middleware.clear()
    servers = []
    running = []
    for app, port in ((full, said["full"]), (alone, said["alone"])):
        words = uvicorn.Config(app, "127.0.0.1", port, loop="none", http="httptools", access_log=False, log_level="warning")
        words.lifespan = "on" if app is full else "off"  # one service: the first starts and stops it
        server = uvicorn.Server(words)
        servers.append(server)
        running.append(asyncio.create_task(server.serve()))
        until = time.monotonic() + _START_S
        while not server.started and time.monotonic() < until and not running[-1].done():  # noqa: ASYNC110 (it has no event to wait for)
            await asyncio.sleep(0.02)
        if not server.started:
            return 1
    print("ready", flush=True)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()
    for server in reversed(servers):
        server.should_exit = True
    await asyncio.gather(*running)
    return 0


def table(figures: dict[str, Any]) -> list[str]:
    """The figures for people, each with what it should reach."""
    lines = [f"{name}: {value}" for name, value in figures["machine"].items()]
    lines += ["", f"{figures['route']}, {figures['rounds']} calls in each way, one caller, in turns; milliseconds"]
    lines.append(f"{'count kept in':14} {'call':>8} {'p50':>8} {'p95':>8} {'p99':>8}   {'added p50':>10} {'p95':>8} {'p99':>8}   goal")
    for store, of in figures["added"].items():
        for way in WAYS:
            at = "".join(f" {of['ms'][way][name]:8.3f}" for name in ("p50", "p95", "p99"))
            more = of["added_ms"].get(way)
            also = "" if more is None else f"   {more['p50']:10.3f} {more['p95']:8.3f} {more['p99']:8.3f}   p95 < {GOAL_MS:g}"
            lines.append(f"{store:14} {way:>8}{at}{also}")
        within = of["gate_seconds"]
        lines.append(f"{'':14} factotum_gate_seconds: mean {within['mean_ms']} ms, 95 % within {float(within['p95_at_most_s']) * 1e3:g} ms")
    lines += ["", f"calls by two people, {PASS} a minute allowed to each: 100 must pass"]
    for row in figures["exact"]:
        where = f"{row['store']}, {row['processes']} {'process' if row['processes'] == 1 else 'processes'}"
        if row["passed"] is None:
            lines.append(f"{where:24} {row['why']}")
            continue
        said = f"{row['passed']} passed {row['each']}, {row['refused']} refused, {row['other']} other, in {row['seconds']} s"
        if row["counted_alone"]:
            said += f"; for {row['counted_alone']} the shared count was away"
        lines.append(f"{where:24} {said}{'' if row['within_a_minute'] else ' (longer than the minute: says nothing)'}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
