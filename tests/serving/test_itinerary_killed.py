"""What people chose and were told is stored outlives a kill -9 of the gateway: a real process, and both databases."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import sqlalchemy as sa

import configs
from pipelines.bench_serve import plain
from serving.service import Service
from serving.storage.choices import Choices
from serving.storage.database import Database, DatabaseAwayError
from tests.serving.callers import Person, person
from tests.serving.itinerary_world import NAME, Season, season_timetable

_PERSONS = 12
_ENOUGH = 90  # answers before the kill; others are under way
_KINDS = {"bought": "bought", "favourite": "favourite", "yes": "favourite", "no": "refused"}  # what the events are told as
STOPS = [stop.id for stop in season_timetable().stops if not stop.optional]

Key = tuple[str, str]  # choice, stop


@dataclass
class Promised:
    """What one person was told. `open`: asked for and never answered; `paces`: answers to the questionnaire of which one must stand."""

    who: Person
    there: set[Key] = field(default_factory=set)
    open: set[Key] = field(default_factory=set)
    paces: list[str | None] = field(default_factory=lambda: [None])
    answered: int = 0


async def insist(client: httpx.AsyncClient, mine: Promised, chance: np.random.Generator) -> None:
    """Says one thing after another until nobody answers any more. Of one stop a person says one kind of thing only, or a lost answer would
    leave open what an older one promised."""
    address, spare = f"/v1/{NAME}/users/me", [str(name) for name in chance.permutation(STOPS)]
    while spare:
        match int(chance.integers(5)):
            case 0 if mine.there:
                keys = {sorted(mine.there)[int(chance.integers(len(mine.there)))]}
                ((choice, stop),) = keys
                asked = client.delete(f"{address}/choices/{choice}/stop/{stop}", headers=mine.who.headers)
            case 1:
                keys = {("bought", spare.pop())}
                tickets = [{"concert_id": stop, "sold_at": "2030-05-01T10:00:00+05:00"} for _, stop in keys]
                asked = client.post(f"{address}/tickets", json={"tickets": tickets}, headers=mine.who.headers)
            case 2:
                mine.paces = [mine.paces[-1], str(chance.choice(("calm", "steady", "full")))]
                body = {"answers": {"pace": mine.paces[1:]}, "user_id": "me"}
                keys = set()
                asked = client.post(f"/v1/{NAME}/questionnaire", json=body, headers=mine.who.headers)
            case _:
                choice = str(chance.choice(list(_KINDS)))
                keys = {(choice, spare.pop()) for _ in range(min(2, len(spare)))}
                body = {"choice": choice, "targets": sorted(stop for _, stop in keys)}
                asked = client.post(f"{address}/choices", json=body, headers=mine.who.headers)
        mine.open = keys
        try:
            answer = await asked
        except httpx.HTTPError:
            return
        assert answer.status_code == 200, answer.text
        mine.answered += 1
        said, mine.open = answer.json(), set()
        if "removed" in said:
            assert said["removed"]
            mine.there -= keys
        else:
            mine.there |= keys
            mine.paces = mine.paces[-1:]


@asynccontextmanager
async def gateway(home: Path, domain: Path) -> AsyncIterator[tuple[int, httpx.AsyncClient]]:
    """A process of its own with one worker: its id, and a client. Ended at the end, should it live."""
    made = plain(home, str(domain), 1)
    target = await asyncio.to_thread(made.__enter__)
    try:
        async with httpx.AsyncClient(base_url=f"http://{target.host}:{target.port}", timeout=60.0) as client:
            yield target.pid, client
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)


@pytest.fixture
async def enrolled(
    tmp_path: Path, season: Season, season_yaml: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, list[Promised]]:
    """A home whose gateways write to `database`, and people with tokens."""
    home = tmp_path / "home"
    season.publish(home)
    (home / "deployment.yaml").write_text("limits: {person: 100000}\nreplicas: {gateways: 1}\n", encoding="utf-8")
    monkeypatch.setenv("FACTOTUM_DEPLOYMENT", str(home / "deployment.yaml"))
    monkeypatch.setenv("FACTOTUM_DATABASE_URL", database._url.render_as_string(hide_password=False))
    service = Service(home, [str(season_yaml)], configs.load_deployment(home / "deployment.yaml"), database=database)
    return home, [Promised(await person(service)) for _ in range(_PERSONS)]


async def test_what_was_answered_is_there_after_the_gateway_is_killed(
    enrolled: tuple[Path, list[Promised]], season_yaml: Path, database: Database
) -> None:
    home, people = enrolled
    async with gateway(home, season_yaml) as (pid, client):
        talking = [asyncio.create_task(insist(client, mine, np.random.default_rng(place))) for place, mine in enumerate(people)]
        while sum(mine.answered for mine in people) < _ENOUGH and not all(one.done() for one in talking):  # noqa: ASYNC110 (any moment)
            await asyncio.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*talking)
    assert sum(mine.answered for mine in people) >= _ENOUGH
    assert any(mine.open for mine in people), "nobody was interrupted: the kill came too late"
    async with gateway(home, season_yaml) as (_, client):
        for mine in people:
            answer = await client.get(f"/v1/{NAME}/users/me/choices", headers=mine.who.headers)
            said: dict[str, Any] = answer.json()
            found = {(one["choice"], one["target"]) for one in said["choices"]}
            assert mine.there - mine.open <= found <= mine.there | mine.open
            assert {stop for choice, stop in mine.there - mine.open if choice == "bought"} <= set(said["bought"])
            stored = await Choices(database).answers(NAME, mine.who.user)
            assert (None if stored is None else orjson.loads(stored)["pace"][0]) in mine.paces
    # not one choice without the event that tells the engine of it, answered or not
    events, choices = database.tables.events.c, database.tables.choices.c
    async with database.reading() as connection:
        told = set((await connection.execute(sa.select(events.user, events.item, events.kind))).tuples())
        chosen = (await connection.execute(sa.select(choices.user, choices.target, choices.choice))).tuples().all()
    assert {(user, stop, _KINDS[choice]) for user, stop, choice in chosen} <= told


async def test_a_choice_of_which_the_engine_cannot_be_told_is_not_stored(
    seated: tuple[Service, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, client = seated
    me = await person(service)
    url = f"/v1/{NAME}/users/me/choices"

    async def say() -> httpx.Response:
        return await client.post(url, json={"choice": "bought", "targets": ["d1h0"]}, headers=me.headers)

    async def away(*_: object) -> None:
        raise DatabaseAwayError("in the middle")

    with monkeypatch.context() as broken:
        broken.setattr(service.interactions, "write", away)
        assert (await say()).status_code == 503
    assert (await say()).json()["added"] == ["d1h0"]

    def known() -> int:
        """Of how many stops the engine knows that they were bought."""
        state = service.standing(NAME).people.state(me.user)
        assert state is not None
        return len(state.positives)

    assert known() == 1
    with monkeypatch.context() as broken:
        broken.setattr(service.interactions, "write", away)
        assert (await client.delete(f"{url}/bought/stop/d1h0", headers=me.headers)).status_code == 503
    assert known() == 1
    assert (await client.delete(f"{url}/bought/stop/d1h0", headers=me.headers)).json() == {"removed": True}
    assert known() == 0
