"""Slates and items as JSON bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import Response

from serving.slate import Reason, Slate, SlateItem

_NO_ECHO: Mapping[str, str] = {}


def json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return raw(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, headers)


def raw(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, status, dict(headers) if headers else None, "application/json")


def items(shown: Sequence[SlateItem], echo: Mapping[str, str] = _NO_ECHO) -> bytes:
    """A JSON list. `echo`: a brief's own words for ours; where it renames `item_id`, ids that are integers are numbers."""
    word = echo.get("item_id", "item_id")
    number = word != "item_id"
    return orjson.dumps([_item(item, word, number) for item in shown], option=orjson.OPT_SERIALIZE_NUMPY)


def _item(item: SlateItem, word: str, number: bool) -> dict[str, Any]:
    return {
        word: as_number(item.item) if number else item.item,
        "title": item.title,
        "score": item.score,
        "rank": item.rank,
        "sources": item.sources,
        "reasons": [_reason(reason, number) for reason in item.reasons],
        "explanation": item.explanation,
        "propensity": item.propensity,
    }


def _reason(reason: Reason, number: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": reason.kind}
    if reason.item is not None:
        said["item"] = as_number(reason.item) if number else reason.item
    if reason.feature is not None:
        said["feature"] = reason.feature
    said |= {"value": reason.value, "sign": reason.sign, "share": reason.share}
    if reason.source is not None:
        said["source"] = reason.source
    return said


def as_number(identifier: str) -> int | str:
    """ "5114" -> 5114; anything that is not exactly an integer's digits stays as it is."""
    if len(identifier) <= 18 and identifier.isascii() and identifier.removeprefix("-").isdigit() and str(int(identifier)) == identifier:
        return int(identifier)
    return identifier


def slate(answer: Slate, listed: bytes, notes: Sequence[str], also: Mapping[str, object] | None = None) -> bytes:
    """The whole answer; `listed` are its items, written already."""
    return orjson.dumps(
        {
            **(also or {}),
            "slate": answer.slate,
            "domain": answer.domain,
            "model_version": answer.version,
            "variant": answer.variant,
            "mode": answer.mode,
            "degraded": answer.degraded,
            "notes": notes,
            "items": orjson.Fragment(listed),
        }
    )
