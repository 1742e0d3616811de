"""Who may do what. Every route that is about a person asks here first.

A domain's user is owned by an account if the two are linked, or if the user is the one that an account gets where it names none.
Nobody else's: 403, in the same words whether there is such a person or not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from fastapi import Request

from configs.domain import Domain, Language
from serving.access.identity import NOBODY, Caller, Scope
from serving.accounts import AccountError
from serving.api.gate import CHALLENGE
from serving.api.problems import Fault, Problem
from serving.service import Service

ME = "me"  # stands for the caller's own user, wherever a user is named
_OWN = re.compile(r"a-([0-9a-f]{32})")
_LEAST_S = 0.005
_RESERVE_S, _RESERVE = 0.25, 0.3  # kept for the rest of an answer: seconds, or this share of the time left if that is less


def caller_of(request: Request) -> Caller:
    """Who calls, as the gate found; nobody where no gate stands."""
    caller: Caller = request.scope.get("state", {}).get("caller", NOBODY)
    return caller


def address_of(request: Request) -> str:
    """The client's address, as the gate found it; "unknown" where no gate stands."""
    return str(request.scope.get("state", {}).get("address", "unknown"))


def remaining_s(request: Request, at_most: float) -> float:
    """Seconds that a part asked on a request's behalf may take: at most `at_most`, and so that what stands in for it still comes before
    the request's deadline. Never quite 0."""
    deadline = request.scope.get("state", {}).get("deadline")
    if deadline is None:
        return at_most
    left = float(deadline) - time.monotonic()
    return max(_LEAST_S, min(at_most, left - min(_RESERVE_S, _RESERVE * left)))


def need(request: Request, scope: Scope) -> Caller:
    """Raises Problem: 401 without a token, 403 without the scope."""
    caller = somebody(request)
    if not caller.may(scope):
        raise Problem(403, "scope", f"this needs the scope {scope}", [Fault("scope", "is missing", allowed=[scope])])
    return caller


def somebody(request: Request) -> Caller:
    """Raises Problem 401 without a token."""
    caller = caller_of(request)
    if caller.kind == "anonymous":
        raise _no_token()
    return caller


def person(request: Request) -> Caller:
    """An account. Raises Problem: 401 without a token, 403 for a machine's key."""
    caller = somebody(request)
    if caller.kind != "account":
        raise Problem(403, "no-account", "a key is nobody: this needs a person's token")
    return caller


async def language(service: Service, caller: Caller, said: Language | None) -> Language:
    """In which language a person is written to: as they say, else as their profile says. Raises DatabaseAwayError."""
    if said is not None:
        return said
    return "ru" if (await service.accounts.profile(caller.name)).language == "ru" else "en"


async def own_user(service: Service, request: Request, domain: str) -> str:
    """The caller's user in a domain; linked at first need. Raises Problem 401, 403; DatabaseAwayError."""
    caller = person(request)
    user = service.ownership.user_of(domain, caller.name)
    if user is None:
        try:
            user = await service.accounts.link(domain, caller.name)
        except AccountError as error:
            if error.kind != "unknown-account":
                raise
            raise Problem(401, "token", "the account is gone; log in again", headers=CHALLENGE) from None
    return user


async def ask_about(service: Service, request: Request, domain: Domain, user: str | None, newcomer: bool = False) -> str | None:
    """Whom an answer is for: `user`, or the caller's own where that says `me`, or where a token domain is asked without one.

    newcomer: the request itself says for whom it is (a history), so that nobody named means nobody. None for somebody who was named:
    the accounts are not read yet. Raises Problem 401, 403, 503; DatabaseAwayError.
    """
    caller = caller_of(request)
    if domain.auth == "token" and caller.kind == "anonymous":
        raise _no_token()
    if user is None:
        if domain.auth == "open" or caller.kind == "key" or newcomer:
            return None
        user = ME
    if user == ME:
        user = await own_user(service, request, domain.name)
    request.state.user = user
    if caller.kind == "anonymous" and not service.ownership.ready:
        return None  # whose it is cannot be known: as a newcomer, rather than with somebody's history
    owner = _owner(service, domain.name, user)
    if owner is None:
        _unless_open(caller, domain, "recommend")
    else:
        _theirs(caller, owner, "users:read")
    return user


async def read_about(service: Service, request: Request, domain: Domain, user: str) -> str:
    """Whose history is read: always a token's matter. Raises Problem 401, 403, 503; DatabaseAwayError."""
    if user != ME:
        request.state.user = user  # the log and the audit tell who was asked about, also where it is refused
    caller = somebody(request)
    if user == ME:
        user = request.state.user = await own_user(service, request, domain.name)
    _theirs(caller, _owner(service, domain.name, user), "users:read")
    return user


def read_unnamed(request: Request, domain: Domain) -> None:
    """What was answered to nobody by name. Open domains show it to whoever knows its id. Raises Problem 401, 403."""
    if domain.auth == "token":
        need(request, "users:read")


async def write_about(service: Service, request: Request, domain: Domain, users: Iterable[str | None]) -> dict[str | None, str]:
    """Whose events are written: each named one as it is to be stored. None: nobody was named, which is the caller's own in a token
    domain. Raises Problem 401, 403, 422, 503; DatabaseAwayError: then nothing may be stored."""
    caller = caller_of(request)
    if domain.auth == "token" and caller.kind == "anonymous":
        raise _no_token()
    stored: dict[str | None, str] = {}
    for user in dict.fromkeys(users):
        if user is None and (domain.auth == "open" or caller.kind != "account"):
            raise Problem(422, "invalid", "user_id: is missing; nothing was stored", [Fault("user_id", "is missing")])
        named = await own_user(service, request, domain.name) if user is None or user == ME else user
        owner = _owner(service, domain.name, named)
        if owner is None:
            _unless_open(caller, domain, "events:write")
        else:
            _theirs(caller, owner, "events:write")
        stored[user] = named
    return stored


def _owner(service: Service, domain: str, user: str) -> str | None:
    """Raises Problem 503 as long as it is not known who owns anybody: rather no answer than another's."""
    if not service.ownership.ready:
        detail = "the accounts are not read yet: the database does not answer; try again"
        raise Problem(503, "database-away", detail, headers={"Retry-After": "1"})
    linked = service.ownership.owner(domain, user)
    if linked is not None:
        return linked
    own = _OWN.fullmatch(user)
    return None if own is None else own[1]


def _unless_open(caller: Caller, domain: Domain, scope: Scope) -> None:
    if domain.auth == "token" and not caller.may(scope):
        raise _not_yours()


def _theirs(caller: Caller, owner: str | None, scope: Scope) -> None:
    if caller.kind == "anonymous":
        raise _no_token()
    if not (caller.kind == "account" and caller.name == owner) and not caller.may(scope):
        raise _not_yours()


def _no_token() -> Problem:
    return Problem(401, "token", "this needs a token (Authorization: Bearer) or a key (X-API-Key)", headers=CHALLENGE)


def _not_yours() -> Problem:
    return Problem(403, "not-yours", "this is another person's, or nobody's")
