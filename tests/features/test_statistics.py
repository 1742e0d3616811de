"""Counts of items as of a moment, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.domain import Events, Kind, Scale
from features.state import NO_TIME, Histories, Kinds, histories
from features.statistics import ItemStatistics
from tests.worlds import DAY, KINDS, START, World, checkerboard, genres, world


def of(events: list[tuple[int, int, str, float, int]], ordered: bool = True) -> Histories:
    """(user, item, kind, value, day)."""
    users, items, kinds, values, days = zip(*events, strict=True)
    return histories(
        KINDS,
        max(users) + 1,
        np.array(users, dtype=np.int32),
        np.array(items, dtype=np.int32),
        np.array([KINDS.code(kind) for kind in kinds], dtype=np.int8),
        np.array(values, dtype=np.float32),
        np.array([START + day * DAY if ordered else NO_TIME for day in days], dtype=np.int64),
        ordered,
    )


NAN = float("nan")
SALE = Kinds.of(
    Events(
        kinds={
            "bought": Kind(means=("owned",)),
            "favourite": Kind(means=("liked",)),
            "undo": Kind(means=("undo",)),
            "shown": Kind(means=("shown",)),
        }
    )
)


def sold(events: list[tuple[int, int, str, float, int]]) -> Histories:
    """The same of a domain without ratings: an event's value is how many were bought."""
    users, items, kinds, values, days = (np.array(column) for column in zip(*events, strict=True))
    codes = np.array([SALE.code(kind) for kind in kinds], dtype=np.int8)
    times = (START + days * DAY).astype(np.int64)
    return histories(SALE, 9, users.astype(np.int32), items.astype(np.int32), codes, values.astype(np.float32), times, True)


def test_takers_count_each_person_once_and_recent_halves() -> None:
    known = of(
        [
            (0, 0, "seen", NAN, 0),
            (0, 0, "seen", NAN, 10),  # the same again: one taker, as of the last time
            (1, 0, "seen", NAN, 0),
            (1, 1, "planned", NAN, 10),
            (2, 1, "dislike", NAN, 10),
            (2, 2, "shown", NAN, 10),
        ]
    )
    got = ItemStatistics.as_of(known, 4, START + 20 * DAY, half_life_days=10.0)
    assert got.takers.tolist() == [2.0, 1.0, 0.0, 0.0]
    assert got.recent.tolist() == pytest.approx([0.5 + 0.25, 0.5, 0.0, 0.0])
    assert got.moment == START + 20 * DAY
    assert ItemStatistics.as_of(known, 4, START + 20 * DAY, half_life_days=None).recent.tolist() == got.takers.tolist()


def test_nothing_at_or_after_the_moment_counts() -> None:
    known = of([(0, 0, "seen", 9.0, 0), (1, 0, "seen", 2.0, 5)])
    assert ItemStatistics.as_of(known, 1, START + 5 * DAY).takers.tolist() == [1.0]
    assert ItemStatistics.as_of(known, 1, START + 5 * DAY + 1).takers.tolist() == [1.0]  # the low rating is a dislike
    assert ItemStatistics.as_of(known, 1, START).takers.tolist() == [0.0]


def test_liking_is_shrunk_towards_everybodys_share() -> None:
    known = of([(0, 0, "seen", 9.0, 0), (1, 0, "seen", 8.0, 0), (2, 1, "seen", 3.0, 0), (0, 2, "seen", 5.0, 0)])
    got = ItemStatistics.as_of(known, 3, START + DAY)
    overall = 2 / 3  # two liked, one disliked; 5 is neither
    assert got.liking.tolist() == pytest.approx([(2 + 10 * overall) / 12, (0 + 10 * overall) / 11, overall])


def test_without_judgements_liking_is_one_half() -> None:
    assert ItemStatistics.as_of(of([(0, 0, "seen", NAN, 0)]), 2, START + DAY).liking.tolist() == [0.5, 0.5]


def test_without_times_all_events_count_alike() -> None:
    got = ItemStatistics.as_of(of([(0, 0, "seen", NAN, 0), (1, 0, "seen", NAN, 0)], ordered=False), 1, START)
    assert got.takers.tolist() == got.recent.tolist() == [2.0]


def test_what_was_undone_is_not_counted() -> None:
    got = ItemStatistics.as_of(of([(0, 0, "seen", NAN, 0), (0, 0, "undo", NAN, 1)]), 1, START + 2 * DAY)
    assert got.takers.tolist() == [0.0]


def test_a_larger_catalogue_and_a_round_trip(tmp_path: Path) -> None:
    got = ItemStatistics.as_of(of([(0, 0, "seen", 9.0, 0), (1, 1, "seen", 3.0, 0)]), 2, START + DAY)
    more = got.for_items(4)
    assert more.takers.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert more.liking[2:].tolist() == pytest.approx([got.liking.mean()] * 2)
    assert got.for_items(2) is got
    more.save(tmp_path / "statistics")
    opened = ItemStatistics.load(tmp_path / "statistics")
    assert opened.moment == more.moment
    for name in ("takers", "recent", "liking", "free"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(more, name))


def _drifting(speed_days: float) -> World:
    """Item i is taken by twenty people within a while of `speed_days`, then item i + 1 by the next twenty, and so on."""
    place = world(["Any"] * 20, [[row] for row in range(20) for _ in range(20)])
    times = START + (np.arange(400) * speed_days * DAY / 20).astype(np.int64)
    return replace(place, histories=replace(place.histories, times=times), now=int(times[-1]) + 1)


def test_the_half_life_follows_how_fast_tastes_drift() -> None:
    fast, slow = (ItemStatistics.best_half_life(place.histories, 20, place.now) for place in (_drifting(1.0), _drifting(60.0)))
    assert fast is not None
    assert slow is not None
    assert fast < slow


def test_a_half_life_is_not_chosen_from_what_comes_later() -> None:
    place = _drifting(1.0)
    moment = int(place.histories.times[300])
    altered = place.histories.items.copy()
    altered[300:] = 0
    later = replace(place.histories, items=altered)
    assert ItemStatistics.best_half_life(place.histories, 20, moment) == ItemStatistics.best_half_life(later, 20, moment)


def test_without_times_or_events_all_count_alike() -> None:
    unordered = checkerboard(ordered=False)
    assert ItemStatistics.best_half_life(unordered.histories, 40, unordered.now) is None
    assert ItemStatistics.best_half_life(genres().histories, 12, genres().now) is None


# ------------------------------------------------------------ what is left


def test_what_is_free_is_what_nobody_owns_before_the_moment() -> None:
    known = sold(
        [
            (0, 0, "bought", 3.0, 0),
            (1, 0, "bought", NAN, 1),  # no quantity said: one
            (1, 0, "bought", 2.0, 2),  # more of the same
            (2, 0, "favourite", 5.0, 2),  # owns nothing
            (3, 0, "shown", NAN, 2),
            (0, 1, "bought", 4.0, 2),
            (0, 2, "bought", 4.0, 2),
            (4, 0, "bought", 1.0, 5),
        ]
    )
    capacity = np.array([8.0, 2.0, np.nan, 10.0], dtype=np.float32)
    got = ItemStatistics.as_of(known, 4, START + 5 * DAY, None, capacity)
    np.testing.assert_array_equal(got.free, np.array([2 / 8, 0.0, np.nan, 1.0], dtype=np.float32))  # six of eight; four of two; who knows
    assert ItemStatistics.as_of(known, 4, START + 5 * DAY + 1, None, capacity).free[0] == 1 / 8
    assert np.isnan(ItemStatistics.as_of(known, 4, START + 5 * DAY).free).all()
    assert got.available(np.array([True, True, True, False])).tolist() == [True, False, True, False]


def test_an_undone_purchase_gives_back_what_it_took() -> None:
    known = sold([(0, 0, "bought", 3.0, 0), (0, 0, "bought", 2.0, 1), (0, 0, "undo", NAN, 2), (1, 0, "undo", NAN, 3)])
    capacity = np.array([10.0], dtype=np.float32)
    left = [float(ItemStatistics.as_of(known, 1, START + day * DAY, None, capacity).free[0] * 10) for day in range(5)]
    assert left == pytest.approx([10.0, 7.0, 5.0, 7.0, 7.0])


def test_a_rating_is_no_quantity() -> None:
    rated = Kinds.of(Events(kinds={"bought": Kind(means=("owned",))}, scale=Scale(low=1, high=10, liked_from=7, disliked_to=4)))
    one = np.zeros(1, dtype=np.int32)
    known = histories(rated, 1, one, one, one.astype(np.int8), np.array([9.0], dtype=np.float32), np.array([START]), True)
    assert ItemStatistics.as_of(known, 1, START + DAY, None, np.array([10.0], dtype=np.float32)).free.tolist() == [np.float32(0.9)]


def test_what_is_told_anew_takes_the_place_of_what_was_counted() -> None:
    capacity = np.array([10.0, 10.0, np.nan], dtype=np.float32)
    got = ItemStatistics.as_of(sold([(0, 0, "bought", 4.0, 0), (0, 1, "bought", 4.0, 0)]), 3, START + DAY, None, capacity)
    told = got.stocked(capacity, np.array([1.0, np.nan, 5.0], dtype=np.float32))
    np.testing.assert_array_equal(told.free, np.array([0.1, 0.6, np.nan], dtype=np.float32))
    assert told.takers is got.takers


def test_statistics_of_before_there_was_a_capacity_are_opened(tmp_path: Path) -> None:
    ItemStatistics.as_of(of([(0, 0, "seen", 9.0, 0)]), 1, START + DAY).save(tmp_path)
    (tmp_path / "free.npy").unlink()
    assert np.isnan(ItemStatistics.load(tmp_path).free).all()
