"""The port through which a gateway asks for a slate, and its form within the process.

`Ask` and `Slate` are plain values: they cross between processes. The form that calls a Ray Serve deployment is in serving/app.py.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from configs.domain import Variant
from features.state import UserState
from serving.experiments import assign
from serving.live import Live
from serving.metrics import Metrics
from serving.slate import Question, Range, Slate, Words
from serving.standing import Standing
from serving.storage.database import now_us

#: An engine's thread and the event loop hand the interpreter over after so many seconds: with Python's own 5 ms whoever gives it
#: up for an instant (a system call) waits 5 ms for it to come back.
_SWITCH_S = 0.0005

log = logging.getLogger("factotum.recommender")


@dataclass(frozen=True)
class Ask:
    """A question about a person as the outside gives it: ids are strings, and the person may be nobody.

    `history`: known items instead of a person, oldest first. `profile`: attribute -> words the person named. `sources`: only
    these, in their own order. `deadline_s`: seconds from now after which the answer is of no use.
    """

    domain: str
    k: int
    user: str | None = None
    history: tuple[str, ...] | None = None
    profile: Mapping[str, Words] = field(default_factory=dict)
    filters: Mapping[str, Words | Range] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    diversity: float | None = None  # None: as the person's variant or the domain's YAML says
    explain: bool = False
    seed: int | None = None
    sources: tuple[str, ...] | None = None
    language: Literal["en", "ru"] = "en"
    deadline_s: float = 1.0


class LateError(RuntimeError):
    """The deadline passed before the engine came to the question."""


class UnreachableError(RuntimeError):
    """What answers lies in another process, and none of them could be asked."""


class Recommender(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def recommend(self, ask: Ask) -> Slate:
        """The slate of the bundle in service. Raises NotReadyError, LateError, UnreachableError, FilterError, or whatever the engine
        raises."""
        ...


@dataclass
class _Job:
    ask: Ask
    until: float  # time.monotonic()
    done: asyncio.Future[Slate]
    loop: asyncio.AbstractEventLoop


class LocalRecommender:
    """Engines in this process, asked by threads of its own. Questions that wait while a thread is busy are answered together:
    a batch costs little more than one. `live` belongs to whoever made it, unless `owns_live`."""

    def __init__(self, live: Live, metrics: Metrics, threads: int = 1, batch: int = 8, owns_live: bool = False) -> None:
        self.live = live
        self._metrics = metrics
        self._batch = batch
        self._owns_live = owns_live
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"engine-{number}", daemon=True) for number in range(threads)]

    async def start(self) -> None:
        sys.setswitchinterval(_SWITCH_S)
        if self._owns_live:
            await self.live.start()
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """Questions already taken are answered first."""
        for _ in self._threads:
            self._jobs.put(None)
        await asyncio.gather(*(asyncio.to_thread(thread.join, 5.0) for thread in self._threads if thread.is_alive()))
        if self._owns_live:
            await self.live.stop()

    async def recommend(self, ask: Ask) -> Slate:
        self.live.standing(ask.domain)  # says at once if there is none
        loop = asyncio.get_running_loop()
        job = _Job(ask, time.monotonic() + ask.deadline_s, loop.create_future(), loop)
        self._jobs.put(job)
        self._metrics.queue.set(self._jobs.qsize())
        return await job.done

    # ------------------------------------------------------------ in the engine's threads

    def _work(self) -> None:
        while True:
            taken = self._jobs.get()
            if taken is None:
                return
            jobs = [taken]
            while len(jobs) < self._batch:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._jobs.put(None)
                    break
                jobs.append(more)
            self._answer(jobs)

    def _answer(self, jobs: Sequence[_Job]) -> None:
        now, clock = now_us(), time.monotonic()
        by_standing: dict[Standing, list[tuple[_Job, Question]]] = {}
        for job in jobs:
            if job.done.cancelled():
                continue
            if clock >= job.until:
                self._settle(job, LateError(f"{job.ask.domain}: the question waited {job.ask.deadline_s:.2f} s and more"))
                continue
            try:
                standing, arm = self._for(job.ask)
                by_standing.setdefault(standing, []).append((job, question(job.ask, standing, now, job.until - clock, arm)))
            except Exception as error:  # this one's fault, not the others'
                self._settle(job, error)
        for standing, asked in by_standing.items():
            self._metrics.batch.observe(len(asked))
            try:
                slates = standing.engine.recommend([wanted for _, wanted in asked])
            except Exception as error:
                if len(asked) == 1:
                    self._settle(asked[0][0], error)
                    continue
                for job, wanted in asked:  # one of them is at fault: the others get their answers
                    self._one(standing, job, wanted)
                continue
            for (job, _), slate in zip(asked, slates, strict=True):
                self._settle(job, slate)

    def _for(self, ask: Ask) -> tuple[Standing, tuple[str, Variant | None]]:
        standing = self.live.standing(ask.domain)
        name, arm = assign(standing.engine.domain.experiment, ask.domain, ask.user)
        if arm is not None and arm.bundle == "challenger":
            standing = self.live.standing(ask.domain, "challenger")
        return standing, (name, arm)

    def _one(self, standing: Standing, job: _Job, wanted: Question) -> None:
        try:
            self._settle(job, standing.engine.recommend([wanted])[0])
        except Exception as error:
            self._settle(job, error)

    @staticmethod
    def _settle(job: _Job, result: Slate | Exception) -> None:
        def put() -> None:
            if job.done.done():
                return
            if isinstance(result, Exception):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)

        try:
            job.loop.call_soon_threadsafe(put)
        except RuntimeError:  # the loop ended: nobody waits any more
            log.debug("an answer came after its loop had ended")


def question(ask: Ask, standing: Standing, now: int, budget_s: float, arm: tuple[str, Variant | None]) -> Question:
    """The ask in the engine's own terms; items that it does not know are left out."""
    engine = standing.engine
    name, variant = arm
    diversity = ask.diversity
    if diversity is None:
        diversity = variant.diversity if variant is not None and variant.diversity is not None else engine.domain.serving.diversity
    return Question(
        state=state_of(ask, standing, now),
        k=ask.k,
        now=now,
        user=ask.user,
        filters=dict(ask.filters),
        exclude=tuple(row for item in ask.exclude if (row := engine.catalogue.row(item)) is not None),
        diversity=diversity,
        exploration=variant.exploration if variant is not None else None,
        explain=ask.explain,
        seed=ask.seed,
        sources=ask.sources,
        budget_s=budget_s,
        language=ask.language,
        variant=name,
    )


def state_of(ask: Ask, standing: Standing, now: int) -> UserState:
    """What is known of whom the ask is about."""
    engine = standing.engine
    if ask.user is not None:
        state = standing.people.state(ask.user) or UserState.empty(engine.kinds)
        return replace(state, preferences=dict(ask.profile)) if ask.profile else state
    if ask.history:
        rows = [row for item in dict.fromkeys(ask.history) if (row := engine.catalogue.row(item)) is not None]
        return UserState.of_items(engine.kinds, rows, engine.kinds.strongest, now, dict(ask.profile))
    return UserState.empty(engine.kinds, dict(ask.profile))
