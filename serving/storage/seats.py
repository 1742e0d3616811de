"""What changes of a timetable while it is served: free seats, what is on sale, and the labels that administrators set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import sqlalchemy as sa

from serving.storage.bell import Bell
from serving.storage.database import Database, now_us

#: What a label may be put on.
Labelled = Literal["stop", "artist", "composer", "work", "route"]
LABELLED: tuple[Labelled, ...] = get_args(Labelled)
UNKNOWN = -1  # stands for a number of free seats that nobody said

_ROWS = 500  # of one statement


@dataclass(frozen=True, slots=True)
class Seat:
    """`free`: seats, UNKNOWN where nobody said; `updated`: microseconds UTC."""

    item: str
    free: int
    on_sale: bool
    updated: int


@dataclass(frozen=True, slots=True)
class Label:
    """`present`: False where it was taken back; `updated`: microseconds UTC."""

    of: str
    target: str
    label: str
    present: bool
    updated: int


class Seats:
    """Each call raises DatabaseAwayError. `home`: whose other processes are told at once of what is written."""

    def __init__(self, database: Database, home: Path) -> None:
        self._database, self._home = database, home
        self._seats, self._labels = database.tables.availability, database.tables.labels

    async def put_free(self, domain: str, free: Mapping[str, int]) -> list[Seat]:
        """Says anew how many seats are free, by stop; what is on sale stays as it is. The rows as they are now."""
        return await self._put(domain, list(free), {item: {"free": count} for item, count in free.items()})

    async def put_on_sale(self, domain: str, items: Sequence[str], on_sale: bool) -> list[Seat]:
        """Takes stops off sale or puts them back; their free seats stay as they are. The rows as they are now."""
        return await self._put(domain, items, {item: {"on_sale": on_sale} for item in items})

    async def _put(self, domain: str, items: Sequence[str], said: Mapping[str, Mapping[str, object]]) -> list[Seat]:
        """`said`: the same columns of each item."""
        if not items:
            return []
        columns = self._seats.c
        once = sorted(set(items))  # in one order, so that two transactions never wait for each other
        written: list[Seat] = []
        async with self._database.writing() as connection:
            stamp = now_us()
            for first in range(0, len(once), _ROWS):
                part = once[first : first + _ROWS]
                rows = [{"domain": domain, "item": item, "free": UNKNOWN, "on_sale": True, **said[item], "updated": stamp} for item in part]
                statement = self._database.insert(self._seats).values(rows)
                anew = {name: statement.excluded[name] for name in (*said[part[0]], "updated")}
                done = statement.on_conflict_do_update(index_elements=["domain", "item"], set_=anew).returning(
                    columns.item, columns.free, columns.on_sale, columns.updated
                )
                written += [Seat(*row) for row in (await connection.execute(done)).all()]
        written.sort(key=lambda seat: seat.item)
        self.bell(domain).ring()
        return written

    def bell(self, domain: str) -> Bell:
        """It rings whenever something of a domain was written."""
        return Bell(self._home, domain)

    async def since(self, domain: str, since: int) -> list[Seat]:
        """Rows with updated >= since."""
        columns = self._seats.c
        query = sa.select(columns.item, columns.free, columns.on_sale, columns.updated)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.where(columns.domain == domain, columns.updated >= since))).all()
        return [Seat(*row) for row in rows]

    # ------------------------------------------------------------ labels

    async def put_label(self, domain: str, of: Labelled, target: str, label: str, present: bool) -> Label:
        """Puts a label or takes it back; saying so twice is as saying it once."""
        async with self._database.writing() as connection:
            stamp = now_us()
            said = {"present": present, "updated": stamp}
            statement = self._database.insert(self._labels).values(domain=domain, of=of, target=target, label=label, **said)
            await connection.execute(statement.on_conflict_do_update(index_elements=["domain", "of", "target", "label"], set_=said))
        self.bell(domain).ring()
        return Label(of, target, label, present, stamp)

    async def labels_since(self, domain: str, since: int) -> list[Label]:
        """Rows with updated >= since, those that were taken back too."""
        columns = self._labels.c
        query = sa.select(columns.of, columns.target, columns.label, columns.present, columns.updated)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.where(columns.domain == domain, columns.updated >= since))).all()
        return [Label(*row) for row in rows]
