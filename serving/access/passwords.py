"""Passwords: which are allowed, and how they are kept (argon2id, RFC 9106, with OWASP's parameters)."""

from __future__ import annotations

import asyncio
import os
import secrets
import unicodedata
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from configs.deployment import Access

SHORTEST, LONGEST = 10, 200  # characters

_TRIED_FIRST = """
    1234567890 12345678910 123456789a 0123456789 9876543210 1111111111 0000000000 1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc
    qwertyuiop qwerty12345 qwerty123456 qwertyuiop123 asdfghjkl1 asdfghjkl123 zxcvbnm123 password12 password123 password1234
    password12345 passw0rd123 p@ssw0rd123 p@ssword123 mypassword passwordpassword iloveyou12 iloveyou123 iloveyouforever
    letmein123 letmein1234 welcome123 welcome1234 admin12345 admin123456 administrator superman123 football123 baseball123
    princess123 sunshine123 monkey12345 dragon12345 michael123 charlie123 trustno1trustno1 abc123abc123 abcd123456 abcdefghij
    abcdefghijk a123456789 aa12345678 q1w2e3r4t5 q1w2e3r4t5y6 changeme123 changemenow defaultpassword computer123 internet123
    whatever123 starwars123 pokemon123 liverpool1 liverpool123 manchester1 1234554321 1212121212 1231231231 123123123123
    1122334455 5555555555 6666666666 7777777777 8888888888 9999999999 qazwsxedcrfv qweasdzxc123 qwe123qwe123 йцукенгшщз
    йцукенгшщзхъ пароль1234 пароль12345 qwertyqwerty correcthorsebatterystaple factotum123 factotumfactotum
"""
#: The most common ones that are long enough to be tried here, in lower case (NIST SP 800-63B, 5.1.1.2).
COMMON = frozenset(_TRIED_FIRST.split())


class PasswordRuleError(ValueError):
    """A password that may not be chosen. Says the rule, never the password."""


def normalised(password: str) -> str:
    """NFKC, as NIST SP 800-63B, 5.1.1.2 recommends: what a person types must not depend on whether their keyboard composes an
    accent or has wide letters. Case and spaces stay as they are."""
    return unicodedata.normalize("NFKC", password)


def check(password: str, email: str | None) -> None:
    """Whether this password may be chosen by the owner of this address. Raises PasswordRuleError."""
    text = normalised(password)
    if not SHORTEST <= len(text) <= LONGEST:
        raise PasswordRuleError(f"a password has {SHORTEST} to {LONGEST} characters")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise PasswordRuleError("a password has no control characters")
    plain = text.casefold()
    if email is not None and plain in (email, email.partition("@")[0]):
        raise PasswordRuleError("a password is not the address it belongs to")
    if plain in COMMON or len(set(plain)) < 4:
        raise PasswordRuleError("this password is among the first that are tried; choose another one")


class Passwords:
    """Hashes in threads of its own, as many at once as there are cores: each takes 19 MiB and some ten milliseconds."""

    def __init__(self, access: Access) -> None:
        self._hasher = PasswordHasher(access.argon2_passes, access.argon2_kib, parallelism=1, type=Type.ID)
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="argon2")
        self._decoy: str | None = None

    async def hashed(self, password: str) -> str:
        """What is kept of a password, about 97 characters."""
        hashed: str = await asyncio.get_running_loop().run_in_executor(self._threads, self._hash, password)
        return hashed

    async def fits(self, password: str, kept: str | None) -> bool:
        """Whether this is the password. Where there is none, the same work is done, so that the time tells nothing."""
        right: bool = await asyncio.get_running_loop().run_in_executor(self._threads, self._verify, password, kept)
        return right

    def outdated(self, kept: str) -> bool:
        """Whether it was made with other parameters than the deployment has now."""
        return self._hasher.check_needs_rehash(kept)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _hash(self, password: str) -> str:
        return self._hasher.hash(normalised(password))

    def _verify(self, password: str, kept: str | None) -> bool:
        if kept is None and self._decoy is None:
            self._decoy = self._hasher.hash(secrets.token_urlsafe(16))
        try:
            # what is longer than any password is not hashed in full, but takes the time of a hash
            text = password if len(password) <= 4 * LONGEST else ""
            return self._hasher.verify(kept or self._decoy or "", normalised(text)) and kept is not None
        except (VerificationError, InvalidHashError):
            return False
