"""A route's name, its portrait, what could be done instead, routes that differ, and why there is none."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from features.itinerary.alternatives import alternatives, different, figures
from features.itinerary.completion import bounded
from features.itinerary.graph import TooManyStatesError, build
from features.itinerary.heaviest import heaviest
from features.itinerary.hops import day_pointer
from features.itinerary.objectives import Worth, additive
from features.itinerary.paths import Ranking
from features.itinerary.portrait import Recommended, portrait
from features.itinerary.routes import read_id, route_id, rows_of
from features.itinerary.search import Routes
from features.itinerary.timetable import Timetable
from features.itinerary.wishes import Meal, Objective, Wishes
from tests import itinerary_worlds as worlds


def test_a_name_holds_the_version_and_the_sorted_ids_and_is_read_back() -> None:
    made = worlds.timetable([worlds.stop("10", "13:00"), worlds.stop("9 a/б~", "14:00")])
    name = route_id(made, [1, 0])
    assert name == f"{made.version}~10~9.20a.2F.D0.B1.7E"
    assert read_id(name) == (made.version, ("10", "9 a/б~"))
    assert rows_of(made, name) == (0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no route id: 16 hexadecimal digits and stop ids are needed, separated by ~"),
        ("0123456789abcdef", "'0123456789abcdef' is no route id"),
        ("0123456789abcdef~b~a", "this is no route id: its stop ids are not sorted, or one stands twice"),
        ("0123456789abcdef~.FF", "'0123456789abcdef~.FF' is no route id: a stop id in it is not UTF-8"),
        ("0123456789abcdef~a", "this route belongs to the timetable 0123456789abcdef, and "),
        ("V~zz", "there is no stop 'zz' in this timetable"),
        ("V~a~x", "this is no route: 'x' cannot be reached in time from 'a'"),
    ],
)
def test_a_broken_name_is_refused(text: str, message: str) -> None:
    made = worlds.two_days()
    with pytest.raises(ValueError) as refused:
        rows_of(made, text.replace("V", made.version))
    assert str(refused.value).startswith(message)


def test_a_portrait_by_hand() -> None:
    """a (h0, 13:00) and b (h0, 14:00) of day 1, d (h1, 14:00) of day 2: no hop on day 2, 15 minutes of waiting on day 1."""
    made = worlds.two_days()
    route = [made.rows[name] for name in ("a", "b", "d")]
    one = portrait(made, route, Recommended(frozenset({"a"}), frozenset({"Ann"})))
    assert (one.days, one.concerts, one.events, one.halls, one.genres, one.artists, one.composers) == (2, 3, 0, 2, 3, 2, 3)
    assert (one.music, one.walking, one.waiting, one.whole, one.longest_day) == (135, 0, 15, 150, 105)
    assert (one.cost, one.cost_a_concert, one.changes, one.family, one.recommended) == (600, 200.0, 0, 1, 1)
    assert one.music_share == pytest.approx(135 / 150)
    assert one.density == pytest.approx(3 / 2.5)
    assert one.comfort == pytest.approx(135 / 150)
    assert one.comfort_minutes == 120
    # Bach is at three concerts of the festival, the others at one: rarity 0 and 1.
    assert one.depth_points == pytest.approx(2.0 + 0.5)
    assert one.rare_share == pytest.approx(2 / 4)
    assert one.recommended_artists == pytest.approx(1 / 2)
    assert one.genre_diversity == pytest.approx(math.log(3) / math.log(3))
    assert one.composers_balance == pytest.approx(-(0.5 * math.log(0.5) + 0.5 * math.log(0.25)) / math.log(3))
    assert one.depth == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert one.zone in ("comfort", "depth", "balance")
    assert one.cluster == "dense, mixed"
    assert one.labels == {"family": 1}
    assert len(one.to_json()) >= 40


def test_a_portrait_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a portrait is of one stop or more, rows 0 to 4"):
        portrait(worlds.two_days(), [])


def test_what_the_portrait_shows_is_what_the_objectives_maximise() -> None:
    made = worlds.two_days()
    routes = Routes(made)
    for objective, name in ((Objective.MUSIC, "music"), (Objective.COMFORT, "comfort_minutes"), (Objective.DEPTH, "depth_points")):
        best = routes.best(objective, 1, 10.0).routes[0]
        every = [portrait(made, routes.unrank(number)).to_json()[name] for number in range(routes.count())]
        assert portrait(made, best.stops).to_json()[name] == pytest.approx(best.value, abs=1e-4)
        assert best.value == pytest.approx(max(every), abs=1e-4)


def test_alternatives_say_what_is_gained_and_lost() -> None:
    made = worlds.two_days()
    rows = made.rows
    found = alternatives(Routes(made), [rows["a"], rows["d"]], Objective.MUSIC, 10)
    by_stops = {frozenset(one.stops): one for one in found}
    instead = by_stops[frozenset({rows["x"], rows["d"]})]
    assert (instead.gained, instead.lost, instead.price_by, instead.music_by) == ((rows["x"],), (rows["a"],), 300, 0)
    for one in found:
        after, before = figures(made, one.stops), figures(made, [rows["a"], rows["d"]])
        assert (one.price_by, one.music_by, one.walking_by, one.waiting_by) == tuple(a - b for a, b in zip(after, before, strict=True))
        assert len(one.lost) == 1
    assert all(one.gained for one in found[:2])
    kept = alternatives(Routes(made, Wishes(bought=("a",))), [rows["a"], rows["d"]], Objective.MUSIC, 10)
    assert all(rows["a"] in one.stops for one in kept)


def test_an_alternative_keeps_what_has_begun_and_gains_nothing_that_has() -> None:
    """At 13:30 of the first day a and x have begun and b has not: a stays, and of ab only b can be done without; it is paid no more."""
    made = worlds.two_days()
    rows = made.rows
    wishes = Wishes(begun=worlds.instant("13:30"), price_limit=150)
    found = alternatives(Routes(made, wishes), [rows["a"], rows["b"]], Objective.MUSIC, 10)
    assert [one.stops for one in found] == [(rows["a"], rows["d"]), (rows["a"],)]
    next_day = Routes(made, Wishes(begun=worlds.instant("13:00", 1)))
    assert [one.stops for one in alternatives(next_day, [rows["b"], rows["d"]], Objective.MUSIC, 10)] == [(rows["b"],)]
    assert alternatives(next_day, [rows["a"], rows["b"]], Objective.MUSIC, 10) == []


def _crowded() -> Timetable:
    halls = 5
    every = itertools.product(("12:00", "14:00", "16:00"), range(halls))
    stops = [worlds.stop(f"{clock[:2]}{hall}", clock, hall=hall, composers=(f"c{hall}",)) for clock, hall in every]
    return worlds.timetable(stops, np.where(np.eye(halls, dtype=bool), 0, 5))


@pytest.mark.parametrize("objective", [Objective.SCORE, Objective.COMPOSERS])
def test_routes_that_differ_share_less(objective: Objective) -> None:
    made = _crowded()
    routes = Routes(made, worth=Worth(score=np.linspace(1.0, 2.0, len(made.stops))))

    def shared(strength: float) -> int:
        found = [set(one.stops) for one in different(routes, objective, 5, strength, 10.0).routes]
        assert len({frozenset(one) for one in found}) == 5
        return sum(len(a & b) for place, a in enumerate(found) for b in found[:place])

    assert shared(0.9) < shared(0.0)
    chosen = different(routes, objective, 3, 0.9, 10.0)
    assert chosen.routes[0] == routes.best(objective, 1, 10.0).routes[0]
    assert (chosen.exact, chosen.within) == (False, 0.0)
    assert different(routes, objective, 3, 0.0, 10.0).exact


def test_overlapping_must_haves_are_an_empty_result_that_names_the_two() -> None:
    routes = Routes(worlds.two_days(), Wishes(must=("a", "x", "d")))
    assert routes.count() == 0
    assert routes.best(Objective.MUSIC, 3).routes == ()
    why = routes.why_nothing()
    assert why is not None
    assert why.stops == ("a", "x")
    assert why.message == "'a' (until 13:45) and 'x' (from 13:30) clash on 2030-07-01: there is no way from one to the other in time"


def test_three_must_haves_that_clash_though_no_two_do_are_named() -> None:
    """a, b and d cost 600 together, any two of them 500 at most; c, which is wanted too, costs more than is left but is no part of it."""
    wishes = Wishes(must=("a", "b", "d"), price_limit=550)
    why = Routes(worlds.two_days(), wishes).why_nothing()
    assert why is not None
    assert why.stops == ("a", "b", "d")
    assert why.wishes == ("must", "price_limit")
    assert why.message == (
        "no route under these wishes has 'a', 'b' and 'd' together, though without any one of them there are some; "
        "so there are without price_limit"
    )
    for left_out in wishes.must:
        fewer = tuple(name for name in wishes.must if name != left_out)
        assert Routes(worlds.two_days(), Wishes(must=fewer, price_limit=550)).exist
    one = Routes(worlds.two_days(), Wishes(must=("x", "d"), price_limit=450)).why_nothing()
    assert one is not None
    assert one.stops == ("x",)
    assert one.message == "no route under these wishes has 'x'; so there are without price_limit"


def test_where_a_limit_makes_many_states_the_best_are_those_of_all() -> None:
    """Two days of twelve stops in four halls: the graph of heavy states alone gives the same routes, in the same order, as the whole."""
    chance = np.random.default_rng(3)
    walk = chance.integers(1, 20, (4, 4))
    np.fill_diagonal(walk, 0)
    stops = [
        worlds.stop(f"{day}{number:02}", f"{10 + number // 2}:{minute}", 20, int(chance.integers(4)), day, price=int(price))
        for day in range(2)
        for number, price in enumerate(chance.integers(0, 5, 12) * 70)
        for minute in ("00" if number % 2 == 0 else "35",)
    ]
    made = worlds.timetable(stops, walk)
    worth = Worth(score=chance.integers(-4, 9, len(stops)) / 4)
    for wishes in (
        Wishes(price_limit=500, walking_a_day=12),
        Wishes(walking_a_day=30, waiting_a_day=100),
        Wishes(price_limit=900, waiting_a_day=60, fewest=3, most=4),
        Wishes(walking_a_day=40, meal=Meal(40, 12 * 60, 14 * 60)),
        Wishes(price_limit=900, waiting_a_day=150, most=5, meal=Meal(40, 12 * 60, 14 * 60)),
    ):
        routes = Routes(made, wishes, worth=worth)
        limits, hops = routes.narrowed.limits, routes.narrowed.hops
        for objective in (Objective.SCORE, Objective.MUSIC, Objective.CHEAPEST, Objective.LEAST_WALKING, Objective.COMFORT):
            weights = additive(objective, made, worth, limits.price)
            whole = build(day_pointer(made), hops, limits, weights, 2_000_000)
            for k in (1, 10, 200):
                expected, sums = Ranking(whole).more(k)
                stops_of, found = heaviest(day_pointer(made), hops, limits, weights, k, 2_000_000)
                assert found.tolist() == sums.tolist()
                assert [row[row >= 0].tolist() for row in stops_of] == [row[row >= 0].tolist() for row in expected]
            known = bounded(day_pointer(made), hops, limits, weights)
            assert known is not None
            assert known.at_most is not None
            assert known.at_most >= int(sums[0])
            few = build(day_pointer(made), hops, limits, weights, 2_000_000, known.completion, int(sums[0]))
            assert len(few.target) < len(whole.target)
            assert not few.whole


def test_an_impossible_budget_says_what_would_do() -> None:
    why = Routes(worlds.two_days(), Wishes(price_limit=50)).why_nothing()
    assert why is not None
    assert why.wishes == ("price_limit",)
    assert why.message == "no route fulfils these wishes; without price_limit there are some; the cheapest costs 100"
    out = Routes(worlds.two_days(), Wishes(must=("a",), must_not=("a",))).why_nothing()
    assert out is not None
    assert out.message == "'a' must be there, and 'must_not' leaves it out"


def test_what_needs_too_many_states_says_what_to_leave_out() -> None:
    with pytest.raises(TooManyStatesError, match="these wishes together need more than 40 states a day: leave out or widen one of most"):
        Routes(worlds.many(30), Wishes(most=20), most_vertices=10).count()


def test_at_the_deadline_the_answer_says_how_far_it_can_be_from_the_best() -> None:
    """No time at all: what is found is a route, the bound is honest, and with time the best is within it."""
    made = _crowded()
    routes = Routes(made)
    hasty, best = routes.best(Objective.COMPOSERS, 100, deadline_s=0.0), routes.best(Objective.COMPOSERS, 100, deadline_s=30.0)
    assert best.exact
    assert best.routes[0].value == 3.0
    assert not hasty.exact
    assert hasty.routes[0].value + hasty.within >= best.routes[0].value


def test_an_objective_without_its_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="the objective 'score' needs a value for every stop, and none is known here"):
        Routes(worlds.two_days()).best(Objective.SCORE)
    with pytest.raises(ValueError, match="needs 5 finite values of at most a million"):
        Routes(worlds.two_days(), worth=Worth(popular=np.array([1.0, np.nan, 0, 0, 0]))).best(Objective.POPULAR)
    with pytest.raises(ValueError, match="k is 0: 1 to 10000 is allowed"):
        Routes(worlds.two_days()).best(Objective.MUSIC, 0)
