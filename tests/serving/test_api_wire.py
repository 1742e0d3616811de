"""The same application behind a real socket: chunks, half requests, and a clean end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from configs.deployment import Deployment
from serving.api.application import create_app
from serving.service import Service


@asynccontextmanager
async def listening(home: Path, yaml_file: Path, deployment: Deployment) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """A server with its port, until the end of the block at the latest."""
    app = create_app(Service(home, [str(yaml_file)], deployment))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done(), "the server ended"
        await asyncio.sleep(0.02)
    yield server, int(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    await running


@pytest.fixture
async def port(home: Path, yaml_file: Path, quick: Deployment) -> AsyncIterator[int]:
    async with listening(home, yaml_file, quick) as (_, found):
        yield found


async def exchange(port: int, *parts: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        try:
            await writer.drain()
        except ConnectionError:
            break  # the server has said its word already
    answer = await asyncio.wait_for(reader.read(65_536), 10)
    writer.close()
    return answer


HEAD = b"POST /v1/anime/recommendations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def test_a_body_in_chunks_is_read(port: int) -> None:
    answer = await exchange(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b'5\r\n{"k":\r\n', b"2\r\n3}\r\n", b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_an_endless_chunked_body_is_cut_off(port: int) -> None:
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    answer = await exchange(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 40)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer.lower()


async def test_a_promise_of_too_much_is_refused_before_it_comes(port: int) -> None:
    answer = await exchange(port, HEAD + b"Content-Length: 9999999999\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_body_that_ends_too_early_harms_nobody(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/healthz")).status_code == 200


async def test_the_briefs_own_lines(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/top")).status_code == 200
        good = await client.post(
            "/recommend_content_based", content='{"anime_id": 1001, "top_n": 10}', headers={"Content-Type": "application/json"}
        )
        assert len(good.json()["items"]) == 10
        bad = await client.post(
            "/recommend_content_based", content='{"anime_id": 1001, "top_n" = 10}', headers={"Content-Type": "application/json"}
        )
        assert (bad.status_code, bad.headers["content-type"]) == (400, "application/problem+json")
        assert "column 28" in bad.json()["detail"]


async def test_everything_accepted_is_on_disk_when_the_server_has_ended(home: Path, yaml_file: Path, quick: Deployment) -> None:
    async with listening(home, yaml_file, quick) as (_, port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answers = [await client.post("/v1/anime/recommendations", json={"user_id": n}) for n in range(1, 30)]
        body = [{"event_id": n, "user_id": n, "item_id": 1001, "kind": "click"} for n in range(20)]
        assert (await client.post("/v1/anime/events", json=body)).status_code == 200
    with sqlite3.connect(home / "factotum.db") as connection:
        assert connection.execute("select count(*) from recommendations_slates").fetchone() == (len(answers),)
        assert connection.execute("select count(*) from recommendations_events").fetchone() == (20,)
