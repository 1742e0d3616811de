"""The questions of the benchmark of searches through HTTP: each is one that a search takes, and in turns of each kind."""

from __future__ import annotations

from features.itinerary.search import Routes
from pipelines.bench_routes import _rows
from pipelines.bench_routes_served import questions
from serving.api.itinerary_bodies import WishesBody, wishes
from tests import itinerary_worlds as worlds


def test_each_question_is_one_that_a_search_answers() -> None:
    timetable = worlds.two_days()
    asked = questions(timetable, 40)
    assert asked == questions(timetable, 40)
    assert [sorted(one) for one in asked[:4]] == [[], ["price_limit"], ["days"], ["genres"]]
    totals = [Routes(timetable, wishes(WishesBody.model_validate(one), 0)).count() for one in asked]
    assert totals[0] == 19
    assert all(totals)
    assert len(set(totals)) > 4


def test_the_rows_say_how_many_persons_asked_and_fail_with_any_request() -> None:
    one = {"chains": 3, "of_memcpy": 0.7, "chains_per_second": 1e6, "core_portraits_per_second": 2e8}
    asked = {"p50_ms": 4.0, "p99_ms": 19.0, "failed": 0}
    http = {"accounts": 325, "rate": 50.0, "seconds": 20.0, "nobody": asked, "persons": {**asked, "failed": 1}}
    rows = _rows({"largest_day": one, "made_day": one, "bytes_a_chain": 0.1, "search": {}, "http": http})[-4:]
    assert [(row["name"], row["reached"]) for row in rows] == [
        ("through HTTP at 50 a second, nobody in particular: p50", None),
        ("through HTTP at 50 a second, nobody in particular: p99", True),
        ("through HTTP at 50 a second, 325 persons with tickets: p50", None),
        ("through HTTP at 50 a second, 325 persons with tickets: p99", False),
    ]
