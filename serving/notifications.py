"""What a person is told: sentences made from what happened when they are shown, and streams that bring what is new at once.

A replica asks the database once for all its streams together, every `poll_s`; what another replica's consumer wrote comes the same way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Literal

from serving.storage.database import Database, DatabaseAwayError, now_us
from serving.storage.notifications import Notification, Notifications

Language = Literal["en", "ru"]
STREAMS_OF_A_PERSON = 3  # at one replica
STREAMS = 200  # at one replica
_QUEUED = 100  # notifications that a slow reader may lag behind; then its stream ends, and it comes back for them
_SETTLE_US = 10_000_000  # a notification may become visible so long after it was stamped
_LOOK_S = 0.5  # how often a stream asks whether it may go on

#: kind -> what is said of it. Words in braces are taken from the payload; a sentence whose words are missing is not said.
_SENTENCES: dict[str, dict[Language, tuple[str, ...]]] = {
    "account.registered": {
        "en": ("Your account was made.",),
        "ru": ("Учётная запись создана.",),
    },
    "account.password_changed": {
        "en": ("Your password was changed and all other sessions were ended. If it was not you, ask for a new password by mail.",),
        "ru": ("Пароль изменён, остальные сеансы завершены. Если это были не вы, запросите новый пароль по почте.",),
    },
    "session.reuse_detected": {
        "en": ("A key of one of your sessions was used twice, so the session was ended. If it was not you, change your password.",),
        "ru": ("Ключ одного из ваших сеансов использован дважды, поэтому сеанс завершён. Если это были не вы, смените пароль.",),
    },
    "bundle.promoted": {
        "en": ("In {domain} the model {version} answers now; before it was {before}.", "In {domain} the model {version} answers now."),
        "ru": ("В домене {domain} теперь отвечает модель {version}, раньше была {before}.", "В домене {domain} теперь отвечает {version}."),
    },
    "bundle.rolled_back": {
        "en": ("In {domain} the model {version} answers again, instead of {before}.", "In {domain} the model {version} answers again."),
        "ru": ("В домене {domain} снова отвечает модель {version} вместо {before}.", "В домене {domain} снова отвечает {version}."),
    },
}
_UNKNOWN: dict[Language, str] = {"en": "Something happened: {kind}.", "ru": "Событие: {kind}."}

log = logging.getLogger("factotum.notifications")


def sentence(notification: Notification, language: Language) -> str:
    """The most telling sentence whose words are all there."""
    words = {name: str(value) for name, value in notification.payload.items() if isinstance(value, str | int | float)}
    for form in _SENTENCES.get(notification.kind, {}).get(language, ()):
        try:
            return form.format_map(words)
        except KeyError:
            continue
    return _UNKNOWN[language].format(kind=notification.kind)


class TooManyStreamsError(RuntimeError):
    """The person, or this replica, has as many streams as there may be."""


class _Stream:
    def __init__(self, account: str) -> None:
        self.account = account
        self.queue: asyncio.Queue[Notification] = asyncio.Queue(_QUEUED)
        self.seen: dict[str, int] = {}
        self.behind = False
        self.ready = False

    def see(self, notifications: Iterable[Notification]) -> None:
        self.seen.update((one.notification, one.created) for one in notifications)

    def put(self, notification: Notification) -> None:
        if notification.notification in self.seen or self.behind:
            return
        self.seen[notification.notification] = notification.created
        try:
            self.queue.put_nowait(notification)
        except asyncio.QueueFull:
            self.behind = True


class NotificationStreams:
    """The streams of a replica. `close` ends all of them at once, and no more begin."""

    def __init__(self, database: Database, poll_s: float) -> None:
        self._stored = Notifications(database)
        self._poll_s = poll_s
        self._streams: set[_Stream] = set()
        self._closing = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def closing(self) -> bool:
        return self._closing.is_set()

    def close(self) -> None:
        self._closing.set()

    async def stop(self) -> None:
        self.close()
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    def room(self, account: str) -> None:
        """Raises TooManyStreamsError."""
        if self.closing or len(self._streams) >= STREAMS:
            raise TooManyStreamsError("this server has no room for another stream")
        if sum(stream.account == account for stream in self._streams) >= STREAMS_OF_A_PERSON:
            raise TooManyStreamsError(f"there are {STREAMS_OF_A_PERSON} streams of yours already")

    async def follow(
        self, account: str, after: tuple[int, str] | None, goes_on: Callable[[], bool], seconds: float
    ) -> AsyncIterator[Notification]:
        """What is new for an account, from now or after a place, for as long as `goes_on` says so, at most so many seconds.

        Each comes once in a stream, in the order in which it was seen; what became visible behind the place a reader resumes from is not
        repeated: it is among the unread. A reader that lags too far behind is let go. Raises TooManyStreamsError, DatabaseAwayError (only
        before the first one: while the database is away a stream is silent).
        """
        self.room(account)
        stream, end = _Stream(account), time.monotonic() + seconds
        self._streams.add(stream)
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll(), name="notifications")
        try:
            known = await self._stored.since([account], now_us() - 2 * _SETTLE_US)
            stream.see(one for one in known if after is None or one.place <= after)
            while after is not None:
                missed = await self._stored.after(account, after, _QUEUED)
                stream.see(missed)
                stream.ready = len(missed) < _QUEUED  # before they are sent: the poll looks back far enough for what comes meanwhile
                for one in missed:
                    yield one
                after = None if stream.ready else missed[-1].place
            stream.ready = True
            while not self.closing and not stream.behind and goes_on() and (left := end - time.monotonic()) > 0:
                got = await self._next(stream, min(left, _LOOK_S))
                if got is not None:
                    yield got
        finally:
            self._streams.discard(stream)

    async def _next(self, stream: _Stream, seconds: float) -> Notification | None:
        getting, closing = asyncio.create_task(stream.queue.get()), asyncio.create_task(self._closing.wait())
        done, waiting = await asyncio.wait({getting, closing}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        return getting.result() if getting in done else None

    async def _poll(self) -> None:
        while self._streams:
            await asyncio.sleep(self._poll_s)
            since = now_us() - _SETTLE_US
            try:
                found = await self._stored.since(sorted({stream.account for stream in self._streams}), since)
            except DatabaseAwayError as error:
                log.warning("streams are silent: the database is away", extra={"fields": {"why": str(error)}})
                await asyncio.sleep(1.0)
                continue
            for stream in self._streams:
                for one in found:
                    if stream.ready and one.account == stream.account:
                        stream.put(one)
                stream.seen = {name: created for name, created in stream.seen.items() if created >= since - _SETTLE_US}
