"""The questions of the benchmark of searches through HTTP: each is one that a search takes, and in turns of each kind."""

from __future__ import annotations

from features.itinerary.search import Routes
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
