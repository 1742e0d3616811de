"""The timetable as one looks things up in it: concerts, artists, composers and halls, each with days and free seats as they are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from configs.domain import Domain, Itinerary
from features.itinerary.timetable import IMPASSABLE
from serving.api import answers, documents
from serving.api.credentials import moment
from serving.api.itinerary_answers import ArtistsAnswer, ComposersAnswer, HallsAnswer, NamedStopsAnswer, StopAnswer, StopsAnswer
from serving.api.problems import Fault, Problem
from serving.itinerary.current import Current
from serving.itinerary.showing import days_of, free_of, nearest, stop_document, stop_json
from serving.service import Service

_Name = Annotated[str | None, Query(min_length=1, max_length=500)]


class StopsQuery(BaseModel):
    """Stops that are all of this. `query`: words of the title, whatever the case."""

    model_config = ConfigDict(extra="forbid")

    day: date | None = None
    hall: _Name = None
    genre: _Name = None
    label: _Name = None
    query: Annotated[str, Query(max_length=200)] = ""
    to_be_had: bool | None = None
    optional: bool | None = None
    page: Annotated[int, Query(ge=1, le=10_000)] = 1
    size: Annotated[int, Query(ge=1, le=500)] = 200


def router(service: Service, domain: Domain) -> APIRouter:
    """`domain`: one that has an itinerary."""
    routes = APIRouter(prefix=f"/v1/{domain.name}", tags=["timetable"])
    words = domain.itinerary
    assert words is not None

    @routes.get("/concerts", responses=documents.answers(StopsAnswer, 422, 503))
    async def concerts(asked: Annotated[StopsQuery, Query()]) -> Response:
        """All stops in the order of time."""
        current = service.itineraries.current(domain.name)
        found = _found(current, asked)
        start = (asked.page - 1) * asked.size
        listed = [stop_json(current, words, row) for row in found[start : start + asked.size]]
        as_of = current.availability.as_of
        about = {"days": current.timetable.days, "as_of": moment(as_of) if as_of else None}
        return answers.json(_headed(domain, current) | about | {"concerts": listed, "total": len(found)})

    @routes.get("/concerts/{concert_id}", responses=documents.answers(StopAnswer, 404, 503))
    async def concert(concert_id: str) -> Response:
        """One stop."""
        current = service.itineraries.current(domain.name)
        return answers.json(stop_document(current, words, stop_row(current, domain, concert_id)))

    @routes.get("/artists", responses=documents.answers(ArtistsAnswer, 503))
    async def artists() -> Response:
        """Everybody who plays, by name."""
        current = service.itineraries.current(domain.name)
        listed = [_named(current, "artist", name, rows) for name, rows in current.by_artist.items()]
        return answers.json(_headed(domain, current) | {"artists": listed, "total": len(listed)})

    @routes.get("/artists/{artist_id:path}/concerts", responses=documents.answers(NamedStopsAnswer, 404, 503))
    async def of_artist(artist_id: str) -> Response:
        """What an artist plays; an artist's id is the name."""
        current = service.itineraries.current(domain.name)
        return _with_stops(domain, words, current, "artist", artist_id, current.by_artist)

    @routes.get("/composers", responses=documents.answers(ComposersAnswer, 503))
    async def composers() -> Response:
        """Everybody whose music is played, by name."""
        current = service.itineraries.current(domain.name)
        listed = [_named(current, "composer", name, rows) for name, rows in current.by_composer.items()]
        return answers.json(_headed(domain, current) | {"composers": listed, "total": len(listed)})

    @routes.get("/composers/{name:path}/concerts", responses=documents.answers(NamedStopsAnswer, 404, 503))
    async def of_composer(name: str) -> Response:
        """Where a composer's music is played."""
        current = service.itineraries.current(domain.name)
        return _with_stops(domain, words, current, "composer", name, current.by_composer)

    @routes.get("/halls", responses=documents.answers(HallsAnswer, 503))
    async def halls() -> Response:
        """All halls with their seats, and the minutes on the way from each to the others."""
        current = service.itineraries.current(domain.name)
        listed = [_named(current, "hall", name, rows) | _of_hall(current, name) for name, rows in current.by_hall.items()]
        return answers.json(_headed(domain, current) | {"halls": listed, "total": len(listed)})

    @routes.get("/halls/{name:path}/concerts", responses=documents.answers(NamedStopsAnswer, 404, 503))
    async def in_hall(name: str) -> Response:
        """What takes place in a hall."""
        current = service.itineraries.current(domain.name)
        return _with_stops(domain, words, current, "hall", name, current.by_hall)

    return routes


def stop_row(current: Current, domain: Domain, stop: str) -> int:
    """Raises Problem 404 naming ids that are near."""
    row = current.timetable.rows.get(stop)
    if row is None:
        near = nearest(stop, list(current.timetable.rows))
        noun = domain.items.noun
        raise Problem(404, "unknown-item", f"no such {noun}", [Fault("path", f"unknown {noun}", stop, near)])
    return row


def _headed(domain: Domain, current: Current) -> dict[str, Any]:
    return {"domain": domain.name, "timetable": current.timetable.version}


def _found(current: Current, asked: StopsQuery) -> list[int]:
    """Rows. Raises Problem 422 for a day, a hall, a genre or a label that there is not."""
    timetable = current.timetable
    day = None if asked.day is None else _one("day", asked.day.isoformat(), timetable.days)
    hall = None if asked.hall is None else _one("hall", asked.hall, timetable.halls)
    genres = sorted({stop.genre for stop in timetable.stops if stop.genre is not None})
    genre = None if asked.genre is None else _one("genre", asked.genre, genres)
    labels = sorted({label for stop in timetable.stops for label in stop.labels})
    label = None if asked.label is None else _one("label", asked.label, labels)
    wanted = asked.query.casefold().strip()
    return [
        row
        for row, stop in enumerate(timetable.stops)
        if (day is None or timetable.days[stop.day] == day)
        and (hall is None or timetable.halls[stop.hall] == hall)
        and (genre is None or stop.genre == genre)
        and (label is None or label in stop.labels)
        and (not wanted or wanted in stop.title.casefold())
        and (asked.to_be_had is None or current.to_be_had(row) == asked.to_be_had)
        and (asked.optional is None or stop.optional == asked.optional)
    ]


def _one(where: str, said: str, known: Sequence[str]) -> str:
    if said not in known:
        fault = Fault(where, f"no such {where}", said, nearest(said, known))
        raise Problem(422, "invalid", f"{where}: there is no {where} {said!r}", [fault])
    return said


def _named(current: Current, of: str, name: str, rows: Sequence[int]) -> dict[str, Any]:
    labels = sorted(current.labels.get((of, name), ()))
    return {"name": name, "concerts": len(rows), "days": days_of(current, rows), "free": free_of(current, rows), "labels": labels}


def _of_hall(current: Current, name: str) -> dict[str, Any]:
    timetable = current.timetable
    place = timetable.halls.index(name)
    minutes = {
        other: None if int(timetable.walk[place, number]) == IMPASSABLE else int(timetable.walk[place, number])
        for number, other in enumerate(timetable.halls)
        if number != place
    }
    return {"seats": int(timetable.seats[place]) or None, "walk": minutes}


def _with_stops(domain: Domain, words: Itinerary, current: Current, of: str, name: str, known: Mapping[str, Sequence[int]]) -> Response:
    rows = known.get(name)
    if rows is None:
        raise Problem(404, f"unknown-{of}", f"no such {of}", [Fault("path", f"unknown {of}", name, nearest(name, list(known)))])
    listed = [stop_json(current, words, row) for row in rows]
    return answers.json(_headed(domain, current) | _named(current, of, name, rows) | {"stops": listed})
