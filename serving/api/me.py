"""/v1/me: what a person may see and change of their own account, take with them, and have erased."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from serving.api import answers, documents, permits
from serving.api.auth import one_of
from serving.api.credentials import (
    NO_STORE,
    DoneAnswer,
    EndedAnswer,
    EraseBody,
    ExportAnswer,
    LinksAnswer,
    MeAnswer,
    ProfileBody,
    SessionsAnswer,
    TelegramBody,
    attempt_of,
    count,
    done,
    drop_cookie,
    moment,
    read,
)
from serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/me", tags=["me"])
    accounts = service.accounts

    @routes.get("", responses=documents.answers(MeAnswer, 404, 503))
    async def me(request: Request) -> Response:
        """The caller's account and what they said of themselves."""
        return await _me(service, permits.person(request).name)

    @routes.patch("", responses=documents.answers(MeAnswer, 400, 404, 413, 415, 422, 503), openapi_extra=documents.takes("ProfileBody"))
    async def change(request: Request) -> Response:
        """Changes what is named and leaves the rest."""
        caller = permits.person(request)
        body = await read(request, ProfileBody)
        await accounts.change_profile(caller.name, {name: getattr(body, name) for name in body.model_fields_set})
        return await _me(service, caller.name)

    @routes.delete("", responses=documents.answers(DoneAnswer, 400, 404, 413, 415, 422, 503), openapi_extra=documents.takes("EraseBody"))
    async def erase(request: Request) -> Response:
        """Everything of the caller's is deleted or made anonymous, for good. Needs the password or a fresh Telegram payload again."""
        caller = permits.person(request)
        body = await read(request, EraseBody)
        await count(service, request, caller.name)
        proof = None
        if body.widget is not None or body.init_data is not None:
            one_of(body.widget, body.init_data)
            proof = accounts.telegram_proof(body.widget, body.init_data)
        await accounts.proven(caller.name, body.password, proof, attempt_of(request))
        await accounts.erase(caller.name)
        return drop_cookie(service, done())

    @routes.get("/sessions", responses=documents.answers(SessionsAnswer, 503))
    async def sessions(request: Request) -> Response:
        """Where the caller is logged in, the newest first."""
        caller = permits.person(request)
        listed = [
            {
                "session_id": session.session,
                "device": session.device,
                "created": moment(session.created),
                "seen": moment(session.seen),
                "expires": moment(session.expires),
                "current": session.session == caller.session,
            }
            for session in await accounts.sessions(caller.name)
        ]
        return answers.json({"sessions": listed}, headers=NO_STORE)

    @routes.delete("/sessions", responses=documents.answers(EndedAnswer, 503))
    async def end_all(request: Request) -> Response:
        """Ends every session of the caller, this one too."""
        caller = permits.person(request)
        return answers.json({"ended": await accounts.revoke(caller.name)}, headers=NO_STORE)

    @routes.delete("/sessions/{session_id}", responses=documents.answers(EndedAnswer, 404, 503))
    async def end(session_id: str, request: Request) -> Response:
        """Ends one session of the caller; 404 for anybody else's, as for one that never was."""
        caller = permits.person(request)
        return answers.json({"ended": await accounts.revoke(caller.name, _handle(session_id))}, headers=NO_STORE)

    @routes.get("/links", responses=documents.answers(LinksAnswer, 503))
    async def links(request: Request) -> Response:
        """Which user the caller is in each domain."""
        caller = permits.person(request)
        listed = [
            {"domain": link.domain, "user_id": link.user, "linked": moment(link.linked_at)} for link in await accounts.links(caller.name)
        ]
        return answers.json({"links": listed}, headers=NO_STORE)

    @routes.post(
        "/telegram",
        responses=documents.answers(DoneAnswer, 400, 404, 409, 413, 415, 422, 503),
        openapi_extra=documents.takes("TelegramBody"),
    )
    async def telegram(request: Request) -> Response:
        """From now on the caller may log in by Telegram too."""
        caller = permits.person(request)
        body = await read(request, TelegramBody)
        one_of(body.widget, body.init_data)
        await count(service, request, caller.name)
        await accounts.link_telegram(caller.name, accounts.telegram_proof(body.widget, body.init_data), attempt_of(request))
        return done()

    @routes.get("/export", responses=documents.answers(ExportAnswer, 503))
    async def export(request: Request) -> Response:
        """Everything that is held of the caller, as one JSON document."""
        caller = permits.person(request)
        pieces = accounts.export(caller.name)
        first = await anext(pieces)  # the database is asked before the answer begins: a refusal must be able to say so

        async def all_pieces() -> AsyncIterator[bytes]:
            yield first
            async for piece in pieces:
                yield piece

        headers = {**NO_STORE, "Content-Disposition": 'attachment; filename="factotum-export.json"'}
        return StreamingResponse(all_pieces(), media_type="application/json", headers=headers)

    return routes


async def _me(service: Service, account: str) -> Response:
    found, profile = await service.accounts.find(account), await service.accounts.profile(account)
    said = {
        "account_id": found.account,
        "email": found.email,
        "password": found.password is not None,
        "telegram": found.telegram_id is not None,
        "role": found.role,
        "created": moment(found.created),
        "profile": {
            "birth_date": profile.birth_date,
            "birth_time": profile.birth_time,
            "birth_city": profile.birth_city,
            "subscription_status": profile.subscription_status,
            "language": profile.language,
        },
    }
    return answers.json(said, headers=NO_STORE)


def _handle(text: str) -> str:
    """A session's id as it may stand in the database: what could not be one is nobody's."""
    return text if text.isascii() and text.isalnum() and len(text) <= 32 else ""
