"""Free seats: what changed in the source is stored for every replica; what it does not say stays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import configs
from pipelines.seats import refresh
from serving.storage.bell import Bell
from serving.storage.database import Database, address
from serving.storage.seats import Seats
from tests.pipelines.programme import FILES, domain, folder, with_line
from tests.pipelines.small_run import DEPLOYMENT, SILENT


def told(home: Path, data: Path, as_of: int | None = None, dry_run: bool = False) -> dict[str, Any]:
    return refresh(domain(), data, home, DEPLOYMENT, SILENT, as_of, dry_run)


def stored(home: Path, off_sale: Sequence[str] = ()) -> dict[str, tuple[int, bool]]:
    """What stands in the database, after an administrator took stops off sale."""

    async def read() -> dict[str, tuple[int, bool]]:
        database = Database(address(home))
        try:
            seats = Seats(database, home)
            await seats.put_on_sale(domain().name, off_sale, False)
            return {seat.item: (seat.free, seat.on_sale) for seat in await seats.since(domain().name, 0)}
        finally:
            await database.close()

    return asyncio.run(read())


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    first = told(tmp_path, data)
    assert (first["known"], first["changed"], first["sold_out"], first["off_sale"], first["bad_rows"]) == (2, 2, 0, 0, 0)
    assert stored(tmp_path) == {"a": (8, True), "c": (9, True)}
    assert told(tmp_path, data)["changed"] == 0
    heard = Bell(tmp_path, domain().name).rung()
    folder(data, with_line("tickets.csv", "3,c,2025-06-01T12:00:00Z,"))
    assert told(tmp_path, data, dry_run=True)["changed"] == 1
    assert stored(tmp_path)["c"] == (9, True)
    assert told(tmp_path, data)["changed"] == 1
    assert Bell(tmp_path, domain().name).rung() == heard + 1  # a gateway that runs looks before its next answer
    assert stored(tmp_path) == {"a": (8, True), "c": (8, True)}


def test_seats_of_a_moment(tmp_path: Path) -> None:
    early = round(datetime.fromisoformat("2025-04-30T00:00:00+05:00").timestamp() * 1e6)
    said = told(tmp_path, folder(tmp_path / "data"), early)
    assert said["as_of"] == "2025-04-29T19:00:00+00:00"
    assert stored(tmp_path) == {"a": (10, True), "c": (10, True)}


def test_what_the_source_takes_off_sale_and_offers_again(tmp_path: Path) -> None:
    on, off = (FILES["concerts.csv"].replace(",programme\n", ",programme,on_sale\n", 1) for _ in range(2))
    heading, *rows = on.splitlines()
    on = "\n".join([heading, *(f"{row}," for row in rows)]) + "\n"
    off = "\n".join([heading, *(f"{row},{'no' if row.startswith('a,') else ''}" for row in rows)]) + "\n"
    data = folder(tmp_path / "data", {"concerts.csv": off})
    assert told(tmp_path, data)["off_sale"] == 1
    assert stored(tmp_path) == {"a": (8, False), "c": (9, True)}
    assert stored(tmp_path, off_sale=["c"])["c"] == (9, False)  # an administrator's word
    folder(data, {"concerts.csv": on})
    assert told(tmp_path, data)["changed"] == 1
    assert stored(tmp_path) == {"a": (8, True), "c": (9, False)}


def test_a_domain_without_a_timetable_has_no_seats(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="anime has no section `itinerary`: there are no seats to count"):
        refresh(configs.load("anime"), None, tmp_path, DEPLOYMENT, SILENT)
    assert not list(tmp_path.iterdir())
