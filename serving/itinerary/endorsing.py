"""How a route agrees with the experts: the concerts that they recommend, and the routes that they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from features.itinerary.routes import read_id
from serving.itinerary.current import RECOMMENDED, Current

_SHOWN = 5


def endorsement(current: Current, rows: Sequence[int], name: str) -> dict[str, Any]:
    """`share`: of the route's concerts that bear the label; `routes`: recommended ones that share stops with it, `likeness` = common stops
    by those of both together (Jaccard), most alike first; `agreement`: the larger of `share` and the best likeness, 1 for a route that is
    recommended itself."""
    stops = current.timetable.stops
    concerts = [row for row in rows if not stops[row].optional]
    marked = [stops[row].id for row in concerts if RECOMMENDED in stops[row].labels]
    mine = {stops[row].id for row in rows}
    alike = []
    for target in sorted(current.targets("route")):
        version, ids = read_id(target)
        both = mine & set(ids)
        if version == current.timetable.version and both:
            likeness = len(both) / len(mine | set(ids))
            alike.append({"route_id": target, "likeness": round(likeness, 4), "common": sorted(both)})
    alike.sort(key=lambda one: (-one["likeness"], one["route_id"]))  # type: ignore[operator]
    share = len(marked) / len(concerts) if concerts else 0.0
    recommended = name in current.targets("route")
    best = max([share, *(float(one["likeness"]) for one in alike)])  # type: ignore[arg-type]
    return {
        "recommended": recommended,
        "share": round(share, 4),
        "concerts": marked,
        "routes": alike[:_SHOWN],
        "agreement": 1.0 if recommended else round(best, 4),
    }
