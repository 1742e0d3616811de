"""The tables of a database, brought to the form that this code knows: Alembic's revisions in one transaction."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from serving.storage import migrations

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_LOCK = 0x_FAC7_0713  # PostgreSQL's advisory lock that one process holds while it changes the tables
_FOLDER = Path(migrations.__file__).parent

#: Alembic's `op` and `context` are one for the whole process: one upgrade at a time in an event loop.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


class SchemaError(RuntimeError):
    """The database's tables are not in a form that this code can use, and waiting does not help; the message says what does."""


def turn() -> asyncio.Lock:
    """To be held around `upgrade` within an event loop."""
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())


def revision(connection: sa.Connection) -> str | None:
    """The revision that a database stands at; None before the first."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def known(name: str) -> bool:
    """Whether this code knows a revision."""
    return any(script.revision == name for script in _scripts().walk_revisions())


def upgrade(connection: sa.Connection, to: str = migrations.HEAD) -> tuple[str | None, str]:
    """Within a transaction that it never ends: the tables as of revision `to`; returns the revisions before and after.

    Other processes that do so wait for this transaction's end. Raises SchemaError for a database that a newer version of this
    code has upgraded, and for tables that no revision made."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    before = revision(connection)
    if before is not None and not known(before):
        raise SchemaError(
            f"the database stands at revision {before}, which this version of Factotum does not know (its newest is {migrations.HEAD}): "
            "use the version that upgraded it, or restore a backup made before"
        )
    if before is None and _unfinished(connection):
        raise SchemaError(
            "the database holds tables of Factotum but says no revision: they were made by a version that was never released; "
            "name another database, or drop these tables"
        )
    if before == to:
        return before, to
    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
    return before, to


def _unfinished(connection: sa.Connection) -> bool:
    inspector = sa.inspect(connection)
    if connection.dialect.name == "sqlite":
        return inspector.has_table("recommendations_events")
    return inspector.has_table("events", schema="recommendations")


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(_FOLDER))
