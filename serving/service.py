"""What a gateway replica holds: storage, live state, the recommender it asks and what it answers when that is late.

No HTTP and no Ray in here: serving/api turns requests into calls of this class, whatever runs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import configs
from configs.deployment import Deployment
from configs.domain import Domain
from features.state import Means
from serving import counting, degraded
from serving.access.breakers import Breakers, OpenError
from serving.access.secrets import Secrets, judge_addresses
from serving.access.tokens import Tokens
from serving.accounts import Accounts
from serving.audit import Audit
from serving.cache import Cache
from serving.engine import Engine
from serving.events.consumers import NotDoneError
from serving.events.exchange import Exchange
from serving.fallback import PART, Fallback
from serving.filters import FilterError
from serving.housekeeping import Housekeeping
from serving.itinerary.choosing import Choosing, chosen, owned
from serving.itinerary.fitting import Advice, unfit
from serving.itinerary.following import Itineraries
from serving.itinerary.ordering import Ordering
from serving.itinerary.scores import Scores
from serving.live import Live, NotReadyError
from serving.logs import use_key
from serving.mail import Mailer
from serving.metrics import Metrics, Noticeboard
from serving.notifications import NotificationStreams
from serving.ownership import Ownership
from serving.recommender import Ask, LateError, LocalRecommender, Recommender, UnreachableError
from serving.resilience import DATABASE, BreakersShown, Lookout, bus_guard, guard_of, redis_guard
from serving.scored import ScoredFiles
from serving.slate import Slate, SlateItem
from serving.standing import Standing
from serving.storage.cache import Levels
from serving.storage.choices import Choices, Said
from serving.storage.database import Database, DatabaseAwayError, address, now_us
from serving.storage.interactions import Interactions
from serving.storage.notifications import Notifications
from serving.storage.slates import Slates, SlateWriter
from serving.storage.tables import StoredEvent, StoredItem, StoredSlate
from serving.subscribers import MAIL, subscribers

_GRACE_S = 0.02  # an answer that is under way when the deadline passes may still come
_LOOK_S = (0.0, 0.1, 0.15, 0.15)  # pauses before looking for a slate that another replica may be about to write
_NOTICE_S = 2.0

log = logging.getLogger("factotum.service")


def domains_of(names: Sequence[str]) -> dict[str, Domain]:
    """The domains by name; each of `names` is one that ships or a path to a YAML. Raises ConfigError, ValueError for a repeated one."""
    loaded = [configs.load(name) for name in names]
    by_name = {domain.name: domain for domain in loaded}
    if len(by_name) != len(loaded):
        raise ValueError(f"a domain is named twice: {', '.join(domain.name for domain in loaded)}")
    return by_name


def recommender_alone(home: Path, domains: Sequence[str], deployment: Deployment) -> LocalRecommender:
    """What a replica that only recommends holds (layout `spread`): engines and people, followed through the database."""
    metrics = Metrics()
    database = Database(address(home, deployment.storage.url))
    database.guard = guard_of(Breakers(deployment.breakers, BreakersShown(metrics)), longest_s=1.0)
    ownership = Ownership(database, Secrets.from_environment(home, deployment.environment), deployment, metrics)
    live = Live(home, domains_of(domains), deployment, database, metrics, ownership.erased)
    return LocalRecommender(live, metrics, owns_live=True)


class Service:
    """Made anywhere; acts from `start` to `stop`, on one event loop. `recommender`: None = within this process."""

    def __init__(
        self,
        home: Path,
        domains: Sequence[str],
        deployment: Deployment,
        recommender: Recommender | None = None,
        database: Database | None = None,
    ) -> None:
        self.home, self.deployment = home, deployment
        self.domains: Mapping[str, Domain] = domains_of(domains)
        self.metrics = Metrics()
        self.breakers = Breakers(deployment.breakers, BreakersShown(self.metrics))
        self.database = database or Database(address(home, deployment.storage.url))
        self.database.guard = guard_of(self.breakers)
        self.secrets = Secrets.from_environment(home, deployment.environment)
        if deployment.environment == "production":
            judge_addresses({"storage.url": deployment.storage.url})
        self.tokens = Tokens(self.secrets, deployment.access)
        self.ownership = Ownership(self.database, self.secrets, deployment, self.metrics)
        self.accounts = Accounts(self.database, self.secrets, deployment, self.metrics, self.ownership, self.tokens)
        self.levels = Levels(
            deployment.caching,
            self.secrets.redis,
            lambda kind, outcome: self.metrics.cache.labels(kind, outcome).inc(),
            redis_guard(self.breakers, "cache", self.secrets.redis),
            partial(degraded.note, "cache"),
        )
        self.interactions = Interactions(self.database)
        self.live = Live(home, self.domains, deployment, self.database, self.metrics, self.ownership.erased)
        settle_us = int(deployment.storage.settle_s * 1e6)
        self.itineraries = Itineraries(self.domains, self.live, self.database, home, settle_us, self.metrics)
        self.slates = SlateWriter(self.database, home, deployment.storage.spool, self.metrics, partial(self.ownership.erased.at, "user"))
        self._stored_slates = Slates(self.database)
        self.metrics.slates_waiting.set_function(lambda: len(self.slates))
        self.recommender: Recommender = recommender or LocalRecommender(self.live, self.metrics)
        self.noticeboard = Noticeboard(home / "metrics", self.metrics)
        self._housekeeping = Housekeeping(self.database, deployment, self.noticeboard, self.metrics)
        self.limiter = counting.limiter(home, deployment, self.secrets.redis, self.breakers)
        self._asking = self.breakers.of("recommender", (TimeoutError, LateError, UnreachableError), longest_s=1.0)
        self.audit = Audit(self.database, home, deployment.storage.spool, self.metrics)
        valid_s = deployment.access.reset_minutes * 60.0
        mail_guard = self.breakers.of("mail", (NotDoneError,))
        mailer = Mailer(self.secrets.smtp, deployment.mail, deployment.public_url, valid_s, self.metrics, mail_guard)
        self.scores = Scores()
        self.choosing = Choosing(Choices(self.database), self.interactions, self._recorded)
        self.ordering = Ordering(self.database, self.domains, self.itineraries.current, mailer.deliver)
        self.relay = Exchange(
            self.database,
            subscribers(self.database, mailer.send, self.ordering.send, self.metrics),
            deployment.bus,
            self.metrics,
            self.secrets.kafka,
            outside_s=2 * deployment.mail.timeout_s,
            secret_s={MAIL: valid_s},
            guard=bus_guard(self.breakers) if deployment.bus.kind == "kafka" else nullcontext,
        )
        self.notifications = Notifications(self.database)
        self.streams = NotificationStreams(self.database, deployment.bus.poll_ms / 1_000.0)
        self.cache = Cache(self.metrics)
        self._fallbacks = {name: Fallback(ScoredFiles(home, name)) for name in self.domains}
        self._noticing: asyncio.Task[None] | None = None
        asks: dict[str, Callable[[], Awaitable[object]]] = {DATABASE: self.database.ping}
        if self.secrets.redis:
            asks |= {"cache": self.levels.ping, "limiter": lambda: self.limiter.take("lookout", 1)}
        self._lookout = Lookout(self.breakers, asks)

    async def start(self) -> None:
        await self._lookout.start()
        await self.levels.start()
        use_key(self.secrets.person)
        await self.ownership.start()
        await self.audit.start()
        await self.live.start()
        await self.itineraries.start()
        await self.recommender.start()
        await self.slates.start()
        await self.relay.start()
        self._noticing = asyncio.create_task(self._notice(), name="metrics")
        await self._housekeeping.start()

    async def stop(self) -> None:
        """Drains: what was taken is answered, and slates are written, for at most `deployment.drain_s` seconds."""
        await self._housekeeping.stop()
        if self._noticing is not None:
            self._noticing.cancel()
            await asyncio.gather(self._noticing, return_exceptions=True)
        await self.streams.stop()
        await self.recommender.stop()
        await self.itineraries.stop()
        await self.live.stop()
        await self.accounts.close()
        await self.ownership.stop()
        drain_s = self.deployment.drain_s
        await asyncio.gather(self.relay.stop(drain_s / 2), self.slates.stop(drain_s), self.audit.stop(drain_s))
        await self._lookout.stop()  # until here what waits may still be written, should the database come back
        await self.levels.close()
        await asyncio.to_thread(self.noticeboard.remove)
        await self.limiter.close()
        await self.database.close()

    async def _notice(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.noticeboard.write)
            except OSError:
                self.metrics.errors.labels("metrics").inc()
            await asyncio.sleep(_NOTICE_S)

    def standing(self, domain: str) -> Standing:
        """What answers for a domain now. Raises NotReadyError."""
        standing = self.live.standing(domain)
        if self._behind():
            degraded.note(DATABASE)
        return standing

    def _behind(self) -> bool:
        """Whether what other replicas recorded may be missing here."""
        return self.live.database_away is not None or self.breakers.state(DATABASE) != "closed"

    # ------------------------------------------------------------ answers

    async def recommend(self, ask: Ask) -> Slate:
        """A slate in any case: the recommender's, or what stands in for it, named in `degraded`. What is sold out is not in it, nor what
        has begun or clashes with what the person holds, unless the domain wants that marked only. Raises FilterError, NotReadyError."""
        gone = await self.gone(ask.domain)
        advice = await self._advised(ask)
        left_out = () if advice is None else advice.left_out
        if gone or left_out:
            ask = replace(ask, exclude=(*ask.exclude, *sorted(gone), *left_out))
        try:
            async with self._asking(), asyncio.timeout(ask.deadline_s + _GRACE_S):
                slate = await self.recommender.recommend(ask)
        except FilterError:
            raise
        except Exception as error:  # late, away or broken: the person gets an answer all the same
            standing = self.live.standing(ask.domain)
            self.metrics.errors.labels(PART).inc()
            log.warning(
                "the recommender did not answer",
                extra={"fields": {"domain": ask.domain, "why": f"{type(error).__name__}: {error}"}},
                exc_info=None if isinstance(error, TimeoutError | LateError | UnreachableError | OpenError | NotReadyError) else error,
            )
            slate = await asyncio.to_thread(self._fallbacks[ask.domain].slate, ask, standing)
        if self._behind() or (advice is not None and advice.away):
            slate = replace(slate, degraded=(*slate.degraded, DATABASE))
        if advice is not None:
            notes = advice.notes(frozenset(item.item for item in slate.items))
            slate = replace(slate, notes=(*slate.notes, *notes)) if notes else slate
        for part in slate.degraded:
            self.metrics.degraded.labels(ask.domain, part).inc()
            degraded.note(part)
        for stage, milliseconds in slate.stages_ms.items():
            self.metrics.stage_seconds.labels(ask.domain, stage).observe(milliseconds / 1_000.0)
        return slate

    async def _advised(self, ask: Ask) -> Advice | None:
        """None in a domain without a timetable in service."""
        words = self.domains[ask.domain].itinerary
        if words is None:
            return None
        try:
            current = self.itineraries.current(ask.domain)
        except NotReadyError:
            return None
        engine, people = self.live.standing(ask.domain).engine, self.live.standing(ask.domain).people
        means_owned = bool(int(engine.kinds.means[engine.kinds.strongest]) & int(Means.OWNED))  # what a history is taken for
        has: Sequence[str] = (ask.history or ()) if means_owned else ()
        said: Sequence[Said] = ()
        away = False
        if ask.user is not None:
            has = owned(people.state(ask.user), engine.catalogue.ids.id)
            try:
                said, _ = await self.choosing.stored.told(ask.domain, ask.user)
            except DatabaseAwayError:
                away = True
        return Advice(unfit(current, words, chosen(current, said, has), now_us()), current, words, ask.language, away)

    async def gone(self, domain: str) -> frozenset[str]:
        """Ids of what cannot be had, whichever process of this home said so."""
        await self.itineraries.hear(domain)
        return self.itineraries.gone(domain)

    async def similar(self, domain: str, item: int, k: int) -> tuple[SlateItem, ...]:
        """The k available items most like one. Raises IndexError, NotReadyError."""
        gone, engine = await self.gone(domain), self.standing(domain).engine
        return left(self.cache.get("similar", engine, (item, k + len(gone)), lambda: engine.similar(item, k + len(gone))), gone, k)

    async def popular(self, domain: str, k: int) -> tuple[SlateItem, ...]:
        """Raises NotReadyError."""
        gone, engine = await self.gone(domain), self.standing(domain).engine
        return left(self.cache.get("popular", engine, k + len(gone), lambda: engine.popular(k + len(gone))), gone, k)

    def prepared(self, domain: str, what: str, make: Callable[[Engine], bytes]) -> bytes:
        """Bytes that change only with the bundle or the catalogue, made once for each. Raises NotReadyError."""
        engine = self.standing(domain).engine
        return self.cache.get("prepared", engine, what, lambda: make(engine))

    # ------------------------------------------------------------ writes

    async def record(self, domain: str, happened: Sequence[StoredEvent]) -> set[str]:
        """Stores events and folds them in; returns the event_ids that were new. Raises DatabaseAwayError: then none is stored."""
        new = await self.interactions.record_events(domain, happened)
        self._recorded(domain, new)
        self.metrics.events_repeated.labels(domain).inc(len(happened) - len(new))
        return {event.event_id for event in new}

    def _recorded(self, domain: str, new: Sequence[StoredEvent]) -> None:
        """What follows from events of this replica, once they are committed."""
        if new:
            self.relay.wake()
        self.live.fold(domain, new)
        for event in new:
            self.metrics.events.labels(domain, event.kind).inc()

    async def add_item(self, domain: str, item: StoredItem) -> None:
        """Stores an item (its cells must have been checked) and places it in the engine. Raises DatabaseAwayError."""
        stored = await self.interactions.put_item(domain, item)
        await self.live.place(domain, stored)

    async def find_slate(self, domain: str, slate: str) -> StoredSlate | None:
        """A slate served by any replica; one just served elsewhere is waited for. Raises DatabaseAwayError."""
        for pause in _LOOK_S:
            await asyncio.sleep(pause)
            found = self.slates.waiting(domain, slate) or await self._stored_slates.find(domain, slate)
            if found is not None:
                return found
        return None


def left(items: tuple[SlateItem, ...], gone: frozenset[str], k: int) -> tuple[SlateItem, ...]:
    """The first k without those that cannot be had any more."""
    if not gone:
        return items[:k]
    kept = [item for item in items if item.item not in gone][:k]
    return tuple(replace(item, rank=place) for place, item in enumerate(kept, start=1))
