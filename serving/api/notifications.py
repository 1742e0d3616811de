"""What a person is told: pages, read marks, and a stream of server-sent events. An account's token is needed everywhere."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from serving.api import answers, documents, permits
from serving.api.bodies import Body, read
from serving.api.problems import Fault, Problem
from serving.api.users import iso
from serving.notifications import Language, TooManyStreamsError, sentence
from serving.service import Service
from serving.storage.database import now_us
from serving.storage.notifications import Notification

_HEARTBEAT_S = 5
_RETRY_MS = 1_000
_SEND_S = 10.0  # a reader that takes nothing for so long is let go
_END_EARLY_S = 2.0  # a stream ends by itself so long before the proxy would cut it
_CURSOR = re.compile(r"(\d{1,19})-([0-9a-f]{32})")
_TOKEN = re.compile(r"bearer +[^.]+\.([A-Za-z0-9_-]+)\.", re.IGNORECASE)


class ShownNotification(BaseModel):
    notification_id: str
    kind: str
    text: str
    payload: dict[str, Any]
    created: str
    read_at: str | None


class NotificationsAnswer(BaseModel):
    """`next`: the cursor of the page after this one, null on the last."""

    notifications: list[ShownNotification]
    unread: int
    next: str | None


class ReadAnswer(BaseModel):
    read: int
    unread: int


class ReadBody(Body):
    """`until`: a notification's id; it and everything before it is read. Left out: all there is now."""

    until: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None


BODIES = (ReadBody,)


Cursor = Annotated[str | None, Query(max_length=60, description="`next` of the page before", pattern=r"^\d{1,19}-[0-9a-f]{32}$")]
Said = Annotated[Language, Query(description="of the sentences")]


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["notifications"])
    stored = service.notifications

    @routes.get("/v1/notifications", responses=documents.answers(NotificationsAnswer, 401, 403, 422, 429, 503))
    async def notifications(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Cursor = None,
        unread: bool = False,
        language: Said = "en",
    ) -> Response:
        """Newest first. `unread` of the answer counts all that are not read, whatever the page shows."""
        account = permits.person(request).name
        found = await stored.page(account, limit + 1, None if cursor is None else _place("cursor", cursor), unread)
        page = found[:limit]
        return answers.json(
            {
                "notifications": [_shown(one, language) for one in page],
                "unread": await stored.unread(account),
                "next": _cursor(page[-1]) if len(found) > limit else None,
            }
        )

    @routes.get(
        "/v1/notifications/stream",
        responses={
            **documents.answers(NotificationsAnswer, 401, 403, 422, 429, 503),
            200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        },
    )
    async def stream(request: Request, language: Said = "en") -> Response:
        """New ones as they come, as server-sent events of the type `notification`. The header Last-Event-ID (an event's id) resumes after
        it. A stream ends by itself after some seconds, when its session ends and when its token expires: come again with Last-Event-ID,
        as browsers do."""
        caller = permits.person(request)
        given = request.headers.get("last-event-id")
        after = None if not given else _place("header Last-Event-ID", given)
        ends = _expiry(request)
        seconds = max(1.0, service.deployment.http.timeout_s - _END_EARLY_S)

        def goes_on() -> bool:
            ownership = service.ownership
            return time.time() < ends and not ownership.revoked(caller.session) and not ownership.disabled(caller.name)

        try:
            service.streams.room(caller.name)
        except TooManyStreamsError as error:
            raise Problem(429, "streams", str(error), headers={"Retry-After": "5"}) from None

        async def events() -> AsyncIterator[ServerSentEvent]:
            yield ServerSentEvent(comment="listening", retry=_RETRY_MS)
            try:
                async for one in service.streams.follow(caller.name, after, goes_on, seconds):
                    yield ServerSentEvent(orjson.dumps(_shown(one, language)).decode(), event="notification", id=_cursor(one))
            except TooManyStreamsError:
                return

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return EventSourceResponse(events(), ping=_HEARTBEAT_S, send_timeout=_SEND_S, headers=headers)

    @routes.post(
        "/v1/notifications/read",
        responses=documents.answers(ReadAnswer, 400, 401, 403, 404, 413, 415, 422, 429, 503),
        openapi_extra=documents.takes("ReadBody"),
    )
    async def read_all(request: Request) -> Response:
        """Marks as read up to a notification, or all. May be repeated."""
        account = permits.person(request).name
        body = await read(request, ReadBody)
        moment = now_us()
        if body.until is not None:
            found = await stored.find(account, body.until)
            if found is None:
                raise _unknown()
            moment = found.created
        return answers.json({"read": await stored.read_until(account, moment), "unread": await stored.unread(account)})

    @routes.post("/v1/notifications/{notification_id}/read", responses=documents.answers(ReadAnswer, 401, 403, 404, 429, 503))
    async def read_one(notification_id: str, request: Request) -> Response:
        """Marks one as read. May be repeated."""
        account = permits.person(request).name
        marked = await stored.read(account, notification_id) if _CURSOR.fullmatch(f"0-{notification_id}") else None
        if marked is None:
            raise _unknown()
        return answers.json({"read": int(marked), "unread": await stored.unread(account)})

    return routes


def _unknown() -> Problem:
    return Problem(404, "unknown-notification", "you have no such notification", [Fault("notification_id", "is not one of yours")])


def _shown(one: Notification, language: Language) -> dict[str, object]:
    return {
        "notification_id": one.notification,
        "kind": one.kind,
        "text": sentence(one, language),
        "payload": one.payload,
        "created": iso(one.created),
        "read_at": None if one.read_at is None else iso(one.read_at),
    }


def _cursor(one: Notification) -> str:
    return f"{one.created}-{one.notification}"


def _place(where: str, text: str) -> tuple[int, str]:
    found = _CURSOR.fullmatch(text)
    if found is None or int(found[1]) >= 2**63:
        raise Problem(422, "invalid", f"{where}: is no place in a list of notifications", [Fault(where, "is no place", text)])
    return int(found[1]), found[2]


def _expiry(request: Request) -> float:
    """When the token that the gate has checked expires, seconds UTC; at once where it does not say."""
    found = _TOKEN.match(request.headers.get("authorization", ""))
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4))) if found else {}
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return 0.0
