"""Readiness after the first start on a machine: while the search is compiled nobody is told that all is well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from configs.deployment import Deployment
from tests.serving.conftest import started, unhurried
from tests.serving.itinerary_world import Season


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A compilation that lasts until the event is set; a machine that did it before would be done at once."""
    done = threading.Event()
    monkeypatch.setattr("serving.itinerary.following.warm", lambda: done.wait(60.0))
    yield done
    done.set()


async def test_it_is_not_ready_while_the_search_is_compiled(
    tmp_path: Path,
    season: Season,
    season_yaml: Path,
    quick: Deployment,
    running: AsyncExitStack,
    compiling: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.api.permits._RESERVE_S", 19.0)  # a search gives up waiting after a second: a slow machine may still say so
    monkeypatch.setattr("serving.api.permits._RESERVE", 0.95)
    season.publish(tmp_path / "home")
    service, client = await started(unhurried(tmp_path / "home", season_yaml, quick), running)
    waiting = await client.get("/readyz")
    said = waiting.json()
    assert (waiting.status_code, waiting.headers["Retry-After"], said["status"]) == (503, "5", "not ready")
    assert said["waits_for"] == ["the search is being compiled for this machine, which happens once"]
    assert said["parts"]["search"]["state"] == "compiling"
    assert said["parts"]["domains"]["season"]["state"] == "ready"
    assert (await client.get("/v1/season/concerts")).status_code == 200  # what needs no search is answered
    early = await client.post("/v1/season/routes/search", json={"k": 1}, headers={"X-Deadline-Ms": "20000"})
    assert (early.status_code, early.headers["Retry-After"], early.json()["type"].rpartition(":")[2]) == (503, "5", "not-ready")
    compiling.set()
    await service.itineraries.warmed()
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["waits_for"]) == (200, "ready", [])
    assert ready.json()["parts"]["search"] == {"state": "ready"}
    assert (await client.post("/v1/season/routes/search", json={"k": 1})).status_code == 200


async def test_a_compilation_that_fails_keeps_nobody_waiting(
    tmp_path: Path,
    season: Season,
    season_yaml: Path,
    quick: Deployment,
    running: AsyncExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr("serving.itinerary.following.warm", fails)
    season.publish(tmp_path / "home")
    service, client = await started(unhurried(tmp_path / "home", season_yaml, quick), running)
    await service.itineraries.warmed()
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.post("/v1/season/routes/search", json={"k": 1})).status_code == 200
    assert service.metrics.errors.labels("search")._value.get() == 1.0
