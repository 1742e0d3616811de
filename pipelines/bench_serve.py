"""The load benchmark: what the running application does on this machine, printed with the machine.

It starts the application as `factotum serve` does, on a port of its own, and loads it over HTTP; the same application under plain
uvicorn with as many processes is the measure of what Ray Serve costs. Server and generator share the machine's cores, so the
figures are what a small machine gives, not what the server alone could.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import configs
from configs.deployment import Deployment
from features.vocabulary import Vocabulary
from pipelines import memory, processes
from pipelines.load import Client, Outcome, closed_loop, open_loop
from pipelines.serve import free_port
from pipelines.steps import Reporter, write_json
from training import bundle

P99_LIMIT_MS = 100.0
GATEWAY = "Gateway"  # the deployment that serving/app.py puts in front
_PEOPLE = 400
_CLIENTS = 16
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Target:
    """A running application: its address, and the process above all of its processes."""

    host: str
    port: int
    pid: int

    def client(self) -> Client:
        return Client(self.host, self.port)


def run(home: Path, domain: str, reporter: Reporter, deployment: Deployment | None = None, seconds: float = 10.0) -> dict[str, Any]:
    """Measures the champion of a domain (its name, or the path of its YAML). `seconds`: of load, in each step.

    Raises FileNotFoundError if the domain has no champion, RuntimeError if the application does not start.
    """
    home = home.absolute()
    words = configs.load(domain)
    champion = bundle.alias(home, words.name, "champion")
    if champion is None:
        raise FileNotFoundError(f"{words.name} has no champion in {home}: `factotum run {domain}` makes one")
    deployment = deployment or Deployment()
    people = _people(home, words.name, champion)
    figures: dict[str, Any] = {"machine": machine(), "domain": words.name, "version": champion, "taken": datetime.now(UTC).isoformat()}
    reporter.step("bench serve")
    began = time.monotonic()
    with served(home, domain, deployment) as target:
        figures["start_s"] = round(time.monotonic() - began, 1)
        figures["at_rest"] = at_rest(target)
        reporter.say(f"ready after {figures['start_s']} s, {figures['at_rest']['mib']} MiB at rest")
        asks = requests(target, words.name, people)
        _settle(target, asks)
        figures["general_50"] = general(target, asks, 50.0, seconds).summary()
        reporter.say(_line("general, 50 requests a second", figures["general_50"]))
        figures["maximum"] = maximum(target, asks, seconds / 2)
        reporter.say(f"highest rate with p99 <= {P99_LIMIT_MS:.0f} ms: {figures['maximum']['rate']} requests a second")
        figures["general_closed"] = closed(target, asks, seconds)
        reporter.say(_line(f"general, {_CLIENTS} callers", figures["general_closed"]))
        top = [call.path for call in words.calls if call.answers == "popular"]
        if top:
            figures["top_closed"] = closed(target, [target.client().request("GET", top[0])], seconds)
            reporter.say(_line(f"{top[0]}, {_CLIENTS} callers", figures["top_closed"]))
        figures["promotion"] = promotion(target, asks, home, words.name, seconds)
        reporter.say(f"promotion under load: {figures['promotion']['failed']} of {figures['promotion']['asked']} failed")
        figures["killed_replica"] = killed_replica(target, asks, 2 * seconds)
        killed = figures["killed_replica"]
        reporter.say(f"kill -9 of a replica under load: {killed['failed']} of {killed['asked']} failed")
        ended = time.monotonic()
    figures["end_s"] = round(time.monotonic() - ended, 1)
    with plain(home, domain, deployment.replicas.gateways) as target:
        asks = requests(target, words.name, people)
        _settle(target, asks)
        figures["plain_closed"] = closed(target, asks, seconds)
        reporter.say(_line(f"plain uvicorn, {_CLIENTS} callers", figures["plain_closed"]))
    figures["share_of_plain"] = round(figures["general_closed"]["rate"] / max(figures["plain_closed"]["rate"], 0.1), 3)
    return figures


def table(figures: dict[str, Any]) -> list[str]:
    """The figures for people, each with what it should reach."""
    rest, rate50, closed_, killed = (figures[name] for name in ("at_rest", "general_50", "general_closed", "killed_replica"))
    top = figures.get("top_closed")
    rows = [
        ("general, 50 requests a second: p50", f"{rate50['p50_ms']} ms", "<= 10 ms"),
        ("general, 50 requests a second: p99", f"{rate50['p99_ms']} ms", "<= 40 ms"),
        (f"requests a second with p99 <= {P99_LIMIT_MS:.0f} ms", f"{figures['maximum']['rate']}", ">= 250"),
        (f"general, {_CLIENTS} callers: requests a second", f"{closed_['rate']}", ""),
        ("the same under plain uvicorn", f"{figures['plain_closed']['rate']}", ""),
        ("share of plain uvicorn", f"{figures['share_of_plain']}", ">= 0.8"),
        *([("the top list: requests a second", f"{top['rate']}", ">= 1500")] if top else []),
        ("failed during a promotion", f"{figures['promotion']['failed']} of {figures['promotion']['asked']}", "0"),
        ("failed after kill -9 of a replica", f"{killed['failed']} of {killed['asked']}", ""),
        ("seconds until as many replicas run again", f"{killed['replaced_after_s']}", ""),
        ("memory at rest (PSS)", f"{rest['mib']} MiB", "<= 3072 MiB"),
        ("start, and end after Ctrl-C", f"{figures['start_s']} s, {figures['end_s']} s", "<= 45 s, <= 15 s"),
    ]
    head = [f"{name}: {value}" for name, value in figures["machine"].items()]
    return [*head, "", *(f"{name:48} {value:>18}   {goal}".rstrip() for name, value, goal in rows)]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    load = f"{os.getloadavg()[0]:.1f}"
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ray": version("ray"),
        "load_before": load,  # what else the machine was doing
    }


# ---------------------------------------------------------------- steps


def requests(target: Target, domain: str, people: Sequence[str]) -> list[bytes]:
    client = target.client()
    return [client.request("POST", f"/v1/{domain}/recommendations", {"user_id": person, "k": 10}) for person in people]


def general(target: Target, asks: Sequence[bytes], rate: float, seconds: float) -> Outcome:
    return loaded(target, lambda client: open_loop(client, asks, rate, seconds))


def closed(target: Target, asks: Sequence[bytes], seconds: float) -> dict[str, Any]:
    return loaded(target, lambda client: closed_loop(client, asks, _CLIENTS, seconds)).summary()


def maximum(target: Target, asks: Sequence[bytes], seconds: float, first: float = 100.0, step: float = 1.25) -> dict[str, Any]:
    """The highest rate tried at which nothing failed and p99 stayed within the limit, rising by `step` and then once halving the gap."""
    tried: list[dict[str, Any]] = []

    def holds(rate: float) -> bool:
        outcome = general(target, asks, rate, seconds)
        tried.append({"offered": round(rate, 1), **outcome.summary()})
        return outcome.failed == 0 and outcome.percentile(0.99) <= P99_LIMIT_MS

    good, bad, rate = 0.0, 0.0, first
    while rate < 20_000:
        if holds(rate):
            good, rate = rate, rate * step
        else:
            bad = rate
            break
    while good == 0.0 and bad > 5.0:  # not even the first: look below it
        bad /= 2
        if holds(bad):
            good, bad = bad, bad * 2
    if good and bad and holds((good + bad) / 2):
        good = (good + bad) / 2
    return {"rate": round(good, 1), "tried": tried}


def promotion(target: Target, asks: Sequence[bytes], home: Path, domain: str, seconds: float) -> dict[str, Any]:
    """Points the champion at another version while 50 requests a second come in, and back. The version is a copy of the champion."""
    before = bundle.alias(home, domain, "champion")
    assert before is not None
    other = bundle.new_version()
    folder = bundle.bundles_dir(home, domain)
    shutil.copytree(folder / before, folder / other)
    manifest = json.loads((folder / other / "manifest.json").read_text(encoding="utf-8"))
    write_json(folder / other / "manifest.json", {**manifest, "version": other})

    async def both(client: Client) -> tuple[Outcome, set[str]]:
        load = asyncio.create_task(open_loop(client, asks, 50.0, seconds))
        await asyncio.sleep(seconds / 4)
        bundle.point(home, domain, "champion", other)
        seen: set[str] = set()
        while not load.done():
            with suppress(OSError, TimeoutError, ValueError, KeyError):
                seen.add(str(json.loads((await client.ask(asks[0])).body)["model_version"]))
            await asyncio.sleep(0.1)
        return await load, seen

    try:
        outcome, seen = loaded(target, both)
    finally:
        bundle.point(home, domain, "champion", before)
    time.sleep(3.0)  # replicas go back before the copy is taken away
    shutil.rmtree(folder / other, ignore_errors=True)
    return {**outcome.summary(), "changed": other in seen}


def killed_replica(target: Target, asks: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """kill -9 of one gateway replica while 50 requests a second come in."""
    first = replicas(target.pid)
    if not first:
        return {"asked": 0, "failed": 0, "replaced_after_s": None}

    async def both(client: Client) -> tuple[Outcome, float | None]:
        load = asyncio.create_task(open_loop(client, asks, 50.0, seconds))
        await asyncio.sleep(seconds / 6)
        os.kill(first[0], signal.SIGKILL)
        killed, replaced = time.monotonic(), None
        while not load.done():
            if replaced is None and len(set(replicas(target.pid)) - {first[0]}) >= len(first):
                replaced = time.monotonic() - killed
            await asyncio.sleep(0.25)
        return await load, replaced

    outcome, replaced = loaded(target, both)
    return {**outcome.summary(), "replaced_after_s": None if replaced is None else round(replaced, 1)}


def at_rest(target: Target) -> dict[str, Any]:
    """PSS of the whole tree in MiB, after a moment without requests."""
    time.sleep(3.0)
    parts = memory.tree(target.pid)
    by_name: dict[str, int] = {}
    for pid, size in parts.items():
        name = memory.name(pid)
        by_name[name] = by_name.get(name, 0) + size
    return {"mib": round(sum(parts.values()) / 2**20), "parts_mib": {name: round(size / 2**20) for name, size in sorted(by_name.items())}}


# ---------------------------------------------------------------- applications


@contextmanager
def served(home: Path, domain: str, deployment: Deployment, environment: Mapping[str, str] | None = None) -> Iterator[Target]:
    """The application on Ray Serve, on a free port of the loopback interface; ended as Ctrl-C ends it. `environment`: beside our own."""
    port = free_port()
    http = deployment.http.model_copy(update={"host": "127.0.0.1", "port": port})
    said = {
        "home": str(home),
        "domains": [domain],
        "deployment": deployment.model_copy(update={"http": http}).model_dump(mode="json"),
        "quiet": True,
        "json": False,
    }
    with _program([sys.executable, "-m", "pipelines.serve", json.dumps(said)], dict(environment or {}), home, "serve") as process:
        yield _ready(Target("127.0.0.1", port, process.pid), process)


@contextmanager
def plain(home: Path, domain: str, workers: int) -> Iterator[Target]:
    """The same application under uvicorn alone."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "serving.api.plain:application", "--host", "127.0.0.1", "--port", str(port)]
    words = {"FACTOTUM_HOME": str(home), "FACTOTUM_DOMAINS": domain, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    arguments = ["--workers", str(workers), "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    with _program([*command, *arguments], words, home, "plain") as process:
        yield _ready(Target("127.0.0.1", port, process.pid), process)


@contextmanager
def _program(command: Sequence[str], words: dict[str, str], home: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    here = str(Path(__file__).resolve().parent.parent)
    (home / "bench").mkdir(parents=True, exist_ok=True)
    with (home / "bench" / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": here, **words}, stdout=log, stderr=log, cwd=here)
        try:
            yield process
        finally:
            below = processes.descendants(process.pid)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            processes.send(below, signal.SIGKILL)


def _ready(target: Target, process: subprocess.Popen[bytes], patience_s: float = 180.0) -> Target:
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the application ended while it started (exit code {process.returncode})")
        with suppress(OSError), urllib.request.urlopen(f"http://{target.host}:{target.port}/readyz", timeout=2.0) as answer:
            if answer.status == 200:
                return target
        time.sleep(0.2)
    raise RuntimeError(f"the application was not ready after {patience_s:.0f} s")


def replicas(pid: int) -> list[int]:
    names = {process.pid: memory.name(process.pid) for process in processes.descendants(pid)}
    return [pid for pid, name in names.items() if name.startswith("ray::ServeReplica") and name.endswith(GATEWAY)]


def _people(home: Path, domain: str, champion: str) -> list[str]:
    users = Vocabulary.load(bundle.bundles_dir(home, domain) / champion / "users")
    rows = np.random.default_rng(5).permutation(len(users))[:_PEOPLE]
    return users.ids(int(row) for row in rows)


def _settle(target: Target, asks: Sequence[bytes]) -> None:
    """Everything warm: code paths, caches, connections, every replica."""
    loaded(target, lambda client: closed_loop(client, asks, 4, 3.0))


def loaded(target: Target, work: Callable[[Client], Awaitable[_Result]]) -> _Result:
    import uvloop

    async def within() -> _Result:
        client = target.client()
        try:
            return await work(client)
        finally:
            client.close()

    return uvloop.run(within())


def _line(what: str, summary: dict[str, Any]) -> str:
    return f"{what}: {summary['rate']}/s, p50 {summary['p50_ms']} ms, p99 {summary['p99_ms']} ms, {summary['failed']} failed"
