"""What administrators change of a timetable while it is served: what is on sale, free seats, labels. Needs the scope items:write, which the
role admin has; each call is in the audit like any other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import assert_never

import numpy as np
from fastapi import APIRouter, Request, Response

from configs.domain import Domain
from features.itinerary.routes import rows_of
from serving.access.identity import Scope
from serving.api import answers, documents, permits
from serving.api.bodies import read
from serving.api.itinerary_answers import LabelAnswer, SeatsAnswer
from serving.api.itinerary_bodies import FreeSeatsBody, LabelBody, SaleBody
from serving.api.problems import Fault, Problem
from serving.itinerary.current import Current
from serving.itinerary.showing import nearest
from serving.service import Service
from serving.storage.seats import UNKNOWN, Labelled, Seat

_SCOPE: Scope = "items:write"


def router(service: Service, domain: Domain) -> APIRouter:
    """`domain`: one that has an itinerary."""
    routes = APIRouter(prefix=f"/v1/{domain.name}/admin", tags=["timetable-admin"])
    itineraries = service.itineraries

    @routes.put(
        "/on-sale", responses=documents.answers(SeatsAnswer, 400, 404, 413, 415, 422, 503), openapi_extra=documents.takes("SaleBody")
    )
    async def on_sale(request: Request) -> Response:
        """Takes stops off sale, or puts them back. What is off sale is in no answer from the next request on, on other
        replicas within `seats_refresh_s`."""
        permits.need(request, _SCOPE)
        body = await read(request, SaleBody)
        current = itineraries.current(domain.name)
        _check(current, domain, body.concerts)
        written = await itineraries.stored.put_on_sale(domain.name, body.concerts, body.on_sale)
        itineraries.seated(domain.name, written)
        return answers.json(_shown(written))

    @routes.put(
        "/free-seats",
        responses=documents.answers(SeatsAnswer, 400, 404, 413, 415, 422, 503),
        openapi_extra=documents.takes("FreeSeatsBody"),
    )
    async def free_seats(request: Request) -> Response:
        """Random numbers of free seats, for trying things out: the same for the same seed. Stops in halls whose seats are not known stay
        as they are."""
        permits.need(request, _SCOPE)
        body = await read(request, FreeSeatsBody)
        if body.low > body.high:
            raise Problem(422, "invalid", "low is above high", [Fault("low", "is above high", body.low, {"le": body.high})])
        current = itineraries.current(domain.name)
        concerts = list(current.timetable.rows) if body.concerts is None else list(dict.fromkeys(body.concerts))
        _check(current, domain, concerts)
        written = await itineraries.stored.put_free(domain.name, drawn(current, concerts, body.seed, body.low, body.high))
        itineraries.seated(domain.name, written)
        return answers.json(_shown(written))

    @routes.put(
        "/labels", responses=documents.answers(LabelAnswer, 400, 404, 413, 415, 422, 503), openapi_extra=documents.takes("LabelBody")
    )
    async def labels(request: Request) -> Response:
        """Puts a label on a stop, an artist, a composer, a work or a route, or takes it back."""
        permits.need(request, _SCOPE)
        body = await read(request, LabelBody)
        current = itineraries.current(domain.name)
        _label_known(domain, body.label)
        _target_known(current, body.of, body.target)
        written = await itineraries.stored.put_label(domain.name, body.of, body.target, body.label, body.present)
        itineraries.labelled(domain.name, [written])
        return answers.json({"of": written.of, "target": written.target, "label": written.label, "present": written.present})

    return routes


def drawn(current: Current, concerts: Sequence[str], seed: int, low: float, high: float) -> dict[str, int]:
    """Stop -> free seats, evenly between `low` and `high` of the hall's, both included. Each stop has a chance of its own: what is drawn
    for one does not depend on which others are asked for."""
    timetable = current.timetable
    free: dict[str, int] = {}
    for name in concerts:
        stop = timetable.stops[timetable.rows[name]]
        seats = int(timetable.seats[stop.hall])
        if seats > 0:
            chance = np.random.default_rng([seed, *name.encode()])
            free[name] = int(chance.integers(round(low * seats), round(high * seats), endpoint=True))
    return free


def _check(current: Current, domain: Domain, concerts: Sequence[str]) -> None:
    rows = current.timetable.rows
    faults = [
        Fault(f"concerts[{place}]", f"unknown {domain.items.noun}", name, nearest(name, list(rows)))
        for place, name in enumerate(concerts)
        if name not in rows
    ]
    if faults:
        raise Problem(422, "invalid", f"{faults[0].where}: {faults[0].what}; nothing was changed", faults)


def _label_known(domain: Domain, label: str) -> None:
    assert domain.itinerary is not None
    allowed = sorted({*domain.itinerary.labels, "recommended"})
    if label not in allowed:
        raise Problem(422, "invalid", "label: unknown label", [Fault("label", "unknown label", label, allowed)])


def _target_known(current: Current, of: Labelled, target: str) -> None:
    """Raises Problem 422. A route has to be one of the timetable in force."""
    known: Collection[str]
    match of:
        case "stop":
            known = current.timetable.rows
        case "artist":
            known = current.by_artist
        case "composer":
            known = current.by_composer
        case "work":
            known = current.by_work
        case "route":
            try:
                rows_of(current.timetable, target)
            except ValueError as error:
                raise Problem(422, "invalid", f"target: {error}", [Fault("target", str(error), target)]) from None
            return
        case _:
            assert_never(of)
    if target not in known:
        fault = Fault("target", f"no such {of}", target, nearest(target, list(known)))
        raise Problem(422, "invalid", f"target: there is no such {of}", [fault])


def _shown(seats: Sequence[Seat]) -> dict[str, object]:
    listed = [{"id": seat.item, "free": None if seat.free == UNKNOWN else seat.free, "on_sale": seat.on_sale} for seat in seats]
    return {"changed": len(seats), "concerts": listed}
