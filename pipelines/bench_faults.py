"""What happens while a part fails: the whole application under a steady load of mixed questions, and one after another each gateway
replica, the database, the cache and the broker go away. Every answer is judged, and at the end every accepted event is looked for.

The load is open loop: a request is sent when it is due, whatever became of those before. An event whose answer got lost is not counted as
accepted: it may be there or not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa

from configs.deployment import Deployment
from pipelines.bench_serve import loaded, replicas
from pipelines.load import Client
from pipelines.mix import Books, Judgement, Mix, Question
from pipelines.stage import GATEWAYS, Stage, staged
from pipelines.steps import Reporter
from serving.events.kafka import topic
from serving.storage.database import Database

RATE = 50.0
AWAY_S = 10.0
_WARM_S = 10.0
_CALM_S = 8.0  # before each fault
_AFTER_S = 22.0  # watched after a fault has ended
_REPLACED_S = 180.0  # Ray starts another gateway within
_PERSONS = 40
_QUIET_S = 8.0  # nothing new on the topic for so long after the load: it was read to its end
_DELIVERED_S = 60.0  # what is accepted must be delivered within


@dataclass
class Asked:
    """One request: when it was due (time.monotonic), what was asked, what became of it. `what`: the status or the error's name."""

    due: float
    kind: str
    judgement: Judgement
    what: str
    ms: float


@dataclass
class Fault:
    """`began`: the part went away; `ended`: it was there again (for a replica that Ray replaces: when as many ran as before)."""

    name: str
    how: str
    began: float = 0.0
    ended: float = 0.0
    until: float = 0.0


@dataclass
class _Run:
    stage: Stage
    rate: float
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    late_ms: float = 0.0
    over: bool = False


def run(home: Path, domain: str, reporter: Reporter, embedded: bool = False, rate: float = RATE, away_s: float = AWAY_S) -> dict[str, Any]:
    """Raises FileNotFoundError without a champion, ServerError without the servers' programs, RuntimeError if nothing starts."""
    reporter.step("bench faults")
    with staged(home.absolute(), domain, _PERSONS, embedded, reporter) as stage:
        return loaded(stage.target, lambda client: _measure(stage, client, rate, away_s, reporter))


async def _measure(stage: Stage, client: Client, rate: float, away_s: float, reporter: Reporter) -> dict[str, Any]:
    mix = stage.mix(client, "fault")
    run_ = _Run(stage, rate)
    listening = asyncio.create_task(_listen(stage, run_)) if stage.kafka is not None else None
    load = asyncio.create_task(_load(client, mix, run_))
    try:
        await asyncio.sleep(_WARM_S)
        for fault, away in _plan(stage, mix.books, away_s):
            await asyncio.sleep(_CALM_S)
            reporter.say(f"{fault.name}: {fault.how}")
            run_.faults.append(fault)
            await away(fault)
            await asyncio.sleep(_AFTER_S)
            fault.until = time.monotonic()
    finally:
        run_.over = True
        await load
    lost = await _lost(stage, mix.books)
    if listening is not None:
        lost["on_the_bus"] = _on_the_bus(await listening, mix.books)
    return _figures(stage, run_, mix.books, lost, away_s)


# ---------------------------------------------------------------- load


async def _load(client: Client, mix: Mix, run_: _Run) -> None:
    running: set[asyncio.Task[None]] = set()
    start = time.monotonic()
    number = 0
    while not run_.over:
        due = start + number / run_.rate
        wait = due - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        run_.late_ms = max(run_.late_ms, (time.monotonic() - due) * 1e3)
        task = asyncio.create_task(_ask(client, mix.question(number), due, run_.asked))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
    if running:
        await asyncio.wait(running)


async def _ask(client: Client, question: Question, due: float, asked: list[Asked]) -> None:
    sent = time.monotonic()
    try:
        answer = await client.ask(question.request)
        judgement, what = question.judge(answer, sent), str(answer.status)
        if judgement == "failed":
            what = f"{answer.status} ({_detail(answer.body)})"
    except (OSError, TimeoutError) as error:
        judgement, what = "failed", type(error).__name__
    asked.append(Asked(due, question.kind, judgement, what, (time.monotonic() - due) * 1e3))


def _detail(body: bytes) -> str:
    """What a problem+json says, shortened."""
    try:
        return str(orjson.loads(body)["detail"])[:160]
    except (ValueError, KeyError, TypeError):
        return body[:80].decode(errors="replace")


# ---------------------------------------------------------------- faults


def _plan(stage: Stage, books: Books, away_s: float) -> list[tuple[Fault, Callable[[Fault], Awaitable[None]]]]:
    gone: set[int] = set()

    async def replica(fault: Fault) -> None:
        until = time.monotonic() + _REPLACED_S
        while len(known := [pid for pid in replicas(stage.target.pid) if pid not in gone]) < GATEWAYS:
            if time.monotonic() > until:
                raise RuntimeError(f"{len(known)} of {GATEWAYS} gateways run after {_REPLACED_S:g} s")
            await asyncio.sleep(0.5)
        victim = known[0]
        gone.add(victim)
        fault.began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        until = fault.began + _REPLACED_S
        while time.monotonic() < until:
            await asyncio.sleep(0.25)
            if len(await asyncio.to_thread(_standing, stage.target.pid, victim)) >= len(known):
                break
        fault.ended = time.monotonic()

    async def database(fault: Fault) -> None:
        assert stage.postgres is not None
        fault.began = time.monotonic()
        books.away.append((fault.began, float("inf")))
        await asyncio.to_thread(stage.postgres.kill)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(stage.postgres.start)
        fault.ended = time.monotonic()
        books.away[-1] = (fault.began, fault.ended)

    async def cache(fault: Fault) -> None:
        assert stage.redis is not None
        fault.began = time.monotonic()
        await asyncio.to_thread(stage.redis.kill)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(stage.redis.start)
        fault.ended = time.monotonic()

    async def broker(fault: Fault) -> None:
        assert stage.kafka is not None
        fault.began = time.monotonic()
        stage.kafka.pause()
        await asyncio.sleep(away_s)
        stage.kafka.resume()
        fault.ended = time.monotonic()

    plan: list[tuple[Fault, Callable[[Fault], Awaitable[None]]]] = [
        (Fault(f"gateway {number + 1} of {GATEWAYS}", "kill -9; Ray starts another"), replica) for number in range(GATEWAYS)
    ]
    if stage.postgres is not None:
        plan += [
            (Fault("database", f"kill -9 of PostgreSQL, started again after {away_s:g} s"), database),
            (Fault("cache", f"kill -9 of Redis, started again (empty) after {away_s:g} s"), cache),
            (Fault("broker", f"mock broker stopped by SIGSTOP for {away_s:g} s (it cannot keep its port over a new start)"), broker),
        ]
    return plan


def _standing(pid: int, without: int) -> list[int]:
    return [replica for replica in replicas(pid) if replica != without]


# ---------------------------------------------------------------- what was promised


async def _lost(stage: Stage, books: Books) -> dict[str, Any]:
    """Accepted events that are not in the database or were not announced once; what the outbox, inbox and dead letters say."""
    database = Database(stage.database_url)
    tables = database.tables
    try:
        began = time.monotonic()
        while True:
            async with database.reading() as connection:
                waiting = await connection.scalar(_count(tables.outbox, tables.outbox.c.published_at.is_(None))) or 0
            if waiting == 0 or time.monotonic() - began > _DELIVERED_S:
                break
            await asyncio.sleep(0.5)
        async with database.reading() as connection:
            events = tables.events
            of_domain = sa.select(events.c.event_id).where(events.c.domain == stage.domain.name)
            stored = set((await connection.execute(of_domain)).scalars())
            outbox = (await connection.execute(sa.select(tables.outbox.c.type, tables.outbox.c.payload))).all()
            by_state = (tables.inbox.c.consumer, tables.inbox.c.state)
            inbox = (await connection.execute(sa.select(*by_state, sa.func.count()).group_by(*by_state))).all()
            letters = await connection.scalar(_count(tables.dead_letters)) or 0
    finally:
        await database.close()
    recorded = [payload for kind, payload in outbox if kind == "interactions.recorded"]
    told = Counter(event_id for payload in recorded for event_id in _texts(orjson.loads(payload)) if event_id in books.accepted)
    return {
        "missing": sorted(set(books.accepted) - stored)[:10],
        "lost": len(set(books.accepted) - stored),
        "announced_not_once": sum(told[event_id] != 1 for event_id in books.accepted),
        "announcements": len(recorded),
        "still_waiting": waiting,
        "delivered_after_s": round(time.monotonic() - began, 1),
        "inbox": {f"{consumer}: {state}": count for consumer, state, count in inbox},
        "dead_letters": letters,
    }


def _count(table: sa.Table, *where: sa.ColumnElement[bool]) -> sa.Select[int]:
    return sa.select(sa.func.count()).select_from(table).where(*where)


def _texts(value: object) -> Iterator[str]:
    """Every text within a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


async def _listen(stage: Stage, run_: _Run) -> Counter[str]:
    """Reads the topic from its beginning as a consumer of its own: every text of every message, with how often it came."""
    from confluent_kafka import Consumer

    assert stage.kafka is not None
    words = {"bootstrap.servers": stage.kafka.brokers, "group.id": "bench", "auto.offset.reset": "earliest", "log_level": 0}
    consumer = Consumer({**words, "topic.metadata.refresh.interval.ms": 1_000})
    consumer.subscribe([topic(Deployment().bus)])
    seen: Counter[str] = Counter()
    quiet_since = time.monotonic()
    while not run_.over or time.monotonic() - quiet_since < _QUIET_S:
        for message in await asyncio.to_thread(consumer.consume, 500, 0.5):
            if message.error() is None:
                quiet_since = time.monotonic()
                seen.update(set(_texts(orjson.loads(message.value() or b"null"))))
    await asyncio.to_thread(consumer.close)
    return seen


def _on_the_bus(seen: Counter[str], books: Books) -> dict[str, int]:
    times = [seen[event_id] for event_id in books.accepted]
    return {"never": times.count(0), "once": times.count(1), "more_than_once": sum(count > 1 for count in times)}


# ---------------------------------------------------------------- figures


def _figures(stage: Stage, run_: _Run, books: Books, lost: dict[str, Any], away_s: float) -> dict[str, Any]:
    rows = [_row("calm", "before the first fault", [one for one in run_.asked if one.due < run_.faults[0].began])]
    for fault in run_.faults:
        met = [one for one in run_.asked if fault.began <= one.due < fault.until]
        not_good = [one.due for one in met if one.judgement != "good"]
        healed = max(0.0, max(not_good, default=0.0) - fault.ended)
        row = _row(fault.name, fault.how, met)
        rows.append({**row, "away_s": round(fault.ended - fault.began, 1), "heal_s": round(healed, 1)})
    return {
        "parts": stage.parts,
        "domain": stage.domain.name,
        "gateways": GATEWAYS,
        "rate": run_.rate,
        "limit": "the machine's key is exempt; people's tokens are counted",
        "faults": rows,
        "events_accepted": len(books.accepted),
        "events": lost,
        "wrong": len(books.wrong),
        "wrong_examples": books.wrong[:5],
        "slates_missing": books.slates_missing,
        "generator_late_ms": round(run_.late_ms, 1),
    }


def _row(name: str, how: str, met: list[Asked]) -> dict[str, Any]:
    judged = Counter(one.judgement for one in met)
    failed = Counter(f"{one.kind}: {one.what}" for one in met if one.judgement == "failed")
    return {
        "part": name,
        "how": how,
        "requests": len(met),
        "failed": judged["failed"],
        "failed_by_kind": dict(failed.most_common()),
        "refused_writes": judged["refused"],
        "degraded": judged["degraded"],
        "wrong": judged["wrong"],
        "p99_ms": round(float(np.percentile([one.ms for one in met], 99)), 1) if met else None,
    }


def table(figures: dict[str, Any]) -> list[str]:
    """The figures for people."""
    head = [f"{name}: {value}" for name, value in figures["machine"].items()]
    head += [f"on {figures['parts']}; {figures['gateways']} gateways, {figures['rate']:g} requests a second; {figures['limit']}", ""]
    columns = ("requests", "failed", "refused_writes", "degraded", "wrong", "away_s", "heal_s", "p99_ms")
    lines = [f"{'part':16}" + "".join(f"{column.replace('_', ' '):>15}" for column in columns)]
    lines += [
        f"{row['part']:16}" + "".join(f"{'' if row.get(column) is None else row[column]:>15}" for column in columns)
        for row in figures["faults"]
    ]
    lines += [""] + [f"{row['part']}: {row['how']}" for row in figures["faults"] if "away_s" in row]
    for row in figures["faults"]:
        lines += [f"{row['part']}, failed: {count} of {what}" for what, count in row["failed_by_kind"].items()]
    events = figures["events"]
    lines += [
        "",
        f"events accepted: {figures['events_accepted']}",
        f"not in the database: {events['lost']} (must be 0); not announced exactly once: {events['announced_not_once']} (must be 0)",
        f"announcements: {events['announcements']}; still waiting: {events['still_waiting']}; dead letters: {events['dead_letters']}",
        f"taken by: {events['inbox']}",
        *([f"read from the topic: {events['on_the_bus']}"] if "on_the_bus" in events else []),
        f"wrong answers: {figures['wrong']} (must be 0)",
        *figures["wrong_examples"],
        f"slates answered by a killed gateway and not kept: {figures['slates_missing']}",
    ]
    return lines
