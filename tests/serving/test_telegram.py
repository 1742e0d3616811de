"""Log-ins by Telegram: only what the bot's own token signed, lately."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.access.telegram import TelegramError, from_web_app, from_widget

BOT = "123456789:AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc"
FRESH_S = 300.0
NOW = int(time.time())  # parameters are made when tests are collected, maybe long before they run: they are judged as of now


def widget(bot: str = BOT, **fields: str | int) -> dict[str, str | int]:
    """As Telegram's login widget gives it."""
    whole: dict[str, str | int] = {"id": 4_242, "first_name": "Анна", "auth_date": int(time.time()), **fields}
    said = "\n".join(f"{name}={whole[name]}" for name in sorted(whole)).encode()
    return whole | {"hash": hmac.new(hashlib.sha256(bot.encode()).digest(), said, hashlib.sha256).hexdigest()}


def init_data(bot: str = BOT, user: object = None, **fields: str) -> str:
    """As Telegram's Web App gives it."""
    person = {"id": 4_242, "first_name": "Анна & Co", "language_code": "ru"} if user is None else user
    whole = {"query_id": "AAH", "user": json.dumps(person), "auth_date": str(int(time.time()))} | fields
    said = "\n".join(f"{name}={whole[name]}" for name in sorted(whole)).encode()
    key = hmac.new(b"WebAppData", bot.encode(), hashlib.sha256).digest()
    return urlencode(whole | {"hash": hmac.new(key, said, hashlib.sha256).hexdigest()})


def test_what_telegram_signed_is_believed() -> None:
    assert from_widget(widget(), BOT, FRESH_S).telegram_id == 4_242
    assert from_web_app(init_data(), BOT, FRESH_S).telegram_id == 4_242
    assert from_web_app(init_data(signature="abc", start_param="x"), BOT, FRESH_S).telegram_id == 4_242


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (widget(bot="987654321:" + "A" * 35), "signature"),
        (widget() | {"id": 1}, "signature"),
        (widget() | {"username": "added"}, "signature"),
        (widget() | {"hash": "0" * 64}, "signature"),
        (widget() | {"hash": ""}, "malformed"),
        (widget() | {"hash": "é" * 64}, "malformed"),
        ({name: value for name, value in widget().items() if name != "hash"}, "malformed"),
        (widget(auth_date=NOW - 301), "stale"),
        (widget(auth_date=NOW + 3_600), "stale"),
        (widget(auth_date=-5), "malformed"),
        (widget(id=0), "malformed"),
        (widget(id="4242x"), "malformed"),
        (widget(id=2**60), "malformed"),
        (widget(**{"a\nb": "c"}), "malformed"),
        ({}, "malformed"),
    ],
)
def test_a_widget_that_proves_nothing(fields: dict[str, str | int], why: str) -> None:
    with pytest.raises(TelegramError) as refused:
        from_widget(fields, BOT, FRESH_S, NOW)
    assert refused.value.why == why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (init_data(bot="987654321:" + "A" * 35), "signature"),
        (init_data().replace("4242", "4243"), "signature"),
        (init_data() + "&user=%7B%22id%22%3A1%7D", "malformed"),
        (init_data() + "&x=1", "signature"),
        (init_data(auth_date=str(NOW - 301)), "stale"),
        (init_data(user=[]), "malformed"),
        (init_data(user={"id": "4242"}), "malformed"),
        (init_data(user={"id": True}), "malformed"),
        (init_data(user={}), "malformed"),
        ("", "malformed"),
        ("hash=" + "0" * 64, "malformed"),
        ("x" * 5_000, "malformed"),
    ],
)
def test_init_data_that_proves_nothing(text: str, why: str) -> None:
    with pytest.raises(TelegramError) as refused:
        from_web_app(text, BOT, FRESH_S, NOW)
    assert refused.value.why == why


def test_a_payload_of_one_kind_is_none_of_the_other() -> None:
    """The two kinds are signed with different keys made of the same token."""
    texts = {name: str(value) for name, value in widget(user='{"id": 1}').items()}
    with pytest.raises(TelegramError):
        from_web_app(urlencode(texts), BOT, FRESH_S, NOW)


@settings(max_examples=200)
@given(
    st.dictionaries(st.text(max_size=12) | st.sampled_from(["id", "auth_date", "hash"]), st.text(max_size=30) | st.integers(), max_size=25)
)
def test_no_fields_break_the_widget(fields: dict[str, str | int]) -> None:
    with pytest.raises(TelegramError):
        from_widget(fields, BOT, FRESH_S, NOW)


@settings(max_examples=200)
@given(
    st.text(max_size=300)
    | st.dictionaries(st.text(max_size=8), st.text(max_size=20, alphabet=st.characters(exclude_categories=["Cs"]))).map(
        lambda d: urlencode({k.encode("utf-8", "replace"): v for k, v in d.items()})
    )
)
def test_no_text_breaks_the_web_app(text: str) -> None:
    with pytest.raises(TelegramError):
        from_web_app(text, BOT, FRESH_S, NOW)


@settings(max_examples=100)
@given(st.integers(1, 2**52 - 1), st.text(max_size=40, alphabet=st.characters(exclude_categories=["Cs"])))
def test_whatever_telegram_signs_is_read(number: int, name: str) -> None:
    assert from_web_app(init_data(user={"id": number, "first_name": name}), BOT, FRESH_S).telegram_id == number
    assert from_widget(widget(id=number, first_name=name), BOT, FRESH_S).telegram_id == number
