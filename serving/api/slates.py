"""GET /v1/{domain}/slates/{id}: a slate as it was served."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request, Response

from serving.api import answers, documents, permits
from serving.api.domains import known
from serving.api.problems import Fault, Problem
from serving.api.users import iso
from serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["slates"])

    @routes.get("/v1/{domain}/slates/{slate_id}", responses=documents.answers(documents.StoredSlateAnswer, 404, 503))
    async def slate(domain: str, slate_id: str, request: Request) -> Response:
        """What was shown, to whom, by which version, and the request it answered."""
        words = known(service, domain)
        found = await service.find_slate(domain, slate_id) if slate_id.isprintable() else None
        if found is None:
            days = service.deployment.retention.slates
            raise Problem(
                404, "unknown-slate", f"no such slate; they are kept for {days:g} days", [Fault("path", "unknown slate", slate_id)]
            )
        if found.user is None:
            permits.read_unnamed(request, words)
        else:
            await permits.read_about(service, request, words, found.user)
        said = {
            "slate": found.slate,
            "domain": found.domain,
            "user_id": found.user,
            "model_version": found.version,
            "variant": found.variant,
            "mode": found.mode,
            "degraded": found.degraded,
            "notes": orjson.Fragment(found.notes),
            "created": iso(found.created),
            "request": orjson.Fragment(found.request),
            "items": orjson.Fragment(found.items),
        }
        return answers.json(said)

    return routes
