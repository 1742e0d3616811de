"""POST /v1/{domain}/routes/search, and what is known of one route: its portrait, whether it can be had, its rank, the experts' view, and
what could be taken in its place."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from configs.domain import Domain, Itinerary
from features.itinerary.alternatives import Alternative
from features.itinerary.objectives import Worth
from features.itinerary.routes import route_id as id_of
from features.itinerary.routes import rows_of
from features.itinerary.search import DEADLINE_S
from features.itinerary.wishes import Objective
from features.state import UserState
from serving import degraded
from serving.api import answers, documents, permits
from serving.api.bodies import read
from serving.api.credentials import moment
from serving.api.health import COMPILING
from serving.api.itinerary_answers import AlternativesAnswer, EndorsementAnswer, RouteAnswer, RouteAvailability, SearchAnswer
from serving.api.itinerary_bodies import AlternativesBody, RoutesBody, WishesBody, wishes
from serving.api.problems import Fault, Problem
from serving.itinerary import questionnaire
from serving.itinerary.choosing import Chosens, chosen, owned
from serving.itinerary.current import Current
from serving.itinerary.endorsing import endorsement
from serving.itinerary.fitting import AWAY
from serving.itinerary.scores import FAVOURITE, stop_popularity
from serving.itinerary.searching import Asked, Others, Outcome, join, others, search, worth_of
from serving.itinerary.showing import route_document, stop_document, stop_json, whole_route
from serving.itinerary.telling import why
from serving.resilience import DATABASE
from serving.service import Service
from serving.standing import Standing
from serving.storage.database import DatabaseAwayError, now_us
from serving.storage.seats import UNKNOWN

_PLACE = re.compile(r"([a-z_]+(?:\.[a-z_]+)?)[: ]")
_OUTSIDE = ("k", "objective")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Whom:
    """For whom routes are sought. `state`: what is known of them, None for nobody or somebody unknown; `answered`: JSON of their
    questionnaire."""

    user: str | None = None
    state: UserState | None = None
    chosens: Chosens = field(default_factory=Chosens)
    answered: str | None = None
    notes: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()


def router(service: Service, domain: Domain) -> APIRouter:
    """`domain`: one that has an itinerary."""
    routes = APIRouter(prefix=f"/v1/{domain.name}", tags=["routes"])
    words = domain.itinerary
    assert words is not None
    longest_s = float(service.deployment.http.timeout_s)  # what is not a sum stops by itself after DEADLINE_S

    @routes.post(
        "/routes/search",
        responses=documents.answers(SearchAnswer, 400, 401, 403, 404, 413, 415, 422, 503),
        openapi_extra=documents.takes("RoutesBody"),
    )
    async def find(request: Request) -> Response:
        """How many routes fulfil the wishes, exactly, and the best of them for this person. What has begun is in none of them but for
        tickets, unless the domain wants that marked only, or all is over."""
        body = await read(request, RoutesBody)
        current, standing = service.itineraries.current(domain.name), service.standing(domain.name)
        whom = await about(service, request, domain, current, body.user_id, body.personal)
        objective, said, notes = asked_for(current, domain, body, whom)
        now = now_us()
        joined = join(current, words, wishes(said, words.buffer_minutes), whom.chosens, now, body.language)
        asked = Asked(objective, joined.wishes, body.k, body.diversity, body.sample, body.seed or 0)
        making = worth_for(service, standing, current, whom, now)
        worth, outcome = await found(service, current, making, asked, permits.remaining_s(request, longest_s))
        late = (*whom.degraded, *(("routes",) if outcome.late else ()))
        for part in late:
            degraded.note(part)
        scores = _scores(worth)
        listed = [
            route_document(current, rows, value, why(current, rows, whom.chosens, scores, whom.state is not None, body.language))
            for rows, value in outcome.routes
        ]
        named = sorted({row for rows, _ in outcome.routes for row in rows})
        shown = [current.timetable.stops[row].id for row in named]
        told = [*whom.notes, *notes, *joined.told(shown), *([outcome.why] if outcome.why else [])]
        concerts = {current.timetable.stops[row].id: stop_json(current, words, row) for row in named}
        said_of_all = answered(outcome, objective, late, told)
        return answers.json(_headed(domain, current) | said_of_all | {"routes": listed, "concerts": concerts})

    @routes.get("/routes/{route_id}", responses=documents.answers(RouteAnswer, 404, 503))
    async def route(route_id: str) -> Response:
        """A route with its stops and its portrait."""
        current = service.itineraries.current(domain.name)
        rows = known_route(current, route_id)
        return answers.json(await asyncio.to_thread(whole_route, current, words, rows))

    @routes.get("/routes/{route_id}/availability", responses=documents.answers(RouteAvailability, 404, 503))
    async def availability(route_id: str) -> Response:
        """Whether everything on a route can still be had."""
        current = service.itineraries.current(domain.name)
        rows = known_route(current, route_id)
        stops = current.timetable.stops
        free = {row: int(current.availability.free[row]) for row in rows}
        counted = [count for count in free.values() if count != UNKNOWN]
        as_of = current.availability.as_of
        listed = [
            {
                "id": stops[row].id,
                "free": None if free[row] == UNKNOWN else free[row],
                "on_sale": bool(current.availability.on_sale[row]),
                "to_be_had": current.to_be_had(row),
            }
            for row in rows
        ]
        said = {
            "route_id": route_id,
            "to_be_had": all(current.to_be_had(row) for row in rows),
            "free": min(counted) if counted else None,
            "as_of": moment(as_of) if as_of else None,
            "stops": listed,
        }
        return answers.json(said)

    @routes.get("/routes/{route_id}/endorsement", responses=documents.answers(EndorsementAnswer, 404, 503))
    async def endorsed(route_id: str) -> Response:
        """How a route agrees with what experts recommend: their concerts, and their routes."""
        current = service.itineraries.current(domain.name)
        rows = known_route(current, route_id)
        return answers.json({"route_id": route_id, **endorsement(current, rows, route_id)})

    @routes.post(
        "/routes/{route_id}/alternatives",
        responses=documents.answers(AlternativesAnswer, 400, 401, 403, 404, 413, 415, 422, 503),
        openapi_extra=documents.takes("AlternativesBody"),
    )
    async def instead(route_id: str, request: Request) -> Response:
        """What could be taken in place of one of a route's concerts, with what is gained and lost. Without wishes: on the route's own days,
        with no more concerts a day than it has. What of the route has begun stays, and nothing else that has comes in."""
        body = await read(request, AlternativesBody)
        current, standing = service.itineraries.current(domain.name), service.standing(domain.name)
        rows = known_route(current, route_id)
        whom = await about(service, request, domain, current, body.user_id, body.personal)
        said = _alike(current, rows) if body.wishes is None else body.wishes
        objective = body.objective or Objective.SCORE
        now = now_us()
        joined = join(current, words, wishes(said, words.buffer_minutes), whom.chosens, now, body.language)
        making = worth_for(service, standing, current, whom, now)
        asked = Asked(objective, joined.wishes, body.k)

        def act() -> Others:
            worth = making()
            return _understood(lambda: others(current, worth, asked, rows))

        made = await _bounded(service, permits.remaining_s(request, longest_s), act)
        shown = {current.timetable.stops[row].id for row in {*rows, *(row for one in made.routes for row in one.stops)}}
        told = [*whom.notes, *joined.told(shown)]
        for part in whom.degraded:
            degraded.note(part)
        listed = [_alternative(current, words, one, made.value) for one in made.routes]
        about_it = {"route_id": route_id, "objective": str(objective), "score": made.value, "degraded": whom.degraded, "notes": told}
        return answers.json(about_it | {"timetable": current.timetable.version, "alternatives": listed})

    return routes


# ------------------------------------------------------------ shared with the other routers of routes


def known_route(current: Current, route: str) -> tuple[int, ...]:
    """The rows of a route's id. Raises Problem 404 saying what is wrong with it."""
    try:
        return rows_of(current.timetable, route)
    except ValueError as error:
        raise Problem(404, "unknown-route", f"no such route: {error}", [Fault("path", str(error), route)]) from None


async def about(service: Service, request: Request, domain: Domain, current: Current, named: str | None, personal: bool) -> Whom:
    """Whom an answer is for, and what is known of them. Where the database is away, what they chose is left out, and that is said.
    Raises Problem 401, 403, 503."""
    user = await permits.ask_about(service, request, domain, named, newcomer=named is None and domain.auth == "open")
    if user is None:
        return Whom()
    standing = service.standing(domain.name)
    state = standing.people.state(user)
    if not personal:
        return Whom(user, state)
    has = owned(state, standing.engine.catalogue.ids.id)
    try:
        said, answered = await service.choosing.stored.told(domain.name, user)
    except DatabaseAwayError:
        return Whom(user, state, chosen(current, (), has), None, (AWAY["en"],), (DATABASE,))
    return Whom(user, state, chosen(current, said, has), answered)


def asked_for(current: Current, domain: Domain, body: Any, whom: Whom) -> tuple[Objective, WishesBody, tuple[str, ...]]:
    """The objective and the wishes of a body; where it says neither, what the person's questionnaire came to."""
    if body.objective is None and body.wishes is None and whom.answered is not None and domain.itinerary is not None:
        try:
            made = questionnaire.profile(current.timetable, domain.itinerary, orjson.loads(whom.answered))
            return Objective(made.objective), WishesBody.model_validate(made.wishes), ("as the questionnaire was answered", *made.notes)
        except (questionnaire.AnswerError, ValidationError):
            return Objective.SCORE, WishesBody(), ("the questionnaire's answers fit this timetable no more; answer it again",)
    return body.objective or Objective.SCORE, body.wishes or WishesBody(), ()


def worth_for(service: Service, standing: Standing, current: Current, whom: Whom, now: int) -> Callable[[], Worth]:
    """What says what the stops are worth to a person, by the engine that also answers recommendations: for the thread that searches, since
    the engine takes milliseconds where nothing is kept. `now`: microseconds UTC."""
    engine, timetable = standing.engine, current.timetable
    kept = service.scores.kept(engine, whom.user, whom.state, now, timetable)
    popular = service.cache.get("popularity", engine, timetable.version, lambda: stop_popularity(engine, timetable))
    favourites = [timetable.rows[name] for name in sorted(whom.chosens.favourites)]

    def make() -> Worth:
        scores = service.scores.make(engine, whom.user, whom.state, now, timetable) if kept is None else kept
        return worth_of(scores, popular, favourites, FAVOURITE)

    return make


def _scores(worth: Worth) -> list[float]:
    """Of each stop, as Python's own numbers: they are looked up one by one."""
    assert worth.score is not None
    return [float(score) for score in worth.score]


async def found(service: Service, current: Current, making: Callable[[], Worth], asked: Asked, limit_s: float) -> tuple[Worth, Outcome]:
    """Raises Problem: 422 for wishes that the timetable cannot understand, 503 where the answer takes too long."""

    def act() -> tuple[Worth, Outcome]:
        worth = making()
        return worth, _understood(lambda: search(current, worth, asked, min(DEADLINE_S, limit_s)))

    return await _bounded(service, limit_s, act)


def _understood(act: Callable[[], _Made]) -> _Made:
    """Raises Problem 422 for what the kernel refuses."""
    try:
        return act()
    except ValueError as error:
        raise refused(error) from None


async def _bounded(service: Service, limit_s: float, act: Callable[[], _Made]) -> _Made:
    """In a thread of its own, for at most so long. Raises Problem 503, and what `act` does."""
    try:
        async with asyncio.timeout(limit_s):
            await service.itineraries.warmed()
    except TimeoutError:
        raise Problem(503, "not-ready", f"{COMPILING}; try again", headers={"Retry-After": "5"}) from None
    try:
        async with asyncio.timeout(limit_s):
            return await asyncio.to_thread(act)
    except TimeoutError:
        detail = "these wishes together take too long; name fewer days, or do without the limits over all days"
        raise Problem(503, "too-hard", detail, headers={"Retry-After": "5"}) from None


def refused(error: ValueError) -> Problem:
    """A wish that the timetable cannot understand, or wishes that are too many: the kernel's words say what is allowed."""
    text = str(error)
    place = _PLACE.match(text)
    named = place is not None and place[1].partition(".")[0] in WishesBody.model_fields
    where = f"wishes.{place[1]}" if place is not None and named else place[1] if place is not None and place[1] in _OUTSIDE else "wishes"
    return Problem(422, "invalid", f"wishes: {text}", [Fault(where, text)])


def _alike(current: Current, rows: Sequence[int]) -> WishesBody:
    """Wishes that routes much like one fulfil."""
    stops = [current.timetable.stops[row] for row in rows]
    a_day = Counter(stop.day for stop in stops if not stop.optional)
    days = [current.timetable.days[day] for day in sorted({stop.day for stop in stops})]
    return WishesBody(days=days, most=max(a_day.values()), optional=any(stop.optional for stop in stops))


def _alternative(current: Current, words: Itinerary, one: Alternative, before: float | None) -> dict[str, Any]:
    ids = [stop.id for stop in current.timetable.stops]
    return {
        "route_id": id_of(current.timetable, one.stops),
        "score": one.value,
        "score_by": None if before is None else one.value - before,
        "gained": [stop_document(current, words, row) for row in one.gained],
        "lost": [stop_document(current, words, row) for row in one.lost],
        "stops": [ids[row] for row in one.stops],
        "price_by": one.price_by,
        "music_by": one.music_by,
        "walking_by": one.walking_by,
        "waiting_by": one.waiting_by,
    }


def answered(outcome: Outcome, objective: Objective, late: Sequence[str], notes: Sequence[str]) -> dict[str, object]:
    return {
        "objective": str(objective),
        "total": str(outcome.total),
        "exact": outcome.exact,
        "within": outcome.within,
        "clash": outcome.clash,
        "binding": outcome.binding,
        "degraded": list(late),
        "notes": list(notes),
    }


def _headed(domain: Domain, current: Current) -> dict[str, object]:
    return {"domain": domain.name, "timetable": current.timetable.version}
