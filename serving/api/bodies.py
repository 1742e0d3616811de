"""What a request's body may hold, and the one function that reads one: parsed once, checked once."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
    WithJsonSchema,
)
from starlette.requests import ClientDisconnect

from features.vocabulary import MAX_ID_BYTES
from serving.api.problems import Fault, Problem, from_pydantic

_Body = TypeVar("_Body", bound=BaseModel)
_MOST_K = 1_000  # of any domain; the domain's own max_k is checked where the domain is known
_MOST_DIGITS = 18  # of an integer id


def _id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
        if len(value) > _MOST_DIGITS:
            raise ValueError(f"expected an id: an integer has at most {_MOST_DIGITS} digits")
    if not isinstance(value, str):
        raise ValueError("expected an id: text or an integer")
    if not value or len(value.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
        raise ValueError(f"expected an id of 1 to {MAX_ID_BYTES} bytes")
    return _printable(value)


def _printable(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    if any(character < " " or "\x7f" <= character <= "\x9f" or "\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("control characters and halves of surrogate pairs are not allowed")
    return value


_ID_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES}, {"type": "integer"}]}

#: An id from outside: text, or an integer that becomes its digits.
Id = Annotated[str, BeforeValidator(_id), WithJsonSchema(_ID_SCHEMA)]
Text = Annotated[str, BeforeValidator(_printable), Field(max_length=500)]
Word = Annotated[str, BeforeValidator(_printable), Field(min_length=1, max_length=200)]
Words = Word | Annotated[list[Word], Field(min_length=1, max_length=200)]


class Body(BaseModel):
    """No key that is not written below is accepted; texts are not taken for numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Between(Body):
    """A range of numbers, both ends included; either end may be left open."""

    low: float | None = None
    high: float | None = None


class RecommendationsBody(Body):
    """Whom it is for: `user_id`, or `history`, or neither; `profile` may go with any. Nothing at all is a newcomer."""

    user_id: Id | None = None
    history: list[Id] | None = None
    profile: dict[Word, Words] = {}
    k: Annotated[int, Field(ge=1, le=_MOST_K)] | None = None
    filters: dict[Word, Words | Between] = {}
    exclude: list[Id] = []
    diversity: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    explain: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    language: Literal["en", "ru"] = "en"


class EventBody(Body):
    """Something that happened. `user_id`: `me` is the caller's own user, and so is nothing in a domain that wants a token. `time`: ISO
    8601 with its offset; left out, it is now."""

    event_id: Id
    user_id: Id | None = None
    item_id: Id
    kind: Word
    value: float | None = None
    time: Annotated[str, Field(min_length=1, max_length=40, json_schema_extra={"format": "date-time"})] | None = None


Cell = StrictInt | StrictFloat | Text | Annotated[list[Word], Field(max_length=200)] | None


class ItemBody(Body):
    """An item to add, or to say anew. `attributes`: the words of the domain's schema; those left out count as missing."""

    item_id: Id
    title: Annotated[Text, Field(min_length=1)]
    attributes: dict[Word, Cell] = {}
    available: StrictBool = True


async def read(request: Request, model: type[_Body]) -> _Body:
    """The body as `model`. Raises Problem: 415, 413, 400 for what is no JSON, 422 for what says something not allowed."""
    return checked(await document(request), model)


async def document(request: Request) -> object:
    """The body as parsed JSON. Raises Problem: 415, 413 (from the edge), 400 with line and column."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        fault = Fault("header Content-Type", "this address takes JSON", kind, ["application/json"])
        raise Problem(415, "content-type", "send JSON, with the header Content-Type: application/json", [fault])
    try:
        raw = await request.body()
    except ClientDisconnect:
        raise Problem(400, "disconnected", "the body ended before it was whole") from None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        line, column = error.lineno, error.colno
        what = "the body is empty, expected a JSON object" if not raw.strip() else f"not JSON at line {line}, column {column}: {error.msg}"
        raise Problem(400, "json", what, [Fault(f"line {line}, column {column}", error.msg, _around(error) or None)]) from None


def _around(error: orjson.JSONDecodeError) -> str:
    return str(error.doc)[max(0, error.pos - 15) : error.pos + 15]


def checked(parsed: object, model: type[_Body], where: str = "") -> _Body:
    """Parsed JSON as `model`. Raises Problem 422; `where` goes before the names of fields."""
    try:
        return model.model_validate(parsed)
    except ValidationError as error:
        found = error.errors(include_url=False)
        faults = [Fault(f"{where}{'.' if where else ''}{f.where}", f.what, f.got, f.allowed) for f in from_pydantic(found, model)]
        first = faults[0]
        raise Problem(422, "invalid", f"{first.where}: {first.what}", faults) from None
