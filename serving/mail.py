"""Mails: written from templates of this file, sent by SMTP, and never said to be sent when that is not known.

`Mailer.send` is the effect of the consumer `mail`: it raises NotDoneError where the server certainly took nothing, RefusedError where it
never will, and lets everything else through: then nobody knows (serving/events/consumers.py).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any, Literal
from urllib.parse import unquote, urlencode, urlsplit

import aiosmtplib

from configs.deployment import Mail
from serving.access.breakers import OpenError
from serving.events.consumers import NotDoneError, RefusedError
from serving.metrics import Metrics
from serving.storage.database import now_us
from serving.storage.outbox import Envelope

REQUESTED = "mail.requested"
ROUTE = "route"  # the template of an itinerary
_ADDRESS = re.compile(r"[^\s@<>(),:;\"\[\]\\\x00-\x1f\x7f]{1,64}@[^\s@<>(),:;\"\[\]\\\x00-\x1f\x7f]{1,190}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
_QUIT_S = 1.0
_ROUTE_S = 3 * 86_400.0  # an itinerary that was asked for longer ago is not sent any more
_MOST_TEXT = 40_000  # characters of a mail that is made from a route

Language = Literal["en", "ru"]

log = logging.getLogger("factotum.mail")

_RESET: dict[Language, tuple[str, str]] = {
    "en": (
        "A new password for {host}",
        (
            "Somebody, hopefully you, asked for a new password.\n\nOpen this link within {minutes} minutes to choose one:\n\n{link}\n\n"
            "It can be used once. If it was not you, ignore this mail: nothing changes.\n"
        ),
    ),
    "ru": (
        "Новый пароль для {host}",
        (
            "Кто-то, надеемся, что вы, запросил новый пароль.\n\nОткройте эту ссылку в течение {minutes} минут, чтобы задать его:\n\n"
            "{link}\n\n"
            "Ссылкой можно воспользоваться один раз. Если это были не вы, не делайте ничего: всё останется по-прежнему.\n"
        ),
    ),
}


@dataclass(frozen=True)
class Server:
    """What FACTOTUM_SMTP_URL says: smtps:// is TLS from the first byte, smtp:// uses STARTTLS wherever the server offers it, and always
    before a password is sent."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None

    def __repr__(self) -> str:
        return f"Server({self.host}:{self.port}, tls={self.tls}, user={self.user is not None})"

    @classmethod
    def of(cls, url: str) -> Server:
        """Raises ValueError, which never shows the password."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("FACTOTUM_SMTP_URL cannot be read: expected smtp://user:password@host:587 or smtps://...") from None
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("FACTOTUM_SMTP_URL cannot be used: expected smtp://user:password@host:587 or smtps://...")
        tls = parts.scheme == "smtps"
        user, password = (unquote(word) if word else None for word in (parts.username, parts.password))
        return cls(parts.hostname, port or (465 if tls else 587), tls, user, password)


class Mailer:
    """`url`: FACTOTUM_SMTP_URL or None. `valid_s`: a reset that was asked for longer ago is not sent any more. `guard`: a breaker around
    each conversation with the server, which sees NotDoneError for one that is away. Raises ValueError for a URL that cannot be used."""

    def __init__(
        self,
        url: str | None,
        settings: Mail,
        public_url: str,
        valid_s: float,
        metrics: Metrics,
        guard: Callable[[], AbstractAsyncContextManager[object]],
    ) -> None:
        self.server = Server.of(url) if url else None
        self._settings = settings
        self._public_url = public_url.rstrip("/")
        self._host = urlsplit(public_url).hostname or "localhost"
        self._valid_s = valid_s
        self._metrics = metrics
        self._guard = guard

    async def send(self, envelope: Envelope) -> None:
        """Sends what an event asks for. Raises NotDoneError, RefusedError, and whatever leaves it open whether it was sent."""
        await self._counted(self._send(envelope), envelope.event_id)

    async def deliver(self, message: EmailMessage, event_id: str) -> None:
        """Sends a mail that somebody else wrote, with its sender and its Message-ID put in here. Raises as `send` does."""
        message["From"] = self._settings.sender
        message["Message-ID"] = self._message_id(event_id)
        await self._counted(self._deliver(message, event_id), event_id)

    async def _counted(self, sending: Awaitable[None], event_id: str) -> None:
        try:
            await sending
        except NotDoneError:
            self._metrics.mails.labels("waits").inc()
            raise
        except RefusedError:
            self._metrics.mails.labels("refused").inc()
            raise
        except BaseException:
            self._metrics.mails.labels("unknown").inc()
            raise
        self._metrics.mails.labels("sent").inc()
        log.info("a mail was sent", extra={"fields": {"event": event_id}})

    async def _send(self, envelope: Envelope) -> None:
        valid_s = _ROUTE_S if envelope.payload.get("template") == ROUTE else self._valid_s
        if now_us() - envelope.occurred_at > valid_s * 1e6:
            raise RefusedError("it was asked for so long ago that it is not valid any more; the person has to ask again", wipe=True)
        await self._deliver(self.compose(envelope), envelope.event_id)

    async def _deliver(self, message: EmailMessage, event_id: str) -> None:
        if self.server is None:
            log.warning("a mail is not sent: there is no mail server", extra={"fields": {"event": event_id}})
            raise RefusedError("no mail server is configured (FACTOTUM_SMTP_URL), so nothing was sent")
        server = self.server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls,
            start_tls=False,
            timeout=self._settings.timeout_s,
            local_hostname="localhost",
        )
        try:
            async with asyncio.timeout(2 * self._settings.timeout_s):  # one answer may take timeout_s; all of them together twice that
                try:
                    async with self._guard():
                        await self._prepare(client, server, message)
                except OpenError as error:
                    raise NotDoneError(f"the mail server was away a moment ago: {error}") from None
                await self._hand_over(client, message)
        finally:
            client.close()

    async def _prepare(self, client: aiosmtplib.SMTP, server: Server, message: EmailMessage) -> None:
        """Everything before the mail itself: whatever fails here, nothing was sent."""
        try:
            await client.connect()
            await client.ehlo()
            if not server.tls and client.supports_extension("starttls"):
                await client.starttls()
                await client.ehlo()
            elif not server.tls and server.password is not None:
                raise RefusedError("the mail server offers no STARTTLS, and a password is not sent without it")
            if server.user is not None and server.password is not None:
                await client.login(server.user, server.password)
            await client.mail(_bare(str(message["From"])))
            await client.rcpt(_bare(str(message["To"])))
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPRecipientRefused) as error:
            if error.code >= 500:
                raise RefusedError(f"the mail server refuses the sender or the recipient ({error.code})") from None
            raise NotDoneError(f"the mail server asks to come again ({error.code})") from None
        except aiosmtplib.SMTPResponseException as error:
            raise NotDoneError(f"the mail server says {error.code} before the mail itself") from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise NotDoneError(f"the mail server does not answer: {type(error).__name__}") from None
        except asyncio.CancelledError:  # the time is up, or this process ends: either way it is known that nothing was sent
            raise NotDoneError("the mail server does not answer in time") from None

    async def _hand_over(self, client: aiosmtplib.SMTP, message: EmailMessage) -> None:
        try:
            await client.data(message.as_bytes())
        except aiosmtplib.SMTPDataError as error:  # its word is no: it does not have it
            if error.code >= 500:
                raise RefusedError(f"the mail server refuses the mail ({error.code})") from None
            raise NotDoneError(f"the mail server asks to come again ({error.code})") from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise OSError(f"the mail server fell silent while it took the mail: {type(error).__name__}") from None
        try:
            async with asyncio.timeout(_QUIT_S):
                await client.quit()
        except (aiosmtplib.SMTPException, OSError, TimeoutError):
            return  # it has the mail

    def compose(self, envelope: Envelope) -> EmailMessage:
        """The mail of an event. Its Message-ID is the event's, so that one that came twice is known as one. Raises RefusedError for an
        address or a value that cannot stand in a mail, and for a template that is not there."""
        said = envelope.payload
        to, values = said.get("to"), said.get("values")
        if not isinstance(to, str) or not _ADDRESS.fullmatch(to) or not to.partition("@")[0].isascii() or not isinstance(values, dict):
            raise RefusedError("the recipient's address cannot stand in a mail", wipe=True)
        template = said.get("template")
        if template == "password-reset":
            message = self._reset(values, "ru" if said.get("language") == "ru" else "en")
        elif template == ROUTE:
            message = _route(values)
        else:
            raise RefusedError(f"there is no template {str(template)[:40]!r}", wipe=True)
        address(message, to, envelope.occurred_at)
        message["From"] = self._settings.sender
        message["Message-ID"] = self._message_id(envelope.event_id)
        return message

    def _message_id(self, event_id: str) -> str:
        return f"<{re.sub(r'[^A-Za-z0-9.-]', '-', event_id)}@{self._host}>"

    def _reset(self, values: dict[str, Any], language: Language) -> EmailMessage:
        token, minutes = values.get("token"), values.get("minutes")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or not isinstance(minutes, int):
            raise RefusedError("the link's values cannot stand in a mail", wipe=True)
        subject, text = _RESET[language]
        # behind a #: what stands there is sent to no server and is in nobody's log
        link = f"{self._public_url}/reset#{urlencode({'token': token})}"
        message = EmailMessage()
        message["Subject"] = subject.format(host=self._host)
        message.set_content(text.format(link=link, minutes=minutes))
        return message


def _route(values: dict[str, Any]) -> EmailMessage:
    """An itinerary as text, with a calendar that a mail program can take over."""
    subject, text, calendar = values.get("subject"), values.get("text"), values.get("calendar")
    if not isinstance(subject, str) or not isinstance(text, str) or not isinstance(calendar, str):
        raise RefusedError("the route's values cannot stand in a mail", wipe=True)
    if not subject.isprintable() or len(subject) > 200 or len(text) > _MOST_TEXT:
        raise RefusedError("the route's values cannot stand in a mail", wipe=True)
    message = EmailMessage()
    message["Subject"] = subject
    message.set_content(text)
    message.add_attachment(calendar.encode(), maintype="text", subtype="calendar", filename="route.ics", params={"charset": "utf-8"})
    return message


def address(message: EmailMessage, to: str, at: int) -> None:
    """Says to whom a mail goes, and when it was written (microseconds UTC). Raises RefusedError for an address that cannot stand in a
    mail."""
    local, _, domain = to.rpartition("@")
    try:
        message["To"] = Address(username=local, domain=domain.encode("idna").decode("ascii"))
    except (ValueError, UnicodeError):
        raise RefusedError("the recipient's address cannot stand in a mail", wipe=True) from None
    message["Date"] = format_datetime(datetime.fromtimestamp(at / 1e6, UTC))
    message["Auto-Submitted"] = "auto-generated"


def _bare(address: str) -> str:
    return parseaddr(address)[1]
