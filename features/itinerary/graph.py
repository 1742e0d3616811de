"""All routes under all wishes as the paths of one acyclic graph, whose vertices are stops together with what was used of each limit.

A path runs from the first gate through the days to the last: gate 0, stops of day 0, gate 1, stops of day 1, ... A vertex is (place,
tokens, money, used): `place` numbers gates and stops in the order of time, `tokens` are bits that were met on the way (programmes, or
composers whose second concert counts for less), `money` is what was spent, `used` packs what matters within a day (concerts, minutes
walked and waited, whether the meal was had) with the bits of what every route must have met. The graph is deterministic: from a vertex at
most one edge leads to each place, so paths and routes are the same thing, and every question (how many, which are best, which is number n)
is one pass over it. Days meet in the gates only, so it grows with the sum of the days and not with their product.

Only what can still matter is kept in a vertex: of a limit that can no longer bind all amounts are one, a token that can not be met again is
dropped. Long, because the two passes (what can still come; which vertices there are) share one reading of the arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.itinerary.compiled import compiled
from features.itinerary.hops import I32, I64, U8, Hops

U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]

#: Larger than any amount; small enough that sums of it stay in an int64.
FREE = 2**40
_COUNT, _WALK, _WAIT, _MEAL, _NEED = 0, 11, 22, 33, 34  # where each stands in `used`


class TooManyStatesError(ValueError):
    """The wishes together need more vertices than are allowed."""


@dataclass(frozen=True, eq=False)
class Limits:
    """Amounts that add up along a route (FREE = no limit), and bits. fewest >= 1, most: concerts on a day that has any; meal: whether a
    break is needed. price, concert: (stops,) int64; tokens, forbids, needs: (stops,) uint64 bits; needed: all bits that a route must have
    met."""

    money: int
    walk: int
    wait: int
    fewest: int
    most: int
    meal: bool
    price: I64
    concert: I64
    tokens: U64
    forbids: U64
    needs: U64
    needed: int


@dataclass(frozen=True, eq=False)
class Weights:
    """What a route is worth, additive: gain of each stop, (stops,) int64; per minute of walking and waiting and per change of halls;
    by_token: (64,) int64, added where a stop shows a token for the first time."""

    gain: I64
    per_walk: int
    per_wait: int
    per_change: int
    by_token: I64


@dataclass(frozen=True, eq=False)
class Graph:
    """place: (vertices,) int32, ascending along `order`, which is topological; edges of vertex v: first[v] .. first[v] + edges[v],
    ascending by the place of `target`; vertex 0 is the first gate, `sink` the last (-1 if no path ends). stop_of: (places,) int32,
    -1 for gates."""

    place: I32
    order: I32
    first: I64
    edges: I32
    target: I32
    weight: I64
    sink: int
    stop_of: I32


def build(pointer: I64, hops: Hops, limits: Limits, weights: Weights, most_vertices: int) -> Graph:
    """The graph. Raises TooManyStatesError beyond `most_vertices` vertices, or 16 times as many edges."""
    stops, days = len(limits.price), len(pointer) - 1
    stop_of = np.full(stops + days + 1, -1, dtype=np.int32)
    for day in range(days):
        stop_of[pointer[day] + day + 1 : pointer[day + 1] + day + 1] = np.arange(pointer[day], pointer[day + 1], dtype=np.int32)
    made = _expanded(
        pointer,
        hops.pointer,
        hops.to,
        hops.walk,
        hops.wait,
        hops.change,
        hops.meal,
        hops.start,
        hops.end,
        hops.start_meal,
        hops.end_meal,
        hops.skip,
        limits.price,
        limits.concert,
        limits.tokens,
        limits.forbids,
        limits.needs,
        np.uint64(limits.needed),
        limits.money,
        limits.walk,
        limits.wait,
        limits.fewest,
        limits.most,
        limits.meal,
        weights.gain,
        weights.per_walk,
        weights.per_wait,
        weights.per_change,
        weights.by_token,
        most_vertices,
    )
    place, order, first, edges, target, weight, sink = made
    if sink == -2:
        raise TooManyStatesError(
            f"these wishes together need more than {most_vertices:,} states: leave out one of price limit, walking and waiting a day, "
            "or no programme twice"
        )
    return Graph(place, order, first, edges, target, weight, sink, stop_of)


@compiled
def _grown_i32(array: I32, size: int) -> I32:
    out = np.empty(size, dtype=np.int32)
    out[: len(array)] = array
    return out


@compiled
def _grown_i64(array: I64, size: int) -> I64:
    out = np.empty(size, dtype=np.int64)
    out[: len(array)] = array
    return out


@compiled
def _grown_u64(array: U64, size: int) -> U64:
    out = np.empty(size, dtype=np.uint64)
    out[: len(array)] = array
    return out


@compiled
def _mix(place: int, tokens: np.uint64, money: int, used: np.int64) -> np.uint64:
    x = np.uint64(place) * np.uint64(0x9E3779B97F4A7C15) ^ tokens * np.uint64(0xC2B2AE3D27D4EB4F)
    x ^= (np.uint64(money) + np.uint64(0x165667B19E3779F9)) * np.uint64(0xD6E8FEB86659FD93)
    x ^= (np.uint64(used) + np.uint64(0x27D4EB2F165667C5)) * np.uint64(0xA0761D6478BD642F)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xD6E8FEB86659FD93)
    return x ^ (x >> np.uint64(29))


@compiled
def _slots(size: int, vertices: int, place: I32, tokens: U64, money: I64, used: I64) -> I32:
    """A hash table of at least `size` slots (a power of two) with the vertices in it."""
    many = 2_048
    while many < size:
        many *= 2
    slots = np.full(many, -1, dtype=np.int32)
    mask = np.uint64(many - 1)
    for y in range(vertices):
        slot = _mix(place[y], tokens[y], money[y], used[y]) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = y
    return slots


@compiled
def _spread(
    x: int,
    u: int,
    day: int,
    is_gate: bool,
    vertices: int,
    edges: int,
    done: int,
    order: I32,
    first_edge: I64,
    day_pointer: I64,
    pointer: I64,
    to: I32,
    walk: I32,
    wait: I32,
    change: U8,
    meal: U8,
    start: U8,
    end: U8,
    start_meal: U8,
    end_meal: U8,
    skip: U8,
    price: I64,
    concert: I64,
    tokens: U64,
    forbids: U64,
    needs: U64,
    needed: np.uint64,
    most_money: int,
    most_walk: int,
    most_wait: int,
    fewest: int,
    most: int,
    meal_needed: bool,
    gain: I64,
    per_walk: int,
    per_wait: int,
    per_change: int,
    by_token: I64,
    live: U8,
    low_count: I64,
    high_count: I64,
    low_walk: I64,
    high_walk: I64,
    low_wait: I64,
    high_wait: I64,
    low_money: I64,
    high_money: I64,
    come_tokens: U64,
    come_needs: U64,
    gate_live: U8,
    gate_low: I64,
    gate_high: I64,
    gate_tokens: U64,
    gate_needs: U64,
    vertex_place: I32,
    vertex_tokens: U64,
    vertex_money: I64,
    vertex_used: I64,
    next_there: I32,
    edge_count: I32,
    target: I32,
    weight: I64,
    slots: I32,
    head: I32,
    tail: I32,
    most_vertices: int,
) -> tuple[int, int, int]:
    """The edges of the vertices of a place (x is the first of them), and the vertices they lead to where these are new.

    Returns how many there are now of vertices, of edges, and of vertices that are done."""
    days = len(day_pointer) - 1
    mask = np.uint64(len(slots) - 1)
    meal_bit, low_mask = np.int64(1) << _MEAL, np.int64(2_047)
    while x >= 0:
        order[done] = x
        done += 1
        first_edge[x], edge_count[x] = edges, 0
        used, held, spent = vertex_used[x], vertex_tokens[x], vertex_money[x]
        met = np.uint64(used >> _NEED)
        count, walked = used & low_mask, (used >> _WALK) & low_mask
        waited, eaten = (used >> _WAIT) & low_mask, used & meal_bit
        begin = day_pointer[day] if is_gate else pointer[u]
        stop_at = day_pointer[day + 1] if is_gate else pointer[u + 1]
        for e in range(begin, stop_at + 1):
            worth = np.int64(0)
            if e == stop_at:  # to the next gate, last
                if is_gate:
                    if not skip[day] or not gate_live[day + 1]:
                        continue
                else:
                    if not end[u] or not gate_live[day + 1] or count < fewest:
                        continue
                    if meal_needed and not eaten and not end_meal[u]:
                        continue
                if spent + gate_low[day + 1] > most_money or ((met | gate_needs[day + 1]) & needed) != needed:
                    continue
                new_place = day_pointer[day + 1] + day + 1
                new_money = max(spent, most_money - gate_high[day + 1]) if most_money < FREE else 0
                new_tokens = held & gate_tokens[day + 1]
                new_used = np.int64(met) << _NEED
                if day + 1 == days:
                    new_money, new_used = 0, np.int64(0)
            else:
                v = e if is_gate else np.int64(to[e])
                if not live[v] or (is_gate and not start[v]) or (forbids[v] & held):
                    continue
                new_count = count + concert[v]
                new_walk, new_wait, new_eaten = walked, waited, eaten
                worth = gain[v]
                if is_gate:
                    if start_meal[v]:
                        new_eaten = meal_bit
                else:
                    new_walk += walk[e]
                    new_wait += wait[e]
                    if meal[e]:
                        new_eaten = meal_bit
                    worth += per_walk * walk[e] + per_wait * wait[e] + per_change * change[e]
                if new_count + low_count[v] > most or new_count + high_count[v] < fewest:
                    continue
                if new_walk + low_walk[v] > most_walk or new_wait + low_wait[v] > most_wait:
                    continue
                new_money = spent + price[v]
                if new_money + low_money[v] > most_money:
                    continue
                new_met = met | needs[v]
                if ((new_met | come_needs[v]) & needed) != needed:
                    continue
                fresh = tokens[v] & ~held
                bit = 0
                while fresh:
                    if fresh & np.uint64(1):
                        worth += by_token[bit]
                    fresh >>= np.uint64(1)
                    bit += 1
                new_tokens = (held | tokens[v]) & come_tokens[v]
                # Of a limit that can no longer bind every amount is the same.
                if new_count >= fewest:
                    new_count = max(new_count, most - high_count[v]) if most < FREE else fewest
                new_walk = max(new_walk, most_walk - high_walk[v]) if most_walk < FREE else 0
                new_wait = max(new_wait, most_wait - high_wait[v]) if most_wait < FREE else 0
                new_money = max(new_money, most_money - high_money[v]) if most_money < FREE else 0
                if not meal_needed:
                    new_eaten = np.int64(0)
                new_used = new_count | (new_walk << _WALK) | (new_wait << _WAIT) | new_eaten | (np.int64(new_met) << _NEED)
                new_place = v + day + 1
            # ---- the vertex of that state, new or known
            slot = _mix(new_place, new_tokens, new_money, new_used) & mask
            y = slots[slot]
            while y >= 0 and not (
                vertex_place[y] == new_place
                and vertex_tokens[y] == new_tokens
                and vertex_money[y] == new_money
                and vertex_used[y] == new_used
            ):
                slot = (slot + np.uint64(1)) & mask
                y = slots[slot]
            if y < 0:
                if vertices == most_vertices:
                    return vertices + 1, edges, done
                y = vertices
                slots[slot] = y
                vertex_place[y], vertex_tokens[y], vertex_money[y], vertex_used[y] = new_place, new_tokens, new_money, new_used
                next_there[y] = -1
                if tail[new_place] >= 0:
                    next_there[tail[new_place]] = y
                else:
                    head[new_place] = y
                tail[new_place] = y
                vertices += 1
            target[edges], weight[edges] = y, worth
            edges += 1
            edge_count[x] += 1
        x = next_there[x]
    return vertices, edges, done


@compiled
def _expanded(
    day_pointer: I64,
    pointer: I64,
    to: I32,
    walk: I32,
    wait: I32,
    change: U8,
    meal: U8,
    start: U8,
    end: U8,
    start_meal: U8,
    end_meal: U8,
    skip: U8,
    price: I64,
    concert: I64,
    tokens: U64,
    forbids: U64,
    needs: U64,
    needed: np.uint64,
    most_money: int,
    most_walk: int,
    most_wait: int,
    fewest: int,
    most: int,
    meal_needed: bool,
    gain: I64,
    per_walk: int,
    per_wait: int,
    per_change: int,
    by_token: I64,
    most_vertices: int,
) -> tuple[I32, I32, I64, I32, I32, I64, int]:
    stops, days = len(price), len(day_pointer) - 1
    # ---- what can still come after each stop and each gate
    live = np.zeros(stops, dtype=np.uint8)
    low_count, high_count = np.zeros(stops, dtype=np.int64), np.zeros(stops, dtype=np.int64)
    low_walk, high_walk = np.zeros(stops, dtype=np.int64), np.zeros(stops, dtype=np.int64)
    low_wait, high_wait = np.zeros(stops, dtype=np.int64), np.zeros(stops, dtype=np.int64)
    low_money, high_money = np.zeros(stops, dtype=np.int64), np.zeros(stops, dtype=np.int64)
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
                    low_money[u], high_money[u] = gate_low[d + 1], gate_high[d + 1]
                    come_tokens[u], come_needs[u] = gate_tokens[d + 1], gate_needs[d + 1]
                for e in range(pointer[u], pointer[u + 1]):
                    v = to[e]
                    if not live[v]:
                        continue
                    counts, walks, waits = concert[v], np.int64(walk[e]), np.int64(wait[e])
                    if not live[u]:
                        live[u] = 1
                        low_count[u], low_walk[u], low_wait[u], low_money[u] = FREE, FREE, FREE, FREE
                    low_count[u] = min(low_count[u], counts + low_count[v])
                    high_count[u] = max(high_count[u], counts + high_count[v])
                    low_walk[u] = min(low_walk[u], walks + low_walk[v])
                    high_walk[u] = max(high_walk[u], walks + high_walk[v])
                    low_wait[u] = min(low_wait[u], waits + low_wait[v])
                    high_wait[u] = max(high_wait[u], waits + high_wait[v])
                    low_money[u] = min(low_money[u], price[v] + low_money[v])
                    high_money[u] = max(high_money[u], price[v] + high_money[v])
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
                least = min(least, price[v] + low_money[v])
                gate_high[d] = max(gate_high[d], price[v] + high_money[v])
                gate_tokens[d] |= tokens[v] | come_tokens[v]
                gate_needs[d] |= needs[v] | come_needs[v]
        gate_low[d] = least
    # ---- the vertices, place by place
    room, edge_room = 512, 4_096
    vertex_place = np.empty(room, dtype=np.int32)
    vertex_tokens = np.empty(room, dtype=np.uint64)
    vertex_money = np.empty(room, dtype=np.int64)
    vertex_used = np.empty(room, dtype=np.int64)
    next_there = np.empty(room, dtype=np.int32)
    first_edge = np.zeros(room, dtype=np.int64)
    edge_count = np.zeros(room, dtype=np.int32)
    target = np.empty(edge_room, dtype=np.int32)
    weight = np.empty(edge_room, dtype=np.int64)
    slots = np.full(2_048, -1, dtype=np.int32)
    places = stops + days + 1
    head = np.full(places, -1, dtype=np.int32)
    tail = np.full(places, -1, dtype=np.int32)
    order = np.empty(room, dtype=np.int32)
    vertices, edges, done, sink = 0, 0, 0, -1
    if gate_live[0] and gate_low[0] <= most_money and (gate_needs[0] & needed) == needed:
        vertex_place[0], vertex_tokens[0], vertex_used[0] = 0, np.uint64(0), 0
        vertex_money[0] = max(0, most_money - gate_high[0]) if most_money < FREE else 0
        next_there[0] = -1
        head[0], tail[0] = 0, 0
        vertices = 1
    day, gate_place = 0, 0
    for place in range(places):
        is_gate = place == gate_place
        if is_gate and place > 0:
            day += 1
        u = place - day - 1  # the stop, where it is not a gate
        if is_gate:
            gate_place = day_pointer[day + 1] + day + 1 if day < days else -1
        there, x = 0, head[place]
        while x >= 0:
            there += 1
            if is_gate and day == days:
                sink = x
            x = next_there[x]
        if done + there > len(order):
            order = _grown_i32(order, 2 * (done + there))
        if is_gate and day == days:  # the last gate, of one state
            if there:
                order[done], first_edge[sink], edge_count[sink] = sink, edges, 0
                done += 1
            continue
        # Room for all that the vertices of a place can add, so that nothing moves while they are spread: arrays that are bound anew in
        # the loop over edges would be counted as references there, which costs more than the loop.
        most_new = there * (1 + (day_pointer[day + 1] - day_pointer[day] if is_gate else pointer[u + 1] - pointer[u]))
        if edges + most_new > 16 * most_vertices:
            return vertex_place, order, first_edge, edge_count, target, weight, -2
        if edges + most_new > len(target):
            target, weight = _grown_i32(target, 2 * (edges + most_new)), _grown_i64(weight, 2 * (edges + most_new))
        most_new = min(most_new, most_vertices + 1 - vertices)
        if vertices + most_new > room:
            room = 2 * (room + most_new)
            vertex_place, vertex_tokens = _grown_i32(vertex_place, room), _grown_u64(vertex_tokens, room)
            vertex_money, vertex_used = _grown_i64(vertex_money, room), _grown_i64(vertex_used, room)
            next_there, edge_count = _grown_i32(next_there, room), _grown_i32(edge_count, room)
            first_edge = _grown_i64(first_edge, room)
        if 2 * (vertices + most_new) >= len(slots):
            slots = _slots(4 * (vertices + most_new), vertices, vertex_place, vertex_tokens, vertex_money, vertex_used)
        vertices, edges, done = _spread(
            head[place],
            u,
            day,
            is_gate,
            vertices,
            edges,
            done,
            order,
            first_edge,
            day_pointer,
            pointer,
            to,
            walk,
            wait,
            change,
            meal,
            start,
            end,
            start_meal,
            end_meal,
            skip,
            price,
            concert,
            tokens,
            forbids,
            needs,
            needed,
            most_money,
            most_walk,
            most_wait,
            fewest,
            most,
            meal_needed,
            gain,
            per_walk,
            per_wait,
            per_change,
            by_token,
            live,
            low_count,
            high_count,
            low_walk,
            high_walk,
            low_wait,
            high_wait,
            low_money,
            high_money,
            come_tokens,
            come_needs,
            gate_live,
            gate_low,
            gate_high,
            gate_tokens,
            gate_needs,
            vertex_place,
            vertex_tokens,
            vertex_money,
            vertex_used,
            next_there,
            edge_count,
            target,
            weight,
            slots,
            head,
            tail,
            most_vertices,
        )
        if vertices > most_vertices:
            return vertex_place, order, first_edge, edge_count, target, weight, -2
    return (
        vertex_place[:vertices].copy(),
        order[:done].copy(),
        first_edge[:vertices].copy(),
        edge_count[:vertices].copy(),
        target[:edges].copy(),
        weight[:edges].copy(),
        sink,
    )
