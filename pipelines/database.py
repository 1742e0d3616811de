"""`factotum db`: the tables and what is in them, for whoever looks after the machine.

The database is the one that the server would use: FACTOTUM_DATABASE_URL, else the deployment's `storage.url`, else SQLite in the home.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import configs
from configs.deployment import Deployment
from pipelines.options import HOME, AsJson, DeploymentFile, DryRun, HomeDir, Quiet
from pipelines.steps import Reporter

if TYPE_CHECKING:
    from serving.storage.database import Database

db = typer.Typer(help="The database: tables, backups, and what is kept for how long.", no_args_is_help=True)


@asynccontextmanager
async def _opened(home: Path, deployment: Deployment) -> AsyncIterator[Database]:
    from serving.storage.database import Database, address

    database = Database(address(home, deployment.storage.url), wait_s=10.0)
    try:
        yield database
    finally:
        await database.close()


def refuse_unknown(home: Path, deployment: Deployment) -> None:
    """Before serving: raises SchemaError for a database whose tables this version cannot use. One that is away may come back."""
    from serving.storage.database import DatabaseAwayError

    async def look() -> None:
        async with _opened(home, deployment) as database:
            with suppress(DatabaseAwayError):
                await database.ping()

    asyncio.run(look())


class _Session:
    def __init__(self, home: Path, deployment: Path | None, quiet: bool, as_json: bool) -> None:
        self.home = home.resolve()
        self.deployment = configs.load_deployment(deployment) if deployment else Deployment()
        self.reporter = Reporter(quiet, as_json)
        self._as_json = as_json

    def run(self, act: Callable[[Database], Awaitable[Mapping[str, Any]]], lines: Callable[[Mapping[str, Any]], list[str]]) -> None:
        async def acting() -> Mapping[str, Any]:
            async with _opened(self.home, self.deployment) as database:
                return await act(database)

        with self.reporter:
            result = asyncio.run(acting())
        print(json.dumps(result, ensure_ascii=False, indent=1, default=str) if self._as_json else "\n".join(lines(result)))

    def progress(self, totals: Mapping[str, int] | None = None) -> Callable[[str, int], None]:
        """One line a table, or a bar where it is known how many rows there are."""
        said: dict[str, int] = {}

        def tell(what: str, done: int) -> None:
            total = (totals or {}).get(what, 0)
            if total:
                self.reporter.progress(what, min(1.0, done / total))
            elif done >= said.get(what, 0) + 100_000 or (
                what not in said and not what.startswith("home/") and what not in ("check", "home")
            ):
                said[what] = done
                self.reporter.say(f"{what}: {done:,} rows and on" if done >= 100_000 else what)

        return tell


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:,.1f} MiB"


@db.command()
def upgrade(home: HomeDir = HOME, deployment: DeploymentFile = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Brings the tables to the form that this version knows. The server does so itself when it starts."""

    async def act(database: Database) -> Mapping[str, Any]:
        before, after = await database.upgrade()
        return {"before": before, "revision": after}

    def lines(result: Mapping[str, Any]) -> list[str]:
        return [
            f"revision {result['revision']}" + ("" if result["before"] == result["revision"] else f", before {result['before'] or 'none'}")
        ]

    _Session(home, deployment, quiet, as_json).run(act, lines)


@db.command()
def status(home: HomeDir = HOME, deployment: DeploymentFile = None, as_json: AsJson = False) -> None:
    """Revision, rows, sizes and partitions. Changes nothing."""
    from dataclasses import asdict

    async def act(database: Database) -> Mapping[str, Any]:
        from serving.storage.census import census

        return asdict(await census(database))

    def lines(result: Mapping[str, Any]) -> list[str]:
        out = [f"{result['kind']}, {_size(result['bytes'])}, revision {result['revision'] or 'none'}"]
        if result["revision"] != result["newest"]:
            out[0] += f"; this version knows {result['newest']}"
        for table in result["tables"]:
            out.append(f"{table['table']:40} {table['rows']:>12,}  {_size(table['bytes'])}".rstrip())
            if table["partitions"]:
                names = sorted(table["partitions"])
                out.append(f"  {len(names)} partitions, {names[0]} to {names[-1]}; {table['rest']:,} rows in none of them")
        return out

    _Session(home, deployment, True, as_json).run(act, lines)


@db.command()
def backup(
    out: Annotated[Path, typer.Option("--out", help="the file to write", dir_okay=False)],
    with_home: Annotated[bool, typer.Option("--with-home", help="also the bundles that answer, and their aliases")] = False,
    with_secrets: Annotated[bool, typer.Option("--with-secrets", help="also the keys that a development's tokens are signed with")] = False,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """One file with all rows as of one moment, while the server runs on. It goes back into either kind of database.

    It holds what people did and hashes of their passwords: only its owner can read it."""
    from pipelines.backup import backup as write

    session = _Session(home, deployment, quiet, as_json)

    async def act(database: Database) -> Mapping[str, Any]:
        made = await write(database, session.home, out.resolve(), with_home, with_secrets, session.progress())
        return {"file": str(out), "bytes": out.stat().st_size, "revision": made.revision, "rows": made.rows, "files": len(made.files)}

    session.run(act, lambda result: [f"{result['file']}: {sum(result['rows'].values()):,} rows, {_size(result['bytes'])}"])


@db.command()
def restore(
    file: Annotated[Path, typer.Argument(help="what `factotum db backup` wrote", dir_okay=False)],
    replace: Annotated[bool, typer.Option("--replace", help="in place of what the database and the home hold")] = False,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """A backup's rows into an empty database, all or none, and its files into the home. Stop the server before.

    A damaged file is refused, and so is one that a newer version made."""
    from pipelines.backup import read_manifest
    from pipelines.backup import restore as read

    session = _Session(home, deployment, quiet, as_json)
    totals = read_manifest(file)

    async def act(database: Database) -> Mapping[str, Any]:
        progress = session.progress({**totals.rows, "check": len(totals.files)})
        made = await read(database, session.home, file, replace, progress)
        return {"file": str(file), "made": made.made, "revision": made.revision, "rows": made.rows}

    session.run(act, lambda result: [f"{sum(result['rows'].values()):,} rows of {result['made']} are back"])


@db.command()
def retention(
    home: HomeDir = HOME, deployment: DeploymentFile = None, dry_run: DryRun = False, quiet: Quiet = False, as_json: AsJson = False
) -> None:
    """Away with what is older than the deployment's `retention` says. A running server does so every hour."""
    session = _Session(home, deployment, quiet, as_json)

    async def act(database: Database) -> Mapping[str, Any]:
        from dataclasses import asdict

        from serving.storage.retention import sweep

        return {"dry_run": dry_run, "swept": [asdict(what) for what in await sweep(database, session.deployment.retention, dry_run)]}

    def lines(result: Mapping[str, Any]) -> list[str]:
        out = []
        for what in result["swept"]:
            parts = f", partitions {', '.join(what['partitions'])}" if what["partitions"] else ""
            out.append(f"{what['kind']:14} {what['table']:36} {what['rows']:>10,} rows {'would go' if dry_run else 'went'}{parts}")
        return out

    session.run(act, lines)


@db.command()
def views(home: HomeDir = HOME, deployment: DeploymentFile = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Makes the figures for analysts anew. `factotum schedule` does so every week."""

    async def act(database: Database) -> Mapping[str, Any]:
        from serving.storage.views import Views

        return {"refreshed": datetime.now(UTC).isoformat(timespec="seconds"), "rows": await Views(database).refresh()}

    _Session(home, deployment, quiet, as_json).run(
        act, lambda result: [f"{name:16} {rows:>10,} rows" for name, rows in result["rows"].items()]
    )


@db.command()
def maintain(home: HomeDir = HOME, deployment: DeploymentFile = None, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Makes the partitions of the days to come (PostgreSQL). A running server does so every hour."""

    async def act(database: Database) -> Mapping[str, Any]:
        from serving.storage.retention import maintain as make

        return {"partitions_made": await make(database)}

    _Session(home, deployment, quiet, as_json).run(act, lambda result: [f"{result['partitions_made']} partitions made"])
