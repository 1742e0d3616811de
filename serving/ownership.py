"""Who owns which user, and which sessions, keys and accounts no longer count: in memory, so that a request is judged without a query.

Followed by polling, as serving/live.py follows events: a replica needs the database and no word from any other. While the
database is away, the last known state holds.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from configs.deployment import Deployment
from serving.access.secrets import Secrets
from serving.erased import Erased
from serving.metrics import Metrics
from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.standings import Standings

_MARGIN_US = 60_000_000  # a revoked session is remembered so much longer than its last access token lives

log = logging.getLogger("factotum.ownership")


@dataclass(frozen=True, slots=True)
class Owned:
    """The account that a domain's user is, and when they were linked (microseconds UTC)."""

    account: str
    linked_at: int


class Ownership:
    """Asked from the event loop, changed by its poll and, at once, by this replica's own Accounts.

    `erased` is shared with serving/live.py, which forgets people's histories by it.
    """

    def __init__(self, database: Database, secrets: Secrets, deployment: Deployment, metrics: Metrics) -> None:
        self._stored = Standings(database)
        self._metrics = metrics
        self._poll_s = deployment.storage.poll_ms / 1_000.0
        self._settle_us = int(deployment.storage.settle_s * 1e6)
        self.erased = Erased(database, secrets, self._settle_us, self._poll_s / 2)
        self._lifetime_us = int(deployment.access.access_minutes * 60e6) + _MARGIN_US
        self._revoked: dict[str, int] = {}  # session -> revoked_at
        self._keys: set[str] = set()
        self._disabled: frozenset[str] = frozenset()
        self._owners: dict[tuple[str, str], Owned] = {}
        self._users: dict[tuple[str, str], str] = {}  # (domain, account) -> user
        self._from = {"sessions": 0, "keys": 0, "links": 0}
        self._task: asyncio.Task[None] | None = None
        self.ready = False  # whether the database was read once

    async def start(self) -> None:
        """Reads what there is, then keeps looking. A database that is away is not an error."""
        try:
            await self.look()
        except DatabaseAwayError as error:
            log.warning("accounts cannot be judged yet: the database is away", extra={"fields": {"why": str(error)}})
        self._task = asyncio.create_task(self._follow(), name="ownership")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # ------------------------------------------------------------ questions

    def revoked(self, session: str) -> bool:
        return session in self._revoked or self.erased.at("session", session) is not None

    def disabled(self, account: str) -> bool:
        """Also true of an account that was erased."""
        return account in self._disabled or self.erased.at("account", account) is not None

    def key_revoked(self, key: str) -> bool:
        return key in self._keys

    def owner(self, domain: str, user: str) -> str | None:
        """The account that this user is, if any."""
        owned = self._owners.get((domain, user))
        if owned is None or self.erased.at("account", owned.account) is not None:
            return None
        unlinked = self.erased.at("link", domain, user)
        return None if unlinked is not None and unlinked >= owned.linked_at else owned.account

    def user_of(self, domain: str, account: str) -> str | None:
        """The user that this account is in a domain, if any."""
        user = self._users.get((domain, account))
        return user if user is not None and self.owner(domain, user) == account else None

    # ------------------------------------------------------------ what this replica did itself

    def note_revoked(self, sessions: list[str]) -> None:
        self._revoked.update(dict.fromkeys(sessions, now_us()))

    def note_key_revoked(self, key: str) -> None:
        self._keys.add(key)

    def note_disabled(self, account: str, disabled: bool) -> None:
        self._disabled = self._disabled | {account} if disabled else self._disabled - {account}

    def note_link(self, domain: str, user: str, account: str, linked_at: int) -> None:
        self._owners[domain, user] = Owned(account, linked_at)
        self._users[domain, account] = user

    # ------------------------------------------------------------ what others did

    async def look(self) -> None:
        """Reads what changed since the last look. Raises DatabaseAwayError."""
        started = now_us()
        floor = started - self._lifetime_us
        for session, at in await self._stored.sessions_revoked(max(floor, self._since("sessions"))):
            self._revoked[session] = at
            self._seen("sessions", at)
        for key, at in await self._stored.keys_revoked(self._since("keys")):
            self._keys.add(key)
            self._seen("keys", at)
        async for page in self._stored.links(self._since("links")):
            for domain, account, user, at in page:
                self.note_link(domain, user, account, at)
                self._seen("links", at)
        await self.erased.look()
        self._disabled = frozenset(await self._stored.disabled())
        if len(self._revoked) > 1_000:
            self._revoked = {session: at for session, at in self._revoked.items() if at >= floor}
        self.ready = True

    def _since(self, what: str) -> int:
        """Rows stamped by other clocks may become visible late: the last seconds are looked at again."""
        return max(0, self._from[what] - self._settle_us)

    def _seen(self, what: str, at: int) -> None:
        self._from[what] = max(self._from[what], min(at, now_us()))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.look()
            except DatabaseAwayError:
                continue  # serving/live.py says that it is away
            except Exception:
                self._metrics.errors.labels("ownership").inc()
                log.exception("following the accounts failed")
