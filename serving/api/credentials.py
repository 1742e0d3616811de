"""What the routes of accounts share: what a body with something secret may hold, how one is read, and how a session is told.

What came in such a body is never shown again: neither a password nor a date of birth belongs in an answer that a proxy may log.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, BeforeValidator, Field, StrictBool, StrictInt

from serving.access.origin import counted_address
from serving.accounts import Entry
from serving.api import answers, bodies
from serving.api.bodies import Body, Text, Word
from serving.api.permits import address_of
from serving.api.problems import Fault, Problem
from serving.service import Service

COOKIE_PATH = "/v1/auth"
CSRF_HEADER = "X-CSRF"
ATTEMPT_HEADER = "Idempotency-Key"
NO_STORE = {"Cache-Control": "no-store"}
_ATTEMPT = re.compile(r"[\x21-\x7e]{8,128}")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?")
_FIRST_YEAR = 1900
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Body = TypeVar("_Body", bound=Body)


def _encodable(value: object) -> object:
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("halves of surrogate pairs are not allowed")
    return value


def _birth_date(value: object) -> object:
    if not isinstance(value, str) or _DATE.fullmatch(value) is None:
        raise ValueError("expected a date such as 1990-12-31")
    try:
        born = datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("there is no such day") from None
    if born.year < _FIRST_YEAR or born > datetime.now(UTC) + timedelta(days=1):
        raise ValueError(f"expected a date from {_FIRST_YEAR} to today")
    return value


def _birth_time(value: object) -> object:
    if not isinstance(value, str) or _TIME.fullmatch(value) is None:
        raise ValueError("expected a time such as 23:59 or 23:59:30")
    return value


Email = Annotated[str, BeforeValidator(_encodable), Field(min_length=3, max_length=254)]
#: Longer than any password may be, so that the rule itself says what is wrong.
Password = Annotated[str, BeforeValidator(_encodable), Field(min_length=1, max_length=1_000)]
Token = Annotated[str, BeforeValidator(_encodable), Field(min_length=1, max_length=200)]
InitData = Annotated[str, BeforeValidator(_encodable), Field(min_length=1, max_length=4_096)]
Widget = Annotated[dict[Word, StrictInt | Text], Field(min_length=1, max_length=20)]
BirthDate = Annotated[str, BeforeValidator(_birth_date), Field(json_schema_extra={"format": "date"})]
BirthTime = Annotated[str, BeforeValidator(_birth_time), Field(pattern=_TIME.pattern)]


class RegisterBody(Body):
    """`cookie`: the refresh token as an HttpOnly cookie, for pages; otherwise it is in the answer, for apps."""

    email: Email
    password: Password
    cookie: StrictBool = False


class LoginBody(RegisterBody):
    pass


class RefreshBody(Body):
    """Without `refresh_token` the cookie is meant; then the header X-CSRF must be there."""

    refresh_token: Token | None = None
    cookie: StrictBool = False


class LogoutBody(Body):
    refresh_token: Token | None = None


class PasswordBody(Body):
    old_password: Password
    new_password: Password


class ForgotBody(Body):
    email: Email


class ResetBody(Body):
    token: Token
    new_password: Password


class TelegramBody(Body):
    """Exactly one: the login widget's fields, or the Web App's initData."""

    widget: Widget | None = None
    init_data: InitData | None = None
    cookie: StrictBool = False


class EraseBody(Body):
    """The password, or a fresh Telegram payload."""

    password: Password | None = None
    widget: Widget | None = None
    init_data: InitData | None = None


class ProfileBody(Body):
    """What is left out stays; null takes it back."""

    birth_date: BirthDate | None = None
    birth_time: BirthTime | None = None
    birth_city: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    language: Literal["en", "ru"] = "en"


BODIES: tuple[type[BaseModel], ...] = (
    RegisterBody,
    LoginBody,
    RefreshBody,
    LogoutBody,
    PasswordBody,
    ForgotBody,
    ResetBody,
    TelegramBody,
    EraseBody,
    ProfileBody,
)


class EntryAnswer(BaseModel):
    """`expires_in`: seconds. `refresh_token`: null where it is in the cookie."""

    account_id: str
    session_id: str
    role: str
    token_type: Literal["Bearer"]
    access_token: str
    expires_in: int
    refresh_token: str | None
    refresh_expires: str


class ProfileAnswer(BaseModel):
    birth_date: str | None
    birth_time: str | None
    birth_city: str | None
    subscription_status: str
    language: str


class MeAnswer(BaseModel):
    account_id: str
    email: str | None
    password: bool
    telegram: bool
    role: str
    created: str
    profile: ProfileAnswer


class SessionAnswer(BaseModel):
    session_id: str
    device: str
    created: str
    seen: str
    expires: str
    current: bool


class SessionsAnswer(BaseModel):
    sessions: list[SessionAnswer]


class LinkAnswer(BaseModel):
    domain: str
    user_id: str
    linked: str


class LinksAnswer(BaseModel):
    links: list[LinkAnswer]


class DoneAnswer(BaseModel):
    done: Literal[True]


class EndedAnswer(BaseModel):
    ended: int


class ExportAnswer(BaseModel):
    """`tables`: each with the rows that are about this person. `exported_at`: microseconds UTC."""

    account: str
    exported_at: int
    moments: str
    tables: dict[str, list[dict[str, Any]]]


async def read(request: Request, model: type[_Body]) -> _Body:
    """The body, as bodies.read; but what came is not shown again. Raises Problem."""
    try:
        return await bodies.read(request, model)
    except Problem as problem:
        faults = [Fault(fault.where, fault.what, allowed=fault.allowed) for fault in problem.faults]
        raise Problem(problem.status, problem.kind, problem.detail, faults, problem.headers) from None


async def count(service: Service, request: Request, account: str | None = None) -> None:
    """Counts a try of this address and at this account. Raises Problem 429."""
    names = [f"credentials:{counted_address(address_of(request))}"]
    if account is not None:
        names.append("account:" + service.secrets.stands_for("credentials", account.strip().lower()))
    for name in names:
        verdict = await service.limiter.take(name, service.deployment.limits.credentials)
        if not verdict.allowed:
            service.metrics.limited.labels("credentials").inc()
            after = max(1, int(-(-verdict.reset_s // 1)))
            detail = f"{verdict.limit} tries a minute are allowed; the next one in {after} s"
            raise Problem(429, "limit", detail, headers={"Retry-After": str(after)})


def attempt_of(request: Request) -> str:
    """The word that tells this call from any other, also when it comes twice; empty where there is none. Raises Problem 400."""
    given = request.headers.get(ATTEMPT_HEADER)
    if given is None:
        return ""
    if _ATTEMPT.fullmatch(given) is None:
        fault = Fault(f"header {ATTEMPT_HEADER}", "expected 8 to 128 visible ASCII characters")
        raise Problem(400, "header", f"{ATTEMPT_HEADER}: expected 8 to 128 visible ASCII characters", [fault])
    return given


def device(request: Request) -> str:
    return request.headers.get("User-Agent", "")


def moment(at: int) -> str:
    """Microseconds UTC as ISO 8601."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat()


def entry(service: Service, request: Request, made: Entry, cookie: bool) -> Response:
    """A log-in's answer. From here on the audit knows who it was."""
    request.state.user = made.account
    said = {
        "account_id": made.account,
        "session_id": made.session,
        "role": made.role,
        "token_type": "Bearer",
        "access_token": made.access,
        "expires_in": made.expires_in,
        "refresh_token": None if cookie else made.refresh,
        "refresh_expires": moment(made.refresh_expires),
    }
    answer = answers.json(said, headers=NO_STORE)
    if cookie:
        _set_cookie(service, answer, made.refresh, int(service.deployment.access.refresh_days * 86_400))
    return answer


def done() -> Response:
    return answers.json({"done": True}, headers=NO_STORE)


def given_refresh(service: Service, request: Request, token: str | None) -> str | None:
    """The refresh token of a body, or of the cookie. A cookie comes by itself, so it counts only with a header that another site's page
    cannot send (OWASP, custom request headers against CSRF). Raises Problem 403."""
    if token is not None:
        return token
    cookie = request.cookies.get(cookie_name(service))
    if cookie is None or not 0 < len(cookie) <= 200:
        return None
    if not request.headers.get(CSRF_HEADER):
        fault = Fault(f"header {CSRF_HEADER}", "is missing")
        raise Problem(403, "csrf", f"a cookie counts only with the header {CSRF_HEADER}: 1", [fault])
    return cookie


def cookie_name(service: Service) -> str:
    return "__Secure-factotum-refresh" if _secure(service) else "factotum-refresh"


def drop_cookie(service: Service, answer: Response) -> Response:
    _set_cookie(service, answer, "", 0)
    return answer


def _set_cookie(service: Service, answer: Response, value: str, seconds: int) -> None:
    answer.set_cookie(
        cookie_name(service), value, max_age=seconds, path=COOKIE_PATH, secure=_secure(service), httponly=True, samesite="strict"
    )


def _secure(service: Service) -> bool:
    return service.deployment.environment == "production"
