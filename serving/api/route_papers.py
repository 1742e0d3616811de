"""One route in the forms that people take along: a description, a summary, a calendar, a paper, a mail; and how it did among those who
bought."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request, Response

from configs.domain import Domain, Language
from features.itinerary.bought import SEVERAL, BoughtRoutes, By
from features.itinerary.routes import route_id as id_of
from serving.api import answers, documents, permits
from serving.api.bodies import read
from serving.api.credentials import NO_STORE, count
from serving.api.itinerary_answers import DescriptionAnswer, PopularAnswer, QueuedAnswer, RankHistoryAnswer, SummaryAnswer
from serving.api.itinerary_bodies import RouteMailBody
from serving.api.problems import Problem
from serving.api.routes import known_route
from serving.itinerary import calendars, describing, papers
from serving.itinerary.current import Current
from serving.mail import REQUESTED, ROUTE
from serving.service import Service
from serving.storage.outbox import Envelope, put

_MOST = 100
_NO_MODEL = "no language model is served here: this is the template's text"
_NO_TICKETS = "no tickets were known when the bundle in service was made"
_OTHER = "the tickets known are of another timetable than the one in service"

Said = Annotated[Language, Query()]


def router(service: Service, domain: Domain) -> APIRouter:
    """`domain`: one that has an itinerary."""
    routes = APIRouter(prefix=f"/v1/{domain.name}", tags=["route-papers"])
    words = domain.itinerary
    assert words is not None
    host = urlsplit(service.deployment.public_url).hostname or "localhost"

    @routes.get("/routes/popular", responses=documents.answers(PopularAnswer, 422, 503))
    async def popular(by: By = "day", k: Annotated[int, Query(ge=1, le=_MOST)] = 10) -> Response:
        """The routes that most people's tickets make: by day, or by how many stops they have."""
        current = service.itineraries.current(domain.name)
        bought, notes = _bought(service, domain, current)
        groups = [] if bought is None else _groups(current, bought, by, k)
        return answers.json({"domain": domain.name, "by": by, "groups": groups, "notes": notes})

    @routes.get("/routes/{route_id}/rank-history", responses=documents.answers(RankHistoryAnswer, 404, 503))
    async def history(route_id: str) -> Response:
        """How many people's tickets made exactly this route at the end of each date of the sale, and which place that was."""
        current = service.itineraries.current(domain.name)
        ids = [current.timetable.stops[row].id for row in known_route(current, route_id)]
        bought, notes = _bought(service, domain, current)
        said: dict[str, Any] = {"route_id": route_id, "bought": 0, "with_more": 0, "history": [], "notes": notes}
        if bought is not None:
            said |= {"bought": bought.exactly(ids), "with_more": bought.holding(ids), "history": bought.history(ids)}
        return answers.json(said)

    @routes.get("/routes/{route_id}/description", responses=documents.answers(DescriptionAnswer, 404, 422, 503))
    async def description(route_id: str, by: Literal["template", "llm"] = "template", language: Said = "en") -> Response:
        """A few sentences about a route."""
        current = service.itineraries.current(domain.name)
        text = describing.description(current, words, known_route(current, route_id), language)
        notes = [_NO_MODEL] if by == "llm" else []
        said = {"route_id": route_id, "by": "template", "asked": by, "language": language, "text": text, "notes": notes}
        return answers.json(said)

    @routes.get("/routes/{route_id}/summary", responses=documents.answers(SummaryAnswer, 404, 422, 503))
    async def summary(route_id: str, language: Said = "en") -> Response:
        """A route in at most 280 characters, for promotion."""
        current = service.itineraries.current(domain.name)
        text = describing.summary(current, words, known_route(current, route_id), language)
        return answers.json({"route_id": route_id, "language": language, "text": text})

    @routes.get("/routes/{route_id}/ics", responses=_file(calendars.MEDIA_TYPE))
    async def ics(route_id: str, language: Said = "en") -> Response:
        """A route as a calendar (RFC 5545)."""
        current = service.itineraries.current(domain.name)
        made = calendars.calendar(current.timetable, known_route(current, route_id), domain.title, host, datetime.now(UTC), language)
        return Response(made, headers=_named("route.ics"), media_type=f"{calendars.MEDIA_TYPE}; charset=utf-8")

    @routes.get("/routes/{route_id}/pdf", responses=_file(papers.MEDIA_TYPE))
    async def pdf(route_id: str, language: Said = "en") -> Response:
        """A route on paper."""
        current = service.itineraries.current(domain.name)
        rows = known_route(current, route_id)
        try:
            made = await asyncio.to_thread(papers.paper, current, words, rows, language, domain.title)
        except papers.NoFontError as error:
            raise Problem(503, "no-font", str(error), headers={"Retry-After": "3600"}) from None
        return Response(made, headers=_named("route.pdf"), media_type=papers.MEDIA_TYPE)

    @routes.post(
        "/routes/{route_id}/email",
        status_code=202,
        responses=documents.answers(QueuedAnswer, 400, 401, 403, 404, 409, 413, 415, 422, 503, status=202),
        openapi_extra=documents.takes("RouteMailBody"),
    )
    async def email(route_id: str, request: Request) -> Response:
        """Sends a route to the address of the caller's account: to nobody else's, or anybody could have mails sent to anybody."""
        caller = permits.person(request)
        body = await read(request, RouteMailBody)
        current = service.itineraries.current(domain.name)
        rows = known_route(current, route_id)
        account = await service.accounts.find(caller.name)
        if account.email is None:
            raise Problem(409, "no-address", "this account has no mail address")
        await count(service, request, caller.name)
        language = await permits.language(service, caller, body.language)
        subject, text = describing.letter(current, words, rows, language)
        calendar = calendars.calendar(current.timetable, rows, domain.title, host, datetime.now(UTC), language).decode()
        values = {"subject": subject, "text": text, "calendar": calendar}
        payload: dict[str, object] = {"account": caller.name, "to": account.email, "template": ROUTE, "values": values}
        async with service.database.writing() as connection:
            await put(service.database, connection, [Envelope(REQUESTED, caller.name, payload)])
        service.relay.wake()
        return answers.json({"queued": True, "to": account.email}, 202, NO_STORE)

    return routes


def _bought(service: Service, domain: Domain, current: Current) -> tuple[BoughtRoutes | None, list[str]]:
    """What tickets say of the timetable in service, and why nothing where that is nothing."""
    bought = service.standing(domain.name).engine.bundle.bought
    if bought is None:
        return None, [_NO_TICKETS]
    return (bought, []) if bought.version == current.timetable.version else (None, [_OTHER])


def _groups(current: Current, bought: BoughtRoutes, by: By, k: int) -> list[dict[str, Any]]:
    days, rows_of = current.timetable.days, current.timetable.rows
    ranks = bought.ranks(by)
    out = []
    for group in sorted({int(group) for group in bought.groups(by)}, key=lambda group: (group == SEVERAL, group)):
        found = bought.popular(by, group, k)
        if not found:
            continue
        several = group == SEVERAL if by == "day" else bool(group % 2)
        about: dict[str, Any] = {"several_days": several}
        about |= {"day": None if several else days[group]} if by == "day" else {"length": group // 2}
        listed = [
            {
                "route_id": id_of(current.timetable, [rows_of[name] for name in bought.stops[row]]),
                "concerts": bought.stops[row],
                "holders": int(bought.holders[row, -1]),
                "rank": int(ranks[row, -1]),
            }
            for row in found
        ]
        out.append(about | {"routes": listed})
    return out


def _file(media_type: str) -> documents.Responses:
    said = documents.answers(SummaryAnswer, 404, 422, 503)
    said[200] = {"description": "The file", "content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}
    return said


def _named(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
