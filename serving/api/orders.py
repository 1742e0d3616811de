"""Orders: what a person wants to have of a timetable, stored and sent once to whom the domain's YAML names."""

from __future__ import annotations

import hashlib
import secrets

import orjson
from fastapi import APIRouter, Request, Response

from configs.domain import Domain
from serving.api import answers, documents, permits
from serving.api.bodies import read
from serving.api.credentials import NO_STORE, attempt_of, moment
from serving.api.itinerary_answers import OrderAnswer, OrdersAnswer
from serving.api.itinerary_bodies import OrderBody
from serving.api.problems import Fault, Problem
from serving.itinerary.current import Current
from serving.itinerary.ordering import announced
from serving.itinerary.showing import nearest
from serving.service import Service
from serving.storage.orders import Order
from serving.subscribers import ORDERS

_STATES = {"stored": "stored", "waiting": "waiting", "begun": "waiting", "done": "sent", "dead": "refused"}


def router(service: Service, domain: Domain) -> APIRouter:
    """`domain`: one that has an itinerary."""
    routes = APIRouter(prefix=f"/v1/{domain.name}", tags=["orders"])
    words = domain.itinerary
    assert words is not None

    @routes.post(
        "/orders",
        status_code=201,
        responses=documents.answers(OrderAnswer, 400, 401, 403, 404, 409, 413, 415, 422, 503, status=201)
        | {200: {"model": OrderAnswer, "description": "It was placed before, and is not sent again"}},
        openapi_extra=documents.takes("OrderBody"),
    )
    async def place(request: Request) -> Response:
        """Stores an order and has it sent, once: the same again (the same Idempotency-Key; without one, the same content) changes
        nothing."""
        caller = permits.person(request)
        body = await read(request, OrderBody)
        user = request.state.user = await permits.own_user(service, request, domain.name)
        current = service.itineraries.current(domain.name)
        contact = body.contact or (await service.accounts.find(caller.name)).email
        if contact is None:
            raise Problem(422, "invalid", "contact: is missing, and the account has no address", [Fault("contact", "is missing")])
        concerts = tuple(dict.fromkeys(body.concerts))
        said = orjson.dumps([concerts, body.party, contact, body.note])
        attempt = attempt_of(request) or f"same-{hashlib.sha256(said).hexdigest()}"
        known = await service.ordering.orders.of_attempt(domain.name, user, attempt)
        if known is None:  # what is sold out meanwhile is no reason to refuse what was placed before
            _check(current, domain, concerts, body.party)
        wanted = Order(secrets.token_hex(16), domain.name, user, attempt, concerts, body.party, contact, body.note, 0)
        if known is not None:
            order, new = known, False
        else:
            order, new = await service.ordering.place(wanted, await permits.language(service, caller, body.language))
        if (order.stops, order.party, order.contact, order.note) != (concerts, body.party, contact, body.note):
            fault = Fault("header Idempotency-Key", "stands for another order")
            raise Problem(409, "attempt", "this Idempotency-Key was used for another order; take a new one", [fault])
        if new:
            service.relay.wake()
        return answers.json(await _shown(service, [order], one=True), 201 if new else 200, NO_STORE)

    @routes.get("/orders", responses=documents.answers(OrdersAnswer, 503))
    async def orders(request: Request) -> Response:
        """The caller's own orders, newest first, at most 100."""
        permits.person(request)
        user = request.state.user = await permits.own_user(service, request, domain.name)
        found = await service.ordering.orders.of(domain.name, user)
        return answers.json({"orders": await _shown(service, found)}, headers=NO_STORE)

    return routes


async def _shown(service: Service, orders: list[Order], one: bool = False) -> object:
    states = await service.ordering.orders.states(orders, lambda order: announced(order).event_id, ORDERS)
    listed = [
        {
            "order_id": order.order,
            "concerts": order.stops,
            "party": order.party,
            "contact": order.contact,
            "note": order.note,
            "created": moment(order.created),
            "state": _STATES[states[order.order]],
        }
        for order in orders
    ]
    return listed[0] if one else listed


def _check(current: Current, domain: Domain, concerts: tuple[str, ...], party: int) -> None:
    """Raises Problem: 422 for what there is not, 409 for what cannot be had for so many."""
    rows = current.timetable.rows
    unknown = [
        Fault(f"concerts[{place}]", f"unknown {domain.items.noun}", name, nearest(name, list(rows)))
        for place, name in enumerate(concerts)
        if name not in rows
    ]
    if unknown:
        raise Problem(422, "invalid", f"{unknown[0].where}: {unknown[0].what}", unknown)
    gone = []
    for place, name in enumerate(concerts):
        if not current.to_be_had(rows[name], party):
            why = "has not so many free seats" if current.availability.on_sale[rows[name]] else "is not on sale"
            gone.append(Fault(f"concerts[{place}]", why, name))
    if gone:
        raise Problem(409, "sold-out", f"{len(gone)} of these {domain.items.nouns} cannot be had for {party}", gone)
