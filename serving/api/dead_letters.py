"""Dead letters for administrators: which there are, and once more with them. What they hold of people is not shown."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from serving.api import answers, documents, permits
from serving.api.problems import Fault, Problem
from serving.api.users import iso
from serving.service import Service
from serving.storage.dead_letters import DeadLetter, DeadLetters, ReplayError
from serving.subscribers import INTERESTS

_CURSOR = re.compile(r"(\d{1,18})-(.{1,200})", re.DOTALL)


class ShownLetter(BaseModel):
    consumer: str
    event_id: str
    type: str | None
    occurred_at: str | None
    error: str
    attempts: int
    at: str
    replayed_at: str | None
    wiped: bool


class LettersAnswer(BaseModel):
    """`next`: the cursor of the page after this one, null on the last."""

    dead_letters: list[ShownLetter]
    open: int
    next: str | None


class ReplayAnswer(BaseModel):
    consumer: str
    event_id: str
    status: str


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["administration"])
    letters = DeadLetters(service.database)

    @routes.get("/v1/admin/dead-letters", responses=documents.answers(LettersAnswer, 401, 403, 422, 429, 503))
    async def listed(
        request: Request,
        consumer: Annotated[str | None, Query(max_length=40)] = None,
        replayed: bool = False,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        cursor: Annotated[str | None, Query(max_length=220)] = None,
    ) -> Response:
        """Newest first; those that were replayed only where `replayed` says so. Needs the scope dead-letters:write."""
        permits.need(request, "dead-letters:write")
        after = None
        if cursor is not None:
            place = _CURSOR.fullmatch(cursor)
            if place is None:
                raise Problem(422, "invalid", "cursor: is no place in this list", [Fault("cursor", "is no place", cursor)])
            after = (int(place[1]), place[2])
        found = await letters.page(limit + 1, consumer=_clean(consumer), replayed=replayed, after=after)
        page = found[:limit]
        more = f"{page[-1].at}-{page[-1].event_id}" if len(found) > limit else None
        return answers.json({"dead_letters": [_shown(one) for one in page], "open": await letters.count(), "next": more})

    @routes.post(
        "/v1/admin/dead-letters/{consumer}/{event_id}/replay", responses=documents.answers(ReplayAnswer, 401, 403, 404, 409, 429, 503)
    )
    async def replay(consumer: str, event_id: str, request: Request) -> Response:
        """Hands the event to its consumer again. One that was replayed already is left as it is, so the call may be repeated."""
        permits.need(request, "dead-letters:write")
        found = await letters.page(1, consumer=_clean(consumer), event_id=_clean(event_id), replayed=True)
        if not found:
            raise Problem(404, "unknown-dead-letter", "there is no such dead letter", [Fault("path", "unknown dead letter")])
        status = "replayed"
        if found[0].replayed_at is None:
            try:
                await letters.replay(found[0], INTERESTS)
            except ReplayError as error:
                raise Problem(409, "replay", str(error)) from None
            service.relay.wake()
        return answers.json({"consumer": found[0].consumer, "event_id": found[0].event_id, "status": status})

    return routes


def _clean(text: str | None) -> str | None:
    """No database takes a NUL; no name has one."""
    return None if text is None else text.replace("\0", "�").encode("utf-8", "replace").decode()


def _shown(letter: DeadLetter) -> dict[str, object]:
    shown = letter.shown
    return {**shown, **{name: None if shown[name] is None else iso(int(str(shown[name]))) for name in ("occurred_at", "at", "replayed_at")}}
