"""Whether memory stays: many requests of the usual mix at a steady rate, and the proportional memory (PSS) of every process over time.

The slope of each process after warm-up is Theil and Sen's: the median of the slopes between all pairs of samples, with its 95 %
interval (Sen 1968, "Estimates of the regression coefficient based on Kendall's tau"). Samples that follow each other are alike, so
the interval is narrower than it should be; what counts as flat is therefore also given by how much it would be in a day.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import theilslopes

from pipelines import memory
from pipelines.bench_serve import loaded
from pipelines.load import Client
from pipelines.mix import Judgement, Question
from pipelines.stage import GATEWAYS, Stage, staged
from pipelines.steps import Reporter

REQUESTS = 100_000
RATE = 250.0
_SAMPLE_S = 2.0
_WARM = 0.3  # of the time: caches fill, allocators find their size
_FLAT_MIB_PER_100K = 10.0  # a process that grows less than this in 100,000 requests is called flat
_SHARE_OF_TOKENS = 0.2  # of the questions that come with a person's token
_PER_PERSON = 25.0  # requests a minute of each person: half of what they may
_SMALL_MIB = 20.0  # processes that come and go and are smaller are not named
_PLOT = (64, 10)  # characters
_AT_ONCE = 512  # requests under way; more are not begun, so that a server that is too slow sets the rate


@dataclass
class _Samples:
    """`mib`: pid -> moments in seconds and MiB; `names`: what each called itself at first."""

    at: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    mib: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


def run(home: Path, domain: str, reporter: Reporter, requests: int = REQUESTS, rate: float = RATE, embedded: bool = True) -> dict[str, Any]:
    """`rate`: requests a second, at most. Raises as pipelines.bench_faults.run."""
    reporter.step("bench soak")
    persons = math.ceil(rate * _SHARE_OF_TOKENS * 60.0 / _PER_PERSON)
    with staged(home.absolute(), domain, persons, embedded, reporter) as stage:
        return loaded(stage.target, lambda client: _measure(stage, client, requests, rate, reporter))


async def _measure(stage: Stage, client: Client, requests: int, rate: float, reporter: Reporter) -> dict[str, Any]:
    mix = stage.mix(client, "soak")
    judged: Counter[Judgement] = Counter()
    failures: Counter[str] = Counter()
    samples = _Samples()
    start = time.monotonic()
    sampling = asyncio.create_task(_sample(stage.target.pid, samples, judged, start))
    running: set[asyncio.Task[None]] = set()
    try:
        for number in range(requests):
            wait = start + number / rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            elif number % 16 == 0:
                await asyncio.sleep(0)
            while len(running) >= _AT_ONCE:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(_ask(client, mix.question(number), judged, failures))
            running.add(task)
            task.add_done_callback(running.discard)
            if number % 20_000 == 19_999:
                reporter.say(f"{number + 1} requests after {time.monotonic() - start:.0f} s")
        if running:
            await asyncio.wait(running)
    finally:
        seconds = time.monotonic() - start
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    return {
        "parts": stage.parts,
        "domain": stage.domain.name,
        "gateways": GATEWAYS,
        "requests": requests,
        "seconds": round(seconds, 1),
        "rate": round(requests / seconds, 1),
        "limit": "the machine's key is exempt; people's tokens are counted",
        "answers": dict(judged),
        "failures": dict(failures.most_common(8)),
        "wrong_examples": mix.books.wrong[:5],
        "processes": _processes(samples, seconds, requests),
        "came_or_went": [
            f"{samples.names[pid]}: {points[0][0]:.0f} s to {points[-1][0]:.0f} s"
            for pid, points in samples.mib.items()
            if len(points) < 0.9 * len(samples.at) and max(mib for _, mib in points) > _SMALL_MIB
        ],
        "total": _total(samples, seconds, requests),
    }


async def _ask(client: Client, question: Question, judged: Counter[Judgement], failures: Counter[str]) -> None:
    sent = time.monotonic()
    try:
        answer = await client.ask(question.request)
        judgement, what = question.judge(answer, sent), str(answer.status)
    except (OSError, TimeoutError) as error:
        judgement, what = "failed", type(error).__name__
    judged[judgement] += 1
    if judgement in ("failed", "refused"):
        failures[f"{question.kind}: {what}"] += 1


async def _sample(pid: int, samples: _Samples, judged: Counter[Judgement], start: float) -> None:
    while True:
        now = time.monotonic() - start
        parts = await asyncio.to_thread(memory.tree, pid)
        samples.at.append(now)
        samples.asked.append(judged.total())
        for one, size in parts.items():
            samples.names.setdefault(one, memory.name(one))
            samples.mib.setdefault(one, []).append((now, size / 2**20))
        await asyncio.sleep(_SAMPLE_S)


# ---------------------------------------------------------------- figures


def _processes(samples: _Samples, seconds: float, requests: int) -> list[dict[str, Any]]:
    """Those that were there all the time, the largest first; names that occur twice carry a number."""
    lasting = [(samples.names[pid], np.array(points)) for pid, points in samples.mib.items() if len(points) >= 0.9 * len(samples.at)]
    lasting.sort(key=lambda one: -float(one[1][-1, 1]))
    count: Counter[str] = Counter()
    rows = []
    for name, points in lasting:
        count[name] += 1
        numbered = name if sum(other == name for other, _ in lasting) == 1 else f"{name} ({count[name]})"
        rows.append({"process": numbered, **slope(points[:, 0], points[:, 1], seconds, requests)})
    return rows


def _total(samples: _Samples, seconds: float, requests: int) -> dict[str, Any]:
    sums: dict[float, float] = dict.fromkeys(samples.at, 0.0)
    for points in samples.mib.values():
        for at, mib in points:
            sums[at] += mib
    curve = [[round(at, 1), round(mib, 1)] for at, mib in sums.items()]
    return {**slope(np.array(list(sums)), np.array(list(sums.values())), seconds, requests), "curve": curve}


def slope(at: NDArray[np.float64], mib: NDArray[np.float64], seconds: float, requests: int) -> dict[str, Any]:
    """`at` (n,) seconds, `mib` (n,) MiB: first, last, and the slope after warm-up in MiB per 100,000 requests with its interval.

    `verdict`: flat = even the interval's upper end is less than what is called flat; grows = its lower end is above 0; else unsure.
    """
    warm = at >= _WARM * seconds
    if np.count_nonzero(warm) < 8:
        return {"first_mib": round(float(mib[0]), 1), "last_mib": round(float(mib[-1]), 1), "slope": None, "verdict": "unsure"}
    found = theilslopes(mib[warm], at[warm], 0.95)
    per_100k = 100_000.0 * seconds / requests  # seconds that 100,000 requests take
    middle, low, high = (float(value) * per_100k for value in (found[0], found[2], found[3]))
    return {
        "first_mib": round(float(mib[0]), 1),
        "warm_mib": round(float(np.median(mib[warm][:5])), 1),
        "last_mib": round(float(np.median(mib[warm][-5:])), 1),
        "slope": round(middle, 2),
        "interval": [round(low, 2), round(high, 2)],
        "verdict": "flat" if high < _FLAT_MIB_PER_100K else "grows" if low > 0.0 else "unsure",
    }


def table(figures: dict[str, Any]) -> list[str]:
    """The figures for people, with a small plot of the sum."""
    lines = [f"{name}: {value}" for name, value in figures["machine"].items()]
    lines += [
        f"on {figures['parts']}; {figures['gateways']} gateways; {figures['limit']}",
        f"{figures['requests']} requests in {figures['seconds']} s ({figures['rate']} a second): {figures['answers']}",
        *(f"  {what}: {count}" for what, count in figures["failures"].items()),
        *(f"  wrong: {what}" for what in figures["wrong_examples"]),
        "",
        f"{'process (PSS)':44} {'first':>8} {'warm':>8} {'last':>8}   MiB in 100,000 requests, 95 %",
    ]
    for row in (*figures["processes"], {"process": "all", **figures["total"]}):
        if row["slope"] is None:
            said = "too few samples"
        else:
            low, high = row["interval"]
            said = f"{row['slope']:+8.2f}  [{low:+.2f}, {high:+.2f}]  {row['verdict']}"
        lines.append(f"{row['process'][:44]:44} {row['first_mib']:8.1f} {row.get('warm_mib', 0.0):8.1f} {row['last_mib']:8.1f} {said}")
    lines += [f"not there all the time: {one}" for one in figures["came_or_went"]]
    return [*lines, "", *plot(figures["total"]["curve"])]


def plot(curve: list[list[float]]) -> list[str]:
    """MiB of all processes over time, in characters; the axis begins at 0."""
    wide, high = _PLOT
    if not curve:
        return []
    at, mib = np.array(curve).T
    columns = np.minimum((at / max(at[-1], 1e-9) * wide).astype(int), wide - 1)
    means = [float(mib[columns == column].mean()) if (columns == column).any() else math.nan for column in range(wide)]
    top = float(mib.max()) * 1.05
    lines = []
    for level in range(high, 0, -1):
        mark = "".join("*" if not math.isnan(value) and round(value / top * high) == level else " " for value in means)
        lines.append(f"{top * level / high:8.0f} |{mark}")
    return [*lines, f"{'0 MiB':>8} +{'-' * wide}", f"{'':9} 0 s{'':{wide - 10}}{at[-1]:.0f} s"]
