"""`factotum dead-letters` and `factotum events`: what no consumer could take, and what waits to be delivered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

import configs
from configs.deployment import Deployment
from pipelines.options import HOME, AsJson, DeploymentFile, HomeDir

if TYPE_CHECKING:
    from serving.storage.database import Database
    from serving.storage.dead_letters import DeadLetter, DeadLetters

letters = typer.Typer(help="Events that a consumer could not take: look, replay, drop.", no_args_is_help=True)
events = typer.Typer(help="Events on their way from the outbox to the consumers.", no_args_is_help=True)

EventId = Annotated[str, typer.Argument(help="the event's id, as `list` shows it")]
OfConsumer = Annotated[str | None, typer.Option("--consumer", help="of this consumer only")]
_PAGE = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class _Opened:
    database: Database
    letters: DeadLetters


@asynccontextmanager
async def _opened(home: Path, deployment: Path | None) -> AsyncIterator[_Opened]:
    from serving.storage.database import Database, address
    from serving.storage.dead_letters import DeadLetters

    words = configs.load_deployment(deployment) if deployment else Deployment()
    database = Database(address(home, words.storage.url))
    try:
        yield _Opened(database, DeadLetters(database))
    finally:
        await database.close()


def _run(home: Path, deployment: Path | None, work: Callable[[_Opened], Awaitable[_Made]]) -> _Made:
    here = home.resolve()

    async def within() -> _Made:
        async with _opened(here, deployment) as opened:
            return await work(opened)

    return asyncio.run(within())


def _tell(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    print(json.dumps(result, ensure_ascii=False, indent=1) if as_json else "\n".join(lines))


def _moment(microseconds: object) -> str:
    return (_EPOCH + timedelta(microseconds=int(str(microseconds)))).isoformat(timespec="seconds")


def _row(letter: DeadLetter) -> dict[str, object]:
    shown = letter.shown
    return {**shown, **{name: _moment(shown[name]) for name in ("occurred_at", "at", "replayed_at") if shown[name] is not None}}


async def _chosen(found: DeadLetters, event_id: str | None, consumer: str | None, replayed: bool = False) -> list[DeadLetter]:
    """All of them, in pages. Raises DatabaseAwayError."""
    chosen: list[DeadLetter] = []
    after: tuple[int, str] | None = None
    while page := await found.page(_PAGE, consumer, event_id, replayed, after):
        known = {(letter.consumer, letter.event_id) for letter in chosen}
        chosen += [letter for letter in page if (letter.consumer, letter.event_id) not in known]
        if len(page) < _PAGE:
            break
        after = (page[-1].at, page[-1].event_id)
    return chosen


@letters.command("list")
def listed(
    consumer: OfConsumer = None,
    replayed: Annotated[bool, typer.Option("--replayed", help="also those that were replayed")] = False,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    as_json: AsJson = False,
) -> None:
    """The newest first: who could not take what, and why."""

    async def work(opened: _Opened) -> list[DeadLetter]:
        return await _chosen(opened.letters, None, consumer, replayed)

    rows = [_row(letter) for letter in _run(home, deployment, work)]
    lines = [f"{row['at']}  {row['consumer']:12}  {row['event_id']}  {row['type'] or '-':24}  {row['error']}" for row in rows]
    _tell({"dead_letters": rows}, as_json, lines or ["there are no dead letters"])


@letters.command()
def show(
    event_id: EventId, consumer: OfConsumer = None, home: HomeDir = HOME, deployment: DeploymentFile = None, as_json: AsJson = False
) -> None:
    """Everything of a dead letter; of one that holds a secret, everything but its payload."""
    from serving.storage.outbox import PRIVATE

    async def work(opened: _Opened) -> list[DeadLetter]:
        return await _chosen(opened.letters, event_id, consumer, replayed=True)

    rows: list[dict[str, object]] = []
    for letter in _run(home, deployment, work):
        envelope = letter.envelope
        payload = letter.raw if envelope is None else "(private)" if envelope.type in PRIVATE else envelope.payload
        rows.append({**_row(letter), "key": envelope.key if envelope else None, "payload": payload})
    if not rows:
        raise ValueError(f"there is no dead letter {event_id!r}; `factotum dead-letters list` shows all")
    lines = [f"{name}: {value}" for row in rows for name, value in (*row.items(), ("", ""))]
    _tell({"dead_letters": rows}, as_json, [line if line != ": " else "" for line in lines])


@letters.command()
def replay(
    everything: Annotated[bool, typer.Option("--all", help="all that there are")] = False,
    consumer: OfConsumer = None,
    event_id: Annotated[str | None, typer.Option("--id", help="of this event only")] = None,
    home: HomeDir = HOME,
    deployment: DeploymentFile = None,
    as_json: AsJson = False,
) -> None:
    """Hands events to their consumer again; a running application takes them. One whose error says that it may have been done is done
    again: look first."""
    from serving.storage.dead_letters import ReplayError
    from serving.subscribers import INTERESTS

    if not (everything or consumer or event_id):
        raise ValueError("say which: --all, --consumer NAME or --id EVENT")

    async def work(opened: _Opened) -> tuple[int, list[str]]:
        done, left = 0, []
        for letter in reversed(await _chosen(opened.letters, event_id, consumer)):  # the oldest first: the order in which it happened
            try:
                await opened.letters.replay(letter, INTERESTS)
                done += 1
            except ReplayError as error:
                left.append(str(error))
        return done, left

    done, left = _run(home, deployment, work)
    _tell({"replayed": done, "not_replayed": left}, as_json, [f"replayed: {done}", *(f"not replayed: {why}" for why in left)])


@letters.command()
def drop(
    event_id: EventId, consumer: OfConsumer = None, home: HomeDir = HOME, deployment: DeploymentFile = None, as_json: AsJson = False
) -> None:
    """Deletes a dead letter for good: its consumer will never take that event."""

    async def work(opened: _Opened) -> int:
        found = await _chosen(opened.letters, event_id, consumer, replayed=True)
        return sum([await opened.letters.drop(letter) for letter in found])

    dropped = _run(home, deployment, work)
    if not dropped:
        raise ValueError(f"there is no dead letter {event_id!r}; `factotum dead-letters list` shows all")
    _tell({"dropped": dropped}, as_json, [f"dropped: {dropped}"])


@events.command()
def status(home: HomeDir = HOME, deployment: DeploymentFile = None, as_json: AsJson = False) -> None:
    """How many events are not delivered yet, and how old the oldest of them is."""
    from serving.storage.database import now_us
    from serving.storage.outbox import Outbox

    async def work(opened: _Opened) -> dict[str, Any]:
        each = [await Outbox(opened.database, private).waiting() for private in (False, True)]
        oldest = min((one.oldest for one in each if one.oldest is not None), default=None)
        return {
            "waiting": sum(one.count for one in each),
            "lag_s": 0.0 if oldest is None else round((now_us() - oldest) / 1e6, 3),
            "dead_letters": await opened.letters.count(),
        }

    said = _run(home, deployment, work)
    _tell(said, as_json, [f"{name}: {value}" for name, value in said.items()])
