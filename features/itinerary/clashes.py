"""Which must-haves cannot be had together: a smallest set, of which any one, left out, gives routes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.itinerary.search import Routes


def clashing(routes: Routes) -> tuple[int, ...]:
    """Rows of must-haves (and bought stops) that no route under the other wishes holds all of, ascending, while without any one of them
    there is a route that holds the rest: one such set, found by leaving out what need not be there (deletion filter; Chinneck and Dravnieks
    1991). Empty where the must-haves are not what prevents a route."""
    if not routes.narrowed.required or not _exist(routes, ()):
        return ()
    kept = list(routes.narrowed.required)
    for row in routes.narrowed.required:
        less = [other for other in kept if other != row]
        if not _exist(routes, less):
            kept = less
    return tuple(kept)


def _exist(routes: Routes, rows: list[int] | tuple[int, ...]) -> bool:
    """Whether there are routes that hold these of the must-haves, under all other wishes."""
    names = {routes.timetable.stops[row].id for row in rows}
    wishes = replace(
        routes.wishes,
        must=tuple(name for name in routes.wishes.must if name in names),
        bought=tuple(name for name in routes.wishes.bought if name in names),
    )
    return routes.under(wishes).exist
