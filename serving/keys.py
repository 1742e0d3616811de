"""Keys of machines: made, listed, revoked, and recognised without asking the database each time."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import get_args

from configs.deployment import Deployment
from serving.access.identity import SCOPES, Caller, Scope
from serving.metrics import Metrics
from serving.ownership import Ownership
from serving.storage.api_keys import ApiKey, ApiKeyRows
from serving.storage.database import Database, DatabaseAwayError, now_us

_FORM = re.compile(r"fct_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_NOTED_US = 60_000_000  # `last_used` is written at most so often

log = logging.getLogger("factotum.keys")


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found under a hash, and when (time.monotonic())."""

    key: ApiKey | None
    at: float


class Keys:
    """A key is `fct_<id>_<secret>`, the secret 256 random bits: too many to guess, so a plain SHA-256 of it is kept."""

    def __init__(self, database: Database, ownership: Ownership, deployment: Deployment, metrics: Metrics) -> None:
        self._rows, self._ownership, self._metrics = ApiKeyRows(database), ownership, metrics
        self._fresh_s, self._most = deployment.caching.key_s, deployment.caching.entries
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._noted: dict[str, int] = {}
        self._noting: set[asyncio.Task[None]] = set()
        self._asking: set[str] = set()

    async def create(self, name: str, scopes: Sequence[str], days: float | None = None) -> tuple[ApiKey, str]:
        """The key and its only showing. `days`: it expires after so many. Raises ValueError for an unknown scope, DatabaseAwayError."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown:
            raise ValueError(f"unknown scope {unknown[0]!r}; allowed are {', '.join(SCOPES)}")
        if not 0 < len(name) <= 100:
            raise ValueError("a key's name has 1 to 100 characters")
        now = now_us()
        expires = None if days is None else now + int(days * 86_400e6)
        key = ApiKey(secrets.token_hex(8), name, tuple(sorted(set(scopes))), now, expires)
        raw = f"fct_{key.key}_{secrets.token_urlsafe(32)}"
        await self._rows.add(key, _hash(raw))
        return key, raw

    async def all(self) -> list[ApiKey]:
        """All there ever were, oldest first. Raises DatabaseAwayError."""
        return await self._rows.all()

    async def revoke(self, key: str) -> bool:
        """False where there is no such key. Raises DatabaseAwayError."""
        found = await self._rows.revoke(key)
        if found:
            self._ownership.note_key_revoked(key)
        return found

    async def caller(self, raw: str) -> Caller | None:
        """Whose key this is; None for one that is unknown, revoked or over. What was found once is believed for `caching.key_s`
        seconds, then asked for anew behind the request's back: a slow database must not slow what needs nothing else of it. (A key
        changes only by being revoked, which `ownership` hears of.) Raises DatabaseAwayError for a key that was never seen here."""
        if _FORM.fullmatch(raw) is None:
            return None
        key = await self._find(_hash(raw))
        if key is None or key.revoked_at is not None or self._ownership.key_revoked(key.key):
            return None
        now = now_us()
        if key.expires is not None and key.expires <= now:
            return None
        self._note(key, now)
        return Caller("key", key.key, scopes=frozenset(scope for scope in get_args(Scope) if scope in key.scopes))

    async def close(self) -> None:
        for task in list(self._noting):
            task.cancel()
        await asyncio.gather(*self._noting, return_exceptions=True)

    async def _find(self, hashed: str) -> ApiKey | None:
        known = self._known.get(hashed)
        fresh = known is not None and time.monotonic() - known.at < self._fresh_s
        if known is not None and (fresh or known.key is not None):
            self._metrics.cache.labels("key", "near").inc()
            self._known.move_to_end(hashed)
            if not fresh and hashed not in self._asking:
                self._asking.add(hashed)
                self._behind(self._ask_anew(hashed))
            return known.key
        return await self._ask(hashed)

    async def _ask_anew(self, hashed: str) -> None:
        try:
            await self._ask(hashed)
        except DatabaseAwayError:
            log.debug("a key is believed for longer: the database is away")
        finally:
            self._asking.discard(hashed)

    async def _ask(self, hashed: str) -> ApiKey | None:
        found = await self._rows.of_hash(hashed)
        self._metrics.cache.labels("key", "miss").inc()
        self._known[hashed] = _Known(found, time.monotonic())
        self._known.move_to_end(hashed)
        while len(self._known) > self._most:
            # a guess goes before a key that exists: whoever tries many must not push the real ones out
            guess = next((h for h, k in zip(self._known, self._known.values(), strict=True) if k.key is None), None)
            self._known.pop(guess if guess is not None else next(iter(self._known)))
        return found

    def _note(self, key: ApiKey, now: int) -> None:
        if now - max(self._noted.get(key.key, 0), key.last_used or 0) < _NOTED_US:
            return
        self._noted[key.key] = now
        self._behind(self._write(key.key, now))

    def _behind(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work, name="keys")
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _write(self, key: str, now: int) -> None:
        try:
            await self._rows.used(key, now)
        except DatabaseAwayError:
            self._noted.pop(key, None)  # the next use is written instead


def _hash(raw: str) -> str:
    return hashlib.sha256(raw.encode()).hexdigest()
