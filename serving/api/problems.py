"""What goes wrong, as problem+json (RFC 9457). The only place where an error becomes a status code."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, get_args

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.routing import Match

from serving.accounts import AccountError, Kind
from serving.filters import FilterError
from serving.live import NotReadyError
from serving.storage.database import DatabaseAwayError

MEDIA_TYPE = "application/problem+json"
_MOST_GOT = 80  # characters of what came that are shown again
_MOST_ALLOWED = 200  # words
_MOST_ERRORS = 20

_OF_ACCOUNTS: dict[Kind, int] = {
    "email": 422,
    "password-rules": 422,
    "registration-closed": 403,
    "taken": 409,
    "credentials": 401,
    "disabled": 403,
    "refresh": 401,
    "reset": 400,
    "telegram": 401,
    "telegram-off": 404,
    "unknown-session": 404,
    "unknown-account": 404,
    "proof": 403,
}

log = logging.getLogger("factotum.api")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where it stands, what is wrong with it, what came and what would be right."""

    where: str
    what: str
    got: object = None
    allowed: object = None

    def document(self) -> dict[str, object]:
        said: dict[str, object] = {"where": self.where, "what": self.what}
        if self.got is not None:
            said["got"] = shown(self.got)
        if self.allowed is not None:
            said["allowed"] = self.allowed[:_MOST_ALLOWED] if isinstance(self.allowed, list | tuple) else self.allowed
        return said


class Problem(Exception):  # noqa: N818 (RFC 9457's word)
    """An answer that is a refusal. `kind` names it for programs: the last part of `type`."""

    def __init__(self, status: int, kind: str, detail: str, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.faults, self.headers = status, kind, detail, tuple(faults), dict(headers or {})


def response(problem: Problem, path: str) -> Response:
    document: dict[str, object] = {
        "type": f"urn:factotum:problem:{problem.kind}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": path,
    }
    if problem.faults:
        document["errors"] = [fault.document() for fault in problem.faults[:_MOST_ERRORS]]
        if len(problem.faults) > _MOST_ERRORS:
            document["more_errors"] = len(problem.faults) - _MOST_ERRORS
    return Response(orjson.dumps(document), problem.status, problem.headers, MEDIA_TYPE)


def shown(value: object) -> str | int | float | bool:
    """What came, fit to be shown again: short, and with nothing in it that a terminal or a log would obey."""
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53) or isinstance(value, float):
        return value
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text[: _MOST_GOT + 1])
    return text if len(text) <= _MOST_GOT else text[:_MOST_GOT] + "…"


def from_pydantic(errors: Sequence[ErrorDetails | dict[str, Any]], model: type[BaseModel] | None = None) -> list[Fault]:
    """pydantic's findings in our words; `model`: what was expected, whose fields are named where an unknown one came."""
    faults: list[Fault] = []
    for error in errors:
        context = error.get("ctx") or {}
        kind = str(error["type"])
        allowed: object = None
        if kind == "extra_forbidden":
            allowed = _fields(model, error["loc"][:-1])
        elif bounds := {
            word: context[word] for word in ("ge", "gt", "le", "lt", "expected", "min_length", "max_length") if word in context
        }:
            allowed = bounds["expected"] if set(bounds) == {"expected"} else bounds
        what = {"extra_forbidden": "unknown key", "missing": "is missing"}.get(kind, str(error["msg"]).removeprefix("Value error, "))
        got = None if kind in ("missing", "extra_forbidden") else error.get("input")
        faults.append(Fault(_where(error["loc"]), what, got, allowed))
    return faults


def _fields(model: type[BaseModel] | None, place: Sequence[str | int]) -> list[str] | None:
    """The fields of the model that stands at this place within another; None where none does."""
    for part in place:
        field = None if model is None else model.model_fields.get(str(part))
        inside = () if field is None else (field.annotation, *get_args(field.annotation))
        model = next((one for one in inside if isinstance(one, type) and issubclass(one, BaseModel)), None)
    return None if model is None else list(model.model_fields)


def _where(place: Sequence[str | int]) -> str:
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith(("function-", "constrained-", "list[", "dict[", "union")):
            text += f".{shown(part)}" if text else str(shown(part))
    return text or "body"


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem+json."""

    async def _problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return response(error, request.url.path)

    async def _query(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = from_pydantic([{**found, "loc": found["loc"][1:]} for found in error.errors()])
        return response(Problem(422, "invalid", "the query says something that is not allowed", faults), request.url.path)

    async def _http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allowed = _methods(request)
            problem = Problem(405, "method", f"{request.method} is not allowed here", headers={"Allow": ", ".join(allowed)})
            return response(problem, request.url.path)
        if error.status_code == 404:
            return response(Problem(404, "route", "there is nothing at this address; /docs lists what there is"), request.url.path)
        return response(Problem(error.status_code, "http", str(error.detail), headers=error.headers), request.url.path)

    async def _away(request: Request, error: Exception) -> Response:
        assert isinstance(error, DatabaseAwayError)
        log.warning("a request needed the database", extra={"fields": {"why": str(error)}})
        after = str(max(1, math.ceil(error.retry_after_s)))
        problem = Problem(
            503,
            "database-away",
            "the database does not answer; take what was sent as not written, and send it again",
            headers={"Retry-After": after},
        )
        return response(problem, request.url.path)

    async def _not_ready(request: Request, error: Exception) -> Response:
        problem = Problem(503, "not-ready", f"{error}; `factotum run` makes one", headers={"Retry-After": "5"})
        return response(problem, request.url.path)

    async def _filter(request: Request, error: Exception) -> Response:
        assert isinstance(error, FilterError)
        fault = Fault(f"filters.{shown(error.attribute)}", str(shown(str(error))), allowed=list(error.allowed) or None)
        return response(Problem(422, "invalid", "a filter asks for something that the catalogue does not have", [fault]), request.url.path)

    async def _account(request: Request, error: Exception) -> Response:
        assert isinstance(error, AccountError)
        status = _OF_ACCOUNTS[error.kind]
        headers = {"WWW-Authenticate": 'Bearer realm="factotum"'} if status == 401 else {}
        return response(Problem(status, error.kind, str(error), headers=headers), request.url.path)

    app.add_exception_handler(AccountError, _account)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _query)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DatabaseAwayError, _away)
    app.add_exception_handler(NotReadyError, _not_ready)
    app.add_exception_handler(FilterError, _filter)


def _methods(request: Request) -> list[str]:
    """What the address itself allows; an address with a placeholder that happens to fit it says nothing of it."""
    found: set[str] = set()
    own: set[str] = set()
    for route in request.app.router.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods = set(getattr(route, "methods", None) or ())
            found |= methods
            if getattr(route, "path", None) == request.url.path:
                own |= methods
    return sorted(own or found)
