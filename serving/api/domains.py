"""GET /v1 and GET /v1/{domain}: what there is, and which words it understands."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from configs.domain import Category, Domain, Number, Tags
from features.catalogue import Catalogue
from serving.api import answers, documents
from serving.api.problems import Fault, Problem
from serving.live import NotReadyError
from serving.service import Service

_MOST_WORDS = 1_000


def known(service: Service, name: str) -> Domain:
    """Raises Problem 404 naming the domains there are."""
    domain = service.domains.get(name)
    if domain is None:
        raise Problem(404, "unknown-domain", "no such domain", [Fault("path", "unknown domain", name, sorted(service.domains))])
    return domain


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["domains"])

    @routes.get("/v1", responses=documents.answers(documents.DomainsAnswer))
    async def domains() -> Response:
        """The domains that are served."""
        report = service.live.report()
        listed = [{"domain": name, "title": domain.title, **report[name]} for name, domain in service.domains.items()]
        return answers.json({"domains": listed})

    @routes.get("/v1/{domain}", responses=documents.answers(documents.DomainAnswer, 404))
    async def domain_schema(domain: str) -> Response:
        """One domain: its attributes with their words, its kinds of events, its limits and calls."""
        words = known(service, domain)
        try:
            standing = service.standing(domain)
        except NotReadyError:
            return answers.json(_described(words, None) | {"ready": False})
        about = {
            "ready": True,
            "model_version": standing.version,
            "mode": standing.engine.bundle.mode,
            "items": len(standing.engine.catalogue),
        }
        return answers.json(_described(words, standing.engine.catalogue) | about | {"sources": standing.engine.sources})

    return routes


def _described(domain: Domain, catalogue: Catalogue | None) -> dict[str, Any]:
    attributes: dict[str, dict[str, Any]] = {}
    for name, attribute in domain.items.attributes.items():
        said: dict[str, Any] = {"type": attribute.type}
        match attribute:
            case Tags() | Category():
                if catalogue is not None:
                    words = catalogue.tags(name).words if isinstance(attribute, Tags) else catalogue.category(name).words
                    said |= {"words": words[:_MOST_WORDS], "words_in_all": len(words)}
            case Number():
                said |= {"low": attribute.low, "high": attribute.high}
        attributes[name] = said
    scale = domain.events.scale
    return {
        "domain": domain.name,
        "title": domain.title,
        "attributes": attributes,
        "kinds": {name: {"means": kind.means} for name, kind in domain.events.kinds.items()},
        "scale": None if scale is None else {"low": scale.low, "high": scale.high},
        "k": domain.serving.k,
        "max_k": domain.serving.max_k,
        "languages": domain.serving.languages,
        "calls": [{"method": call.method, "path": call.path, "answers": call.answers, "key": call.key} for call in domain.calls],
    }
