"""All routes under all wishes as the paths of one acyclic graph, whose vertices are stops together with what was used of each limit.

A path runs from the first gate through the days to the last: gate 0, stops of day 0, gate 1, stops of day 1, ... A vertex is (place,
tokens, money, used): `place` numbers gates and stops in the order of time, `tokens` are bits that were met on the way (programmes, or
composers whose second concert counts for less), `money` is what was spent, `used` packs what matters within a day (concerts, minutes
walked and waited, whether the meal was had) with the bits of what every route must have met. The graph is deterministic: from a vertex at
most one edge leads to each place, so paths and routes are the same thing, and the best ones are found by passes over it. Days meet in the
gates only, so it grows with the sum of the days and not with their product. Questions that need no weights need no graph (counting.py).

Only what can still matter is kept in a vertex: of a limit that can no longer bind all amounts are one, a token that can not be met again is
dropped. Where only the best are asked for, a vertex from which no path can weigh enough is left out too (completion.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.itinerary.ahead import ahead
from features.itinerary.completion import Completion, nothing_known
from features.itinerary.expansion import FULL, TOO_MANY, fresh, grown, rehashed, spread
from features.itinerary.hops import I32, I64, Hops
from features.itinerary.limits import FREE, Limits, Weights

#: As a threshold: every path is heavy enough.
ANY = -(2**62)
_EDGES_A_VERTEX = 16


class TooManyStatesError(ValueError):
    """The wishes together need more vertices than are allowed."""


@dataclass(frozen=True, eq=False)
class Graph:
    """place: (vertices,) int32, ascending along `order`, which is topological; edges of vertex v: first[v] .. first[v] + edges[v],
    ascending by the place of `target`; vertex 0 is the first gate, `sink` the last (-1 if no path ends). stop_of: (places,) int32,
    -1 for gates. whole: whether every path is in it, and not the heavy ones alone."""

    place: I32
    order: I32
    first: I64
    edges: I32
    target: I32
    weight: I64
    sink: int
    stop_of: I32
    whole: bool = True


def build(
    pointer: I64,
    hops: Hops,
    limits: Limits,
    weights: Weights,
    most_vertices: int,
    completion: Completion | None = None,
    threshold: int = ANY,
) -> Graph:
    """The graph. With a completion at least all paths that weigh `threshold` or more are in it. Raises TooManyStatesError beyond
    `most_vertices` vertices, or 16 times as many edges."""
    stops, days = len(limits.price), len(pointer) - 1
    stop_of = np.full(stops + days + 1, -1, dtype=np.int32)
    for day in range(days):
        stop_of[pointer[day] + day + 1 : pointer[day + 1] + day + 1] = np.arange(pointer[day], pointer[day + 1], dtype=np.int32)
    if completion is None:
        completion, threshold = nothing_known(stops, days), ANY
    else:
        threshold = max(ANY, threshold << completion.shift)
    coming = ahead(pointer, hops, limits)
    vertices, slots, at = fresh(stops + days + 1)
    while True:
        state = spread(at, pointer, hops, limits, weights, coming, completion, threshold, vertices, slots, most_vertices)
        many, edges, done, sink, pruned, new = (int(one) for one in at[2:8])
        if state == TOO_MANY or edges + (new if state == FULL else 0) > _EDGES_A_VERTEX * most_vertices:
            raise TooManyStatesError(too_many(limits, f"{most_vertices:,} states"))
        if state != FULL:
            break
        vertices = grown(vertices, many + min(new, most_vertices + 1 - many), edges + new, done + new)
        slots = rehashed(vertices, many, len(slots))
    return Graph(
        vertices.place[:many],
        vertices.order[:done],
        vertices.first[:many],
        vertices.edges[:many],
        vertices.target[:edges],
        vertices.weight[:edges],
        sink,
        stop_of,
        not pruned,
    )


def too_many(limits: Limits, more_than: str) -> str:
    """What is said where the wishes together need more than that."""
    binding = {
        "price_limit": limits.money < FREE,
        "walking_a_day": limits.walk < FREE,
        "waiting_a_day": limits.wait < FREE,
        "most": limits.most < FREE,
        "fewest": limits.fewest > 1,
        "no_programme_twice": bool(limits.forbids.any()),
        "meal": limits.meal,
    }
    names = [name for name, there in binding.items() if there]
    said = f"leave out or widen one of {', '.join(names)}" if names else "name fewer days"
    return f"these wishes together need more than {more_than}: {said}"
