"""The FastAPI application around a service. Making it starts nothing: the service starts and ends with the application's lifespan."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from starlette.middleware.cors import CORSMiddleware

from serving.api import (
    admin,
    auth,
    calls,
    choices,
    credentials,
    dead_letters,
    documents,
    domains,
    events,
    health,
    items,
    itinerary_bodies,
    me,
    notifications,
    orders,
    pages,
    problems,
    recommendations,
    route_papers,
    routes,
    slates,
    stops,
    timetable_admin,
    users,
)
from serving.api.edge import Edge
from serving.api.gate import Gate
from serving.service import Service

VERSION = "0.1.0"


def create_app(service: Service) -> FastAPI:
    """Raises ValueError if two domains' calls want the same address."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        _leave_alone_what_stays()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="Factotum",
        version=VERSION,
        description="What should this person see next, in which order, and why?",
        lifespan=lifespan,
        default_response_class=JSONResponse,
        redirect_slashes=False,
        docs_url=None,  # pages.py has the page, without anybody else's server
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(auth.router(service))
    app.include_router(me.router(service))
    app.include_router(admin.router(service))
    app.include_router(notifications.router(service))
    app.include_router(dead_letters.router(service))
    app.include_router(calls.router(service))
    for domain in service.domains.values():
        if domain.itinerary is not None:
            for resource in (stops, route_papers, routes, choices, orders, timetable_admin):
                app.include_router(resource.router(service, domain), dependencies=[Depends(_heard(service, domain.name))])
    app.include_router(recommendations.router(service))
    app.include_router(events.router(service))
    app.include_router(items.router(service))
    app.include_router(users.router(service))
    app.include_router(slates.router(service))
    app.include_router(domains.router(service))
    app.include_router(health.router(service))
    pages.install(app)
    problems.install(app)
    documents.install(app, list(service.domains), (*credentials.BODIES, *admin.BODIES, *notifications.BODIES, *itinerary_bodies.BODIES))
    app.add_middleware(Gate, service=service)
    if service.deployment.access.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.deployment.access.origins,
            allow_credentials="*" not in service.deployment.access.origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", "X-CSRF", "X-Deadline-Ms", "X-Request-ID"],
            expose_headers=["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After", "X-Request-ID"],
            max_age=600,
        )  # outside of the gate: a page must be able to read why it was refused
    app.add_middleware(Edge, metrics=service.metrics, limit=service.deployment.http.body_limit, audit=service.audit)
    return app


def _leave_alone_what_stays() -> None:
    """What is there after the start stays for good, and looking through all of it for garbage stops every request for as long."""
    gc.collect()
    gc.freeze()


def _heard(service: Service, domain: str) -> Callable[[], Awaitable[None]]:
    """Before each answer about a timetable: what other processes wrote of it is known."""

    async def heard() -> None:
        await service.itineraries.hear(domain)

    return heard
