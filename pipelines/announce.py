"""Tells the application that another model answers: into the outbox of its database, from where it reaches analysts and administrators."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Literal

from pipelines.steps import Reporter
from serving.storage.database import Database, DatabaseAwayError, address
from serving.storage.outbox import Envelope, put
from serving.storage.upgrade import SchemaError
from training import bundle


def champion(
    home: Path,
    domain: str,
    how: Literal["bundle.promoted", "bundle.rolled_back"],
    version: str,
    before: str | None,
    url: str,
    reporter: Reporter,
) -> None:
    """After the champion was changed; what answers does not depend on it. A database that is away is said, and nobody is told.

    `url`: of the deployment's storage, empty for the home's own. The event's id is that of the change, so that saying it twice is
    saying it once.
    """
    history = bundle.bundles_dir(home, domain) / "champion.history"
    change = f"{domain}/{version}/{history.read_text(encoding='utf-8').count(chr(10))}"
    payload: dict[str, object] = {"domain": domain, "version": version, "before": before}
    event_id = hashlib.blake2b(change.encode(), digest_size=16).hexdigest()
    try:
        asyncio.run(_put(address(home, url), Envelope(how, domain, payload, event_id)))
    except (DatabaseAwayError, SchemaError, OSError) as error:
        reporter.say(f"nobody was told of it, the database does not answer: {error}")


async def _put(url: str, envelope: Envelope) -> None:
    database = Database(url)
    try:
        async with database.writing() as connection:
            await put(database, connection, [envelope])
    finally:
        await database.close()
