"""What can still come after each stop and each gate: the least and the most of every limit, and which tokens and needs can be met."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from features.compiled import compiled
from features.itinerary.hops import I64, U8, Hops
from features.itinerary.limits import COUNT, FREE, MONEY, U64, WAIT, WALK, Limits


class Ahead(NamedTuple):
    """live: (stops,) whether the end can be reached; low, high: (stops, 4) int64, least and most that is still to come of COUNT, WALK and
    WAIT on the same day and of MONEY on all days; tokens, needs: (stops,) uint64 bits that can come. gate_*: the same of (days + 1) gates,
    low and high of money alone."""

    live: U8
    low: I64
    high: I64
    tokens: U64
    needs: U64
    gate_live: U8
    gate_low: I64
    gate_high: I64
    gate_tokens: U64
    gate_needs: U64


@compiled
def ahead(day_pointer: I64, hops: Hops, limits: Limits) -> Ahead:
    """day_pointer: (days + 1,) int64, the first stop of each day."""
    pointer, to, walk, wait, start, end, skip = hops.pointer, hops.to, hops.walk, hops.wait, hops.start, hops.end, hops.skip
    price, concert, tokens, needs = limits.price, limits.concert, limits.tokens, limits.needs
    stops, days = len(price), len(day_pointer) - 1
    live = np.zeros(stops, dtype=np.uint8)
    low, high = np.zeros((stops, 4), dtype=np.int64), np.zeros((stops, 4), dtype=np.int64)
    come_tokens, come_needs = np.zeros(stops, dtype=np.uint64), np.zeros(stops, dtype=np.uint64)
    gate_live = np.zeros(days + 1, dtype=np.uint8)
    gate_low, gate_high = np.zeros(days + 1, dtype=np.int64), np.zeros(days + 1, dtype=np.int64)
    gate_tokens, gate_needs = np.zeros(days + 1, dtype=np.uint64), np.zeros(days + 1, dtype=np.uint64)
    gate_live[days] = 1
    for d in range(days - 1, -1, -1):
        if gate_live[d + 1]:
            for u in range(day_pointer[d + 1] - 1, day_pointer[d] - 1, -1):
                if end[u]:
                    live[u] = 1
                    low[u, MONEY], high[u, MONEY] = gate_low[d + 1], gate_high[d + 1]
                    come_tokens[u], come_needs[u] = gate_tokens[d + 1], gate_needs[d + 1]
                for e in range(pointer[u], pointer[u + 1]):
                    v = to[e]
                    if not live[v]:
                        continue
                    if not live[u]:
                        live[u] = 1
                        for one in range(4):
                            low[u, one] = FREE
                    counts, walks, waits = concert[v], np.int64(walk[e]), np.int64(wait[e])
                    low[u, COUNT] = min(low[u, COUNT], counts + low[v, COUNT])
                    high[u, COUNT] = max(high[u, COUNT], counts + high[v, COUNT])
                    low[u, WALK] = min(low[u, WALK], walks + low[v, WALK])
                    high[u, WALK] = max(high[u, WALK], walks + high[v, WALK])
                    low[u, WAIT] = min(low[u, WAIT], waits + low[v, WAIT])
                    high[u, WAIT] = max(high[u, WAIT], waits + high[v, WAIT])
                    low[u, MONEY] = min(low[u, MONEY], price[v] + low[v, MONEY])
                    high[u, MONEY] = max(high[u, MONEY], price[v] + high[v, MONEY])
                    come_tokens[u] |= tokens[v] | come_tokens[v]
                    come_needs[u] |= needs[v] | come_needs[v]
        least = FREE
        if skip[d] and gate_live[d + 1]:
            gate_live[d] = 1
            least = gate_low[d + 1]
        gate_high[d] = gate_high[d + 1]
        gate_tokens[d], gate_needs[d] = gate_tokens[d + 1], gate_needs[d + 1]
        for v in range(day_pointer[d], day_pointer[d + 1]):
            if start[v] and live[v]:
                gate_live[d] = 1
                least = min(least, price[v] + low[v, MONEY])
                gate_high[d] = max(gate_high[d], price[v] + high[v, MONEY])
                gate_tokens[d] |= tokens[v] | come_tokens[v]
                gate_needs[d] |= needs[v] | come_needs[v]
        gate_low[d] = least
    return Ahead(live, low, high, come_tokens, come_needs, gate_live, gate_low, gate_high, gate_tokens, gate_needs)
