"""Which paths of a graph are the heaviest, and in which order.

They come by Lawler's deviations (Lawler 1972, in the form for acyclic graphs: a path is the one it deviates from, where, and to which
next-best edge), each one as it is asked for; equally heavy ones in the order of their places, so that the order is one and only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.itinerary.graph import Graph
from features.itinerary.hops import I32, I64, U8

U64 = NDArray[np.uint64]

#: The weight of what leads nowhere.
DEAD = -(2**62)


def heaviest(graph: Graph, without: int = -1) -> tuple[I64, I64]:
    """(vertices,) int64: the weight of the heaviest path from each vertex to the end (DEAD if there is none) and its first edge;
    `without`: a place that may not be on it."""
    return _heaviest(graph.order, graph.first, graph.edges, graph.target, graph.weight, graph.place, graph.sink, without)


def reweighed(graph: Graph, more: I64) -> Graph:
    """The same graph with `more` (stops,) int64 added to the weight of each edge into a stop."""
    return replace(graph, weight=_reweighed(graph.target, graph.weight, graph.place, graph.stop_of, more))


def weight_of(graph: Graph, stops: Sequence[int]) -> int | None:
    """The weight of the path through just these stops, None if there is none."""
    vertex, place, total = 0, 0, 0
    while vertex != graph.sink:
        goal = stops[place] if place < len(stops) else -1
        begin = int(graph.first[vertex])
        those = graph.target[begin : begin + int(graph.edges[vertex])]
        at = graph.stop_of[graph.place[those]]
        fitting = np.flatnonzero(at == goal) if goal >= 0 else np.empty(0, dtype=np.int64)
        if not len(fitting):
            fitting = np.flatnonzero(at < 0)  # a gate: the day is over
            if not len(fitting):
                return None
        else:
            place += 1
        total += int(graph.weight[begin + int(fitting[0])])
        vertex = int(those[fitting[0]])
    return total if place == len(stops) else None


def follow(graph: Graph, best_edge: I64) -> list[int]:
    """The stops on the heaviest path."""
    out, vertex = [], 0
    while vertex != graph.sink:
        vertex = int(graph.target[best_edge[vertex]])
        stop = int(graph.stop_of[graph.place[vertex]])
        if stop >= 0:
            out.append(stop)
    return out


@dataclass
class Ranking:
    """The paths of a graph, heaviest first, as many as are asked for."""

    graph: Graph

    def __post_init__(self) -> None:
        graph = self.graph
        self.exhausted = graph.sink < 0 or not len(graph.order)
        if self.exhausted:
            return
        self._best, self._edge = heaviest(graph)
        self.exhausted = self._best[0] <= DEAD // 2
        if self.exhausted:
            return
        self.longest = int(_steps(graph.order, graph.first, graph.edges, graph.target)) + 1
        self._sorted = np.zeros(len(graph.first), dtype=np.uint8)
        self._perm = np.empty(len(graph.target), dtype=np.int64)
        self._heap = np.zeros(1, dtype=np.int64)
        self._candidates = np.zeros((4, 1), dtype=np.int64)  # score, parent, where it deviates, rank of the edge there
        self._candidates[0, 0] = self._best[0]
        self._paths = np.zeros((1, self.longest), dtype=np.int32)
        self._weights = np.zeros((1, self.longest), dtype=np.int64)
        self._lengths = np.ones(1, dtype=np.int32)
        self._sizes = np.array([1, 1, 1], dtype=np.int64)  # heap, candidates, paths (row 0 is the root alone)

    def more(self, wanted: int) -> tuple[I32, I64]:
        """The next `wanted` paths, fewer at the end: (n, longest) int32 stops padded with -1, and (n,) int64 weights."""
        if self.exhausted:
            return np.empty((0, 0), dtype=np.int32), np.empty(0, dtype=np.int64)
        graph, before = self.graph, int(self._sizes[2])
        made = _popped(
            wanted,
            graph.first,
            graph.edges,
            graph.target,
            graph.weight,
            graph.place,
            graph.sink,
            self._best,
            self._edge,
            self._sorted,
            self._perm,
            self._heap,
            self._candidates,
            self._paths,
            self._weights,
            self._lengths,
            self._sizes,
        )
        self._heap, self._candidates, self._paths, self._weights, self._lengths, scores = made
        self.exhausted = self._sizes[0] == 0
        stops = _stops_of(self._paths[before : before + len(scores)], self._lengths[before:], graph.place, graph.stop_of)
        return stops, scores

    @property
    def next_weight(self) -> int:
        """No path that is still to come is heavier; DEAD if there is none."""
        return DEAD if self.exhausted else int(self._candidates[0, self._heap[0]])


# ------------------------------------------------------------------ compiled


@compiled
def _reweighed(target: I32, weight: I64, place: I32, stop_of: I32, more: I64) -> I64:
    out = weight.copy()
    for e in range(len(target)):
        stop = stop_of[place[target[e]]]
        if stop >= 0:
            out[e] += more[stop]
    return out


@compiled
def _steps(order: I32, first: I64, edges: I32, target: I32) -> int:
    most = np.zeros(len(first), dtype=np.int64)
    for step in range(len(order) - 1, -1, -1):
        x = order[step]
        for e in range(first[x], first[x] + edges[x]):
            most[x] = max(most[x], 1 + most[target[e]])
    return int(most[0])


@compiled
def _heaviest(order: I32, first: I64, edges: I32, target: I32, weight: I64, place: I32, sink: int, without: int) -> tuple[I64, I64]:
    best = np.full(len(first), DEAD, dtype=np.int64)
    edge = np.full(len(first), -1, dtype=np.int64)
    if sink < 0:
        return best, edge
    best[sink] = 0
    for step in range(len(order) - 1, -1, -1):
        x = order[step]
        if place[x] == without:
            continue
        for e in range(first[x], first[x] + edges[x]):
            y = target[e]
            if best[y] > DEAD and best[y] + weight[e] > best[x]:
                best[x], edge[x] = best[y] + weight[e], e
    return best, edge


@compiled
def _comes_before(
    one: int, other: int, target: I32, place: I32, sink: int, edge: I64, first: I64, perm: I64, candidates: I64, paths: I32
) -> bool:
    """Whether candidate `one` stands before `other`: heavier, or as heavy and first in the order of places."""
    if candidates[0, one] != candidates[0, other]:
        return bool(candidates[0, one] > candidates[0, other])
    a_dev, b_dev = candidates[2, one], candidates[2, other]
    a_row, b_row = candidates[1, one], candidates[1, other]
    a = np.int64(paths[a_row, 0])
    b = np.int64(paths[b_row, 0])
    step = 0
    while a != sink and b != sink:
        step += 1
        if step <= a_dev:
            a = np.int64(paths[a_row, step])
        elif step == a_dev + 1:
            a = np.int64(target[perm[first[a] + candidates[3, one]]])
        else:
            a = np.int64(target[edge[a]])
        if step <= b_dev:
            b = np.int64(paths[b_row, step])
        elif step == b_dev + 1:
            b = np.int64(target[perm[first[b] + candidates[3, other]]])
        else:
            b = np.int64(target[edge[b]])
        if place[a] != place[b]:
            return bool(place[a] < place[b])
    return False


@compiled
def _order_edges(x: int, first: I64, edges: I32, target: I32, weight: I64, best: I64, ordered: U8, perm: I64) -> None:
    """The edges of vertex x, that of the heaviest path first; those of equal weight stay in the order of places."""
    if ordered[x]:
        return
    ordered[x] = 1
    begin = first[x]
    for e in range(begin, begin + edges[x]):
        value = best[target[e]] + weight[e]
        at = e
        while at > begin and best[target[perm[at - 1]]] + weight[perm[at - 1]] < value:
            perm[at] = perm[at - 1]
            at -= 1
        perm[at] = e


@compiled
def _popped(
    wanted: int,
    first: I64,
    edges: I32,
    target: I32,
    weight: I64,
    place: I32,
    sink: int,
    best: I64,
    edge: I64,
    ordered: U8,
    perm: I64,
    heap: I64,
    candidates: I64,
    paths: I32,
    weights: I64,
    lengths: I32,
    sizes: I64,
) -> tuple[I64, I64, I32, I64, I32, I64]:
    in_heap, made, rows = sizes[0], sizes[1], sizes[2]
    scores = np.empty(wanted, dtype=np.int64)
    if rows == 1:
        _order_edges(0, first, edges, target, weight, best, ordered, perm)
    found = 0
    longest = paths.shape[1]
    if rows + wanted > len(paths):
        size = max(rows + wanted, 2 * len(paths))
        new_paths, new_weights, new_lengths = (
            np.zeros((size, longest), dtype=np.int32),
            np.zeros((size, longest), dtype=np.int64),
            np.zeros(size, dtype=np.int32),
        )
        for row in range(rows):  # one by one: to compile a copy of a table takes longer than all the rest of this file
            new_lengths[row] = lengths[row]
            for step in range(longest):
                new_paths[row, step], new_weights[row, step] = paths[row, step], weights[row, step]
        paths, weights, lengths = new_paths, new_weights, new_lengths
    while found < wanted and in_heap > 0:
        top = heap[0]
        in_heap -= 1
        if in_heap > 0:  # the last one sinks to its place
            moved, at = heap[in_heap], 0
            while True:
                child = 2 * at + 1
                if child >= in_heap:
                    break
                if child + 1 < in_heap and _comes_before(
                    heap[child + 1], heap[child], target, place, sink, edge, first, perm, candidates, paths
                ):
                    child += 1
                if not _comes_before(heap[child], moved, target, place, sink, edge, first, perm, candidates, paths):
                    break
                heap[at] = heap[child]
                at = child
            heap[at] = moved
        # ---- the path itself
        parent, dev, rank = candidates[1, top], candidates[2, top], candidates[3, top]
        row = rows
        rows += 1
        for step in range(dev + 1):
            paths[row, step], weights[row, step] = paths[parent, step], weights[parent, step]
        x, length = int(paths[row, dev]), dev + 1
        e = perm[first[x] + rank]
        while True:
            y = target[e]
            paths[row, length], weights[row, length] = y, weights[row, length - 1] + weight[e]
            length += 1
            if y == sink:
                break
            e = edge[y]
        lengths[row] = length
        scores[found] = candidates[0, top]
        found += 1
        # ---- its deviations: at the same place the next edge, at each later one the second
        for step in range(dev, length - 1):
            x = int(paths[row, step])
            _order_edges(x, first, edges, target, weight, best, ordered, perm)
            other = rank + 1 if step == dev else np.int64(1)
            if other >= edges[x]:
                continue
            e = perm[first[x] + other]
            if best[target[e]] <= DEAD:
                continue
            if made == candidates.shape[1]:
                wider = np.empty((4, 2 * made + 64), dtype=np.int64)
                for one in range(4):
                    for place_of in range(made):
                        wider[one, place_of] = candidates[one, place_of]
                candidates = wider
            candidates[0, made] = weights[row, step] + weight[e] + best[target[e]]
            candidates[1, made], candidates[2, made], candidates[3, made] = row, step, other
            if in_heap == len(heap):
                larger = np.empty(2 * in_heap + 64, dtype=np.int64)
                larger[:in_heap] = heap
                heap = larger
            at = in_heap
            in_heap += 1
            while at > 0:
                above = (at - 1) >> 1
                if not _comes_before(made, heap[above], target, place, sink, edge, first, perm, candidates, paths):
                    break
                heap[at] = heap[above]
                at = above
            heap[at] = made
            made += 1
    sizes[0], sizes[1], sizes[2] = in_heap, made, rows
    return heap, candidates, paths, weights, lengths, scores[:found].copy()


@compiled
def _stops_of(paths: I32, lengths: I32, place: I32, stop_of: I32) -> I32:
    out = np.full((paths.shape[0], paths.shape[1]), -1, dtype=np.int32)
    for row in range(paths.shape[0]):
        found = 0
        for step in range(lengths[row]):
            stop = stop_of[place[paths[row, step]]]
            if stop >= 0:
                out[row, found] = stop
                found += 1
    return out
