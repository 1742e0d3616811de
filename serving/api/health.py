"""Whether it lives, whether it is ready and with which parts, and its figures."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving.api import answers
from serving.service import Service

COMPILING = "the search is being compiled for this machine, which happens once"


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def alive() -> Response:
        """200 while the process answers at all."""
        return answers.json({"status": "alive"})

    @routes.get("/readyz", responses={503: {"description": "No domain has a bundle in service, or the search is being compiled"}})
    async def ready() -> Response:
        """Each part with its state. `degraded` still answers: the database is away, or a bundle was refused. `waits_for`: what keeps
        it from being ready; after the first start on a machine that is the compilation of the search, up to a minute or two."""
        domains = service.live.report()
        away = service.live.database_away
        some = any("version" in said for said in domains.values())
        shut = [name for name, seen in service.breakers.seen() if seen.state != "closed"]
        whole = away is None and not shut and all(said["state"] == "ready" and "refused" not in said for said in domains.values())
        parts: dict[str, object] = {
            "domains": domains,
            "database": {"state": "away", "why": away} if away is not None else {"state": "ready"},
            "slates": {
                "state": "ready" if away is None else "spooling",
                "waiting": len(service.slates),
                "room": service.deployment.storage.spool,
            },
        }
        compiling = service.itineraries.compiling
        if service.itineraries:
            parts["search"] = {"state": "compiling", "why": COMPILING} if compiling else {"state": "ready"}
        waits_for = [*([] if some else ["a bundle in service"]), *([COMPILING] if compiling else [])]
        status = "not ready" if waits_for else "ready" if whole else "degraded"
        parts["dependencies"] = {
            name: {
                "state": seen.state,
                "since": datetime.fromtimestamp(seen.since, UTC).isoformat(timespec="seconds"),
                **({"why": seen.why, "asked_again_in_s": round(seen.retry_after_s, 1)} if seen.state != "closed" else {}),
            }
            for name, seen in service.breakers.seen()
        }
        said = {"status": status, "waits_for": waits_for, "parts": parts}
        return answers.json(said, 503 if waits_for else 200, {"Retry-After": "5"} if waits_for else None)

    if service.deployment.metrics:

        @routes.get("/metrics", include_in_schema=False)
        async def metrics() -> Response:
            """Prometheus' text format, of all replicas of this machine."""
            return Response(await asyncio.to_thread(service.noticeboard.text), media_type=CONTENT_TYPE_LATEST)

    return routes
