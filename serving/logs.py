"""JSON lines on standard error. A person appears only as a short keyed hash, and a request by its id."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

import orjson

#: The request being answered, for every line logged on its behalf.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, request_id, what the caller put under `fields`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request = request_id.get()
        if request is not None:
            line["request_id"] = request
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def setup(level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Sends the loggers below `factotum` to `stream` (default: standard error) as JSON lines. Called by who starts the process."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger("factotum")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False


@lru_cache(maxsize=1)
def _own_key() -> bytes:
    """FACTOTUM_LOG_KEY, so that replicas and days can be compared; without it a key that ends with the process."""
    given = os.environ.get("FACTOTUM_LOG_KEY")
    return hashlib.sha256(given.encode()).digest() if given else secrets.token_bytes(32)


_given: list[bytes] = []


def use_key(key: bytes) -> None:
    """From now on people are hashed with this key (32 bytes), the same in all replicas. Called by who makes a service."""
    _given[:] = [key]


def person(user: str) -> str:
    """12 hexadecimal digits that stand for a person in logs and in the audit; without the key they cannot be traced back by
    trying ids."""
    key = _given[0] if _given else _own_key()
    return hashlib.blake2b(user.encode("utf-8", "replace"), key=key, digest_size=6).hexdigest()
