"""The k best routes of a sum, from a graph of those states alone that can still be part of one of them.

Where limits multiply the states, most of them lie on no good route. So a threshold is set a little below the bound of completion.py, the
graph is built of what can reach it, and the threshold is lowered until k routes weigh as much: every route that weighs as much is in such a
graph, so that these are the best of all, equals in their order included.
"""

from __future__ import annotations

import numpy as np

from features.itinerary import paths
from features.itinerary.completion import bounded
from features.itinerary.graph import TooManyStatesError, build
from features.itinerary.hops import I32, I64, Hops
from features.itinerary.limits import FREE, Limits, Weights

#: Edges of a graph that did not hold enough: the next may as well be the whole. Of a whole that is too large: how many times more.
_LARGE, _EDGES_MORE = 30_000, 1_000


def heaviest(pointer: I64, hops: Hops, limits: Limits, weights: Weights, k: int, most_vertices: int) -> tuple[I32, I64]:
    """(n, longest) int32 stops padded with -1, and (n,) int64 weights, heaviest first; n < k if there are no more. Raises
    TooManyStatesError."""
    # The bound does not hold `fewest` closely, and money alone makes few states.
    worthwhile = limits.walk < FREE or limits.wait < FREE or limits.fewest <= 1
    known = bounded(pointer, hops, limits, weights) if worthwhile else None
    if known is None:
        return paths.Ranking(build(pointer, hops, limits, weights, most_vertices)).more(k)
    if known.at_most is None:
        return np.empty((0, 0), dtype=np.int32), np.empty(0, dtype=np.int64)
    place, below, large = k, 0, _LARGE
    while True:
        # As many routes as there are ways apart weigh so much in the bound; the true ones are lighter by what the bound is too large.
        place = min(place, len(known.apart))
        below = max(3 * below, int(known.apart[place - 1]) + 1 if place else 1)
        threshold = known.at_most - below
        graph = build(pointer, hops, limits, weights, most_vertices, known.completion, threshold)
        stops, found = paths.Ranking(graph).more(k)
        if graph.whole or (len(found) == k and found[-1] >= threshold):
            return stops, found
        if len(graph.target) > large:
            try:
                return paths.Ranking(build(pointer, hops, limits, weights, most_vertices)).more(k)
            except TooManyStatesError:
                large = len(graph.target) * _EDGES_MORE  # the heavy ones alone may still be few enough
        place *= 3
