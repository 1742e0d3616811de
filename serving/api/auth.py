"""/v1/auth: coming in, staying in, going out, and getting in again without the password."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from serving.api import documents, permits
from serving.api.credentials import (
    DoneAnswer,
    EntryAnswer,
    ForgotBody,
    LoginBody,
    LogoutBody,
    PasswordBody,
    RefreshBody,
    RegisterBody,
    ResetBody,
    TelegramBody,
    attempt_of,
    count,
    device,
    done,
    drop_cookie,
    entry,
    given_refresh,
    read,
)
from serving.api.gate import CHALLENGE
from serving.api.problems import Fault, Problem
from serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/auth", tags=["auth"])
    accounts = service.accounts

    @routes.post(
        "/register",
        responses=documents.answers(EntryAnswer, 400, 403, 409, 413, 415, 422, 503),
        openapi_extra=documents.takes("RegisterBody"),
    )
    async def register(request: Request) -> Response:
        """A new account and its first session; the same address and password again are a log-in."""
        body = await read(request, RegisterBody)
        await count(service, request, body.email)
        return entry(service, request, await accounts.register(body.email, body.password, device(request)), body.cookie)

    @routes.post(
        "/login", responses=documents.answers(EntryAnswer, 400, 403, 413, 415, 422, 503), openapi_extra=documents.takes("LoginBody")
    )
    async def login(request: Request) -> Response:
        """A session by address and password."""
        body = await read(request, LoginBody)
        await count(service, request, body.email)
        return entry(service, request, await accounts.login(body.email, body.password, device(request)), body.cookie)

    @routes.post(
        "/telegram",
        responses=documents.answers(EntryAnswer, 400, 403, 404, 413, 415, 422, 503),
        openapi_extra=documents.takes("TelegramBody"),
    )
    async def telegram(request: Request) -> Response:
        """A session by what Telegram signed, once; the account is made if there is none."""
        body = await read(request, TelegramBody)
        one_of(body.widget, body.init_data)
        await count(service, request)
        proof = accounts.telegram_proof(body.widget, body.init_data)
        return entry(service, request, await accounts.telegram_login(proof, device(request), attempt_of(request)), body.cookie)

    @routes.post(
        "/refresh", responses=documents.answers(EntryAnswer, 400, 403, 413, 415, 422, 503), openapi_extra=documents.takes("RefreshBody")
    )
    async def refresh(request: Request) -> Response:
        """The next pair of tokens. A refresh token is good for one use; a second one ends its session. A call that may be repeated
        carries an Idempotency-Key of its own: then the repetition is answered like the call."""
        body = await read(request, RefreshBody)
        token = given_refresh(service, request, body.refresh_token)
        if token is None:
            raise Problem(401, "refresh", "there is no refresh token in the body, and no cookie", headers=CHALLENGE)
        made = await accounts.refresh(token, attempt_of(request))
        return entry(service, request, made, body.cookie or body.refresh_token is None)

    @routes.post(
        "/logout",
        responses=documents.answers(DoneAnswer, 400, 403, 404, 413, 415, 422, 503),
        openapi_extra=documents.takes("LogoutBody"),
    )
    async def logout(request: Request) -> Response:
        """Ends the session of the refresh token (body or cookie), or else of the access token."""
        body = await read(request, LogoutBody)
        token = given_refresh(service, request, body.refresh_token)
        caller = permits.caller_of(request)
        if token is not None:
            await accounts.logout(token)
        elif caller.kind == "account":
            await accounts.revoke(caller.name, caller.session)
        return drop_cookie(service, done())

    @routes.post(
        "/password", responses=documents.answers(DoneAnswer, 400, 404, 413, 415, 422, 503), openapi_extra=documents.takes("PasswordBody")
    )
    async def password(request: Request) -> Response:
        """A new password for whoever knows the old one. Every other session ends."""
        caller = permits.person(request)
        body = await read(request, PasswordBody)
        await count(service, request, caller.name)
        await accounts.change_password(caller.name, caller.session, body.old_password, body.new_password)
        return done()

    @routes.post(
        "/password/reset",
        responses=documents.answers(DoneAnswer, 400, 413, 415, 422, 503),
        openapi_extra=documents.takes("ForgotBody"),
    )
    async def forgot(request: Request) -> Response:
        """Sends a mail with a link, if the address has an account. The answer is the same if it has none."""
        body = await read(request, ForgotBody)
        await count(service, request, body.email)
        await accounts.forgot(body.email)
        return done()

    @routes.post(
        "/password/reset/confirm",
        responses=documents.answers(DoneAnswer, 400, 413, 415, 422, 503),
        openapi_extra=documents.takes("ResetBody"),
    )
    async def reset(request: Request) -> Response:
        """A new password for whoever got the mail. Every session ends."""
        body = await read(request, ResetBody)
        await count(service, request)
        await accounts.reset(body.token, body.new_password)
        return done()

    return routes


def one_of(widget: object, init_data: object) -> None:
    """Raises Problem 422 unless exactly one is there."""
    if (widget is None) == (init_data is None):
        fault = Fault("body", "expected one of the two", allowed=["widget", "init_data"])
        raise Problem(422, "invalid", "expected either widget or init_data", [fault])
