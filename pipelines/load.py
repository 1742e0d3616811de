"""A load generator: HTTP/1.1 over kept-alive connections, open loop (a given rate) or closed loop (a given number of clients).

In open loop a request's latency runs from the moment at which it should have been sent, so that a server that stalls is charged
for everybody who would have come meanwhile (Tene's "coordinated omission"). One process, one event loop, raw bytes: the
generator must not be what is measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np

_TIMEOUT_S = 10.0


class Answer(NamedTuple):
    """`head`: the header lines as they came, in lower case."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the header (its name in lower case), None if it is not there."""
        at = self.head.find(f"\r\n{name}:".encode())
        return None if at < 0 else self.head[at + len(name) + 3 :].split(b"\r\n", 1)[0].strip().decode("latin-1")


class _Connection(asyncio.Protocol):
    """One connection, one request at a time. A response needs a Content-Length; a broken connection fails what waits on it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self._ends = -1
        self._head = b""
        self._body = 0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.open = cast(asyncio.Transport, transport), True  # uvloop's own class is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError("closed before the answer was whole"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._ends < 0:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            lines = bytes(self._buffer[:head]).lower()
            self._head = lines
            at = lines.find(b"\r\ncontent-length:")
            if at < 0:
                self.close()
                return
            length = int(lines[at + 17 :].split(b"\r\n", 1)[0])
            self._body, self._ends = head + 4, head + 4 + length
            if b"\r\nconnection: close" in lines:
                self.open = False
        if len(self._buffer) >= self._ends and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Answer(int(self._head[9:12]), self._head, bytes(self._buffer[self._body : self._ends])))
            del self._buffer[: self._ends]
            self._ends = -1

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()


class Client:
    """A pool of connections to one address. Used inside one event loop."""

    def __init__(self, host: str, port: int, headers: Mapping[str, str] | None = None) -> None:
        self.host, self.port = host, port
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._idle: list[_Connection] = []

    def request(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes:
        """The bytes of a request, made once and sent many times. `headers`: beside those of the client."""
        content = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        own = self._headers + "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        return f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{own}{kind}\r\n".encode() + content

    async def ask(self, request: bytes) -> Answer:
        """Raises OSError (also for a connection that broke), TimeoutError."""
        connection = await self._take()
        try:
            answer = await asyncio.wait_for(connection.ask(request), _TIMEOUT_S)
        except BaseException:
            connection.close()
            raise
        if connection.open:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self.host, self.port)
        return connection

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()


@dataclass
class Outcome:
    """What a run of load met. `latencies_ms` are those of the answered requests, `at_s` when each was due since the start."""

    asked: int = 0
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)  # "200", or the name of the error where none came
    failures_at_s: list[float] = field(default_factory=list)
    lateness_ms: float = 0.0  # how late the generator itself sent at worst: large means that it was starved, not the server

    def count(self, name: str) -> None:
        self.statuses[name] = self.statuses.get(name, 0) + 1

    @property
    def failed(self) -> int:
        return self.asked - self.statuses.get("200", 0) - self.statuses.get("202", 0) - self.statuses.get("201", 0)

    def percentile(self, share: float) -> float:
        """Milliseconds; infinite if nothing was answered."""
        return float(np.percentile(self.latencies_ms, 100.0 * share)) if self.latencies_ms else float("inf")

    def summary(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "failed": self.failed,
            "rate": round(len(self.latencies_ms) / self.seconds, 1) if self.seconds else 0.0,
            "p50_ms": round(self.percentile(0.50), 2),
            "p95_ms": round(self.percentile(0.95), 2),
            "p99_ms": round(self.percentile(0.99), 2),
            "max_ms": round(max(self.latencies_ms, default=float("inf")), 2),
            "statuses": dict(sorted(self.statuses.items())),
            "generator_late_ms": round(self.lateness_ms, 1),
        }


async def _one(client: Client, request: bytes, due: float, start: float, outcome: Outcome) -> None:
    try:
        status = (await client.ask(request)).status
        outcome.count(str(status))
        ok = status < 400
    except (OSError, TimeoutError) as error:
        outcome.count(type(error).__name__)
        ok = False
    if ok:
        outcome.latencies_ms.append((time.perf_counter() - due) * 1e3)
        outcome.at_s.append(due - start)
    else:
        outcome.failures_at_s.append(due - start)


async def open_loop(
    client: Client, requests: Sequence[bytes], rate: float, seconds: float, stop: Callable[[], bool] | None = None
) -> Outcome:
    """Sends `rate` requests a second, evenly spaced, for `seconds` (or until `stop` says so), whatever comes back."""
    outcome = Outcome()
    start = time.perf_counter()
    running: set[asyncio.Task[None]] = set()
    total = int(rate * seconds)
    for number in range(total):
        due = start + number / rate
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        elif number % 16 == 0:
            await asyncio.sleep(0)  # behind schedule: answers must still be read
        if stop is not None and stop():
            break
        outcome.lateness_ms = max(outcome.lateness_ms, (time.perf_counter() - due) * 1e3)
        task = asyncio.ensure_future(_one(client, requests[number % len(requests)], due, start, outcome))
        running.add(task)
        task.add_done_callback(running.discard)
        outcome.asked += 1
    if running:
        await asyncio.wait(running)
    outcome.seconds = time.perf_counter() - start
    return outcome


async def closed_loop(client: Client, requests: Sequence[bytes], clients: int, seconds: float) -> Outcome:
    """`clients` callers, each sending its next request as soon as the last was answered."""
    outcome = Outcome()
    start = time.perf_counter()
    end = start + seconds

    async def caller(first: int) -> None:
        number = first
        while (now := time.perf_counter()) < end:
            outcome.asked += 1
            await _one(client, requests[number % len(requests)], now, start, outcome)
            number += clients

    await asyncio.gather(*(caller(number) for number in range(clients)))
    outcome.seconds = time.perf_counter() - start
    return outcome
