"""What a replica keeps current while it answers: bundles, events written by others, items added while serving.

Everything is polled: a replica needs the home folder and the database, and no word from any other replica.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.deployment import Deployment
from configs.domain import Domain
from features.state import UserState
from serving.engine import Engine
from serving.erased import Erased
from serving.metrics import Metrics
from serving.slate import Question
from serving.standing import Standing
from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.interactions import Interactions
from serving.storage.seats import Seats
from serving.storage.tables import StoredEvent, StoredItem
from training import bundle
from training.bundle import Alias

_RETRY_S = 30.0  # a refused bundle is looked at again after so long, then after twice that, up to
_LONGEST_RETRY_S = 900.0

log = logging.getLogger("factotum.live")


class NotReadyError(RuntimeError):
    """No bundle of the domain is in service."""


@dataclass(frozen=True)
class Refusal:
    """A bundle that could not be taken into service."""

    version: str
    why: str
    pause_s: float
    until: float  # time.monotonic()


class Seat:
    """The place of one alias of one domain: what stands there, and what was refused."""

    def __init__(self, domain: Domain, alias: Alias) -> None:
        self.domain, self.alias = domain, alias
        self.standing: Standing | None = None
        self.refused: Refusal | None = None
        self.loading: str | None = None
        self.changing = asyncio.Lock()  # held while items are placed or another bundle sits down
        self.coming: list[StoredEvent] | None = None  # events folded into `standing` while its successor reads the database


class Live:
    """`standing` may be called from any thread; everything else belongs to the event loop."""

    def __init__(
        self,
        home: Path,
        domains: Mapping[str, Domain],
        deployment: Deployment,
        database: Database,
        metrics: Metrics,
        erased: Erased | None = None,
    ) -> None:
        self._erased = erased
        self._home, self._database, self._deployment, self._metrics = home, database, deployment, metrics
        self._recorded, self._stock = Interactions(database), Seats(database, home)
        self._domains = dict(domains)
        self._seats: dict[tuple[str, Alias], Seat] = {}
        for name, domain in domains.items():
            self._seats[name, "champion"] = Seat(domain, "champion")
            if any(arm.bundle == "challenger" for arm in domain.experiment.values()):
                self._seats[name, "challenger"] = Seat(domain, "challenger")
        self._tasks: list[asyncio.Task[None]] = []
        self.database_away: str | None = None  # why, while it is away

    async def start(self) -> None:
        """Takes the bundles there are into service, then keeps looking. A domain without one is not an error."""
        for seat in self._seats.values():
            await self._look(seat)
        self._tasks = [asyncio.create_task(self._watch(), name="bundles"), asyncio.create_task(self._follow(), name="events")]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def standing(self, domain: str, alias: Alias = "champion") -> Standing:
        """What answers for a domain; where the challenger is missing, the champion. Raises NotReadyError."""
        seat = self._seats.get((domain, alias)) or self._seats[domain, "champion"]
        standing = seat.standing or self._seats[domain, "champion"].standing
        if standing is None:
            refused = self._seats[domain, "champion"].refused
            raise NotReadyError(f"no bundle of {domain} is in service" + (f": {refused.why}" if refused else ""))
        return standing

    def report(self) -> dict[str, dict[str, object]]:
        """The state of each domain's bundles, for /readyz."""
        out: dict[str, dict[str, object]] = {}
        for (name, alias), seat in self._seats.items():
            said: dict[str, object] = {"state": "ready" if seat.standing else "loading" if seat.loading else "missing"}
            if seat.standing is not None:
                said |= {"version": seat.standing.version, "mode": seat.standing.engine.bundle.mode}
            if seat.loading is not None:
                said["loading"] = seat.loading
            if seat.refused is not None:
                said["refused"] = {"version": seat.refused.version, "why": seat.refused.why}
                said["state"] = "ready" if seat.standing else "refused"
            out[name if alias == "champion" else f"{name}:{alias}"] = said
        return out

    # ------------------------------------------------------------ what this replica wrote itself

    def fold(self, domain: str, happened: Sequence[StoredEvent]) -> None:
        """Events of this replica, once they are committed: seen by the very next answer."""
        for seat in self._of(domain):
            if seat.standing is not None:
                seat.standing.fold(happened)
            if seat.coming is not None:
                seat.coming.extend(happened)

    async def place(self, domain: str, item: StoredItem) -> None:
        """An item of this replica, once it is committed."""
        for seat in self._of(domain):
            async with seat.changing:
                if seat.standing is not None:
                    await self._place(seat.standing, [item])

    def _of(self, domain: str) -> list[Seat]:
        return [seat for (name, _), seat in self._seats.items() if name == domain]

    @staticmethod
    async def _place(standing: Standing, items: Sequence[StoredItem]) -> None:
        fresh = standing.stale(items)
        if fresh:
            await asyncio.to_thread(standing.place, fresh)

    # ------------------------------------------------------------ bundles

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._deployment.poll_bundles_ms / 1_000.0)
            for seat in self._seats.values():
                try:
                    await self._look(seat)
                except Exception:
                    self._metrics.errors.labels("bundles").inc()
                    log.exception("looking for a bundle failed", extra={"fields": {"domain": seat.domain.name}})

    async def _look(self, seat: Seat) -> None:
        name = seat.domain.name
        version = await asyncio.to_thread(bundle.alias, self._home, name, seat.alias)
        if version is None or (seat.standing is not None and seat.standing.version == version):
            if version is not None:
                seat.refused = None
            return
        before = seat.refused if seat.refused is not None and seat.refused.version == version else None
        if before is not None and time.monotonic() < before.until:
            return
        seat.loading = version
        try:
            engine = await asyncio.to_thread(_opened, self._home, name, version)
            await self._sit(seat, engine)
            seat.refused = None
        except DatabaseAwayError:
            return  # the old one goes on; this one is tried again at the next look
        except Exception as error:  # a broken bundle must never take the working one down
            pause = min(_LONGEST_RETRY_S, 2 * before.pause_s if before else _RETRY_S)
            why = str(error) if isinstance(error, bundle.BundleError) else f"{type(error).__name__}: {error}"
            seat.refused = Refusal(version, why, pause, time.monotonic() + pause)
            self._metrics.bundles_refused.labels(name).inc()
            log.error("bundle refused", extra={"fields": {"domain": name, "version": version, "why": why}})
        finally:
            seat.loading = None

    async def _sit(self, seat: Seat, engine: Engine) -> None:
        name = seat.domain.name
        await self._look_for_erased()
        coming = Standing(engine, int(self._deployment.storage.settle_s * 1e6), self._erased)
        async with seat.changing:
            seat.coming = []
            try:
                await self._place(coming, await self._recorded.items_since(name, 0))
                await coming.follow(self._recorded, name)
                await coming.follow_stock(self._stock)
            except DatabaseAwayError as error:
                self._away(error)
                if seat.standing is not None:
                    raise
            finally:
                written, seat.coming = seat.coming, None
            coming.fold(written)  # nothing waits between here and the next line: no event falls between two chairs
            seat.standing = coming
        coming.forget()
        self._metrics.model.clear()
        for other in self._seats.values():
            if other.standing is not None:
                self._metrics.model.labels(other.domain.name, other.standing.version, other.standing.engine.bundle.mode).set(1)
        self._metrics.bundles_swapped.labels(name).inc()
        said = {"domain": name, "alias": seat.alias, "version": coming.version, "mode": engine.bundle.mode}
        log.info("bundle in service", extra={"fields": said})

    # ------------------------------------------------------------ what other replicas wrote

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._deployment.storage.poll_ms / 1_000.0)
            try:
                await self._look_for_erased()
                standing = [(seat, seat.standing) for seat in self._seats.values() if seat.standing is not None]
                for seat, there in standing:
                    await self._follow_one(seat, there)
                if not standing:
                    await self._database.ping()
                self._back()
            except DatabaseAwayError as error:
                self._away(error)
            except Exception:
                self._metrics.errors.labels("events").inc()
                log.exception("following the database failed")

    async def _follow_one(self, seat: Seat, standing: Standing) -> None:
        name = seat.domain.name
        items = await self._recorded.items_since(name, standing.items_from())
        if standing.stale(items):
            async with seat.changing:
                if seat.standing is standing:
                    await self._place(standing, items)
        folded = await standing.follow(self._recorded, name)
        async with seat.changing:
            await standing.follow_stock(self._stock)
        await asyncio.to_thread(standing.forget)
        if folded:
            self._metrics.events_followed.labels(name).inc(folded)

    async def _look_for_erased(self) -> None:
        """Raises DatabaseAwayError, but not while nothing is in service: what is known of the erased must do then."""
        if self._erased is not None:
            try:
                await self._erased.look()
            except DatabaseAwayError as error:
                self._away(error)
                if any(seat.standing is not None for seat in self._seats.values()):
                    raise

    def _away(self, error: DatabaseAwayError) -> None:
        if self.database_away is None:
            log.error("the database is away", extra={"fields": {"why": str(error)}})
        self.database_away = str(error)
        self._metrics.database_up.set(0)

    def _back(self) -> None:
        if self.database_away is not None:
            log.info("the database is back")
        self.database_away = None
        self._metrics.database_up.set(1)


def _opened(home: Path, domain: str, version: str) -> Engine:
    """Verified, opened, and asked once: what cannot answer a newcomer is not taken into service.

    Raises BundleError, or whatever the engine raises.
    """
    engine = Engine(bundle.load(bundle.bundles_dir(home, domain) / version))
    if engine.domain.name != domain:
        raise bundle.BundleError(f"bundle {version} is of the domain {engine.domain.name!r}, expected {domain!r}")
    engine.recommend([Question(UserState.empty(engine.kinds), engine.domain.serving.k, now_us(), seed=0)])
    return engine
