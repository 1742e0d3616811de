"""The outermost layer, plain ASGI: request id, limit of the body, last resort for errors, metrics, the access log and the audit."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access.identity import NOBODY
from serving.api.gate import free
from serving.api.problems import Problem, response
from serving.audit import Audit, event_type
from serving.degraded import HEADER, begin
from serving.logs import person, request_id
from serving.metrics import Metrics

_QUESTIONS = frozenset({"recommendations", "calls", "routes"})  # tags of routes whose POST only asks
_LOGINS = frozenset(("POST", f"/v1/auth/{word}") for word in ("login", "register", "refresh", "telegram"))
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")

log = logging.getLogger("factotum.access")
_faults = logging.getLogger("factotum.api")


class Edge:
    """`limit`: bytes of a body; more is 413, whatever the headers promise, as soon as it is known."""

    def __init__(self, app: ASGIApp, metrics: Metrics, limit: int, audit: Audit) -> None:
        self._app, self._metrics, self._limit, self._audit = app, metrics, limit, audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        name = given.decode("ascii") if _SANE_ID.fullmatch(given) else secrets.token_hex(8)
        token = request_id.set(name)
        missing = begin()
        status, sent_bytes, begun, taken = 500, 0, False, 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._limit:
                    raise self._too_large()
            return message

        async def counted(message: Message) -> None:
            nonlocal status, sent_bytes, begun
            if message["type"] == "http.response.start":
                begun, status = True, message["status"]
                extra = [(b"x-request-id", name.encode())]
                if missing:
                    extra.append((HEADER, ",".join(sorted(missing)).encode()))
                if status == 413:
                    extra.append((b"connection", b"close"))  # the rest of the body is not read
                message["headers"] = [*message.get("headers", ()), *extra]
            elif message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        self._metrics.in_flight.inc()
        try:
            try:
                promised = headers.get(b"content-length", b"0")
                if promised.isdigit() and int(promised[:20]) > self._limit:
                    raise self._too_large()
                await self._app(scope, limited, counted)
            except Problem as problem:  # raised outside of a route
                if begun:
                    raise
                await response(problem, scope["path"])(scope, receive, counted)
            except Exception:
                self._metrics.errors.labels("api").inc()
                _faults.exception("a request failed", extra={"fields": {"method": _method(scope), "route": _route(scope)}})
                if begun:
                    raise
                detail = f"something went wrong here; the log has it under the request id {name}"
                await response(Problem(500, "internal", detail), scope["path"])(scope, receive, counted)
        finally:
            seconds = time.perf_counter() - began
            route = _route(scope)
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(route, _method(scope), status).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            if log.isEnabledFor(logging.INFO):
                fields = {"method": _method(scope), "route": route, "status": status, "ms": round(seconds * 1e3, 2), "bytes": sent_bytes}
                user = scope.get("state", {}).get("user")
                if user is not None:
                    fields["person"] = person(user)
                log.info("request", extra={"fields": fields})
            if not free(scope["path"]):
                self._entered(scope, route, status, name, seconds)
            request_id.reset(token)

    def _entered(self, scope: Scope, route: str, status: int, name: str, seconds: float) -> None:
        method, tags = _method(scope), getattr(scope.get("route"), "tags", ())
        kind = event_type(method, status, question=not _QUESTIONS.isdisjoint(tags), login=(method, route) in _LOGINS)
        state = scope.get("state", {})
        self._audit.put(kind, method, route, status, name, seconds * 1e3, state.get("caller", NOBODY), state.get("user"))

    def _too_large(self) -> Problem:
        return Problem(413, "too-large", f"a body may have {self._limit} bytes")


def _route(scope: Scope) -> str:
    """The template of the address, never the address itself: it may hold a person's id, and metrics must not grow with it."""
    return str(getattr(scope.get("route"), "path", "unmatched"))


def _method(scope: Scope) -> str:
    method = str(scope["method"])
    return method if method in ("GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS") else "other"
