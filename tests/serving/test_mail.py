"""Mails against a real SMTP server on the loopback interface: whole, away, slow, refusing, and one that dies in the middle."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from email import message_from_bytes, policy
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from configs.deployment import Deployment, Mail
from pipelines.serve import free_port
from serving.events.consumers import NotDoneError, RefusedError
from serving.events.exchange import Exchange
from serving.mail import REQUESTED, Mailer, Server
from serving.metrics import Metrics
from serving.storage.database import Database, now_us
from serving.storage.dead_letters import DeadLetters
from serving.storage.outbox import Envelope, put
from serving.subscribers import MAIL, subscribers

TOKEN = "t0ken-" + "x" * 37


class Inboxes:
    """What the server does and has got. `rcpt`, `data`: what it answers there; `hang`: it says nothing for so long."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.rcpt, self.data, self.hang, self.cut = "250 OK", "250 OK", 0.0, False

    async def handle_RCPT(self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.data.startswith("250"):
            self.got.append(envelope.original_content)
        if self.cut:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        await asyncio.sleep(self.hang)
        return self.data

    async def arrived(self, count: int, seconds: float = 120.0) -> None:
        """Waits until so many mails are there."""
        async with asyncio.timeout(seconds):
            while len(self.got) < count:  # noqa: ASYNC110 (the server runs in a thread of its own)
                await asyncio.sleep(0.05)


@pytest.fixture
def inboxes() -> Iterator[tuple[Inboxes, str]]:
    handler = Inboxes()
    port = free_port()
    controller = Controller(handler, hostname="127.0.0.1", port=port, ready_timeout=10.0)
    controller.start()
    yield handler, f"smtp://127.0.0.1:{port}"
    controller.stop()


def asked(**also: object) -> Envelope:
    payload = {"account": "a" * 32, "to": "you@example.org", "template": "password-reset", "values": {"token": TOKEN, "minutes": 30}}
    return Envelope(REQUESTED, "a" * 32, {**payload, **also})


def mailer(url: str | None, timeout_s: float = 5.0, **also: object) -> Mailer:
    settings = Mail.model_validate({"sender": "Factotum <us@example.org>", "timeout_s": timeout_s, **also})
    return Mailer(url, settings, "https://factotum.example/", 1_800.0, Metrics(), nullcontext)


async def test_a_reset_is_sent_whole(inboxes: tuple[Inboxes, str]) -> None:
    box, url = inboxes
    for language in ("en", "ru"):
        await mailer(url).send(asked(language=language))
    for raw, subject in zip(box.got, ("A new password for factotum.example", "Новый пароль для factotum.example"), strict=True):
        mail = message_from_bytes(raw, policy=policy.default)
        assert (mail["To"], mail["From"], mail["Subject"]) == ("you@example.org", "Factotum <us@example.org>", subject)
        assert f"https://factotum.example/reset#token={TOKEN}" in mail.get_content()
        assert re.fullmatch(r"<[0-9a-f]{32}@factotum\.example>", mail["Message-ID"])


def test_the_message_id_is_the_events() -> None:
    envelope = asked()
    first, second = (mailer(None).compose(envelope)["Message-ID"] for _ in range(2))
    assert first == second
    assert envelope.event_id in first


@pytest.mark.parametrize(
    "also",
    [
        {"to": "you@example.org\r\nBcc: them@example.org"},
        {"to": "you@example.org, them@example.org"},
        {"to": "<you@example.org>"},
        {"to": "nobody"},
        {"to": None},
        {"to": "ю@example.org"},
        {"values": {"token": "x\r\nSubject: y", "minutes": 30}},
        {"values": {"token": TOKEN, "minutes": "30\n"}},
        {"values": None},
        {"template": "../../etc/passwd"},
    ],
)
async def test_what_cannot_stand_in_a_mail_is_refused_and_wiped(inboxes: tuple[Inboxes, str], also: dict[str, object]) -> None:
    box, url = inboxes
    with pytest.raises(RefusedError) as refused:
        await mailer(url).send(asked(**also))
    assert refused.value.wipe
    assert box.got == []


async def test_an_address_beyond_ascii_is_written_as_the_net_reads_it(inboxes: tuple[Inboxes, str]) -> None:
    box, url = inboxes
    await mailer(url).send(asked(to="you@почта.example"))
    assert message_from_bytes(box.got[0], policy=policy.default)["To"] == "you@xn--80a1acny.example"


async def test_one_that_is_too_old_is_not_sent(inboxes: tuple[Inboxes, str]) -> None:
    box, url = inboxes
    old = Envelope(REQUESTED, "a", asked().payload, occurred_at=now_us() - 1_801_000_000)
    with pytest.raises(RefusedError, match="long ago"):
        await mailer(url).send(old)
    assert box.got == []


@pytest.mark.parametrize(
    ("rcpt", "data", "kind"),
    [
        ("450 later", "250 OK", NotDoneError),
        ("550 nobody", "250 OK", RefusedError),
        ("250 OK", "451 later", NotDoneError),
        ("250 OK", "554 no", RefusedError),
    ],
)
async def test_the_servers_no_is_believed(inboxes: tuple[Inboxes, str], rcpt: str, data: str, kind: type[Exception]) -> None:
    box, url = inboxes
    box.rcpt, box.data = rcpt, data
    with pytest.raises(kind):
        await mailer(url).send(asked())
    assert box.got == []


async def test_a_server_that_takes_the_mail_and_falls_silent_leaves_it_open(inboxes: tuple[Inboxes, str]) -> None:
    box, url = inboxes
    box.hang = 3.0
    with pytest.raises(OSError, match="fell silent"):
        await mailer(url, timeout_s=0.3).send(asked())
    box.hang, box.cut = 0.0, True
    with pytest.raises(OSError, match="fell silent"):
        await mailer(url).send(asked())
    assert len(box.got) == 2  # it had it, both times


async def test_a_server_that_is_away_or_mute_has_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(NotDoneError):
            await mailer(f"smtp://127.0.0.1:{taken.getsockname()[1]}", timeout_s=0.5).send(asked())
        taken.listen()
        with pytest.raises(NotDoneError):
            await mailer(f"smtp://127.0.0.1:{taken.getsockname()[1]}", timeout_s=0.3).send(asked())


async def test_a_password_is_not_sent_in_the_clear(inboxes: tuple[Inboxes, str]) -> None:
    box, url = inboxes
    with pytest.raises(RefusedError, match="STARTTLS"):
        await mailer(url.replace("smtp://", "smtp://me:hunter2@")).send(asked())
    assert box.got == []


@pytest.mark.parametrize("url", ["http://x", "smtp://", "smtp://u:s3cret@host:port", "smtp://u:s3cret@h/path", "smtp://u:s3cret@h?x=1"])
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="FACTOTUM_SMTP_URL") as refused:
        Server.of(url)
    assert "s3cret" not in str(refused.value)


def test_a_server_does_not_show_its_password() -> None:
    server = Server.of("smtps://me%40x:s3%2Fcret@mail.example")
    assert (server.port, server.tls, server.user, server.password) == (465, True, "me@x", "s3/cret")
    assert "s3/cret" not in repr(server)


# ------------------------------------------------------------------ the whole way


@pytest.fixture
async def letters(database: Database) -> DeadLetters:
    return DeadLetters(database)


async def _through(database: Database, made: Mailer, envelope: Envelope, over: Any) -> None:
    words = Deployment.model_validate({"bus": {"poll_ms": 20, "backoff_s": 0.02, "attempts": 3}})
    exchange = Exchange(database, subscribers(database, made.send, made.send, Metrics()), words.bus, Metrics(), secret_s={MAIL: 1_800.0})
    async with database.writing() as connection:
        await put(database, connection, [envelope])
    await exchange.start()
    try:
        async with asyncio.timeout(30.0):
            while not await over():  # noqa: ASYNC110 (a relay acts)
                await asyncio.sleep(0.02)
    finally:
        await exchange.stop(3.0)


async def test_without_a_server_it_is_a_dead_letter_that_says_so_and_the_log_has_no_secret(
    database: Database, letters: DeadLetters, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "factotum")

    async def over() -> bool:
        return await letters.count() == 1

    await _through(database, mailer(None), asked(), over)
    (letter,) = await letters.page(5)
    assert "no mail server is configured" in letter.error
    assert letter.envelope is not None  # may be replayed once there is one, as long as the link is valid
    assert TOKEN not in caplog.text
    assert "you@example.org" not in caplog.text


async def test_a_server_that_comes_back_gets_it_once(database: Database, letters: DeadLetters, inboxes: tuple[Inboxes, str]) -> None:
    box, url = inboxes
    box.rcpt = "450 later"
    made = mailer(url)
    tries = 0
    send = made.send

    async def counted(envelope: Envelope) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            box.rcpt = "250 OK"
        await send(envelope)

    made.send = counted  # type: ignore[method-assign]

    async def over() -> bool:
        return bool(box.got)

    await _through(database, made, asked(), over)
    assert len(box.got) == 1
    assert await letters.count() == 0


async def test_one_that_may_have_been_sent_is_not_sent_again(
    database: Database, letters: DeadLetters, inboxes: tuple[Inboxes, str]
) -> None:
    box, url = inboxes
    box.cut = True

    async def over() -> bool:
        return await letters.count() == 1

    await _through(database, mailer(url), asked(), over)
    assert len(box.got) == 1
    assert "may have been done" in (await letters.page(1))[0].error
