"""The training benchmark without its rival: its own recommending and ranking are right, and its table says what was reached."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from features.state import UserState
from pipelines import bench_train
from pipelines.bench_train import measure_many, places_of_last, recommend, table
from tests.worlds import World, cycle
from training.candidates.popularity import Popularity
from training.contract import CandidateModel


@pytest.fixture(scope="module")
def ring() -> World:
    return cycle()


class Numbered:
    """Scores each item by its row: the largest is best."""

    def __init__(self, items: int) -> None:
        self.items = items

    def scores(self, states: list[UserState], now: int) -> np.ndarray:
        return np.tile(np.arange(self.items, dtype=np.float32), (len(states), 1))


def numbered(items: int) -> CandidateModel:
    model: object = Numbered(items)
    assert isinstance(model, Numbered)
    return model  # type: ignore[return-value]


def test_everybody_gets_the_best_they_do_not_have(ring: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "_BATCH", 2)
    states = [ring.person(rows) for rows in ([11, 3], [0], [10, 9, 8], [5, 11])]
    got = recommend(numbered(12), states, ring.now, 3)
    assert got.tolist() == [[10, 9, 8], [11, 10, 9], [11, 7, 6], [10, 9, 8]]
    nearly_all = recommend(numbered(12), [ring.person(range(10))], ring.now, 3)
    assert nearly_all.tolist() == [[11, 10, -1]]


def test_the_place_of_the_last_item(ring: World) -> None:
    states = [ring.person(rows) for rows in ([3, 11], [11, 10], [11, 10, 2], [2, 0])]
    assert places_of_last(numbered(12), states, ring.now).tolist() == [0, 0, 7, 10]


def test_ties_count_against(ring: World) -> None:
    class Flat(Numbered):
        def scores(self, states: list[UserState], now: int) -> np.ndarray:
            return np.zeros((len(states), self.items), dtype=np.float32)

    model: CandidateModel = Flat(12)  # type: ignore[assignment]
    assert places_of_last(model, [ring.person([3, 4, 5])], ring.now).tolist() == [9]


def test_the_table_says_what_was_reached() -> None:
    ours = {
        "fit_s": 2.0,
        "recommend_s": 1.0,
        "als_s": 0.5,
        "evaluate_s": 6.0,
        "single_ms": 1.0,
        "ranker": {"ours_ms": 0.5, "lightgbm_ms": 5.0, "largest_difference": 0.0},
        "ranker_settings": {"trees": 3},
        "many_items": {"ms_a_person": 9.0, "mib_above": 100.0},
    }
    theirs = {"fit_s": 5.0, "recommend_s": 2.0, "als_stored_s": 0.1, "als_solved_s": 2.0}
    rows = bench_train._rows(ours, theirs, 100, 50)
    assert [row["reached"] for row in rows] == [True, False, True, False, False, None, True, None, True]
    assert [row["ratio"] for row in rows][:4] == pytest.approx([2.5, 2.0, 4.0, 0.2])
    figures = {"people": 50, "items": 7, "events": 9, "threads": 1, "rows": rows}
    lines = table(figures)
    assert len(lines) == len(rows) + 2
    assert sum("not reached" in line for line in lines) == 3
    alone = bench_train._rows(ours, {}, 100, 50)
    assert [row["reached"] for row in alone][:4] == [None] * 4
    json.dumps(alone)


def test_the_data_have_the_sizes_they_claim() -> None:
    drawn = bench_train._people(50, 30)
    lengths = np.diff(drawn.indptr)
    assert len(drawn) == 50
    assert lengths.max() == 30
    assert lengths.min() >= 20
    for person in range(50):
        assert len(np.unique(drawn.state(person).items)) == lengths[person]


def test_memory_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "_MANY_ITEMS", 5_000)
    measure_many(str(tmp_path / "out.json"), people=8)
    said = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert said["people"] == 8
    assert said["ms_a_person"] > 0


def test_popularity_answers_for_all(ring: World) -> None:
    from configs.domain import PopularityModel

    model = Popularity(PopularityModel(model="popularity"))
    model.fit(ring.data)
    states = [ring.person([0, 1]), ring.person([2])]
    got = recommend(model, states, ring.now, 4)
    assert got.shape == (2, 4)
    assert not set(got[0].tolist()) & {0, 1}
