"""People and machines that call, as tests need them: accounts with a token, keys with scopes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from serving.access.identity import Role, Scope
from serving.service import Service


@dataclass(frozen=True)
class Person:
    """An account that is logged in. `headers`: what its requests carry."""

    account: str
    session: str
    headers: dict[str, str]

    @property
    def user(self) -> str:
        """Its user in a domain where it named none."""
        return f"a-{self.account}"


async def person(service: Service, role: Role = "user") -> Person:
    """A new account with a session, without the time that a password costs."""
    made = await service.accounts.create(f"{secrets.token_hex(6)}@example.org", secrets.token_urlsafe(16), role)
    assert made is not None
    session = secrets.token_hex(16)
    token, _ = service.tokens.issue(made.account, session, role)
    return Person(made.account, session, {"Authorization": f"Bearer {token}"})


async def machine(service: Service, *scopes: Scope) -> dict[str, str]:
    """The headers of a new key."""
    _, raw = await service.accounts.keys.create("a test", scopes)
    return {"X-API-Key": raw}
