"""Accounts: who logs in, for how long, and how they get in again. What a person has is exported and erased in serving/persons.py,
machines' keys are in serving/keys.py. Over 400 lines because every way into an account is to be seen in one look.

A POST may come twice (its answer got lost on the way), so each call here may: a registration repeated with its password is a
log-in, a change of password that was made is made, and a refresh is told from a stolen one by its `attempt`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from configs.deployment import Deployment
from serving.access import telegram
from serving.access.identity import Caller, Role
from serving.access.passwords import PasswordRuleError, Passwords, check
from serving.access.secrets import Secrets
from serving.access.tokens import Tokens
from serving.keys import Keys
from serving.metrics import Metrics
from serving.ownership import Ownership
from serving.persons import Persons
from serving.storage.accounts import Account, AccountRows, Link, Profile
from serving.storage.database import Database, now_us
from serving.storage.outbox import Envelope, put
from serving.storage.sessions import Session, SessionRows

Kind = Literal[
    "email",  # not an address
    "password-rules",  # a password that may not be chosen
    "registration-closed",
    "taken",  # somebody else's address, Telegram id or user
    "credentials",  # who, or the proof, is wrong; never says which
    "disabled",
    "refresh",  # unknown, used, or of a session that ended
    "reset",  # unknown, used or over
    "telegram",  # forged, stale or used
    "telegram-off",  # no bot is configured
    "unknown-session",
    "unknown-account",
    "proof",  # what is asked for needs the password, or a fresh Telegram proof, once more
]

_DAY_US = 86_400_000_000
_RESEND_US = 60_000_000  # a second mail for a new password is sent after so long
_DEVICE = 100  # characters
_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

log = logging.getLogger("factotum.accounts")


class AccountError(Exception):
    """Something that an account may not do. `kind` is for programs, the text for people; neither holds anything secret."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind: Kind = kind


@dataclass(frozen=True, slots=True)
class Entry:
    """What a log-in gives. `expires_in`: seconds that `access` is good for; `refresh_expires`: microseconds UTC."""

    account: str
    session: str
    role: Role
    access: str = field(repr=False)
    expires_in: int
    refresh: str = field(repr=False)
    refresh_expires: int


def normalised_email(text: str) -> str:
    """An address as it is kept: lower case, its domain in ASCII. Raises AccountError (email)."""
    local, at, host = text.strip().rpartition("@")
    try:
        domain = host.lower().encode("idna").decode("ascii")
    except UnicodeError:
        domain = ""
    labels = domain.split(".")
    sane = at and len(local) <= 64 and len(local) + len(domain) < 254 and len(labels) > 1
    if not sane or _LOCAL.fullmatch(local.lower()) is None or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise AccountError("email", "expected an e-mail address such as name@example.org")
    return f"{local.lower()}@{domain}"


def device_of(user_agent: str) -> str:
    """What a session is called in its owner's list: the beginning of the User-Agent, printable."""
    return "".join(c for c in user_agent if c.isprintable())[:_DEVICE] or "unknown"


class Accounts:
    """Every call raises DatabaseAwayError while the database is away, and AccountError with the kinds that it names."""

    def __init__(
        self, database: Database, secrets: Secrets, deployment: Deployment, metrics: Metrics, ownership: Ownership, tokens: Tokens
    ) -> None:
        self._database, self._secrets, self._metrics = database, secrets, metrics
        self._access = deployment.access
        self._tokens, self._ownership = tokens, ownership
        self._accounts, self._sessions = AccountRows(database), SessionRows(database)
        self.passwords = Passwords(deployment.access)
        self.keys = Keys(database, ownership, deployment, metrics)
        self.persons = Persons(database, secrets, ownership)

    async def close(self) -> None:
        await self.keys.close()
        self.passwords.close()

    def export(self, account: str) -> AsyncIterator[bytes]:
        """As serving.persons.Persons.export."""
        return self.persons.export(account)

    async def erase(self, account: str) -> bool:
        """As serving.persons.Persons.erase."""
        return await self.persons.erase(account)

    async def caller_of_key(self, raw: str) -> Caller | None:
        """As serving.keys.Keys.caller."""
        return await self.keys.caller(raw)

    # ------------------------------------------------------------ coming in

    async def register(self, email: str, password: str, device: str) -> Entry:
        """A new account and its first session. One that exists is entered if the password is its own, so that a repeated call does
        no harm. Raises AccountError: registration-closed, email, password-rules, taken, disabled."""
        if not self._access.registration:
            raise AccountError("registration-closed", "accounts are made by the administrator here")
        account = await self.create(email, password)
        if account is not None:
            return await self._enter(account, device, "register")
        try:
            return await self.login(email, password, device)
        except AccountError as error:
            if error.kind != "credentials":
                raise
            raise AccountError("taken", "there is an account with this address; log in, or ask for a new password") from None

    async def create(self, email: str, password: str, role: Role = "user") -> Account | None:
        """A new account; None where the address has one. Raises AccountError: email, password-rules."""
        address = normalised_email(email)
        self._check(password, address)
        hashed = await self.passwords.hashed(password)
        now = now_us()
        account = Account(secrets.token_hex(16), address, hashed, None, role, "active", now, now)
        async with self._database.writing() as connection:
            if not await self._accounts.add(connection, account):
                return None
            await self._announce(connection, "account.registered", account.account)
        return account

    async def login(self, email: str, password: str, device: str) -> Entry:
        """Raises AccountError: credentials, disabled. An address that nobody has takes as long as a wrong password."""
        try:
            address = normalised_email(email)
        except AccountError:
            address = ""
        async with self._database.reading() as connection:
            account = await self._accounts.of_email(connection, address) if address else None
        fits = await self.passwords.fits(password, account.password if account else None)
        if account is None or not fits:
            self._metrics.logins.labels("password", "refused").inc()
            raise AccountError("credentials", "the address or the password is wrong")
        if account.password is not None and self.passwords.outdated(account.password):
            hashed = await self.passwords.hashed(password)
            async with self._database.writing() as connection:
                await self._accounts.rehash(connection, account.account, account.password, hashed)
            account = replace(account, password=hashed)
        return await self._enter(account, device, "password")

    async def telegram_login(self, proof: telegram.Proof, device: str, attempt: str = "") -> Entry:
        """A session of the account with this Telegram id, which is made if there is none. A proof is used once; the same call again
        (`attempt`) is answered again. Raises AccountError: telegram, registration-closed, disabled."""
        async with self._database.writing() as connection:
            await self._use_proof(connection, proof, attempt)
            account = await self._accounts.of_telegram(connection, proof.telegram_id)
            if account is None:
                if not self._access.registration:
                    raise AccountError("registration-closed", "accounts are made by the administrator here")
                now = now_us()
                account = Account(secrets.token_hex(16), None, None, proof.telegram_id, "user", "active", now, now)
                if await self._accounts.add(connection, account):
                    await self._announce(connection, "account.registered", account.account)
                else:  # the same person, at the same time, with another proof
                    account = await self._accounts.of_telegram(connection, proof.telegram_id)
                    assert account is not None
        return await self._enter(account, device, "telegram")

    def telegram_proof(self, widget: dict[str, str | int] | None, init_data: str | None) -> telegram.Proof:
        """What Telegram signed, checked. Raises AccountError: telegram, telegram-off."""
        if self._secrets.telegram is None:
            raise AccountError("telegram-off", "Telegram log-in is not set up here")
        try:
            if init_data is not None:
                return telegram.from_web_app(init_data, self._secrets.telegram, self._access.telegram_seconds)
            return telegram.from_widget(widget or {}, self._secrets.telegram, self._access.telegram_seconds)
        except telegram.TelegramError as error:
            self._metrics.logins.labels("telegram", error.why).inc()
            raise AccountError("telegram", "this is not a fresh payload that Telegram signed for this bot") from None

    async def link_telegram(self, account: str, proof: telegram.Proof, attempt: str = "") -> None:
        """Lets an account log in by Telegram too. Raises AccountError: telegram, taken, unknown-account."""
        async with self._database.writing() as connection:
            await self._use_proof(connection, proof, attempt)
            other = await self._accounts.of_telegram(connection, proof.telegram_id)
            if other is not None and other.account != account:
                raise AccountError("taken", "this Telegram id belongs to another account")
            if not await self._accounts.change(connection, account, {"telegram_id": proof.telegram_id}):
                raise AccountError("unknown-account", "there is no such account")

    # ------------------------------------------------------------ staying in

    async def refresh(self, token: str, attempt: str = "") -> Entry:
        """The next pair. A token is used once: a second use means that somebody else has it, and ends the session for both. The same
        call again (the same `attempt`, a word that the caller or the proxy chose) is answered again, as long as the pair it made
        was not used. Raises AccountError: refresh, disabled."""
        hashed = _hash(token)
        successor = self._successor(token, attempt)
        stolen: Session | None = None
        async with self._database.writing() as connection:
            name = await self._sessions.session_of(connection, hashed)
            session = await self._sessions.find(connection, name) if name is not None else None
            if session is None or session.revoked_at is not None or session.expires <= now_us():
                raise AccountError("refresh", "this session is over; log in again")
            account = await self._accounts.of_id(connection, session.account)
            if account is None or account.status != "active":
                raise AccountError("disabled", "this account is disabled")
            now = now_us()
            expires = min(now + int(self._access.refresh_days * _DAY_US), session.created + int(self._access.session_days * _DAY_US))
            # the account's row first, as everywhere: whoever erases it meanwhile waits, and nobody waits for each other
            await self._accounts.change(connection, account.account, {"last_activity": now})
            if await self._sessions.use_refresh(connection, hashed):
                await self._sessions.add_refresh(connection, session.session, _hash(successor), now)
                await self._sessions.extend(connection, session.session, now, expires)
            elif not attempt or not await self._sessions.unused(connection, _hash(successor)):
                stolen = session
                if await self._sessions.revoke(connection, "reuse", session.account, session.session):
                    await self._announce(connection, "session.reuse_detected", session.account, session=session.session)
        if stolen is not None:
            self._metrics.refreshes_reused.inc()
            self._ownership.note_revoked([stolen.session])
            log.warning("a refresh token came a second time; its session was ended")
            raise AccountError("refresh", "this session is over; log in again")
        return self._pair(account, session.session, successor, expires)

    async def logout(self, token: str) -> None:
        """Ends the session of a refresh token; one that is over stays so, one that never was is no error."""
        async with self._database.writing() as connection:
            name = await self._sessions.session_of(connection, _hash(token))
            session = await self._sessions.find(connection, name) if name is not None else None
            ended = await self._sessions.revoke(connection, "logout", session.account, session.session) if session is not None else []
        self._ownership.note_revoked(ended)

    async def sessions(self, account: str) -> list[Session]:
        """Those that live, the newest first."""
        async with self._database.reading() as connection:
            return await self._sessions.live(connection, account)

    async def revoke(self, account: str, session: str | None = None, why: str = "logout") -> int:
        """Ends one session of an account, or all; returns how many. Raises AccountError: unknown-session (not this account's)."""
        async with self._database.writing() as connection:
            if session is not None:
                found = await self._sessions.find(connection, session)
                if found is None or found.account != account:
                    raise AccountError("unknown-session", "you have no such session")
            ended = await self._sessions.revoke(connection, why, account, session)
        self._ownership.note_revoked(ended)
        return len(ended)

    # ------------------------------------------------------------ passwords

    async def change_password(self, account: str, session: str, now_has: str | None, wants: str) -> None:
        """A new password; every other session ends. An account without one (Telegram alone) cannot set one here: a reset by mail needs
        its address. Raises AccountError: credentials, password-rules, unknown-account."""
        found = await self.find(account)
        if not await self.passwords.fits(now_has or "", found.password):
            if await self.passwords.fits(wants, found.password):
                return  # the same call again: it was done
            raise AccountError("credentials", "the password is wrong")
        self._check(wants, found.email)
        hashed = await self.passwords.hashed(wants)
        async with self._database.writing() as connection:
            await self._accounts.change(connection, account, {"password": hashed})
            await self._accounts.forget_one_time(connection, account, "reset")
            ended = await self._sessions.revoke(connection, "password", account, but=session)
            await self._announce(connection, "account.password_changed", account, how="change")
        self._ownership.note_revoked(ended)

    async def forgot(self, email: str) -> None:
        """A mail with a link for a new password, if somebody has this address. Never says whether: no error, and the same writes."""
        try:
            address = normalised_email(email)
        except AccountError:
            return
        token, now = secrets.token_urlsafe(32), now_us()
        expires = now + int(self._access.reset_minutes * 60e6)
        async with self._database.writing() as connection:
            account = await self._accounts.of_email(connection, address)
            known = account is not None and account.status == "active"
            name = account.account if account is not None and known else None
            if name is not None and await self._accounts.waiting_one_time(connection, name, "reset", expires - _RESEND_US):
                return  # one was sent a moment ago
            await self._accounts.put_one_time(connection, _hash(token), "reset", name, expires)
            if name is not None:
                values = {"token": token, "minutes": int(self._access.reset_minutes)}
                payload: dict[str, object] = {"account": name, "to": address, "template": "password-reset", "values": values}
                await put(self._database, connection, [Envelope("mail.requested", name, payload)])

    async def reset(self, token: str, wants: str) -> None:
        """The new password of whoever got the mail. All sessions end, and a Telegram id is unlinked: who made an account for somebody
        else's address must not keep a way in. Raises AccountError: reset, password-rules."""
        hashed = _hash(token)
        async with self._database.reading() as connection:
            made = await self._accounts.one_time(connection, hashed, "reset")
            account = await self._accounts.of_id(connection, made[0]) if made is not None and made[0] is not None else None
        if made is None or account is None:
            raise AccountError("reset", "this link was used, or is too old; ask for another mail")
        if made[2] is not None and await self.passwords.fits(wants, account.password):
            return  # the same call again: it was done
        if made[2] is not None or made[1] <= now_us():
            raise AccountError("reset", "this link was used, or is too old; ask for another mail")
        self._check(wants, account.email)
        kept = await self.passwords.hashed(wants)
        async with self._database.writing() as connection:
            if await self._accounts.use_one_time(connection, hashed, "reset") is None:
                raise AccountError("reset", "this link was used, or is too old; ask for another mail")
            await self._accounts.change(connection, account.account, {"password": kept, "telegram_id": None})
            await self._accounts.forget_one_time(connection, account.account, "reset")
            ended = await self._sessions.revoke(connection, "password", account.account)
            await self._announce(connection, "account.password_changed", account.account, how="reset")
        self._ownership.note_revoked(ended)

    async def proven(self, account: str, password: str | None, proof: telegram.Proof | None, attempt: str = "") -> None:
        """Whether whoever calls has more than a token. Raises AccountError: proof, unknown-account, telegram."""
        found = await self.find(account)
        if proof is not None and proof.telegram_id == found.telegram_id:
            async with self._database.writing() as connection:
                await self._use_proof(connection, proof, attempt)
            return
        if not await self.passwords.fits(password or "", found.password):
            raise AccountError("proof", "this needs your password, or a fresh log-in by Telegram, once more")

    # ------------------------------------------------------------ who somebody is

    async def find(self, account: str) -> Account:
        """Raises AccountError: unknown-account."""
        async with self._database.reading() as connection:
            found = await self._accounts.of_id(connection, account)
        if found is None:
            raise AccountError("unknown-account", "there is no such account")
        return found

    async def find_email(self, email: str) -> Account:
        """Raises AccountError: unknown-account, email."""
        address = normalised_email(email)
        async with self._database.reading() as connection:
            found = await self._accounts.of_email(connection, address)
        if found is None:
            raise AccountError("unknown-account", "there is no account with this address")
        return found

    async def page(self, size: int, after: str = "", email: str | None = None) -> Sequence[Account]:
        """A page of accounts in the order of their ids."""
        async with self._database.reading() as connection:
            return await self._accounts.page(connection, size, after, email)

    async def profile(self, account: str) -> Profile:
        async with self._database.reading() as connection:
            return await self._accounts.profile(connection, account)

    async def change_profile(self, account: str, to: Mapping[str, str | None]) -> None:
        """Changes the named fields of a Profile. Raises AccountError: unknown-account."""
        async with self._database.writing() as connection:
            if await self._accounts.of_id(connection, account) is None:
                raise AccountError("unknown-account", "there is no such account")
            await self._accounts.change_profile(connection, account, to)

    async def set_role(self, account: str, role: Role) -> None:
        """Tokens say their role, so the sessions end. Raises AccountError: unknown-account."""
        await self._change(account, {"role": role}, "role")

    async def set_disabled(self, account: str, disabled: bool) -> None:
        """Raises AccountError: unknown-account."""
        await self._change(account, {"status": "disabled" if disabled else "active"}, "admin" if disabled else None)
        self._ownership.note_disabled(account, disabled)

    async def links(self, account: str) -> Sequence[Link]:
        async with self._database.reading() as connection:
            return await self._accounts.links(connection, account)

    async def link(self, domain: str, account: str, user: str | None = None) -> str:
        """Which user of a domain an account is, from now on; without `user` one of its own is made. The same call again changes
        nothing. Raises AccountError: taken, unknown-account."""
        wanted = user if user is not None else f"a-{account}"
        async with self._database.writing() as connection:
            if await self._accounts.of_id(connection, account) is None:
                raise AccountError("unknown-account", "there is no such account")
            made = Link(domain, account, wanted, now_us())
            if not await self._accounts.link(connection, made):
                there = [link for link in await self._accounts.links(connection, account) if link.domain == domain]
                if not there or (user is not None and there[0].user != user):
                    raise AccountError("taken", "this account is another user of the domain, or this user another account")
                made = there[0]
        self._ownership.note_link(domain, made.user, account, made.linked_at)
        return made.user

    async def unlink(self, domain: str, account: str) -> bool:
        """False where there was no link. The user and what is known of it stay."""
        now = now_us()
        async with self._database.writing() as connection:
            user = await self._accounts.unlink(connection, domain, account)
            if user is None:
                return False
            hashed = [self._secrets.stands_for("link", domain, user)]
            await self._accounts.erased(connection, "link", hashed, now)
        self._ownership.erased.note(hashed, now)
        return True

    # ------------------------------------------------------------ pieces

    def _check(self, password: str, email: str | None) -> None:
        try:
            check(password, email)
        except PasswordRuleError as error:
            raise AccountError("password-rules", str(error)) from None

    async def _change(self, account: str, to: dict[str, object], ends: str | None) -> None:
        async with self._database.writing() as connection:
            if not await self._accounts.change(connection, account, to):
                raise AccountError("unknown-account", "there is no such account")
            ended = await self._sessions.revoke(connection, ends, account) if ends is not None else []
        self._ownership.note_revoked(ended)

    async def _use_proof(self, connection: AsyncConnection, proof: telegram.Proof, attempt: str) -> None:
        """Raises AccountError: telegram, where the proof was used by another call."""
        expires = (proof.signed_at + int(self._access.telegram_seconds) + 60) * 1_000_000
        mark = _hash(f"{proof.signature}:{attempt}") if attempt else ""
        if await self._accounts.put_one_time(connection, _hash(proof.signature), "telegram", None, expires):
            if mark:
                await self._accounts.put_one_time(connection, mark, "telegram", None, expires)
        elif not mark or await self._accounts.one_time(connection, mark, "telegram") is None:
            self._metrics.logins.labels("telegram", "used").inc()
            raise AccountError("telegram", "this payload was used; log in by Telegram anew")

    async def _enter(self, account: Account, device: str, how: str) -> Entry:
        if account.status != "active":
            self._metrics.logins.labels(how, "disabled").inc()
            raise AccountError("disabled", "this account is disabled")
        now = now_us()
        expires = now + int(min(self._access.refresh_days, self._access.session_days) * _DAY_US)
        session = Session(secrets.token_hex(16), account.account, now, now, expires, device_of(device))
        token = secrets.token_urlsafe(32)
        async with self._database.writing() as connection:
            await self._accounts.change(connection, account.account, {"last_activity": now})  # from here on nobody else changes it
            still = await self._accounts.of_id(connection, account.account)
            if still is None or still.status != "active" or still.password != account.password:
                raise AccountError("credentials", "the address or the password is wrong")  # changed while it was checked
            await self._sessions.begin(connection, session, _hash(token))
        self._metrics.logins.labels(how, "ok").inc()
        return self._pair(account, session.session, token, expires)

    def _pair(self, account: Account, session: str, refresh: str, expires: int) -> Entry:
        role = cast(Role, account.role)
        access, lifetime = self._tokens.issue(account.account, session, role)
        return Entry(account.account, session, role, access, lifetime, refresh, expires)

    def _successor(self, token: str, attempt: str) -> str:
        """The refresh token that follows one: random, or, where the call can be told from any other, the same each time that it comes.
        Without the server's key it cannot be computed from the token."""
        if not attempt:
            return secrets.token_urlsafe(32)
        made = hmac.digest(self._secrets.person, f"refresh\0{attempt}\0{token}".encode("utf-8", "surrogatepass"), hashlib.sha256)
        return made.hex()

    async def _announce(self, connection: AsyncConnection, what: str, account: str, **also: str) -> None:
        await put(self._database, connection, [Envelope(what, account, {"account": account, **also})])


def _hash(token: str) -> str:
    """Tokens are long and random: a plain hash of one tells nothing."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
