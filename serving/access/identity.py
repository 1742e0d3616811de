"""Who calls, and what they may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["user", "analyst", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

Scope = Literal[
    "recommend",  # ask on behalf of anybody who has no account
    "events:write",  # send events of anybody
    "items:write",  # add to a catalogue
    "users:read",  # what is known of anybody: histories and slates
    "links:write",  # say which account is which user
    "analytics:read",
    "audit:read",
    "accounts:admin",  # roles, keys, disabling
    "dead-letters:write",
    "limits:exempt",  # not counted; given on the command line only
]
SCOPES: tuple[Scope, ...] = get_args(Scope)

#: What a role may beyond what is its own.
OF_ROLE: dict[Role, frozenset[Scope]] = {
    "user": frozenset(),
    "analyst": frozenset({"analytics:read"}),
    "admin": frozenset(SCOPES) - {"limits:exempt"},
}


@dataclass(frozen=True, slots=True)
class Caller:
    """`anonymous`: came without a token. `account`: a person, by an access token. `key`: a machine, by its key.

    `name`: the account or the key's id, empty for nobody; `session`: of the token; `scopes`: what it may beyond its own.
    """

    kind: Literal["anonymous", "account", "key"] = "anonymous"
    name: str = ""
    session: str = ""
    role: Role = "user"
    scopes: frozenset[Scope] = frozenset()

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    @property
    def counted(self) -> str:
        """Under which name requests are counted."""
        return f"{self.kind}:{self.name}"


NOBODY = Caller()
