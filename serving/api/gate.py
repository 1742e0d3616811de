"""The gate, plain ASGI between the edge and the routes: who calls, how often they may, by when they want the answer, and what every
answer says to a browser.

It leaves in scope["state"]: `caller` (Caller), `address` (the client's, see serving/access/origin.py) and `deadline` (seconds of
time.monotonic). It asks no database for a token: signatures are checked here, revocations are known to service.ownership.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import math
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterable

import orjson
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import degraded
from serving.access.identity import NOBODY, Caller
from serving.access.limits import Verdict
from serving.access.origin import MARK_HEADER, PROXY_MARK, client_address, counted_address
from serving.access.tokens import LONGEST, TokenError
from serving.api.problems import Fault, Problem, response
from serving.service import Service
from serving.storage.database import DatabaseAwayError

_FREE = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/redoc", "/openapi.json"})
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="factotum", ApiKey realm="factotum"'}
_LONGEST_KEY = 256  # characters of a machine's key
_REMEMBERED = 10_000  # tokens that were checked, until they expire
_LEAST_S = 0.01  # a deadline shorter than this can only be missed
_MARK = MARK_HEADER.encode()
_VISIBLE = re.compile(rb"[\x20-\x7e]*")
_BEARER = re.compile(rb"bearer +", re.IGNORECASE)
_NUMBER = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,6})?")


def free(path: str) -> bool:
    """Health, metrics and documents: neither counted nor asked for a name nor audited."""
    return path in _FREE or path.startswith("/docs/")


class Gate:
    """Around the routes. `service`: tokens, keys, ownership and the count of requests are its own."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        deployment = service.deployment
        self._limits, self._proxies = deployment.limits, deployment.access.proxies
        self._longest_s = float(deployment.http.timeout_s)
        self._mark = os.environ.get(PROXY_MARK, "").encode()
        self._checked: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        secure = deployment.public_url.startswith("https://")
        self._strict = [(b"strict-transport-security", b"max-age=31536000")] if secure else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        state = scope.setdefault("state", {})
        state["caller"] = NOBODY
        state["deadline"] = time.monotonic() + self._longest_s
        verdict: Verdict | None = None
        refused: Problem | None = None
        try:
            if not free(scope["path"]):
                asked = _read(scope["headers"])
                state["address"] = self._address(scope, asked)
                state["deadline"] = time.monotonic() + self._seconds(asked)
                caller = state["caller"] = await self._caller(asked)
                verdict = await self._count(caller, state["address"])
                if verdict is not None and verdict.degraded:
                    degraded.note("limits")
        except Problem as problem:
            refused = problem
        self._service.metrics.gate_seconds.observe(time.perf_counter() - began)
        counted = [] if verdict is None else _told(verdict)
        begun = False

        async def sealed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], *counted, *self._strict, *_sealing(scope, message["headers"])]
            await send(message)

        if refused is None and verdict is not None and not verdict.allowed:
            refused = _too_many(verdict)
            self._service.metrics.limited.labels(state["caller"].kind).inc()
        if refused is not None:
            _name_route(scope)
            await response(refused, scope["path"])(scope, receive, sealed)
            return
        limit = asyncio.timeout_at(asyncio.get_running_loop().time() + state["deadline"] - time.monotonic())

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                limit.reschedule(None)  # an answer that has begun may take its time: it may be a stream
            await sealed(message)

        try:
            async with limit:
                await self._app(scope, receive, watched)
        except TimeoutError:
            if begun or not limit.expired():
                raise
            late = Problem(408, "deadline", "the answer was not ready in the time given; whether something was written is not known")
            await response(late, scope["path"])(scope, receive, sealed)

    # ------------------------------------------------------------ who

    async def _caller(self, asked: _Asked) -> Caller:
        """Raises Problem: 400 for headers that contradict each other, 401 for a token or a key that is not good, 503."""
        if asked.authorization is not None and asked.key is not None:
            fault = Fault("header Authorization", "not together with X-API-Key")
            raise Problem(400, "credentials", "send a token or a key, not both", [fault])
        if asked.authorization is not None:
            return self._of_token(asked.authorization)
        if asked.key is not None:
            return await self._of_key(asked.key)
        return NOBODY

    def _of_token(self, header: bytes) -> Caller:
        begins = _BEARER.match(header)
        token = header[begins.end() :].rstrip(b" ") if begins else b""
        if not token or len(token) > LONGEST:
            raise self._unauthorised("malformed", "expected Authorization: Bearer TOKEN")
        digest = hashlib.sha256(token).digest()
        known = self._checked.get(digest)
        if known is not None and known[0] > time.time():
            caller = known[1]
        else:
            try:
                caller = self._service.tokens.read(token.decode("ascii"))
            except TokenError as error:
                raise self._unauthorised(
                    error.why, "the token has expired" if error.why == "expired" else "the token is not good"
                ) from None
            while len(self._checked) >= _REMEMBERED:
                self._checked.popitem(last=False)
            self._checked[digest] = (_expiry(token), caller)
        if self._service.ownership.revoked(caller.session):
            raise self._unauthorised("revoked", "the session has ended; log in again")
        if self._service.ownership.disabled(caller.name):
            raise self._unauthorised("disabled", "the session has ended; log in again")
        return caller

    async def _of_key(self, header: bytes) -> Caller:
        if not header or len(header) > _LONGEST_KEY:
            raise self._unauthorised("malformed", "expected X-API-Key: KEY")
        try:
            caller = await self._service.accounts.caller_of_key(header.decode("ascii"))
        except DatabaseAwayError as error:
            after = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
            raise Problem(503, "database-away", "the key cannot be checked: the database does not answer; try again", (), after) from None
        if caller is None or self._service.ownership.key_revoked(caller.name):
            raise self._unauthorised("key", "the key is not known, has expired or was revoked")
        return caller

    def _unauthorised(self, why: str, detail: str) -> Problem:
        self._service.metrics.unauthorised.labels(why).inc()
        error = "" if why in ("key", "malformed") else ', error="invalid_token"'
        return Problem(401, "token", detail, (), {"WWW-Authenticate": f'Bearer realm="factotum"{error}, ApiKey realm="factotum"'})

    # ------------------------------------------------------------ how often, from where, by when

    async def _count(self, caller: Caller, address: str) -> Verdict | None:
        """None: not counted."""
        if caller.kind == "account":
            return await self._service.limiter.take(caller.counted, self._limits.person)
        if caller.kind == "key":
            return None if caller.may("limits:exempt") else await self._service.limiter.take(caller.counted, self._limits.key)
        if self._limits.anonymous is None:
            return None
        return await self._service.limiter.take(f"anonymous:{counted_address(address)}", self._limits.anonymous)

    def _address(self, scope: Scope, asked: _Asked) -> str:
        own = bool(self._mark) and asked.mark is not None and hmac.compare_digest(asked.mark, self._mark)
        peer = scope.get("client")
        return client_address(str(peer[0]) if peer else "", asked.forwarded, self._proxies, own)

    def _seconds(self, asked: _Asked) -> float:
        """What the client asks for, at most what the deployment allows. Raises Problem 400."""
        wanted = self._longest_s
        for name, value, unit in (("X-Deadline-Ms", asked.deadline_ms, 1e-3), ("Request-Timeout", asked.timeout_s, 1.0)):
            if value is None:
                continue
            if _NUMBER.fullmatch(value) is None:
                raise Problem(
                    400, "header", f"{name}: expected a number of {'milliseconds' if unit < 1 else 'seconds'}", [_fault(name, value)]
                )
            wanted = min(wanted, max(_LEAST_S, float(value) * unit))
        return wanted


class _Asked:
    """The headers that the gate reads."""

    __slots__ = ("authorization", "deadline_ms", "forwarded", "key", "mark", "timeout_s")

    def __init__(self) -> None:
        self.authorization: bytes | None = None
        self.key: bytes | None = None
        self.mark: bytes | None = None
        self.deadline_ms: bytes | None = None
        self.timeout_s: bytes | None = None
        self.forwarded: list[str] = []


_ONCE = {
    b"authorization": "authorization",
    b"x-api-key": "key",
    _MARK: "mark",
    b"x-deadline-ms": "deadline_ms",
    b"request-timeout": "timeout_s",
}


def _read(headers: Iterable[tuple[bytes, bytes]]) -> _Asked:
    """Raises Problem 400 for one that comes twice or holds what cannot be seen: proxies and we might read it differently."""
    asked = _Asked()
    for name, value in headers:
        slot = _ONCE.get(name)
        if slot is not None:
            if getattr(asked, slot) is not None:
                raise Problem(400, "header", f"the header {name.decode()} came twice", [Fault(f"header {name.decode()}", "came twice")])
            if _VISIBLE.fullmatch(value) is None:
                raise Problem(
                    400, "header", f"the header {name.decode()} holds characters that are not visible ASCII", [_fault(name.decode())]
                )
            setattr(asked, slot, value)
        elif name == b"x-forwarded-for":
            asked.forwarded.append(value.decode("latin-1"))
    return asked


def _fault(name: str, got: bytes | None = None) -> Fault:
    return Fault(f"header {name}", "is malformed", None if got is None else got.decode("latin-1"))


def _expiry(token: bytes) -> float:
    """Of a token that was checked. Seconds UTC."""
    payload = token.split(b".")[1]
    return float(orjson.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))["exp"])


def _name_route(scope: Scope) -> None:
    """What is refused here never comes to the router; the log and the audit tell which route it was for all the same."""
    for route in scope["app"].router.routes if "app" in scope else ():
        match, child = route.matches(scope)
        if match is Match.FULL:
            scope["route"] = child.get("route", route)
            return


def _told(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    return [
        (b"ratelimit-limit", b"%d" % verdict.limit),
        (b"ratelimit-remaining", b"%d" % verdict.remaining),
        (b"ratelimit-reset", b"%d" % math.ceil(verdict.reset_s)),
    ]


def _too_many(verdict: Verdict) -> Problem:
    after = max(1, math.ceil(verdict.reset_s))
    detail = f"{verdict.limit} requests a minute are allowed; the next one in {after} s"
    return Problem(429, "limit", detail, (), {"Retry-After": str(after)})


def _sealing(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What a browser is told of every answer; of one that is about somebody, that nobody may keep it; of a page, that it stands alone."""
    said = [(b"x-content-type-options", b"nosniff")]
    kept, page = False, False
    for name, value in headers:
        name = name.lower()
        kept = kept or name == b"cache-control"
        page = page or (name == b"content-type" and value.startswith(b"text/html"))
    state = scope["state"]
    if not kept and (state["caller"] is not NOBODY or "user" in state or scope["method"] not in ("GET", "HEAD")):
        said.append((b"cache-control", b"no-store"))
    if page:
        said += [
            (b"x-frame-options", b"DENY"),
            (b"content-security-policy", b"frame-ancestors 'none'"),
            (b"referrer-policy", b"no-referrer"),
        ]
    return said
