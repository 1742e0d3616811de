"""/v1/admin: what administrators see and change: the audit, accounts, machines' keys. Each route has its scope, and is audited itself."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from serving.access.identity import SCOPES, Role, Scope
from serving.api import answers, documents, permits
from serving.api.bodies import Body, Word, read
from serving.api.credentials import moment
from serving.api.problems import Fault, Problem
from serving.audit import MOST, EventType, hashes_of
from serving.service import Service
from serving.storage.accounts import Account
from serving.storage.api_keys import ApiKey
from serving.storage.audit import AuditEntry, AuditQuery
from serving.storage.views import Views

_CURSOR = re.compile(r"([0-9]{1,17})-([0-9a-f]{32})")
_MOMENT = "ISO 8601 with its offset, such as 2026-01-31T20:15:00Z"


def _offset(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError(f"expected {_MOMENT}")
    return value


def _text(value: object) -> object:
    """pydantic would take a bare number for seconds since 1970, which nobody means here."""
    if isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError(f"expected ISO 8601, such as {_MOMENT.rpartition(' ')[2]}")
    return value


Day = Annotated[date, BeforeValidator(_text)]
Moment = Annotated[datetime, BeforeValidator(_text), AfterValidator(_offset)]
View = Literal["events", "slates", "click_through", "people"]
Handle = Annotated[str, Path(pattern=r"^[0-9a-f]{1,32}$")]


class AuditAsked(BaseModel):
    """`person` called, `about` was asked about: an account's id or a domain's user id each; only its hash is searched for. `since` is
    within, `until` is not."""

    model_config = ConfigDict(extra="forbid")

    person: Annotated[str, Query(min_length=1, max_length=200)] | None = None
    about: Annotated[str, Query(min_length=1, max_length=200)] | None = None
    since: Moment | None = None
    until: Moment | None = None
    event_type: EventType | None = None
    endpoint: Annotated[str, Query(min_length=1, max_length=200)] | None = None
    status: Annotated[int, Query(ge=100, le=599)] | None = None
    cursor: Annotated[str, Query(pattern=_CURSOR.pattern)] | None = None
    size: Annotated[int, Query(ge=1, le=MOST)] = 100


class AccountsAsked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: Annotated[str, Query(min_length=1, max_length=254)] | None = None
    after: Annotated[str, Query(pattern=r"^[0-9a-f]{0,32}$")] = ""
    size: Annotated[int, Query(ge=1, le=MOST)] = 100


class ViewAsked(BaseModel):
    """Days: `since` is within, `until` is not."""

    model_config = ConfigDict(extra="forbid")

    since: Day | None = None
    until: Day | None = None
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0
    size: Annotated[int, Query(ge=1, le=MOST)] = 100


class AccountChange(Body):
    """What is left out stays. A new role ends the account's sessions, and so does being disabled."""

    role: Role | None = None
    status: Literal["active", "disabled"] | None = None


class KeyBody(Body):
    """`days`: it expires after so many; null: never."""

    name: Annotated[Word, Field(max_length=100)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))]
    days: Annotated[float, Field(gt=0, le=3_650)] | None = None


BODIES: tuple[type[BaseModel], ...] = (AccountChange, KeyBody)


class AuditShown(BaseModel):
    at: str
    event_type: str
    person: str | None
    about: str | None
    caller: str
    service_name: str
    method: str
    endpoint: str
    response_status: int
    request_id: str
    ms: float


class AuditAnswer(BaseModel):
    """`next`: the cursor of the page after this one; null: there is none."""

    entries: list[AuditShown]
    next: str | None


class AccountShown(BaseModel):
    account_id: str
    email: str | None
    telegram: bool
    role: str
    status: str
    created: str
    last_activity: str


class AccountsAnswer(BaseModel):
    """`next`: the value of `after` for the page after this one; null: there is none."""

    accounts: list[AccountShown]
    next: str | None


class KeyShown(BaseModel):
    key_id: str
    name: str
    scopes: list[str]
    created: str
    expires: str | None
    revoked: str | None
    last_used: str | None


class KeysAnswer(BaseModel):
    keys: list[KeyShown]


class ViewAnswer(BaseModel):
    """`refreshed`: when the view was last made anew; null: never, so that it has no rows. `more`: whether there are rows after these."""

    view: str
    columns: list[str]
    rows: list[dict[str, Any]]
    refreshed: str | None
    more: bool


class NewKeyAnswer(KeyShown):
    """`key`: what the machine sends as X-API-Key; it is shown this once."""

    key: str


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/admin", tags=["admin"])

    @routes.get("/audit", responses=documents.answers(AuditAnswer, 422, 503))
    async def audit(asked: Annotated[AuditAsked, Query()], request: Request) -> Response:
        """Who did what, newest first. Needs the scope audit:read."""
        permits.need(request, "audit:read")
        query = AuditQuery(
            people=None if asked.person is None else hashes_of(asked.person),
            about=None if asked.about is None else hashes_of(asked.about),
            since=None if asked.since is None else _us(asked.since),
            until=None if asked.until is None else _us(asked.until),
            event_type=asked.event_type,
            endpoint=asked.endpoint,
            status=asked.status,
            after=None if asked.cursor is None else _cursor(asked.cursor),
            size=asked.size + 1,
        )
        found = await service.audit.search(query)
        shown, more = found[: asked.size], len(found) > asked.size
        cursor = f"{shown[-1].at}-{shown[-1].entry}" if more else None
        return answers.json({"entries": [_entry(entry) for entry in shown], "next": cursor})

    @routes.get("/accounts", responses=documents.answers(AccountsAnswer, 422, 503))
    async def accounts(asked: Annotated[AccountsAsked, Query()], request: Request) -> Response:
        """All accounts in the order of their ids, or the one with an address. Needs the scope accounts:admin."""
        permits.need(request, "accounts:admin")
        found = list(await service.accounts.page(asked.size + 1, asked.after, asked.email))
        shown, more = found[: asked.size], len(found) > asked.size
        return answers.json({"accounts": [_account(account) for account in shown], "next": shown[-1].account if more else None})

    @routes.patch(
        "/accounts/{account_id}",
        responses=documents.answers(AccountShown, 400, 404, 409, 413, 415, 422, 503),
        openapi_extra=documents.takes("AccountChange"),
    )
    async def change(account_id: Handle, request: Request) -> Response:
        """Another role or status for an account, not for the caller's own. Needs the scope accounts:admin."""
        caller = permits.need(request, "accounts:admin")
        body = await read(request, AccountChange)
        if caller.kind == "account" and caller.name == account_id:
            raise Problem(409, "yourself", "another administrator has to do that: nobody locks themselves out")
        if body.role is not None and (await service.accounts.find(account_id)).role != body.role:
            await service.accounts.set_role(account_id, body.role)
        if body.status is not None:
            await service.accounts.set_disabled(account_id, body.status == "disabled")
        return answers.json(_account(await service.accounts.find(account_id)))

    @routes.get("/keys", responses=documents.answers(KeysAnswer, 503))
    async def keys(request: Request) -> Response:
        """All machines' keys there ever were, never what they send. Needs the scope accounts:admin."""
        permits.need(request, "accounts:admin")
        return answers.json({"keys": [_key(key) for key in await service.accounts.keys.all()]})

    @routes.post(
        "/keys",
        status_code=201,
        responses=documents.answers(NewKeyAnswer, 400, 413, 415, 422, 503, status=201),
        openapi_extra=documents.takes("KeyBody"),
    )
    async def make_key(request: Request) -> Response:
        """A new key with at most the caller's own scopes. A call that is repeated makes another one: the first is known to nobody, and
        may be revoked. Needs the scope accounts:admin."""
        caller = permits.need(request, "accounts:admin")
        body = await read(request, KeyBody)
        beyond = sorted(scope for scope in body.scopes if not caller.may(scope))
        if beyond:
            allowed = sorted(caller.scopes)
            raise Problem(403, "scope", "nobody gives away what they may not do", [Fault("scopes", "beyond your own", beyond[0], allowed)])
        made, raw = await service.accounts.keys.create(body.name, body.scopes, body.days)
        return answers.json({**_key(made), "key": raw}, 201)

    @routes.delete("/keys/{key_id}", responses=documents.answers(KeyShown, 404, 422, 503))
    async def revoke_key(key_id: Handle, request: Request) -> Response:
        """Ends a key, here at once and on every other gateway within moments. Needs the scope accounts:admin."""
        permits.need(request, "accounts:admin")
        await service.accounts.keys.revoke(key_id)
        found = [key for key in await service.accounts.keys.all() if key.key == key_id]
        if not found:
            raise Problem(404, "unknown-key", "there is no such key", [Fault("path", "unknown key", key_id)])
        return answers.json(_key(found[0]))

    views = Views(service.database)

    @routes.get("/analytics/{view}", responses=documents.answers(ViewAnswer, 404, 422, 503))
    async def analytics(view: View, asked: Annotated[ViewAsked, Query()], request: Request) -> Response:
        """Figures by day, which name nobody. Needs the scope analytics:read, which analysts and administrators have."""
        permits.need(request, "analytics:read")
        made = await views.refreshed(view)  # part of the key: whoever refreshes a view, its old pages are never found again

        async def page() -> dict[str, object]:
            found = await views.rows(view, asked.since, asked.until, asked.offset, asked.size)
            refreshed = None if found.refreshed is None else moment(found.refreshed)
            return {"view": view, "columns": found.columns, "rows": found.rows, "more": found.more, "refreshed": refreshed}

        return answers.json(await service.levels.get("view", f"{view} {made} {asked.model_dump_json()}", page))

    return routes


def _us(value: datetime) -> int:
    return round(value.timestamp() * 1e6)


def _cursor(text: str) -> tuple[int, str]:
    found = _CURSOR.fullmatch(text)
    assert found is not None  # the query was checked
    return int(found[1]), found[2]


def _entry(entry: AuditEntry) -> dict[str, Any]:
    return {
        "at": moment(entry.at),
        "event_type": entry.event_type,
        "person": entry.person,
        "about": entry.about,
        "caller": entry.caller,
        "service_name": entry.service_name,
        "method": entry.method,
        "endpoint": entry.endpoint,
        "response_status": entry.response_status,
        "request_id": entry.request_id,
        "ms": entry.ms,
    }


def _account(account: Account) -> dict[str, Any]:
    return {
        "account_id": account.account,
        "email": account.email,
        "telegram": account.telegram_id is not None,
        "role": account.role,
        "status": account.status,
        "created": moment(account.created),
        "last_activity": moment(account.last_activity),
    }


def _key(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key,
        "name": key.name,
        "scopes": list(key.scopes),
        "created": moment(key.created),
        "expires": None if key.expires is None else moment(key.expires),
        "revoked": None if key.revoked_at is None else moment(key.revoked_at),
        "last_used": None if key.last_used is None else moment(key.last_used),
    }
