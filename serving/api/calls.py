"""The fixed addresses that a brief asks for, as the domain's YAML spells them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field, create_model

from configs.domain import Call, Domain
from serving.api import answers, documents, permits
from serving.api.bodies import Body, Id, read
from serving.api.problems import Fault, Problem
from serving.api.recommendations import answered
from serving.engine import Engine
from serving.recommender import Ask
from serving.service import Service
from serving.slate import Slate

_ID = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 200}, {"type": "integer"}]}


def router(service: Service) -> APIRouter:
    """Raises ValueError if an address is asked for twice."""
    routes = APIRouter(tags=["calls"])
    taken: dict[tuple[str, str], str] = {}
    for domain in service.domains.values():
        for call in domain.calls:
            if (other := taken.setdefault((call.method, call.path), domain.name)) != domain.name:
                raise ValueError(f"calls: {call.method} {call.path} is asked for by {other} and by {domain.name}")
            if call.answers == "popular":
                routes.add_api_route(
                    call.path, _popular(service, domain, call), methods=[call.method], responses=_answers(call), summary=_about(call)
                )
            else:
                routes.add_api_route(
                    call.path,
                    _similar(service, domain, call) if call.answers == "similar" else _one_source(service, domain, call),
                    methods=[call.method],
                    responses=_answers(call, 400, 404, 413, 415, 422, 503),
                    openapi_extra=documents.takes(schema=_schema(domain, call)),
                    summary=_about(call),
                )
    return routes


Endpoint = Callable[..., Awaitable[Response]]


def _popular(service: Service, domain: Domain, call: Call) -> Endpoint:
    what = f"{call.method} {call.path}"

    async def popular(request: Request) -> Response:
        await permits.ask_about(service, request, domain, None, newcomer=True)

        def write(engine: Engine) -> bytes:
            listed = answers.items(engine.popular(call.k), call.echo)
            return orjson.dumps(
                {"domain": domain.name, "model_version": engine.version, "mode": "popular", "items": orjson.Fragment(listed)}
            )

        if await service.gone(domain.name):  # what is sold out changes more often than bytes that are worth keeping
            standing = service.standing(domain.name)
            listed = answers.items(await service.popular(domain.name, call.k), call.echo)
            said = {"domain": domain.name, "model_version": standing.version, "mode": "popular", "items": orjson.Fragment(listed)}
            return answers.json(said)
        return answers.raw(service.prepared(domain.name, what, write))

    return popular


def _similar(service: Service, domain: Domain, call: Call) -> Endpoint:
    model = _body(domain, call)
    key = str(call.key)

    async def similar(request: Request) -> Response:
        body = await read(request, model)
        await permits.ask_about(service, request, domain, None, newcomer=True)
        item, k = _asked(body, key, call)
        engine = service.standing(domain.name).engine
        row = engine.catalogue.row(item)
        if row is None:
            raise Problem(
                404, "unknown-item", f"no such {domain.items.noun}", [Fault(key, f"unknown {domain.items.noun}", answers.as_number(item))]
            )
        found = await service.similar(domain.name, row, k)
        mode = found[0].sources[0] if found else "similar"
        slate = Slate(secrets.token_hex(16), domain.name, engine.version, "default", mode, found)
        return answered(service, slate, None, _written(key, item, k), echo=call.echo, also={key: answers.as_number(item)})

    return similar


def _one_source(service: Service, domain: Domain, call: Call) -> Endpoint:
    model = _body(domain, call)
    key, limit_s = str(call.key), domain.serving.deadline_ms / 1_000.0

    async def one_source(request: Request) -> Response:
        body = await read(request, model)
        named, k = _asked(body, key, call)
        standing = service.standing(domain.name)
        user = await permits.ask_about(service, request, domain, named)
        if user is None:
            raise Problem(503, "database-away", "the accounts are not read yet; try again", headers={"Retry-After": "1"})
        if user not in standing.people:
            raise Problem(404, "unknown-user", "no such user", [Fault(key, "unknown user", answers.as_number(user))])
        if call.answers not in standing.engine.sources:
            raise Problem(503, "no-source", f"the bundle in service has no source {call.answers!r}", headers={"Retry-After": "60"})
        ask = Ask(domain.name, k, user=user, sources=(call.answers,), deadline_s=permits.remaining_s(request, limit_s))
        slate = await service.recommend(ask)
        return answered(service, slate, user, _written(key, user, k), echo=call.echo, also={key: answers.as_number(user)})

    return one_source


def _body(domain: Domain, call: Call) -> type[Body]:
    fields: dict[str, Any] = {
        str(call.key): (Id, ...),
        "top_n": (Annotated[int, Field(ge=1, le=domain.serving.max_k)], call.k),
    }
    return create_model(f"{call.path.strip('/').replace('/', '_')}_body", __base__=Body, **fields)


def _asked(body: Body, key: str, call: Call) -> tuple[str, int]:
    said = body.model_dump()
    return str(said[key]), int(said["top_n"])


def _written(key: str, identifier: str, k: int) -> str:
    return orjson.dumps({key: identifier, "top_n": k}).decode()


def _schema(domain: Domain, call: Call) -> dict[str, Any]:
    top_n = {"type": "integer", "minimum": 1, "maximum": domain.serving.max_k, "default": call.k}
    return {
        "type": "object",
        "properties": {str(call.key): _ID, "top_n": top_n},
        "required": [str(call.key)],
        "additionalProperties": False,
    }


def _answers(call: Call, *problems: int) -> documents.Responses:
    said = documents.answers(documents.SlateAnswer, *(problems or (503,)))
    said[200] = {"description": f"Items under the brief's own names: {', '.join(call.echo.values()) or 'item_id'}"}
    return said


def _about(call: Call) -> str:
    return {"popular": "The most popular items", "similar": "Items like one"}.get(
        call.answers, f"What the source {call.answers} alone recommends"
    )
