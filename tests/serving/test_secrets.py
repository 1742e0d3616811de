"""Secrets: weak, default and missing ones are refused outside development, and none is ever shown."""

from __future__ import annotations

import base64
import random
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.access.secrets import SecretError, Secrets, judge_addresses, new_signing_key, signing_keys

STRONG = "6f0a9d2c4be1783355cfe8a19b7d20c46e5f81a3d9027bc4"


def encoded(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()


def random_looking(length: int, which: int) -> bytes:
    """The same in every process: what a test is called must not differ between the workers that run it."""
    return random.Random(which).randbytes(length)


def test_development_makes_its_keys_once_for_all_replicas(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = Secrets.from_environment(home, "development")
    assert not home.exists()  # nothing is written before a key is needed
    with ThreadPoolExecutor(8) as pool:
        several = list(pool.map(lambda _: Secrets.from_environment(home, "development").signing, range(16)))
    assert all(keys == several[0] for keys in several)
    assert made.signing == several[0]
    assert made.person == Secrets.from_environment(home, "development").person
    assert stat.S_IMODE((home / "secrets.json").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["secrets.json"]


def test_damaged_keys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"kid": "x", "key": "AAAA", "person": "AAAA"}')
    with pytest.raises(SecretError, match="damaged"):
        _ = Secrets.from_environment(tmp_path, "development").signing


def test_production_wants_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SecretError, match="FACTOTUM_SIGNING_KEYS"):
        Secrets.from_environment(tmp_path, "production")
    monkeypatch.setenv("FACTOTUM_SIGNING_KEYS", new_signing_key())
    with pytest.raises(SecretError, match="FACTOTUM_LOG_KEY"):
        Secrets.from_environment(tmp_path, "production")
    monkeypatch.setenv("FACTOTUM_LOG_KEY", "a" * 64)
    with pytest.raises(SecretError, match="not random"):
        Secrets.from_environment(tmp_path, "production")
    monkeypatch.setenv("FACTOTUM_LOG_KEY", STRONG)
    assert len(Secrets.from_environment(tmp_path, "production").signing) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("", "kid:base64url"),
        (encoded(random_looking(32, 5)), "kid:base64url"),
        ("k:" + encoded(random_looking(31, 1)), "31 bytes"),
        ("k:not base64!", "not base64url"),
        ("k:" + encoded(bytes(32)), "not random"),
        ("k:" + encoded(b"ab" * 20), "not random"),
        ("k:" + encoded(bytes(range(40))), "not random"),
        ("k:" + encoded(b"my-secret-key-which-is-long-enough-0192837465"), "well-known"),
        ("k:" + encoded(b"ChangeMe-to-something-long-0192837465-xyz"), "well-known"),
        (f"k:{encoded(random_looking(32, 2))},k:{encoded(random_looking(32, 3))}", "twice"),
        (f"k/../x:{encoded(random_looking(32, 4))}", "kid"),
    ],
)
def test_a_weak_signing_key_is_refused_and_not_shown(keys: str, said: str) -> None:
    with pytest.raises(SecretError, match=said) as refused:
        signing_keys(keys)
    for part in keys.split(","):
        key = part.partition(":")[2]
        assert not key or key not in str(refused.value)


def test_every_new_key_is_accepted() -> None:
    for _ in range(200):
        assert len(signing_keys(new_signing_key())[0].key) == 32


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://factotum:factotum@db/factotum",
        "postgresql://ann:postgres@db/factotum",
        "postgresql://ann:Password@db/factotum",
        "postgresql://ann:short@db/factotum",
        "redis://:foobared@cache:6379/0",
    ],
)
def test_default_passwords_in_addresses_are_refused_in_production(url: str) -> None:
    with pytest.raises(SecretError) as refused:
        judge_addresses({"storage.url": url})
    assert url not in str(refused.value)
    judge_addresses({"storage.url": f"postgresql://ann:{STRONG}@db/factotum"})


def test_no_secret_is_in_a_repr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTOTUM_TELEGRAM_TOKEN", "123456789:AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc")
    monkeypatch.setenv("FACTOTUM_SMTP_URL", f"smtp://ann:{STRONG}@mail")
    monkeypatch.setenv("FACTOTUM_SIGNING_KEYS", new_signing_key())
    made = Secrets.from_environment(tmp_path, "development")
    shown = repr(made) + repr(made.signing)
    assert made.telegram is not None
    assert made.telegram not in shown
    assert STRONG not in shown
    assert repr(made.signing[0].key) not in shown
    monkeypatch.setenv("FACTOTUM_TELEGRAM_TOKEN", "hunter2")
    with pytest.raises(SecretError, match="FACTOTUM_TELEGRAM_TOKEN"):
        Secrets.from_environment(tmp_path, "development")
