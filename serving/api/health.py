"""Whether it lives, whether it is ready and with which parts, and its figures."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving.api import answers
from serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def alive() -> Response:
        """200 while the process answers at all."""
        return answers.json({"status": "alive"})

    @routes.get("/readyz", responses={503: {"description": "No domain has a bundle in service"}})
    async def ready() -> Response:
        """Each part with its state. `degraded` still answers: the database is away, or a bundle was refused."""
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
        status = "ready" if whole else "degraded" if some else "not ready"
        parts["dependencies"] = {
            name: {
                "state": seen.state,
                "since": datetime.fromtimestamp(seen.since, UTC).isoformat(timespec="seconds"),
                **({"why": seen.why, "asked_again_in_s": round(seen.retry_after_s, 1)} if seen.state != "closed" else {}),
            }
            for name, seen in service.breakers.seen()
        }
        return answers.json({"status": status, "parts": parts}, 200 if some else 503, None if some else {"Retry-After": "5"})

    if service.deployment.metrics:

        @routes.get("/metrics", include_in_schema=False)
        async def metrics() -> Response:
            """Prometheus' text format, of all replicas of this machine."""
            return Response(await asyncio.to_thread(service.noticeboard.text), media_type=CONTENT_TYPE_LATEST)

    return routes
