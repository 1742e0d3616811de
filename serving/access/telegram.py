"""Log-ins that Telegram vouches for: the widget's fields and a Web App's initData, both signed with the bot's token.

https://core.telegram.org/widgets/login#checking-authorization
https://core.telegram.org/bots/webapps#validating-data-received-via-the-mini-app
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

LONGEST = 4_096  # characters of initData
_FIELDS = 20
_AHEAD_S = 30.0  # Telegram's clock may be ahead of ours by so much
_HASH = re.compile(r"[0-9a-f]{64}")
_DIGITS = re.compile(r"[0-9]{1,16}")

Why = Literal["malformed", "signature", "stale"]


class TelegramError(Exception):
    """A payload that proves nothing."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why: Why = why


@dataclass(frozen=True, slots=True)
class Proof:
    """`telegram_id`: who it is; `signed_at`: seconds UTC; `signature`: 64 hexadecimal digits that tell this proof from any other."""

    telegram_id: int
    signed_at: int
    signature: str


def from_widget(fields: Mapping[str, str | int], bot: str, fresh_s: float, now: float | None = None) -> Proof:
    """The login widget's fields, as the page got them. Raises TelegramError."""
    texts = {name: str(value) for name, value in fields.items()}
    key = hashlib.sha256(bot.encode()).digest()
    signature, signed_at = _checked(texts, key, fresh_s, now)
    return Proof(_id(texts.get("id", "")), signed_at, signature)


def from_web_app(init_data: str, bot: str, fresh_s: float, now: float | None = None) -> Proof:
    """`Telegram.WebApp.initData` as it came, a query string. Raises TelegramError."""
    if len(init_data) > LONGEST:
        raise TelegramError("malformed")
    try:
        pairs = parse_qsl(init_data, keep_blank_values=True, strict_parsing=True, max_num_fields=_FIELDS, errors="strict")
    except ValueError:
        raise TelegramError("malformed") from None
    texts = dict(pairs)
    if len(texts) != len(pairs):
        raise TelegramError("malformed")  # a name that comes twice could mean one thing here and another one there
    key = hmac.digest(b"WebAppData", bot.encode(), "sha256")
    signature, signed_at = _checked(texts, key, fresh_s, now)
    try:
        user = json.loads(texts.get("user", ""))
    except (ValueError, RecursionError):
        raise TelegramError("malformed") from None
    number = user.get("id") if isinstance(user, dict) else None
    return Proof(_id(str(number) if type(number) is int else ""), signed_at, signature)


def _checked(texts: Mapping[str, str], key: bytes, fresh_s: float, now: float | None) -> tuple[str, int]:
    """The signature and its moment. What is signed is every field but the signature, in the order of their names."""
    given = texts.get("hash", "")
    moment = texts.get("auth_date", "")
    if _HASH.fullmatch(given) is None or _DIGITS.fullmatch(moment) is None or len(texts) > _FIELDS:
        raise TelegramError("malformed")
    if any("\n" in name or "=" in name for name in texts):
        raise TelegramError("malformed")  # it could be read as other fields than those that were signed
    try:
        said = "\n".join(f"{name}={texts[name]}" for name in sorted(texts) if name != "hash").encode()
    except UnicodeEncodeError:
        raise TelegramError("malformed") from None
    if not hmac.compare_digest(hmac.digest(key, said, "sha256").hex(), given):
        raise TelegramError("signature")
    age = (time.time() if now is None else now) - int(moment)
    if not -_AHEAD_S <= age <= fresh_s:
        raise TelegramError("stale")
    return given, int(moment)


def _id(text: str) -> int:
    if _DIGITS.fullmatch(text) is None or not 0 < int(text) < 2**52:
        raise TelegramError("malformed")
    return int(text)
