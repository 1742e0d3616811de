"""Searches of routes through HTTP at a steady rate: for nobody in particular, and for people who have tickets.

The application on Ray Serve with two gateways, on a copy of the champion and with nothing installed besides. Each person is an account
with a token of its own and the tickets of one client of the bundle, imported as bought: so all of them have different scores, and routes
must keep what they bought. Open loop; server and generator share the machine's cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.itinerary.timetable import Timetable
from features.itinerary.wishes import vocabulary
from pipelines.bench_serve import loaded
from pipelines.load import Client, closed_loop, open_loop
from pipelines.mix import Person
from pipelines.stage import Stage, staged
from pipelines.steps import Reporter
from serving.itinerary.choosing import owned

RATE, SECONDS = 50.0, 20.0
PERSONS = 325
P99_MS = 20.0
_WARMING = 25  # people who only ask before anything is measured
_K = 10
_WARM_S = 4.0


def measure(home: Path, domain: str, reporter: Reporter, persons: int = PERSONS, seconds: float = SECONDS) -> dict[str, Any]:
    """Raises FileNotFoundError without a champion, ValueError where its bundle has no timetable or nobody bought, RuntimeError if the
    application does not start."""
    with staged(home.absolute(), domain, persons + _WARMING, True, reporter) as stage:
        timetable = stage.standing.engine.bundle.timetable
        if timetable is None:
            raise ValueError(f"the champion of {stage.domain.name} has no timetable")
        bought = _bought(stage, timetable, len(stage.persons))
        loaded(stage.target, lambda client: _import(client, stage, bought))
        reporter.say(f"{len(bought)} people have {sum(map(len, bought))} tickets")
        asked = questions(timetable, int(RATE * seconds))
        figures: dict[str, Any] = {"accounts": persons, "rate": RATE, "seconds": seconds}
        for name, people in (("nobody", ()), ("persons", stage.persons)):
            first = _requests(stage, people[persons:], asked)
            loaded(stage.target, lambda client, first=first: closed_loop(client, first, 4, _WARM_S))  # type: ignore[misc]
            those = _requests(stage, people[:persons], asked)
            outcome = loaded(stage.target, lambda client, those=those: open_loop(client, those, RATE, seconds))  # type: ignore[misc]
            figures[name] = outcome.summary()
            reporter.say(f"{name}: p50 {figures[name]['p50_ms']} ms, p99 {figures[name]['p99_ms']} ms, {figures[name]['failed']} failed")
    return figures


def questions(timetable: Timetable, count: int, seed: int = 17) -> list[dict[str, Any]]:
    """Wishes as the body of a search takes them: in turns none, a budget, one of two genres, some of the days."""
    chance = np.random.default_rng(seed)
    genres, days = list(vocabulary(timetable)["genres"]), list(timetable.days)
    dear = int(timetable.price.max(initial=0))
    out: list[dict[str, Any]] = []
    for number in range(count):
        some = sorted(chance.permutation(days)[: chance.integers(1, len(days) + 1)].tolist())
        kinds: list[dict[str, Any]] = [{}, {"price_limit": dear * int(chance.integers(2, 13))}, {"days": some}]
        if genres:
            kinds.append({"genres": {"some": chance.permutation(genres)[:2].tolist()}})
        out.append(kinds[number % len(kinds)])
    return out


def _bought(stage: Stage, timetable: Timetable, count: int) -> list[list[str]]:
    """Tickets of so many different clients, drawn by seed; of fewer where there are no more."""
    ids, people = stage.standing.engine.catalogue.ids.id, stage.standing.people
    found = []
    for row in np.random.default_rng(5).permutation(len(stage.standing.engine.users)):
        tickets = [name for name in owned(people.state(stage.standing.engine.users.id(int(row))), ids) if name in timetable.rows]
        if tickets:
            found.append(tickets)
        if len(found) == count:
            break
    if not found:
        raise ValueError(f"nobody of {stage.domain.name} bought anything")
    return [found[place % len(found)] for place in range(count)]


async def _import(client: Client, stage: Stage, bought: Sequence[Sequence[str]]) -> None:
    for person, tickets in zip(stage.persons, bought, strict=True):
        body = {"tickets": [{"concert_id": name} for name in tickets]}
        answer = await client.ask(client.request("POST", f"/v1/{stage.domain.name}/users/me/tickets", body, _token(person)))
        if answer.status != 200:
            raise RuntimeError(f"tickets were not imported: {answer.status} {answer.body[:200]!r}")


def _requests(stage: Stage, people: Sequence[Person], asked: Sequence[dict[str, Any]]) -> list[bytes]:
    """Of nobody in particular where there are no people: then by the machine's key, which the limit does not count."""
    client, path = stage.target.client(), f"/v1/{stage.domain.name}/routes/search"
    if not people:
        return [client.request("POST", path, {"wishes": wishes, "k": _K}, {"X-API-Key": stage.key}) for wishes in asked]
    return [
        client.request("POST", path, {"user_id": "me", "wishes": wishes, "k": _K}, _token(people[number % len(people)]))
        for number, wishes in enumerate(asked)
    ]


def _token(person: Person) -> dict[str, str]:
    return {"Authorization": f"Bearer {person.token}"}
