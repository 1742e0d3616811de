"""What must stay secret: read from the environment, judged before anything starts, never shown."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

Environment = Literal["development", "production"]

KEY_BYTES = 32  # RFC 7518, 3.2: a key of HS256 has at least 256 bits
_FILE = "secrets.json"
_KID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_BOT = re.compile(r"[0-9]{5,20}:[A-Za-z0-9_-]{30,100}")
_MAKE = "`factotum keys signing` prints a new one"
_LEAST_DISTINCT = 14  # of 32 random bytes, about 30 are distinct; fewer than 14 never occur by chance
_KNOWN = ("secret", "password", "changeme", "change-me", "change_me", "factotum", "example", "default", "qwerty", "test", "12345678")
_DEFAULT_PASSWORDS = frozenset(
    {"postgres", "postgresql", "password", "passw0rd", "factotum", "changeme", "change-me", "change_me", "secret", "admin", "root", "redis"}
    | {"example", "default", "test", "guest", "user", "qwerty", "123456", "12345678", "123456789", "1234567890", "foobared"}
)
_THIS_MACHINE = frozenset({"", "localhost", "127.0.0.1", "::1"})


class SecretError(ValueError):
    """A secret is missing, weak or a default. Says which variable and how to make a good one, never the secret."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`kid`: its name in a token's header; `key`: at least 32 bytes."""

    kid: str
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Secrets:
    """`home`: where keys that were not given are made, when they are first needed. Addresses are None where nothing is configured."""

    home: Path
    given_signing: tuple[SigningKey, ...] = field(default=(), repr=False)
    given_person: bytes | None = field(default=None, repr=False)
    telegram: str | None = field(default=None, repr=False)
    smtp: str | None = field(default=None, repr=False)
    redis: str | None = field(default=None, repr=False)
    kafka: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, home: Path, environment: Environment) -> Secrets:
        """The secrets of this process, judged. In development the keys that are not given are made at first use, once, in
        `home`/secrets.json (mode 0600), which all replicas read. Writes nothing. Raises SecretError."""
        strict = environment == "production"
        given_keys, given_log = os.environ.get("FACTOTUM_SIGNING_KEYS", ""), os.environ.get("FACTOTUM_LOG_KEY", "")
        if strict:
            if not given_keys:
                raise SecretError(f"FACTOTUM_SIGNING_KEYS is not set, and production does not make keys by itself; {_MAKE}")
            if len(given_log.encode()) < KEY_BYTES:
                how = "the same for all replicas; `openssl rand -hex 32` makes one"
                raise SecretError(f"FACTOTUM_LOG_KEY must be at least {KEY_BYTES} characters, {how}")
            _judge("FACTOTUM_LOG_KEY", given_log.encode(), "`openssl rand -hex 32` makes one", _LEAST_DISTINCT // 2)
            _judge_address("FACTOTUM_DATABASE_URL", os.environ.get("FACTOTUM_DATABASE_URL", ""))
            _judge_address("FACTOTUM_REDIS_URL", os.environ.get("FACTOTUM_REDIS_URL", ""), must=True)
            _judge_address("FACTOTUM_SMTP_URL", os.environ.get("FACTOTUM_SMTP_URL", ""))
        telegram = os.environ.get("FACTOTUM_TELEGRAM_TOKEN") or None
        if telegram is not None and _BOT.fullmatch(telegram) is None:
            raise SecretError("FACTOTUM_TELEGRAM_TOKEN is not a bot's token; it has the form 123456789:AAE..., as @BotFather gives it")
        return cls(
            home=home,
            given_signing=signing_keys(given_keys, strict) if given_keys else (),
            given_person=hashlib.sha256(given_log.encode()).digest() if given_log else None,
            telegram=telegram,
            smtp=os.environ.get("FACTOTUM_SMTP_URL") or None,
            redis=os.environ.get("FACTOTUM_REDIS_URL") or None,
            kafka=os.environ.get("FACTOTUM_KAFKA_BROKERS") or None,
        )

    @cached_property
    def signing(self) -> tuple[SigningKey, ...]:
        """The first signs, all verify. Raises SecretError if the home's own are damaged."""
        return self.given_signing or (SigningKey(self._own["kid"], _decoded(self._own["key"])),)

    @cached_property
    def person(self) -> bytes:
        """The 32-byte key of the hash that stands for a person in logs, in the audit and in the list of the erased: who loses it
        loses the list. Raises SecretError if the home's own is damaged."""
        return self.given_person or _decoded(self._own["person"])

    @cached_property
    def _own(self) -> dict[str, str]:
        return _own(self.home)

    def stands_for(self, what: str, *parts: str) -> str:
        """64 hexadecimal digits that stand for something of a person; without the key they cannot be traced back by trying ids."""
        text = "\0".join((what, *parts)).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self.person, digest_size=32).hexdigest()


def new_signing_key() -> str:
    """A new key in the form that FACTOTUM_SIGNING_KEYS takes: `kid:base64url`. Put before the others it signs from then on."""
    return f"{secrets.token_hex(4)}:{_encoded(secrets.token_bytes(KEY_BYTES))}"


def signing_keys(text: str, strict: bool = True) -> tuple[SigningKey, ...]:
    """`kid:base64url,kid2:base64url`, the first of which signs. Raises SecretError; `strict`: also for keys that are guessable."""
    found: list[SigningKey] = []
    for place, part in enumerate((part.strip() for part in text.split(",")), start=1):
        kid, colon, encoded = part.partition(":")
        where = f"FACTOTUM_SIGNING_KEYS, key {place}"
        if not colon or _KID.fullmatch(kid) is None:
            raise SecretError(f"{where}: expected kid:base64url, the kid of 1 to 32 letters, digits, - or _; {_MAKE}")
        try:
            key = _decoded(encoded)
        except (binascii.Error, ValueError):
            raise SecretError(f"{where} ({kid}): not base64url; {_MAKE}") from None
        if len(key) < KEY_BYTES:
            raise SecretError(f"{where} ({kid}): {len(key)} bytes, needs at least {KEY_BYTES}; {_MAKE}")
        if strict:
            _judge(f"{where} ({kid})", key, _MAKE, _LEAST_DISTINCT)
        if any(kid == other.kid for other in found):
            raise SecretError(f"{where}: the kid {kid} is there twice")
        found.append(SigningKey(kid, key))
    return tuple(found)


def judge_addresses(addresses: Mapping[str, str]) -> None:
    """Addresses of the configuration by the word that holds them, in production. Raises SecretError for a default password."""
    for name, url in addresses.items():
        _judge_address(name, url)


def _judge(name: str, key: bytes, how: str, least: int) -> None:
    steps = {(b - a) % 256 for a, b in pairwise(key)}
    repeated = any(len(key) % n == 0 and key == key[:n] * (len(key) // n) for n in range(1, len(key) // 2 + 1))
    if repeated or len(set(key)) < least or len(steps) < least:
        raise SecretError(f"{name} is not random; {how}")
    plain = key.decode("ascii", "replace").lower()
    if any(word in plain for word in _KNOWN):
        raise SecretError(f"{name} is a well-known word, not a key; {how}")


def _judge_address(name: str, url: str, must: bool = False) -> None:
    """`must`: a server beyond this machine needs a password in the address."""
    if not url:
        return
    parts = urlsplit(url)
    password = unquote(parts.password) if parts.password is not None else None
    if password is not None and (password.lower() in _DEFAULT_PASSWORDS or password == unquote(parts.username or "") or len(password) < 8):
        raise SecretError(f"{name}: its password is a default, the user's name, or shorter than 8 characters; choose another one")
    if must and password is None and (parts.hostname or "") not in _THIS_MACHINE:
        raise SecretError(f"{name}: the server is on another machine and has no password in the address")


def _own(home: Path) -> dict[str, str]:
    """The keys of a development's home, made by whichever replica comes first."""
    path = home / _FILE
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        kid, _, key = new_signing_key().partition(":")
        made = {"kid": kid, "key": key, "person": _encoded(secrets.token_bytes(KEY_BYTES))}
        draft = home / f".{_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(made, file)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, path)  # unlike a rename, it fails where another replica was first
        finally:
            draft.unlink(missing_ok=True)
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        if any(len(_decoded(read[name])) < KEY_BYTES for name in ("key", "person")) or _KID.fullmatch(read["kid"]) is None:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise SecretError(f"{path} is damaged; delete it (everybody must log in again) or set FACTOTUM_SIGNING_KEYS") from None
    return {name: str(read[name]) for name in ("kid", "key", "person")}


def _encoded(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
