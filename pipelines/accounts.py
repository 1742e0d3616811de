"""`factotum users` and `factotum keys`: what an administrator does at the machine itself. The first administrator is made here.

A password comes from the terminal or from FACTOTUM_PASSWORD, never from the command line, which every process of the machine can read.
What changes here is obeyed by running replicas within a poll of theirs.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

import configs
from configs.deployment import Deployment
from pipelines.options import HOME, AsJson, DeploymentFile, HomeDir

if TYPE_CHECKING:
    from serving.accounts import Accounts
    from serving.storage.accounts import Account

PASSWORD = "FACTOTUM_PASSWORD"
_PAGE = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

users = typer.Typer(help="Accounts: who may log in, as what, and since when.", no_args_is_help=True)
keys = typer.Typer(help="Keys of machines, and the keys that tokens are signed with.", no_args_is_help=True)

Who = Annotated[str, typer.Argument(help="an e-mail address or an account's id")]

_Made = TypeVar("_Made")


@asynccontextmanager
async def opened(home: Path, deployment: Path | None) -> AsyncIterator[Accounts]:
    """The accounts of a home. Raises ConfigError, SecretError."""
    from serving.access.secrets import Secrets
    from serving.access.tokens import Tokens
    from serving.accounts import Accounts
    from serving.logs import use_key
    from serving.metrics import Metrics
    from serving.ownership import Ownership
    from serving.storage.database import Database, address

    words = configs.load_deployment(deployment) if deployment else Deployment()
    secrets, metrics = Secrets.from_environment(home, words.environment), Metrics()
    use_key(secrets.person)
    database = Database(address(home, words.storage.url))
    ownership = Ownership(database, secrets, words, metrics)
    accounts = Accounts(database, secrets, words, metrics, ownership, Tokens(secrets, words.access))
    try:
        yield accounts
    finally:
        await accounts.close()
        await database.close()


def _run(home: Path, deployment: Path | None, work: Callable[[Accounts], Awaitable[_Made]]) -> _Made:
    """Raises ValueError for what an account may not do: the command line says it in one line."""
    from serving.accounts import AccountError

    async def within() -> _Made:
        async with opened(place, deployment) as accounts:
            return await work(accounts)

    place = home.resolve()

    try:
        return asyncio.run(within())
    except AccountError as error:
        raise ValueError(str(error)) from None


def _tell(result: Mapping[str, Any], as_json: bool, lines: list[str] | None = None) -> None:
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=1))
    else:
        print("\n".join(lines if lines is not None else [f"{key}: {value}" for key, value in result.items()]))


async def _who(accounts: Accounts, who: str) -> Account:
    return await (accounts.find_email(who) if "@" in who else accounts.find(who))


def _moment(at: int | None) -> str | None:
    return None if at is None else (_EPOCH + timedelta(microseconds=at)).isoformat(timespec="seconds")


def _said(account: Account) -> dict[str, Any]:
    """No password, and no Telegram id."""
    return {
        "account": account.account,
        "email": account.email,
        "role": account.role,
        "status": account.status,
        "telegram": account.telegram_id is not None,
        "created": _moment(account.created),
        "last_activity": _moment(account.last_activity),
    }


def _password(twice: bool) -> str:
    given = os.environ.get(PASSWORD)
    if given:
        return given
    if not sys.stdin.isatty():
        raise ValueError(f"no terminal to ask for a password: set {PASSWORD}")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=twice, err=True))


# ------------------------------------------------------------------ users


@users.command("list")
def list_users(
    email: Annotated[str | None, typer.Option("--email", help="only addresses that begin so")] = None,
    most: Annotated[int, typer.Option("--most", help="accounts", min=1)] = 1_000,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    as_json: AsJson = False,
) -> None:
    """Accounts in the order of their ids."""

    async def work(accounts: Accounts) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < most:
            page = await accounts.page(min(_PAGE, most - len(found)), found[-1]["account"] if found else "", email)
            found += [_said(account) for account in page]
            if len(page) < _PAGE:
                break
        return found

    found = _run(home, deployment, work)
    rows = [f"{a['account']}  {a['role']:8} {a['status']:9} {a['created']}  {a['email'] or '(Telegram)'}" for a in found]
    _tell({"accounts": found}, as_json, rows or ["there are no accounts: `factotum users create EMAIL --role admin` makes the first"])


@users.command()
def show(who: Who, home: HomeDir = HOME, deployment: DeploymentFile = None, as_json: AsJson = False) -> None:
    """One account and which user it is in each domain. What a person says of themselves is not shown."""

    async def work(accounts: Accounts) -> dict[str, Any]:
        account = await _who(accounts, who)
        return {**_said(account), "links": {link.domain: link.user for link in await accounts.links(account.account)}}

    _tell(_run(home, deployment, work), as_json)


@users.command()
def create(
    email: Annotated[str, typer.Argument(help="an e-mail address")],
    role: Annotated[str, typer.Option("--role", help="user, analyst or admin")] = "user",
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    as_json: AsJson = False,
) -> None:
    """Makes an account. The password is asked for, or taken from FACTOTUM_PASSWORD."""
    wanted, password = _role(role), _password(twice=True)

    async def work(accounts: Accounts) -> dict[str, Any]:
        made = await accounts.create(email, password, wanted)
        if made is None:
            raise ValueError("there is an account with this address; `factotum users role` changes what it may do")
        return _said(made)

    _tell(_run(home, deployment, work), as_json)


@users.command("role")
def set_role(
    who: Who,
    role: Annotated[str, typer.Argument(help="user, analyst or admin")],
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    as_json: AsJson = False,
) -> None:
    """Says what an account may do. It must log in again."""
    wanted = _role(role)

    async def work(accounts: Accounts) -> dict[str, Any]:
        account = await _who(accounts, who)
        await accounts.set_role(account.account, wanted)
        return _said(await accounts.find(account.account))

    _tell(_run(home, deployment, work), as_json)


@users.command()
def disable(who: Who, home: HomeDir = HOME, deployment: DeploymentFile = None, as_json: AsJson = False) -> None:
    """Ends an account's sessions and lets nobody in any more. Nothing is deleted."""
    _tell(_run(home, deployment, lambda accounts: _set_disabled(accounts, who, True)), as_json)


@users.command()
def enable(who: Who, home: HomeDir = HOME, deployment: DeploymentFile = None, as_json: AsJson = False) -> None:
    """Lets a disabled account in again."""
    _tell(_run(home, deployment, lambda accounts: _set_disabled(accounts, who, False)), as_json)


@users.command()
def sessions(who: Who, home: HomeDir = HOME, deployment: DeploymentFile = None, as_json: AsJson = False) -> None:
    """Where an account is logged in."""

    async def work(accounts: Accounts) -> list[dict[str, Any]]:
        account = await _who(accounts, who)
        return [
            {
                "session": s.session,
                "device": s.device,
                "created": _moment(s.created),
                "seen": _moment(s.seen),
                "expires": _moment(s.expires),
            }
            for s in await accounts.sessions(account.account)
        ]

    found = _run(home, deployment, work)
    _tell({"sessions": found}, as_json, [f"{s['session']}  {s['seen']}  {s['device']}" for s in found] or ["no sessions"])


@users.command()
def logout(who: Who, home: HomeDir = HOME, deployment: DeploymentFile = None, as_json: AsJson = False) -> None:
    """Ends every session of an account."""

    async def work(accounts: Accounts) -> int:
        return await accounts.revoke((await _who(accounts, who)).account, why="admin")

    _tell({"ended": _run(home, deployment, work)}, as_json)


@users.command()
def export(
    who: Who,
    out: Annotated[Path | None, typer.Option("--out", help="file; default: standard output", dir_okay=False)] = None,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
) -> None:
    """Everything that is held of a person, as one JSON document. The file is readable by its owner only."""

    async def work(accounts: Accounts) -> None:
        account = await _who(accounts, who)
        if out is None:
            async for piece in accounts.export(account.account):
                sys.stdout.write(piece.decode())
            sys.stdout.write("\n")
            return
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            async for piece in accounts.export(account.account):
                file.write(piece)

    _run(home, deployment, work)


@users.command()
def erase(
    who: Who,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    as_json: AsJson = False,
) -> None:
    """Deletes everything of a person, or makes it anonymous, for good."""
    if not yes:
        typer.confirm(f"Erase everything of {who}, for good?", abort=True, err=True)

    async def work(accounts: Accounts) -> str:
        account = await _who(accounts, who)
        await accounts.erase(account.account)
        return account.account

    _tell({"erased": _run(home, deployment, work)}, as_json)


async def _set_disabled(accounts: Accounts, who: str, disabled: bool) -> dict[str, Any]:
    account = await _who(accounts, who)
    await accounts.set_disabled(account.account, disabled)
    return _said(await accounts.find(account.account))


def _role(word: str) -> Any:
    from serving.access.identity import ROLES

    if word not in ROLES:
        raise ValueError(f"unknown role {word!r}; allowed are {', '.join(ROLES)}")
    return word


# ------------------------------------------------------------------ keys


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="whose it is, for the list")],
    scopes: Annotated[str, typer.Option("--scopes", help="what it may, with commas between (serving/access/identity.py)")],
    days: Annotated[float | None, typer.Option("--days", help="it expires after so many; default: never", min=0.001)] = None,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    as_json: AsJson = False,
) -> None:
    """Makes a machine's key and shows it this once."""

    async def work(accounts: Accounts) -> dict[str, Any]:
        key, raw = await accounts.keys.create(name, [scope.strip() for scope in scopes.split(",") if scope.strip()], days)
        return {"id": key.key, "name": key.name, "scopes": list(key.scopes), "expires": _moment(key.expires), "key": raw}

    _tell(_run(home, deployment, work), as_json)


@keys.command("list")
def list_keys(home: HomeDir = HOME, deployment: DeploymentFile = None, as_json: AsJson = False) -> None:
    """All keys there ever were, oldest first; never the keys themselves."""

    async def work(accounts: Accounts) -> list[dict[str, Any]]:
        return [
            {
                "id": key.key,
                "name": key.name,
                "scopes": list(key.scopes),
                "created": _moment(key.created),
                "expires": _moment(key.expires),
                "revoked": _moment(key.revoked_at),
                "last_used": _moment(key.last_used),
            }
            for key in await accounts.keys.all()
        ]

    found = _run(home, deployment, work)
    rows = [f"{k['id']}  {'revoked' if k['revoked'] else 'good':8} {k['name']:20} {','.join(k['scopes'])}" for k in found]
    _tell({"keys": found}, as_json, rows or ["there are no keys"])


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(help="its id, as the list shows it")],
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    as_json: AsJson = False,
) -> None:
    """Lets a key in no more."""
    if not _run(home, deployment, lambda accounts: accounts.keys.revoke(key)):
        raise ValueError(f"there is no key {key!r}; `factotum keys list` shows those there are")
    _tell({"revoked": key}, as_json)


@keys.command()
def signing(as_json: AsJson = False) -> None:
    """Prints a new signing key, as FACTOTUM_SIGNING_KEYS takes it. Put it before the others: it signs, they still verify."""
    from serving.access.secrets import new_signing_key

    made = new_signing_key()
    _tell({"FACTOTUM_SIGNING_KEYS": made}, as_json, [made])
