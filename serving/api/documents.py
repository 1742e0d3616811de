"""What answers look like, for /docs and for programs that read the OpenAPI document. Answers are written by hand (answers.py);
tests hold the two together."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.api.bodies import EventBody, ItemBody, RecommendationsBody
from serving.api.problems import MEDIA_TYPE

_REF = "#/components/schemas/{model}"

#: How a caller says who they are; all routes take either, and open ones neither.
_SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "a person's access token"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "a machine's key"},
}
_FREE = ("/healthz", "/readyz", "/metrics")  # neither asked who they are nor counted
_OF_ALL = (400, 401, 403, 408, 429, 503)  # what may come from in front of a route: who asks, how often, how long, and who is away


class ReasonAnswer(BaseModel):
    kind: str
    item: str | int | None = None
    feature: str | None = None
    value: float
    sign: Literal[-1, 0, 1]
    share: float
    source: str | None = None


class ShownItem(BaseModel):
    item_id: str
    title: str
    score: float
    rank: int
    sources: list[str]
    reasons: list[ReasonAnswer]
    explanation: str | None
    propensity: float


class SlateAnswer(BaseModel):
    slate: str
    domain: str
    model_version: str
    variant: str
    mode: str
    degraded: list[str]
    notes: list[str]
    items: list[ShownItem]


class StoredSlateAnswer(SlateAnswer):
    user_id: str | None
    created: str
    request: dict[str, Any]


class ItemAnswer(BaseModel):
    item_id: str
    title: str
    available: bool
    attributes: dict[str, list[str] | str | float | None]


class ItemsAnswer(BaseModel):
    items: list[ItemAnswer]
    total: int
    page: int
    size: int


class SimilarAnswer(BaseModel):
    domain: str
    model_version: str
    item_id: str
    items: list[ShownItem]


class EventStatus(BaseModel):
    event_id: str
    status: Literal["recorded", "repeated"]


class EventsAnswer(BaseModel):
    recorded: int
    repeated: int
    events: list[EventStatus]


class KnownEvent(BaseModel):
    item_id: str
    title: str
    kind: str
    value: float | None
    time: str | None


class UserAnswer(BaseModel):
    user_id: str
    events: int
    kinds: dict[str, int]
    taste: int
    excluded: int
    liked: list[str]
    disliked: list[str]
    last_events: list[KnownEvent]


class DomainsAnswer(BaseModel):
    domains: list[dict[str, Any]]


class DomainAnswer(BaseModel):
    domain: str
    title: str
    ready: bool


class ErrorDetail(BaseModel):
    where: str
    what: str
    got: str | int | float | bool | None = None
    allowed: Any = None


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[ErrorDetail] = []
    more_errors: int = 0


Responses = dict[int | str, dict[str, Any]]


Link = tuple[str, str, dict[str, str]]  # method, path, and where each of its parameters is found in the question or the answer


def answers(model: type[BaseModel], *problems: int, status: int = 200, links: dict[str, Link] | None = None) -> Responses:
    """A route's answers: its own document, the problems it may give besides 500, and what may be asked next with what it says."""
    said: Responses = {status: {"model": model, "description": HTTPStatus(status).phrase}}
    if links:
        said[status]["links"] = {
            name: {"operationRef": f"#/paths/{path.replace('~', '~0').replace('/', '~1')}/{method}", "parameters": parameters}
            for name, (method, path, parameters) in links.items()
        }
    for code in problems:
        said[code] = _problem(code)
    return said


def _problem(code: int) -> dict[str, Any]:
    return {
        "description": HTTPStatus(code).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="ProblemDocument")}}},
    }


def takes(*models: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body itself: one of these models, or a schema of its own."""
    refs: list[dict[str, Any]] = [{"$ref": _REF.format(model=name)} for name in models]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema or refs[0]}}}}


def install(app: FastAPI, domains: Sequence[str], bodies: Sequence[type[BaseModel]] = ()) -> None:
    """The OpenAPI document with the domains there are and the bodies' schemas (`bodies`: of accounts), made when it is first asked for."""

    def _openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            whole = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            known: list[type[BaseModel]] = [RecommendationsBody, EventBody, ItemBody, *bodies]
            _, definitions = models_json_schema([(model, "validation") for model in known], ref_template=_REF)
            _, more = models_json_schema([(ProblemDocument, "serialization")], ref_template=_REF)
            schemas = whole.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(definitions["$defs"])
            schemas.update(more["$defs"])
            whole["components"]["securitySchemes"] = _SECURITY
            for path, calls in whole["paths"].items():
                for call in calls.values() if path not in _FREE else ():
                    call.setdefault("security", [{}, *({name: []} for name in _SECURITY)])
                    for code in _OF_ALL:
                        call["responses"].setdefault(str(code), _problem(code))
            for parameter in (p for path in whole["paths"].values() for call in path.values() for p in call.get("parameters", ())):
                if parameter["name"] == "domain":
                    parameter["schema"] = {"type": "string", "enum": list(domains)}
            app.openapi_schema = whole
        return app.openapi_schema

    app.openapi = _openapi  # type: ignore[method-assign]
