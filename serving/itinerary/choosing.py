"""What people say of stops: kept as said, and told to the engine as events of the domain's own kinds, so that scores follow.

bought is told as the kind that means owned, favourite and yes as one that means liked, no as one that means disliked; where the YAML has
no such kind, the engine learns nothing of it. What is taken back is told as undo. Both are written in one transaction: a gateway that is
killed leaves no choice of which the engine never hears.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from configs.domain import Domain
from features.itinerary.chains import clashing
from features.state import Means, UserState
from serving.itinerary.current import Current
from serving.storage.choices import Choice, Choices, Chosen, Said
from serving.storage.database import now_us
from serving.storage.interactions import Interactions
from serving.storage.tables import StoredEvent

_MEANING = {"bought": "owned", "favourite": "liked", "yes": "liked", "no": "disliked"}

Recorded = Callable[[str, Sequence[StoredEvent]], None]


@dataclass(frozen=True)
class Chosens:
    """A person's choices by stop: ids of the timetable that is in service. `bought` counts in what events say; `routes`: favourites."""

    favourites: frozenset[str] = frozenset()
    bought: frozenset[str] = frozenset()
    yes: frozenset[str] = frozenset()
    no: frozenset[str] = frozenset()
    routes: tuple[str, ...] = ()


class Choosing:
    """`recorded`: what follows from events, once they are committed (serving/service.py). Each call raises DatabaseAwayError."""

    def __init__(self, stored: Choices, interactions: Interactions, recorded: Recorded) -> None:
        self.stored, self._interactions, self._recorded = stored, interactions, recorded

    async def add(
        self, domain: Domain, user: str, choice: Choice, of: Chosen, targets: Sequence[str], times: Mapping[str, int] | None = None
    ) -> list[str]:
        """The targets that are new. `times`: when a stop was bought, microseconds UTC (left out: now). Raises TooManyError."""
        kind = _kind(domain, _MEANING[choice])
        written: list[StoredEvent] = []

        async def tell(connection: AsyncConnection, new: list[str]) -> None:
            now = now_us()
            events = [_event(user, target, kind or "", (times or {}).get(target, now)) for target in new]
            written.extend(await self._interactions.write(connection, domain.name, events))

        told = of == "stop" and kind is not None
        new = await self.stored.add(domain.name, user, choice, of, targets, tell if told else None)
        self._recorded(domain.name, written)
        return new

    async def remove(self, domain: Domain, user: str, choice: Choice, of: Chosen, target: str) -> bool:
        """False where there was none."""
        undo = _kind(domain, "undo")
        written: list[StoredEvent] = []

        async def tell(connection: AsyncConnection, left: list[str]) -> None:
            # an undo takes back the latest word on the item: all are taken back, and those that still hold are said again
            kinds = [kind for name in left if (kind := _kind(domain, _MEANING[name])) is not None]
            now = now_us()
            events = [_event(user, target, undo or "", now + place) for place in range(len(kinds) + 1)]
            events += [_event(user, target, kind, now + len(events) + place) for place, kind in enumerate(kinds)]
            written.extend(await self._interactions.write(connection, domain.name, events))

        told = of == "stop" and undo is not None and _kind(domain, _MEANING[choice]) is not None
        removed = await self.stored.remove(domain.name, user, choice, of, target, tell if told else None)
        self._recorded(domain.name, written)
        return removed


def _kind(domain: Domain, meaning: str) -> str | None:
    return next((name for name, kind in domain.events.kinds.items() if meaning in kind.means), None)


def _event(user: str, item: str, kind: str, time: int) -> StoredEvent:
    return StoredEvent(f"choice-{secrets.token_hex(16)}", user, item, kind, None, time)


def chosen(current: Current, said: Sequence[Said], owned: Sequence[str]) -> Chosens:
    """`owned`: items that the person has by what events say. What is not in the timetable any more is left out; who has a ticket has not
    said no."""
    there = current.timetable.rows

    def of(choice: str) -> set[str]:
        return {one.target for one in said if one.choice == choice and one.of == "stop" and one.target in there}

    bought = of("bought") | {item for item in owned if item in there}
    routes = tuple(one.target for one in said if (one.choice, one.of) == ("favourite", "route"))
    return Chosens(frozenset(of("favourite")), frozenset(bought), frozenset(of("yes")), frozenset(of("no") - bought), routes)


def owned(state: UserState | None, id_of: Callable[[int], str]) -> list[str]:
    """Items that a person bought, by the events that stand."""
    if state is None or not len(state):
        return []
    rows = state.folded.items[(state.folded.meanings & Means.OWNED) != 0]
    return [id_of(int(row)) for row in rows]


def clashes(current: Current, stops: Sequence[str]) -> list[tuple[str, str]]:
    """Neighbours in time, among stops of a day, of which one person cannot have both."""
    timetable = current.timetable
    rows = sorted({timetable.rows[name] for name in stops if name in timetable.rows})
    return [(timetable.stops[one].id, timetable.stops[other].id) for one, other in clashing(timetable, rows)]
