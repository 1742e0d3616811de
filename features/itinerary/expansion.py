"""The vertices and edges of a graph, made place by place in the order of time; see graph.py for what they are.

The compiled pass stops where an array is full and goes on where it stopped: arrays that were bound anew inside its loops would be counted
as references there, which costs more than the loops.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.itinerary.ahead import Ahead
from features.itinerary.completion import Completion
from features.itinerary.hops import I32, I64, Hops
from features.itinerary.limits import COUNT, FREE, MEAL_BIT, MONEY, NEED_BIT, U64, WAIT, WAIT_BIT, WALK, WALK_BIT, Limits, Weights

#: What `spread` says at its end.
DONE, FULL, TOO_MANY = 0, 1, 2
_VERTICES, _EDGES = 1_024, 16_384

A = TypeVar("A", bound=np.generic)


class Vertices(NamedTuple):
    """Room for vertices (place, tokens, money, used; best: the heaviest way to it; after: the next one of its place, -1 = none; first,
    edges: its edges), for edges (target, weight) and the topological order; head, tail: (places,) int32 first and last vertex there."""

    place: I32
    tokens: U64
    money: I64
    used: I64
    best: I64
    after: I32
    first: I64
    edges: I32
    order: I32
    target: I32
    weight: I64
    head: I32
    tail: I32


def fresh(places: int) -> tuple[Vertices, I32, I64]:
    """(room for the first vertices, a hash table of them, where `spread` is: place, day, vertices, edges, done, sink, pruned, new)."""
    none = np.empty(0, dtype=np.int64)
    small, whole = none.astype(np.int32), none.astype(np.uint64)
    ends = np.full(places, -1, dtype=np.int32)
    empty = Vertices(small, whole, none, none, none, small, none, small, small, small, none, ends, ends.copy())
    at = np.zeros(8, dtype=np.int64)
    at[5] = -1
    return grown(empty, _VERTICES, _EDGES, _VERTICES), np.full(4 * _VERTICES, -1, dtype=np.int32), at


def grown(vertices: Vertices, many: int, edges: int, done: int) -> Vertices:
    """The same with room for so many, and as many again where there was too little."""

    def longer(array: NDArray[A], size: int) -> NDArray[A]:
        if size <= len(array):
            return array
        out = np.empty(2 * size if len(array) else size, dtype=array.dtype)
        out[: len(array)] = array
        return out

    per_vertex = (longer(vertices.place, many), longer(vertices.tokens, many), longer(vertices.money, many), longer(vertices.used, many))
    return Vertices(
        *per_vertex,
        longer(vertices.best, many),
        longer(vertices.after, many),
        longer(vertices.first, many),
        longer(vertices.edges, many),
        longer(vertices.order, done),
        longer(vertices.target, edges),
        longer(vertices.weight, edges),
        vertices.head,
        vertices.tail,
    )


def rehashed(vertices: Vertices, many: int, before: int) -> I32:
    """A hash table for as many vertices as there is room for, with those that are there in it."""
    size = before
    while size < 2 * len(vertices.place):
        size *= 2
    slots = np.full(size, -1, dtype=np.int32)
    _hashed(vertices, many, slots)
    return slots


@compiled
def mix(place: int, tokens: np.uint64, money: int, used: np.int64) -> np.uint64:
    x = np.uint64(place) * np.uint64(0x9E3779B97F4A7C15) ^ tokens * np.uint64(0xC2B2AE3D27D4EB4F)
    x ^= (np.uint64(money) + np.uint64(0x165667B19E3779F9)) * np.uint64(0xD6E8FEB86659FD93)
    x ^= (np.uint64(used) + np.uint64(0x27D4EB2F165667C5)) * np.uint64(0xA0761D6478BD642F)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xD6E8FEB86659FD93)
    return x ^ (x >> np.uint64(29))


@compiled
def _hashed(vertices: Vertices, many: int, slots: I32) -> None:
    mask = np.uint64(len(slots) - 1)
    for y in range(many):
        slot = mix(vertices.place[y], vertices.tokens[y], vertices.money[y], vertices.used[y]) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = y


@compiled
def spread(
    at: I64,
    day_pointer: I64,
    hops: Hops,
    limits: Limits,
    weights: Weights,
    ahead: Ahead,
    completion: Completion,
    threshold: int,
    vertices: Vertices,
    slots: I32,
    most_vertices: int,
) -> int:
    """Goes on at place at[0] of day at[1]: the edges of its vertices, and the vertices they lead to where these are new.

    An edge is left out where the heaviest way to it and all that may come after weigh less than `threshold` (shifted as the completion
    is). Returns DONE, FULL where the next place may need at[7] more vertices and edges than there is room for, or TOO_MANY."""
    pointer, to, walk, wait, change, meal = hops.pointer, hops.to, hops.walk, hops.wait, hops.change, hops.meal
    start, end, start_meal, end_meal, skip, meal_needed = hops.start, hops.end, hops.start_meal, hops.end_meal, hops.skip, limits.meal
    price, concert, tokens, forbids, needs = limits.price, limits.concert, limits.tokens, limits.forbids, limits.needs
    needed, gain, by_token = np.uint64(limits.needed), weights.gain, weights.by_token
    per_walk, per_wait, per_change = weights.per_walk, weights.per_wait, weights.per_change
    most_money, most_walk, most_wait, fewest, most = limits.money, limits.walk, limits.wait, limits.fewest, limits.most
    live, low, high, come_tokens, come_needs = ahead.live, ahead.low, ahead.high, ahead.tokens, ahead.needs
    gate_live, gate_low, gate_high = ahead.gate_live, ahead.gate_low, ahead.gate_high
    gate_tokens, gate_needs = ahead.gate_tokens, ahead.gate_needs
    still, gate_still, per, shift = completion.after_stop, completion.after_gate, completion.per, completion.shift
    hungry_rows = len(still) - len(price)  # 0 where nothing is known
    level_of_wait, level_shift, whole_count = completion.of_wait, completion.level_shift, completion.whole_count
    vertex_place, vertex_tokens, vertex_money, vertex_used = vertices.place, vertices.tokens, vertices.money, vertices.used
    vertex_best, next_there, first_edge, edge_count = vertices.best, vertices.after, vertices.first, vertices.edges
    order, target, weight, head, tail = vertices.order, vertices.target, vertices.weight, vertices.head, vertices.tail
    days, places = len(day_pointer) - 1, len(head)
    mask = np.uint64(len(slots) - 1)
    meal_bit, low_mask = np.int64(1) << MEAL_BIT, np.int64(2_047)
    place, day, many, edges, done, sink, pruned = at[0], at[1], at[2], at[3], at[4], at[5], at[6]
    if place == 0 and gate_live[0] and gate_low[0] <= most_money and (gate_needs[0] & needed) == needed:
        vertex_place[0], vertex_tokens[0], vertex_used[0], vertex_best[0], next_there[0] = 0, np.uint64(0), 0, 0, -1
        vertex_money[0] = max(0, most_money - gate_high[0]) if most_money < FREE else 0
        head[0], tail[0], many = 0, 0, 1
    state, new = DONE, np.int64(0)
    while place < places:
        if day < days and place == day_pointer[day + 1] + day + 1:
            day += 1
        is_gate = place == day_pointer[day] + day
        u = place - day - 1  # the stop, where it is not a gate
        there, x = 0, head[place]
        while x >= 0:
            there += 1
            if day == days:
                sink = x
            x = next_there[x]
        if day == days:  # the last gate, of one state
            if there:
                order[done], first_edge[sink], edge_count[sink] = sink, edges, 0
                done += 1
            break
        begin = day_pointer[day] if is_gate else pointer[u]
        stop_at = day_pointer[day + 1] if is_gate else pointer[u + 1]
        new = there * (1 + stop_at - begin) + 1
        room = min(new, most_vertices + 1 - many)
        if edges + new > len(target) or many + room > len(vertex_place) or done + there >= len(order) or 2 * (many + room) >= len(slots):
            state = FULL
            break
        x = head[place]
        while x >= 0:
            order[done] = x
            done += 1
            first_edge[x], edge_count[x] = edges, 0
            used, held, spent, heavy = vertex_used[x], vertex_tokens[x], vertex_money[x], vertex_best[x]
            met = np.uint64(used >> NEED_BIT)
            count, walked = used & low_mask, (used >> WALK_BIT) & low_mask
            waited, eaten = (used >> WAIT_BIT) & low_mask, used & meal_bit
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
                    if (heavy << shift) + gate_still[day + 1] + per[days, MONEY] * (most_money - spent) < threshold:
                        pruned += 1
                        continue
                    new_place = day_pointer[day + 1] + day + 1
                    new_money = max(spent, most_money - gate_high[day + 1]) if most_money < FREE else 0
                    new_tokens = held & gate_tokens[day + 1]
                    new_used = np.int64(met) << NEED_BIT
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
                    if new_count + low[v, COUNT] > most or new_count + high[v, COUNT] < fewest:
                        continue
                    if new_walk + low[v, WALK] > most_walk or new_wait + low[v, WAIT] > most_wait:
                        continue
                    new_money = spent + price[v]
                    if new_money + low[v, MONEY] > most_money:
                        continue
                    new_met = met | needs[v]
                    if ((new_met | come_needs[v]) & needed) != needed:
                        continue
                    # Of a limit that can no longer bind every amount is the same.
                    if new_count >= fewest:
                        new_count = max(new_count, most - high[v, COUNT]) if most < FREE else fewest
                    new_walk = max(new_walk, most_walk - high[v, WALK]) if most_walk < FREE else 0
                    new_wait = max(new_wait, most_wait - high[v, WAIT]) if most_wait < FREE else 0
                    new_money = max(new_money, most_money - high[v, MONEY]) if most_money < FREE else 0
                    level = (most_wait - new_wait if level_of_wait else most_walk - new_walk) >> level_shift
                    at_most = (
                        ((heavy + worth) << shift)
                        + still[v + (hungry_rows if meal_needed and not new_eaten else 0), level]
                        + per[day, MONEY] * (most_money - new_money)
                    )
                    at_most += per[day, WALK] * (most_walk - new_walk) + per[day, WAIT] * (most_wait - new_wait)
                    at_most += whole_count[day] - per[day, COUNT] * new_count
                    if at_most < threshold:
                        pruned += 1
                        continue
                    first_shown = tokens[v] & ~held
                    bit = 0
                    while first_shown:
                        if first_shown & np.uint64(1):
                            worth += by_token[bit]
                        first_shown >>= np.uint64(1)
                        bit += 1
                    new_tokens = (held | tokens[v]) & come_tokens[v]
                    if not meal_needed:
                        new_eaten = np.int64(0)
                    new_used = new_count | (new_walk << WALK_BIT) | (new_wait << WAIT_BIT) | new_eaten | (np.int64(new_met) << NEED_BIT)
                    new_place = v + day + 1
                # ---- the vertex of that state, new or known
                slot = mix(new_place, new_tokens, new_money, new_used) & mask
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
                    if many == most_vertices:
                        return TOO_MANY
                    y = many
                    slots[slot] = y
                    vertex_place[y], vertex_tokens[y], vertex_money[y], vertex_used[y] = new_place, new_tokens, new_money, new_used
                    vertex_best[y], next_there[y] = heavy + worth, -1
                    if tail[new_place] >= 0:
                        next_there[tail[new_place]] = y
                    else:
                        head[new_place] = y
                    tail[new_place] = y
                    many += 1
                elif heavy + worth > vertex_best[y]:
                    vertex_best[y] = heavy + worth
                target[edges], weight[edges] = y, worth
                edges += 1
                edge_count[x] += 1
            x = next_there[x]
        place += 1
    at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7] = place, day, many, edges, done, sink, pruned, new
    return state
