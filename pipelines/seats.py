"""Free seats: the source is read again, and what changed is stored where every replica of the gateway sees it, without a restart."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.deployment import Deployment
from configs.domain import Domain
from pipelines.run import sample_of
from pipelines.sources import timetable_of
from pipelines.sources.timetable import Programme
from pipelines.steps import Reporter, write_json
from serving.storage.database import Database, address
from serving.storage.seats import Seats

OFF_SALE = "off_sale.json"  # what the source said last to be off sale


def refresh(
    domain: Domain,
    data: Path | None,
    home: Path,
    deployment: Deployment,
    reporter: Reporter,
    as_of: int | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Stores the numbers that changed. What a source does not say (an unknown number, an administrator's own word on what is on sale)
    stays as it is: only a stop that the source itself took off sale, and now offers again, is put back.

    data: the source's folder, None: the sample. `as_of`: microseconds UTC, tickets sold later are not counted (None: now). Raises
    SourceError, DatabaseAwayError, ValueError for a domain without an itinerary."""
    reporter.step("seats")
    if domain.itinerary is None:
        raise ValueError(f"{domain.name} has no section `itinerary`: there are no seats to count")
    folder = data if data is not None else sample_of(domain, home, reporter)
    programme = timetable_of(domain, folder, home / domain.name / "raw", as_of)
    timetable, said = programme.timetable, programme.availability
    free = {stop.id: int(said.free[row]) for row, stop in enumerate(timetable.stops) if said.free[row] >= 0}
    off = {stop.id for row, stop in enumerate(timetable.stops) if not said.on_sale[row]}
    remembered = home / domain.name / OFF_SALE
    before = set(json.loads(remembered.read_text(encoding="utf-8"))) if remembered.is_file() else set()
    written = asyncio.run(_store(home, address(home, deployment.storage.url), domain.name, free, off, before - off, dry_run))
    if not dry_run:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_json(remembered, sorted(off))
    bad = sum(len(sheet.bad) for sheet in programme.sheets)
    for line in _faults(programme):
        reporter.say(line)
    return {
        "domain": domain.name,
        "as_of": datetime.fromtimestamp(said.as_of / 1e6, UTC).isoformat(timespec="seconds"),
        "known": len(free),
        "changed": written,
        "sold_out": sum(count == 0 for count in free.values()),
        "off_sale": len(off),
        "bad_rows": bad,
        "dry_run": dry_run,
    }


async def _store(home: Path, url: str, domain: str, free: dict[str, int], off: set[str], back: set[str], dry_run: bool) -> int:
    """How many stops are other than they stood."""
    database = Database(url)
    try:
        seats = Seats(database, home)
        stands = {seat.item: seat for seat in await seats.since(domain, 0)}
        changed = {item: count for item, count in free.items() if item not in stands or stands[item].free != count}
        closed = [item for item in sorted(off) if item not in stands or stands[item].on_sale]
        opened = [item for item in sorted(back) if item in stands and not stands[item].on_sale]
        if not dry_run:
            await seats.put_free(domain, changed)
            await seats.put_on_sale(domain, closed, False)
            await seats.put_on_sale(domain, opened, True)
        return len({*changed, *closed, *opened})
    finally:
        await database.close()


def _faults(programme: Programme) -> list[str]:
    """The first bad row of each file."""
    return [
        f"{sheet.name}, line {sheet.bad[0][0]}: {sheet.bad[0][1]} ({len(sheet.bad)} bad rows)" for sheet in programme.sheets if sheet.bad
    ]
