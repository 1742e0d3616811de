"""The servers that tests and benchmarks start: they come back on the same port, and killing them is what it is for a client."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.servers import MockKafka, PostgresServer, RedisServer, ServerError


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="factotum-servers-", dir="/tmp", ignore_cleanup_errors=True) as made:
        yield Path(made)


def ask(port: int, *words: str) -> bytes:
    command = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
        connection.sendall(command.encode())
        return connection.recv(256)


@pytest.mark.redis
@pytest.mark.skipif(not RedisServer.found(), reason="redis-server is not installed")
def test_redis_comes_back_empty_on_its_port(folder: Path) -> None:
    server = RedisServer(folder)
    server.start()
    try:
        port = server.port
        assert ask(port, "SET", "a", "1") == b"+OK\r\n"
        server.kill()
        with pytest.raises(OSError):
            ask(port, "PING")
        server.start()
        assert server.port == port
        assert ask(port, "GET", "a") == b"$-1\r\n"
    finally:
        server.stop()


@pytest.mark.redis
@pytest.mark.skipif(not RedisServer.found(), reason="redis-server is not installed")
def test_redis_asks_for_its_password_and_does_not_show_it(folder: Path) -> None:
    server = RedisServer(folder, password="not shown")
    server.start()
    try:
        assert ask(server.port, "GET", "a").startswith(b"-NOAUTH")
        assert ask(server.port, "AUTH", "not shown") == b"+OK\r\n"
        assert b"not shown" not in subprocess.run(["ps", "-ef"], check=True, capture_output=True).stdout
        assert "not%20shown" in server.url
    finally:
        server.stop()


@pytest.mark.postgres
@pytest.mark.skipif(not PostgresServer.found(), reason="PostgreSQL's programs are not installed")
def test_what_was_committed_survives_a_killed_postgresql(folder: Path) -> None:
    asyncpg = pytest.importorskip("asyncpg")
    import asyncio

    async def run(sql: str) -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(user="factotum", host="127.0.0.1", port=server.port, database="postgres")
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    server = PostgresServer(folder)
    server.start()
    try:
        asyncio.run(run("CREATE TABLE t (a int)"))
        asyncio.run(run("INSERT INTO t VALUES (7)"))
        server.kill()
        with pytest.raises(OSError):
            asyncio.run(run("SELECT 1"))
        server.start()
        assert asyncio.run(run("SELECT a FROM t")) == [(7,)]
    finally:
        server.stop()


@pytest.mark.skipif(not MockKafka.found(), reason="confluent-kafka is not installed")
def test_a_paused_broker_keeps_what_it_has_and_takes_no_more(folder: Path) -> None:
    from confluent_kafka import Consumer, Producer

    server = MockKafka(folder)
    server.start()
    try:
        producer = Producer({"bootstrap.servers": server.brokers, "log_level": 0})
        producer.produce("topic", b"before")
        assert producer.flush(10) == 0
        server.pause()
        producer.produce("topic", b"during")
        assert producer.flush(0.5) == 1
        server.resume()
        assert producer.flush(10) == 0
        settings = {"bootstrap.servers": server.brokers, "group.id": "g", "auto.offset.reset": "earliest", "log_level": 0}
        consumer = Consumer(settings)
        consumer.subscribe(["topic"])
        got: set[bytes | None] = set()
        for _ in range(40):
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                got.add(message.value())
            if len(got) == 2:
                break
        consumer.close()
        assert got == {b"before", b"during"}
    finally:
        server.stop()


@pytest.mark.skipif(not MockKafka.found(), reason="confluent-kafka is not installed")
def test_the_mock_broker_ends_with_who_started_it() -> None:
    process = subprocess.Popen([sys.executable, "-m", "pipelines.servers", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert b"brokers" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()


@pytest.mark.postgres
@pytest.mark.skipif(not PostgresServer.found(), reason="PostgreSQL's programs are not installed")
def test_a_folder_that_is_taken_is_said(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "other").write_text("x")
    with pytest.raises(ServerError, match="initdb failed"):
        PostgresServer(folder)
