"""The one walk over chains lo .. hi of a day, in the order that numbers them; what is done at each step is its caller's.

Depth first over the successors, the latest first, a concert's own chain behind all of its successors'. From `base_from` on nothing is
walked: those chains lie ready as slabs, and a step is a stretch of them. A caller keeps what it knows of the prefix, the concerts walked so
far, by depth.
"""

from __future__ import annotations

import numpy as np

from features.compiled import compiled
from features.itinerary.hops import I32, I64, U8

#: Kinds of a step. DEEPER: concert v is put behind the prefix by hop e and is its place `depth`; ALONE: the prefix of `depth` itself is the
#: next chain; SLAB: chains first .. last of the base, behind the prefix of `depth`, which begin with v by hop e; OVER: there are no more.
DEEPER, ALONE, SLAB, OVER = 0, 1, 2, 3


@compiled
def beginning(stops: int) -> tuple[I64, I64, I64]:
    """path, edge, place: where a walk over a day of so many stops stands before its first step. path[depth], edge[depth]: the concert and
    the hop to be looked at next; place: depth, number of the next chain."""
    path, edge = np.empty(stops + 1, dtype=np.int64), np.empty(stops + 1, dtype=np.int64)
    path[0], edge[0] = -1, stops - 1
    return path, edge, np.zeros(2, dtype=np.int64)


@compiled
def step(
    pointer: I64,
    to: I32,
    start: U8,
    end: U8,
    size: I64,
    base_from: int,
    base_at: I64,
    lo: int,
    hi: int,
    together: bool,
    path: I64,
    edge: I64,
    place: I64,
) -> tuple[int, int, int, int, int, int]:
    """(kind, depth, v, e, first, last), and path, edge and place stand behind it. At depth 0 there is no hop: e is v.

    together: slabs that lie side by side are one step (v and e are the first one's), for callers to whom the hop is nothing."""
    depth, at = place[0], place[1]
    while depth >= 0 and at < hi:
        c, e = path[depth], edge[depth]
        root = c < 0
        if root:
            if e < 0:
                break
            edge[depth] -= 1
            if not start[e]:
                continue
            v = e
        else:
            if e < pointer[c]:  # the successors are through: the chain that ends here, and back
                depth -= 1
                if end[c]:
                    at += 1
                    if at > lo:
                        place[0], place[1] = depth, at
                        return ALONE, depth + 1, c, e, 0, 0
                continue
            edge[depth] -= 1
            v = np.int64(to[e])
        if v < base_from:
            if at + size[v] <= lo:
                at += size[v]
                continue
            depth += 1
            path[depth], edge[depth] = v, pointer[v + 1] - 1
            place[0], place[1] = depth, at
            return DEEPER, depth, v, e, 0, 0
        first, length = base_at[v], size[v]
        while together:
            f = edge[depth]
            if root:
                if f < base_from or not start[f]:
                    break
                w = f
            else:
                if f < pointer[c]:
                    break
                w = np.int64(to[f])
                if w < base_from:
                    break
            if base_at[w] != first + length:
                break
            length += size[w]
            edge[depth] -= 1
        begin, stop = max(lo - at, 0), min(hi - at, length)
        at += length
        if stop > begin:
            place[0], place[1] = depth, at
            return SLAB, depth, v, e, first + begin, first + stop
    place[0], place[1] = -1, at
    return OVER, 0, 0, 0, 0, 0
