"""Whom to forget: the erasures of all replicas, as keyed hashes that are looked up and can not be read."""

from __future__ import annotations

import time
from collections.abc import Mapping

from serving.access.secrets import Secrets
from serving.storage.database import Database, now_us
from serving.storage.standings import Standings


class Erased:
    """`look` belongs to the event loop; `at` and `since` may be called from any thread. Asking takes two microseconds, and nothing at
    all while nobody was erased. `settle_us`: an erasure may become visible so long after it was stamped."""

    def __init__(self, database: Database, secrets: Secrets, settle_us: int, pause_s: float = 0.0) -> None:
        self._stored, self._secrets, self._settle_us, self._pause_s = Standings(database), secrets, settle_us, pause_s
        self._known: dict[str, int] = {}  # hash -> when, microseconds UTC
        self._horizon = 0
        self._looked = float("-inf")

    @property
    def known(self) -> Mapping[str, int]:
        """Each hash, and the moment of its erasure. Never changed, only replaced."""
        return self._known

    def hashed(self, what: str, *parts: str) -> str:
        return self._secrets.stands_for(what, *parts)

    def at(self, what: str, *parts: str) -> int | None:
        """When this account, session, link (domain, user) or user (domain, user) was erased, in microseconds UTC."""
        return self._known.get(self._secrets.stands_for(what, *parts)) if self._known else None

    def note(self, hashes: list[str], at: int) -> None:
        """What this replica erased itself."""
        self._known = self._known | dict.fromkeys(hashes, at)

    async def look(self) -> None:
        """Reads what is new, at most once in `pause_s` seconds. Raises DatabaseAwayError."""
        if time.monotonic() - self._looked < self._pause_s:
            return
        found = dict(await self._stored.erasures(max(0, self._horizon - self._settle_us)))
        self._looked = time.monotonic()
        if found:
            self._horizon = max(self._horizon, min(now_us(), max(found.values())))
            if any(self._known.get(hashed) != at for hashed, at in found.items()):
                self._known = self._known | found
