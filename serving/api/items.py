"""The catalogue: search, one item, items like it, and adding one (with the scope items:write)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from configs.domain import Category, Domain, Number, Tags
from features.catalogue import Catalogue, Cell, CellError, category_word, number_value, tag_words
from serving.api import answers, documents, permits
from serving.api.bodies import ItemBody, read
from serving.api.domains import known
from serving.api.problems import Fault, Problem
from serving.api.recommendations import check_k
from serving.engine import Engine
from serving.service import Service
from serving.storage.tables import StoredItem


class ItemsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Query(max_length=200)] = ""
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1
    size: Annotated[int, Query(ge=1, le=100)] = 20


class SimilarQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    k: Annotated[int, Query(ge=1, le=1_000)] | None = None


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["items"])

    @routes.get("/v1/{domain}/items", responses=documents.answers(documents.ItemsAnswer, 404, 422, 503))
    async def search(domain: str, asked: Annotated[ItemsQuery, Query()]) -> Response:
        """Items whose title holds the words of `query` (case does not matter), best known first."""
        known(service, domain)
        engine = service.standing(domain).engine
        order, titles = service.cache.get("titles", engine, domain, lambda: _indexed(engine))
        wanted = asked.query.casefold().strip()
        found = [int(row) for row in order if wanted in titles[row]] if wanted else order.tolist()
        start = (asked.page - 1) * asked.size
        listed = [_described(engine.catalogue, row) for row in found[start : start + asked.size]]
        return answers.json({"items": listed, "total": len(found), "page": asked.page, "size": asked.size})

    @routes.get("/v1/{domain}/items/{item_id}", responses=documents.answers(documents.ItemAnswer, 404, 503))
    async def item(domain: str, item_id: str) -> Response:
        """One item."""
        words = known(service, domain)
        catalogue = service.standing(domain).engine.catalogue
        return answers.json(_described(catalogue, _row(words, catalogue, item_id)))

    @routes.get("/v1/{domain}/items/{item_id}/similar", responses=documents.answers(documents.SimilarAnswer, 404, 422, 503))
    async def similar(domain: str, item_id: str, asked: Annotated[SimilarQuery, Query()]) -> Response:
        """Items like one."""
        words = known(service, domain)
        check_k(words, asked.k, "k")
        engine = service.standing(domain).engine
        row = _row(words, engine.catalogue, item_id)
        listed = answers.items(await service.similar(domain, row, asked.k or words.serving.k))
        return answers.json({"domain": domain, "model_version": engine.version, "item_id": item_id, "items": orjson.Fragment(listed)})

    @routes.post(
        "/v1/{domain}/items",
        status_code=201,
        responses=documents.answers(documents.ItemAnswer, 400, 401, 403, 404, 413, 415, 422, 503, status=201)
        | {200: {"model": documents.ItemAnswer, "description": "It was there already, and is said anew"}},
        openapi_extra=documents.takes("ItemBody"),
    )
    async def add(domain: str, request: Request) -> Response:
        """Adds an item, or says one anew. From the next request on it can be recommended."""
        words = known(service, domain)
        permits.need(request, "items:write")
        body = await read(request, ItemBody)
        catalogue = service.standing(domain).engine.catalogue
        cells: dict[str, Cell] = dict(body.attributes)
        _check_cells(words, cells)
        new = catalogue.row(body.item_id) is None
        await service.add_item(domain, StoredItem(body.item_id, body.title, orjson.dumps(cells).decode(), body.available))
        catalogue = service.standing(domain).engine.catalogue
        described = _described(catalogue, _row(words, catalogue, body.item_id))
        return answers.json(described, 201 if new else 200)

    return routes


def _indexed(engine: Engine) -> tuple[NDArray[np.intp], list[str]]:
    prior = engine.catalogue.prior().astype(np.float64)
    order = np.lexsort((np.arange(len(prior)), -prior))
    return order, [title.casefold() for title in engine.catalogue.titles]


def _described(catalogue: Catalogue, row: int) -> dict[str, object]:
    return {
        "item_id": catalogue.ids.id(row),
        "title": catalogue.titles[row],
        "available": bool(catalogue.available[row]),
        "attributes": catalogue.describe(row),
    }


def _row(domain: Domain, catalogue: Catalogue, item: str) -> int:
    row = catalogue.row(item)
    if row is None:
        raise Problem(404, "unknown-item", f"no such {domain.items.noun}", [Fault("path", f"unknown {domain.items.noun}", item)])
    return row


def _check_cells(domain: Domain, cells: dict[str, Cell]) -> None:
    """Each cell as the schema reads it. Raises Problem 422."""
    faults: list[Fault] = []
    for name, cell in cells.items():
        attribute = domain.items.attributes.get(name)
        try:
            match attribute:
                case None:
                    faults.append(Fault(f"attributes.{name}", "unknown attribute", None, list(domain.items.attributes)))
                case Tags():
                    tag_words(attribute, cell, name)
                case Category():
                    category_word(attribute, cell, name)
                case Number():
                    number_value(attribute, cell, name)
        except CellError as error:
            faults.append(Fault(f"attributes.{name}", str(error), cell))
    if faults:
        raise Problem(422, "invalid", f"{faults[0].where}: {faults[0].what}", faults)
