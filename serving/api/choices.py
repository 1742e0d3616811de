"""What a person says of stops and routes: favourites, bought, surely, surely not; their tickets; and a questionnaire for newcomers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Request, Response

from configs.domain import Domain, Itinerary, Language
from features.itinerary.routes import rows_of
from serving.api import answers, documents, permits
from serving.api.bodies import read
from serving.api.credentials import moment
from serving.api.itinerary_answers import (
    ChoicesAnswer,
    ChosenAnswer,
    ProfileAnswer,
    QuestionnaireAnswer,
    RemovedAnswer,
    TicketsAnswer,
)
from serving.api.itinerary_bodies import AnswersBody, ChoiceBody, TicketsBody
from serving.api.problems import Fault, Problem
from serving.itinerary import questionnaire
from serving.itinerary.choosing import chosen, clashes, owned
from serving.itinerary.current import Current
from serving.itinerary.showing import nearest
from serving.service import Service
from serving.storage.choices import Choice, Chosen, TooManyError
from serving.storage.tables import TARGET

_TargetPath = Annotated[str, Path(min_length=1, max_length=TARGET)]


def router(service: Service, domain: Domain) -> APIRouter:
    """`domain`: one that has an itinerary."""
    routes = APIRouter(prefix=f"/v1/{domain.name}", tags=["choices"])
    choosing = service.choosing

    @routes.get("/users/{user_id}/choices", responses=documents.answers(ChoicesAnswer, 404, 503))
    async def choices(user_id: str, request: Request) -> Response:
        """Everything a person chose, oldest first, and what they bought by all that is known. `me` is the caller's own user."""
        user = await permits.read_about(service, request, domain, user_id)
        current = service.itineraries.current(domain.name)
        said = await choosing.stored.of(domain.name, user)
        standing = service.standing(domain.name)
        has = chosen(current, said, owned(standing.people.state(user), standing.engine.catalogue.ids.id))
        titles = {stop.id: stop.title for stop in current.timetable.stops}
        listed = [
            {
                "choice": one.choice,
                "of": one.of,
                "target": one.target,
                "title": titles.get(one.target) if one.of == "stop" else None,
                "chosen_at": moment(one.chosen_at),
            }
            for one in said
        ]
        return answers.json({"user_id": user, "choices": listed, "bought": sorted(has.bought)})

    @routes.post(
        "/users/{user_id}/choices",
        responses=documents.answers(ChosenAnswer, 400, 404, 409, 413, 415, 422, 503),
        openapi_extra=documents.takes("ChoiceBody"),
    )
    async def choose(user_id: str, request: Request) -> Response:
        """Says something of stops or routes; saying it twice is as saying it once. Scores and routes follow at once."""
        user = await _written(service, request, domain, user_id)
        body = await read(request, ChoiceBody)
        current = service.itineraries.current(domain.name)
        _check(current, domain, body)
        try:
            added = await choosing.add(domain, user, body.choice, body.of, body.targets)
        except TooManyError as error:
            raise Problem(409, "too-many", str(error)) from None
        return answers.json({"added": added, "choices": len(await choosing.stored.of(domain.name, user))})

    @routes.delete("/users/{user_id}/choices/{choice}/{of}/{target:path}", responses=documents.answers(RemovedAnswer, 404, 422, 503))
    async def take_back(user_id: str, choice: Choice, of: Chosen, target: _TargetPath, request: Request) -> Response:
        """Takes a choice back; `removed` is false where there was none."""
        user = await _written(service, request, domain, user_id)
        return answers.json({"removed": await choosing.remove(domain, user, choice, of, target)})

    @routes.post(
        "/users/{user_id}/tickets",
        responses=documents.answers(TicketsAnswer, 400, 404, 409, 413, 415, 422, 503),
        openapi_extra=documents.takes("TicketsBody"),
    )
    async def tickets(user_id: str, request: Request) -> Response:
        """Imports tickets that a person has: each becomes a bought stop as of when it was sold; one that is known changes nothing."""
        user = await _written(service, request, domain, user_id)
        body = await read(request, TicketsBody)
        current = service.itineraries.current(domain.name)
        times, names = _tickets(current, domain, body)
        try:
            new = await choosing.add(domain, user, "bought", "stop", names, times)
        except TooManyError as error:
            raise Problem(409, "too-many", str(error)) from None
        clashing = [list(pair) for pair in clashes(current, names)]
        return answers.json({"imported": len(new), "repeated": len(body.tickets) - len(new), "clashing": clashing})

    # ------------------------------------------------------------ newcomers

    @routes.get("/questionnaire", responses=documents.answers(QuestionnaireAnswer, 422, 503))
    async def questions(language: Annotated[Language, Query()] = "en") -> Response:
        """A few questions for somebody of whom nothing is known."""
        current = service.itineraries.current(domain.name)
        return answers.json({"language": language, "questions": questionnaire.questions(current.timetable, _words(domain), language)})

    @routes.post(
        "/questionnaire",
        responses=documents.answers(ProfileAnswer, 400, 401, 403, 413, 415, 422, 503),
        openapi_extra=documents.takes("AnswersBody"),
    )
    async def answered(request: Request) -> Response:
        """What the answers come to, for routes/search. With `user_id` they are kept, and meant where that person's search says nothing."""
        body = await read(request, AnswersBody)
        user = None if body.user_id is None else await _written(service, request, domain, body.user_id)
        current = service.itineraries.current(domain.name)
        try:
            made = questionnaire.profile(current.timetable, _words(domain), body.answers)
        except questionnaire.AnswerError as error:
            fault = Fault(f"answers.{error.question}", error.what, error.got, error.allowed)
            raise Problem(422, "invalid", f"answers.{error}", [fault]) from None
        if user is not None:
            await choosing.stored.put_answers(domain.name, user, orjson.dumps(body.answers).decode())
        said = {"objective": made.objective, "wishes": made.wishes, "notes": made.notes, "stored": user is not None}
        return answers.json(said)

    return routes


def _words(domain: Domain) -> Itinerary:
    assert domain.itinerary is not None
    return domain.itinerary


async def _written(service: Service, request: Request, domain: Domain, user: str) -> str:
    """Whose choices are written: their own, by a token; anybody's, with the scope events:write. Raises Problem."""
    permits.somebody(request)
    if user != permits.ME:
        request.state.user = user
    named = (await permits.write_about(service, request, domain, [user]))[user]
    request.state.user = named
    return named


def _check(current: Current, domain: Domain, body: ChoiceBody) -> None:
    """Raises Problem 422 for a stop or a route that there is not."""
    faults: list[Fault] = []
    for place, target in enumerate(body.targets):
        if body.of == "route":
            try:
                rows_of(current.timetable, target)
            except ValueError as error:
                faults.append(Fault(f"targets[{place}]", str(error), target))
        elif target not in current.timetable.rows:
            near = nearest(target, list(current.timetable.rows))
            faults.append(Fault(f"targets[{place}]", f"unknown {domain.items.noun}", target, near))
    if faults:
        raise Problem(422, "invalid", f"{faults[0].where}: {faults[0].what}; nothing was stored", faults)


def _tickets(current: Current, domain: Domain, body: TicketsBody) -> tuple[dict[str, int], list[str]]:
    """When each was sold, where that is said (the first time counts), and the stops. Raises Problem 422."""
    times: dict[str, int] = {}
    faults: list[Fault] = []
    for place, ticket in enumerate(body.tickets):
        if ticket.concert_id not in current.timetable.rows:
            near = nearest(ticket.concert_id, list(current.timetable.rows))
            faults.append(Fault(f"tickets[{place}].concert_id", f"unknown {domain.items.noun}", ticket.concert_id, near))
        if ticket.sold_at is None:
            continue
        try:
            sold = datetime.fromisoformat(ticket.sold_at)
        except ValueError:
            sold = None
        if sold is None or sold.tzinfo is None:
            what = "expected ISO 8601 with its offset, such as 2026-01-31T20:15:00Z"
            faults.append(Fault(f"tickets[{place}].sold_at", what, ticket.sold_at))
            continue
        at = round(sold.timestamp() * 1e6)
        times[ticket.concert_id] = min(at, times.get(ticket.concert_id, at))
    if faults:
        raise Problem(422, "invalid", f"{faults[0].where}: {faults[0].what}; nothing was stored", faults)
    return times, [ticket.concert_id for ticket in body.tickets]
