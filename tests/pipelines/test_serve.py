"""The application as `factotum serve` runs it: Ray Serve, HAProxy and all, on a bundle of the small world."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.deployment import Deployment, Http, Replicas
from pipelines import memory, processes
from pipelines.load import Client, open_loop
from pipelines.serve import RECORD, PortTakenError, end_leftovers, free_port, port_free
from pipelines.steps import Reporter
from tests.serving.small_world import SmallWorld, domain_file, small_world

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 180.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SmallWorld]:
    folder = tmp_path_factory.mktemp("serve")
    file = domain_file(folder)
    return file, small_world(file)


class Running:
    """`python -m pipelines.serve` as a process, with what it printed."""

    def __init__(self, home: Path, domain: Path, layout: str = "packed") -> None:
        self.home, self.port = home, free_port()
        replicas = Replicas.model_validate({"layout": layout, "gateways": 2 if layout == "packed" else 1, "recommenders": 1, "cpus": 0.25})
        deployment = Deployment(http=Http(port=self.port), replicas=replicas)
        words = deployment.model_dump(mode="json")
        said = {"home": str(home), "domains": [str(domain)], "deployment": words, "quiet": False, "json": False}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.serve", json.dumps(said)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ready(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        log = self.home / "logs" / "serve.log"
        raise AssertionError(f"not ready: {log.read_text()[-2_000:] if log.exists() else 'no log'}")

    def get(self, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10.0) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def session(self) -> tuple[int, int]:
        record = json.loads((self.home / RECORD).read_text())
        return record["session"], record["started"]

    def left(self) -> list[processes.Process]:
        return processes.of_session(*self.known)

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        self.known = self.session() if (self.home / RECORD).exists() else (self.process.pid, 0)
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=40.0)
        return self.process.returncode, out


@pytest.fixture
def start(tmp_path: Path, world: tuple[Path, SmallWorld]) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(layout: str = "packed") -> Running:
        if not running:
            world[1].publish(tmp_path)
        running.append(Running(tmp_path, world[0], layout))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
            try:
                one.process.communicate(timeout=30.0)
            except subprocess.TimeoutExpired:
                one.process.kill()
    end_leftovers(tmp_path, Reporter(quiet=True))


def _listening(pids: set[int]) -> set[str]:
    """Addresses on which these processes listen, as hexadecimal of /proc/net; v4 and v6."""
    inodes: set[str] = set()
    for pid in pids:
        try:
            links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        inodes.update(link[8:-1] for link in links if link.startswith("socket:["))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].rsplit(":", 1)[0])
    return found


def _replicas(running: Running) -> int:
    names = [memory.name(process.pid) for process in processes.descendants(running.process.pid)]
    return names.count("ray::ServeReplica:factotum:Gateway")


LOOPBACKS = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.slow
def test_it_answers_on_the_loopback_interface_only_heals_and_ends_without_a_trace(start: Callable[..., Running]) -> None:
    running = start()
    running.ready()
    status, slate = running.get("/v1/anime/recommendations", {"user_id": "1", "k": 5, "explain": True})
    assert status == 200
    assert len(slate["items"]) == 5
    assert all(item["reasons"] for item in slate["items"])

    below = {running.process.pid, *(p.pid for p in processes.descendants(running.process.pid))}
    assert len(below) > 8
    addresses = _listening(below)
    assert addresses
    assert addresses <= LOOPBACKS, "something listens beyond the loopback interface"
    assert sum(memory.tree(running.process.pid).values()) < 3 * 2**30

    replica = next(pid for pid in below if memory.name(pid) == "ray::ServeReplica:factotum:Gateway")

    async def under_load() -> dict[str, Any]:
        client = Client("127.0.0.1", running.port)
        asks = [client.request("POST", "/v1/anime/recommendations", {"user_id": str(user)}) for user in range(1, 40)]
        load = asyncio.create_task(open_loop(client, asks, 20.0, 12.0))
        await asyncio.sleep(2.0)
        os.kill(replica, signal.SIGKILL)
        outcome = await load
        client.close()
        return outcome.summary()

    met = asyncio.run(under_load())
    assert met["asked"] == 240
    assert met["failed"] <= 2, met
    until = time.monotonic() + 60.0
    while (standing := _replicas(running)) < 2 and time.monotonic() < until:
        time.sleep(0.5)
    assert standing == 2

    code, out = running.end()
    assert code == 0, out
    assert "nothing is left running" in out
    assert f"http://127.0.0.1:{running.port}" in out
    assert not running.left()
    assert not (running.home / RECORD).exists()
    port_free("127.0.0.1", running.port)


@pytest.mark.slow
def test_after_a_kill_the_next_start_works(start: Callable[..., Running]) -> None:
    first = start()
    first.ready()
    first.known = first.session()
    os.kill(first.process.pid, signal.SIGKILL)
    os.kill(first.known[0], signal.SIGKILL)  # the process that holds Ray, too: nobody is left to tidy up
    first.process.wait()
    second = start()
    second.ready()
    assert not first.left()
    code, out = second.end(signal.SIGTERM)
    assert code == 0, out
    assert not second.left()


@pytest.mark.slow
def test_spread_gives_the_same_answers_through_a_handle(start: Callable[..., Running]) -> None:
    packed = start()
    packed.ready()
    ask = {"user_id": "7", "k": 8, "seed": 3}
    here = packed.get("/v1/anime/recommendations", ask)[1]
    wrong = {"user_id": "7", "filters": {"genre": ["No such genre"]}}
    refused = packed.get("/v1/anime/recommendations", wrong)
    packed.end()
    spread = start("spread")
    spread.ready()
    there = spread.get("/v1/anime/recommendations", ask)[1]
    assert [item["item_id"] for item in there["items"]] == [item["item_id"] for item in here["items"]]
    assert there["degraded"] == here["degraded"] == []
    assert spread.get("/v1/anime/recommendations", wrong)[0] == refused[0]
    code, out = spread.end()
    assert code == 0, out


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port} on 127.0.0.1 is taken"):
            port_free("127.0.0.1", port)
    port_free("127.0.0.1", port)


def test_only_what_was_recorded_is_ended(tmp_path: Path) -> None:
    ours = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    others = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        seen = processes.look(ours.pid)
        assert seen is not None
        record = {"session": ours.pid, "started": seen.started + 1, "folder": str(tmp_path / "elsewhere"), "address": ""}
        (tmp_path / RECORD).write_text(json.dumps(record))
        assert end_leftovers(tmp_path, Reporter(quiet=True)) == 0, "a process older than the record is not the one recorded"
        (tmp_path / RECORD).write_text(json.dumps({**record, "started": seen.started}))
        assert end_leftovers(tmp_path, Reporter(quiet=True)) == 1
        assert ours.wait(5.0) != 0
        assert others.poll() is None
        assert not (tmp_path / RECORD).exists()
    finally:
        for process in (ours, others):
            process.kill()
            process.wait()


def test_an_unreadable_record_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("{ half a rec")
    assert end_leftovers(tmp_path, Reporter(quiet=True)) == 0
