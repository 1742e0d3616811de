"""POST /v1/{domain}/recommendations: the general question, the same for every domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
from fastapi import APIRouter, Request, Response

from configs.domain import Domain, Number, Tags
from features.catalogue import Catalogue
from serving.api import answers, documents, permits
from serving.api.bodies import Between, RecommendationsBody, read
from serving.api.domains import known
from serving.api.problems import Fault, Problem
from serving.recommender import Ask
from serving.service import Service
from serving.slate import Range, Slate, Words
from serving.storage.database import now_us
from serving.storage.tables import StoredSlate

_NAMED = 5  # unknown ids that a note names

_DOMAIN = "$request.path.domain"
_LINKS: dict[str, documents.Link] = {
    "slate": ("get", "/v1/{domain}/slates/{slate_id}", {"domain": _DOMAIN, "slate_id": "$response.body#/slate"}),
    "first": ("get", "/v1/{domain}/items/{item_id}", {"domain": _DOMAIN, "item_id": "$response.body#/items/0/item_id"}),
    "like the first": ("get", "/v1/{domain}/items/{item_id}/similar", {"domain": _DOMAIN, "item_id": "$response.body#/items/0/item_id"}),
}


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["recommendations"])

    @routes.post(
        "/v1/{domain}/recommendations",
        responses=documents.answers(documents.SlateAnswer, 400, 404, 413, 415, 422, 503, links=_LINKS),
        openapi_extra=documents.takes("RecommendationsBody"),
    )
    async def recommendations(domain: str, request: Request) -> Response:
        """A slate for a person, for somebody known by a few items, or for a newcomer."""
        words = known(service, domain)
        body = await read(request, RecommendationsBody)
        engine = service.standing(domain).engine
        _check(words, body, service.deployment.http.history_limit)
        user = await permits.ask_about(service, request, words, body.user_id, newcomer=body.history is not None)
        notes: list[str] = []
        history = _known_items(engine.catalogue, body.history, "history", words.items.nouns, notes)
        if body.history and not history:
            faults = [Fault(f"history[{place}]", "unknown", item) for place, item in enumerate(body.history)]
            raise Problem(404, "unknown-item", f"none of the {words.items.nouns} in history is known", faults)
        if user is None and body.user_id is not None:
            notes.append("the accounts are not read yet: answered as for a newcomer")
        if user is not None and user not in service.standing(domain).people:
            notes.append("this person is unknown: answered as for a newcomer")
        filters = _filters(body)
        engine.check(filters)
        ask = Ask(
            domain=domain,
            k=body.k or words.serving.k,
            user=user,
            history=None if body.history is None else history,
            profile=_profile(engine.catalogue, body),
            filters=filters,
            exclude=_known_items(engine.catalogue, body.exclude, "exclude", words.items.nouns, notes),
            diversity=body.diversity,
            explain=body.explain,
            seed=body.seed,
            language=body.language,
            deadline_s=permits.remaining_s(request, words.serving.deadline_ms / 1_000.0),
        )
        slate = await service.recommend(ask)
        return answered(service, slate, user, orjson.dumps(body.model_dump(exclude_unset=True)).decode(), notes)

    return routes


def answered(
    service: Service,
    slate: Slate,
    user: str | None,
    asked: str,
    notes: Sequence[str] = (),
    echo: Mapping[str, str] | None = None,
    also: Mapping[str, object] | None = None,
) -> Response:
    """A slate on its way out: logged, and written in the words of who asked. `asked`: the request as JSON."""
    said = [*notes, *slate.notes]
    listed = answers.items(slate.items)
    stored = StoredSlate(
        slate.slate,
        slate.domain,
        user,
        slate.version,
        slate.variant,
        slate.mode,
        slate.degraded,
        orjson.dumps(said).decode(),
        asked,
        listed.decode(),
        now_us(),
    )
    service.slates.put(stored)
    return answers.raw(answers.slate(slate, answers.items(slate.items, echo) if echo else listed, said, also))


def check_k(domain: Domain, k: int | None, word: str) -> None:
    """Raises Problem 422 if more is wanted than the domain gives at once."""
    if k is not None and k > domain.serving.max_k:
        fault = Fault(word, "more than this domain gives at once", k, {"ge": 1, "le": domain.serving.max_k})
        raise Problem(422, "invalid", f"{word}: at most {domain.serving.max_k}", [fault])


def _check(domain: Domain, body: RecommendationsBody, history_limit: int) -> None:
    check_k(domain, body.k, "k")
    if body.user_id is not None and body.history is not None:
        raise Problem(422, "invalid", "give user_id or history, not both", [Fault("history", "not together with user_id")])
    for word, given in (("history", body.history or []), ("exclude", body.exclude)):
        if len(given) > history_limit:
            fault = Fault(word, "too many ids", f"{len(given)} ids", {"max_length": history_limit})
            raise Problem(422, "invalid", f"{word}: at most {history_limit} ids", [fault])
    if body.language not in domain.serving.languages:
        fault = Fault("language", "this domain does not speak it", body.language, list(domain.serving.languages))
        raise Problem(422, "invalid", "language: not spoken here", [fault])


def _known_items(catalogue: Catalogue, given: Sequence[str] | None, word: str, nouns: str, notes: list[str]) -> tuple[str, ...]:
    """Those of the ids that there are; a note names the first of the others."""
    if not given:
        return ()
    found = tuple(item for item in given if catalogue.row(item) is not None)
    if len(found) < len(given):
        missing = [item for item in given if catalogue.row(item) is None]
        named = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
        notes.append(f"{word}: unknown {nouns} were left out: {named}")
    return found


def _filters(body: RecommendationsBody) -> dict[str, Words | Range]:
    out: dict[str, Words | Range] = {}
    for name, wanted in body.filters.items():
        if isinstance(wanted, Between):
            if wanted.low is not None and wanted.high is not None and wanted.low > wanted.high:
                fault = Fault(f"filters.{name}", "low is above high", f"{wanted.low:g} to {wanted.high:g}")
                raise Problem(422, "invalid", f"filters.{name}: low is above high", [fault])
            out[name] = Range(wanted.low, wanted.high)
        else:
            out[name] = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    return out


def _profile(catalogue: Catalogue, body: RecommendationsBody) -> dict[str, Words]:
    """What a person says they like, in the catalogue's own spelling. Raises Problem 422."""
    out: dict[str, Words] = {}
    for name, wanted in body.profile.items():
        attribute = catalogue.schema.attributes.get(name)
        if attribute is None or isinstance(attribute, Number):
            allowed = [word for word, other in catalogue.schema.attributes.items() if not isinstance(other, Number)]
            fault = Fault("profile", "no such attribute" if attribute is None else "is a number; a profile names words", name, allowed)
            raise Problem(422, "invalid", "profile: name attributes that hold words", [fault])
        words = catalogue.tags(name).words if isinstance(attribute, Tags) else catalogue.category(name).words
        spelling = {word.casefold(): word for word in words}
        listed = [wanted] if isinstance(wanted, str) else wanted
        faults = [
            Fault(f"profile.{name}[{place}]", f"no such {name}", word, words)
            for place, word in enumerate(listed)
            if word.casefold() not in spelling
        ]
        if faults:
            raise Problem(422, "invalid", f"profile.{name}: unknown word", faults)
        out[name] = tuple(spelling[word.casefold()] for word in listed)
    return out
