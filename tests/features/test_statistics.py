"""Counts of items as of a moment, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.state import NO_TIME, Histories, histories
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
    for name in ("takers", "recent", "liking"):
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
