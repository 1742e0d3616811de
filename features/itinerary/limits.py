"""What adds up along a route: limits of it, and what the route is worth. Plain records of numbers and arrays, as the compiled passes take
them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.itinerary.hops import I64

U64 = NDArray[np.uint64]

#: Larger than any amount; small enough that sums of it stay in an int64.
FREE = 2**40
#: Columns of tables that hold one amount for each kind of limit; FEWEST is a limit from below of what COUNT counts.
COUNT, WALK, WAIT, MONEY, FEWEST = 0, 1, 2, 3, 4
#: Where a state's one word for a day holds minutes walked, waited, whether the meal was had, and what was met; concerts stand at 0.
WALK_BIT, WAIT_BIT, MEAL_BIT, NEED_BIT = 11, 22, 33, 34


class Limits(NamedTuple):
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


class Weights(NamedTuple):
    """What a route is worth, additive: gain of each stop, (stops,) int64; per minute of walking and waiting and per change of halls;
    by_token: (64,) int64, added where a stop shows a token for the first time."""

    gain: I64
    per_walk: int
    per_wait: int
    per_change: int
    by_token: I64
