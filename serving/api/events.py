"""POST /v1/{domain}/events: what people did. All of a request's events are stored, or none."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from configs.domain import Domain
from features.catalogue import Catalogue
from serving.api import answers, documents, permits
from serving.api.bodies import EventBody, checked, document
from serving.api.domains import known
from serving.api.problems import Fault, Problem
from serving.service import Service
from serving.storage.database import now_us
from serving.storage.tables import StoredEvent

_EARLIEST = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp() * 1e6)

_LINKS: dict[str, documents.Link] = {
    "person": ("get", "/v1/{domain}/users/{user_id}", {"domain": "$request.path.domain", "user_id": "$request.body#/user_id"})
}
_SCHEMA = {
    "anyOf": [
        {"$ref": "#/components/schemas/EventBody"},
        {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/EventBody"}},
    ]
}


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["events"])

    @routes.post(
        "/v1/{domain}/events",
        responses=documents.answers(documents.EventsAnswer, 400, 404, 413, 415, 422, 503, links=_LINKS),
        openapi_extra=documents.takes(schema=_SCHEMA),
    )
    async def events(domain: str, request: Request) -> Response:
        """One event or a list. An event_id sent before changes nothing, so a request may safely be repeated."""
        words = known(service, domain)
        given = await document(request)
        single = not isinstance(given, list)
        listed = [given] if not isinstance(given, list) else given
        limit = service.deployment.http.events_limit
        if not 1 <= len(listed) <= limit:
            fault = Fault("body", "the list's length", len(listed), {"min_length": 1, "max_length": limit})
            raise Problem(422, "invalid", f"send 1 to {limit} events at once", [fault])
        catalogue = service.standing(domain).engine.catalogue
        now = now_us()
        given_events: list[tuple[EventBody, int]] = []
        faults: list[Fault] = []
        for place, one in enumerate(listed):
            where = "" if single else f"[{place}]"
            try:
                body = checked(one, EventBody, where)
            except Problem as problem:
                faults.extend(problem.faults)
                continue
            moment, wrong = _moment(body.time, now + place, words.source.future_tolerance_s)
            found = [*wrong, *_wrong(words, catalogue, body)]
            faults.extend(Fault(f"{where}{'.' if where else ''}{fault.where}", fault.what, fault.got, fault.allowed) for fault in found)
            given_events.append((body, moment))
        if faults:
            raise Problem(422, "invalid", f"{faults[0].where}: {faults[0].what}; nothing was stored", faults)
        whose = await permits.write_about(service, request, words, [body.user_id for body, _ in given_events])
        stored = [
            StoredEvent(body.event_id, whose[body.user_id], body.item_id, body.kind, body.value, moment) for body, moment in given_events
        ]
        if len({event.user for event in stored}) == 1:
            request.state.user = stored[0].user
        new = await service.record(domain, stored)
        counted: set[str] = set()
        said: list[dict[str, str]] = []
        for event in stored:
            fresh = event.event_id in new and event.event_id not in counted
            counted.add(event.event_id)
            said.append({"event_id": event.event_id, "status": "recorded" if fresh else "repeated"})
        return answers.json({"recorded": len(new), "repeated": len(stored) - len(new), "events": said})

    return routes


def _wrong(domain: Domain, catalogue: Catalogue, body: EventBody) -> list[Fault]:
    faults: list[Fault] = []
    if catalogue.row(body.item_id) is None:
        faults.append(Fault("item_id", f"unknown {domain.items.noun}", body.item_id))
    if body.kind not in domain.events.kinds:
        faults.append(Fault("kind", "unknown kind", body.kind, list(domain.events.kinds)))
    if body.value is not None:
        scale = domain.events.scale
        if scale is None:
            faults.append(Fault("value", "this domain has no ratings", body.value))
        elif not scale.low <= body.value <= scale.high:
            faults.append(Fault("value", "outside the scale", body.value, {"ge": scale.low, "le": scale.high}))
    return faults


def _moment(text: str | None, now: int, tolerance_s: int) -> tuple[int, list[Fault]]:
    """Microseconds UTC, and what is wrong with it."""
    if text is None:
        return now, []
    expected = "ISO 8601 with its offset, such as 2026-01-31T20:15:00Z"
    try:
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is None:
            return now, [Fault("time", "has no offset from UTC", text, expected)]
        moment = round((parsed - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)
    except (ValueError, OverflowError):
        return now, [Fault("time", "is no time", text, expected)]
    if moment > now + tolerance_s * 1_000_000:
        return now, [Fault("time", f"lies more than {tolerance_s} s in the future", text)]
    if moment < _EARLIEST:
        return now, [Fault("time", "lies before 1990", text)]
    return moment, []
