"""What is left of the items while they are served: the engine is told, the popular list follows, and what is gone is in no answer."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
import yaml

from configs.deployment import Deployment
from features.state import UserState
from serving.engine import Engine
from serving.slate import Question
from serving.storage.seats import UNKNOWN
from tests.serving.conftest import started, unhurried
from tests.serving.itinerary_world import SEATS, season_file, season_world
from tests.serving.small_world import MOMENT
from training import bundle


@pytest.fixture(scope="module")
def selling(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The YAML of the season whose popular source looks at what is left, and a home with its bundle in service."""
    folder = tmp_path_factory.mktemp("selling")
    path = season_file(folder)
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["candidates"]["popular"] = {"model": "popularity", "half_life_days": None, "demand": 1.0}
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    season_world(path).publish(folder / "home")
    return path, folder / "home"


@pytest.fixture
def engine(selling: tuple[Path, Path]) -> Engine:
    home = selling[1]
    version = bundle.alias(home, "season", "champion")
    assert version is not None
    return Engine(bundle.load(bundle.bundles_dir(home, "season") / version))


def popular(engine: Engine) -> list[str]:
    return [item.item for item in engine.popular(len(engine.catalogue))]


def met(recent: float, left: float) -> float:
    return float(left * -np.expm1(-recent / left))


def test_the_popular_list_is_of_what_the_bundle_knows_to_be_left(engine: Engine) -> None:
    """By hand: a hall's seats less one for each buyer; of the court nobody knows the seats."""
    takers = engine.bundle.statistics.takers
    worth = {}
    for row, item in enumerate(engine.catalogue.ids.ids(range(len(engine.catalogue)))):
        seats = SEATS[["Big", "Small", "Court"].index(str(engine.catalogue.describe(row)["hall"]))]
        count = float(takers[row])
        worth[item] = count if not seats else met(count, seats - count)
    assert popular(engine) == sorted(worth, key=lambda item: -round(worth[item], 4))


def test_the_engine_can_be_told_and_the_one_before_stays(engine: Engine) -> None:
    before = popular(engine)
    first = next(item for item in before if engine.catalogue.capacity()[engine.catalogue.row(item) or 0] > 0)
    few = engine.with_left({first: 1})
    assert popular(few)[-1] == first
    assert popular(engine) == before
    assert first not in popular(few.with_left({first: 0}))  # gone
    assert popular(few.with_left({})) == before  # what it was told before it has forgotten
    question = Question(UserState.empty(engine.kinds), len(before), MOMENT, exploration=0.0)
    assert first not in [item.item for item in few.with_left({first: 0}).recommend([question])[0].items]
    assert popular(few.with_item("new", "New", {}))[-2:] == [first, "new"]
    assert popular(few.with_left({first: 1, "nowhere": 3})) == popular(few)


async def test_a_service_follows_the_seats_that_are_stored(
    selling: tuple[Path, Path], engine: Engine, quick: Deployment, running: AsyncExitStack
) -> None:
    path, home = selling
    service, _ = await started(unhurried(home, path, quick), running)
    before = popular(service.live.standing("season").engine)
    assert before == popular(engine)
    first = next(item for item in before if engine.catalogue.capacity()[engine.catalogue.row(item) or 0] > 0)

    async def follows(free: int, wanted: list[str]) -> None:
        await service.itineraries.stored.put_free("season", {first: free})
        async with asyncio.timeout(60.0):
            while popular(service.live.standing("season").engine) != wanted:  # noqa: ASYNC110 (another task polls the database)
                await asyncio.sleep(0.05)

    await follows(1, popular(engine.with_left({first: 1})))
    await follows(0, popular(engine.with_left({first: 0})))
    await follows(UNKNOWN, before)
