"""What is held out: by time for everybody at once, or at random within each person where there is no time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.domain import Split as Words
from features.state import NO_TIME, Histories, histories
from tests.worlds import KINDS, START
from training.split import Split, split, targets

MOMENT = START + 10**12


def of(
    users: list[int], items: list[int], times: list[int] | None, kinds: list[str] | None = None, values: list[float] | None = None
) -> Histories:
    n = len(users)
    return histories(
        KINDS,
        max(users, default=0) + 1,
        np.array(users, dtype=np.int32),
        np.array(items, dtype=np.int32),
        np.array([KINDS.code(kind) for kind in kinds or ["seen"] * n], dtype=np.int8),
        np.array(values or [np.nan] * n, dtype=np.float32),
        np.array([START + time for time in times] if times is not None else [NO_TIME] * n, dtype=np.int64),
        times is not None,
    )


def parts(cut: Split) -> list[int]:
    return [int(mask.sum()) for mask in (cut.base, cut.label, cut.test)]


def test_too_few_events_are_refused() -> None:
    with pytest.raises(ValueError, match="9 events are too few"):
        split(of([0] * 9, list(range(9)), list(range(9))), Words(), MOMENT)


def test_a_hundred_moments_fall_into_eighty_ten_and_ten() -> None:
    cut = split(of([event % 7 for event in range(100)], list(range(100)), list(range(100))), Words(test=0.1, label=0.1), MOMENT)
    assert cut.kind == "time"
    assert (cut.label_moment, cut.test_moment) == (START + 79, START + 89)
    assert parts(cut) == [79, 10, 11]


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 200)), min_size=10, max_size=80),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
)
def test_no_event_of_a_window_is_known_before_it(events: list[tuple[int, int]], test: float, label: float) -> None:
    known = of([user for user, _ in events], list(range(len(events))), [time for _, time in events])
    words = Words(test=test, label=label)
    if len({time for _, time in events}) < 3:
        with pytest.raises(ValueError, match="at least 3 are needed"):
            split(known, words, MOMENT)
        return
    cut = split(known, words, MOMENT)
    assert (cut.base.astype(int) + cut.label + cut.test == 1).all()
    assert (known.times[cut.base] < cut.label_moment).all()
    assert (known.times[cut.label] >= cut.label_moment).all()
    assert (known.times[cut.label] < cut.test_moment).all()
    assert (known.times[cut.test] >= cut.test_moment).all()
    assert min(parts(cut)) > 0


def test_few_distinct_times_are_cut_between_them() -> None:
    cut = split(of([0] * 30, list(range(30)), [0] * 28 + [1, 2]), Words(), MOMENT)
    assert (cut.label_moment, cut.test_moment) == (START + 1, START + 2)
    assert parts(cut) == [28, 1, 1]


def test_two_distinct_times_are_refused() -> None:
    with pytest.raises(ValueError, match="2 distinct times"):
        split(of([0] * 30, list(range(30)), [0] * 15 + [1] * 15), Words(), MOMENT)


def unordered(sizes: list[int]) -> Histories:
    users = [user for user, size in enumerate(sizes) for _ in range(size)]
    return of(users, list(range(len(users))), None)


def test_without_times_a_share_of_each_person_is_held_out() -> None:
    known = unordered([40, 10, 3, 2, 1])
    cut = split(known, Words(test=0.1, label=0.2), MOMENT)
    assert cut.kind == "unordered"
    assert cut.label_moment == cut.test_moment == MOMENT
    held = [(int(cut.test[known.users == user].sum()), int(cut.label[known.users == user].sum())) for user in range(5)]
    assert held == [(4, 8), (1, 2), (1, 1), (0, 0), (0, 0)]  # fewer than three events stay in base
    assert (cut.base.astype(int) + cut.label + cut.test == 1).all()


def test_without_times_the_seed_decides_and_repeats() -> None:
    known = unordered([30, 30, 30])
    first, again, other = (split(known, Words(seed=seed), MOMENT) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.test, again.test)
    np.testing.assert_array_equal(first.label, again.label)
    assert (first.test != other.test).any()


@settings(max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) >= 10), st.integers(0, 99))
def test_without_times_everybody_keeps_something(sizes: list[int], seed: int) -> None:
    known = unordered(sizes)
    cut = split(known, Words(test=0.45, label=0.45, seed=seed), MOMENT)
    for user, size in enumerate(sizes):
        mine = known.users == user
        assert cut.base[mine].sum() >= 1 or size >= 3
        assert (cut.test[mine].sum() >= 1) == (size >= 3)


# ------------------------------------------------------------ targets


def wanted(known: Histories, from_time: int) -> dict[int, list[int]]:
    window = known.times >= START + from_time
    found = targets(known, window, known.where(~window), 100)
    return {int(user): sorted(found.of(place).tolist()) for place, user in enumerate(found.users)}


def test_targets_are_new_takings_only() -> None:
    known = of(
        [0, 0, 0, 0, 1, 1, 2],
        [1, 2, 1, 3, 4, 5, 6],
        [0, 1, 10, 11, 10, 12, 0],
    )
    assert wanted(known, 10) == {0: [3], 1: [4, 5]}  # 0 saw item 1 before; 2 took nothing in the window


def test_dislikes_and_low_ratings_are_no_targets_and_a_plan_fulfilled_is_one() -> None:
    known = of(
        [0, 0, 0, 0, 0, 0, 0],
        [1, 2, 3, 4, 5, 5, 6],
        [0, 10, 11, 12, 13, 14, 15],
        ["planned", "dislike", "seen", "seen", "seen", "dislike", "planned"],
        [np.nan, np.nan, 2.0, 9.0, np.nan, np.nan, np.nan],
    )
    assert wanted(known, 10) == {0: [4]}
    later = of([0, 0], [1, 1], [0, 10], ["planned", "seen"])
    assert wanted(later, 10) == {0: [1]}


def test_what_was_withdrawn_in_the_window_is_no_target() -> None:
    known = of([0, 0, 0], [1, 1, 2], [10, 11, 12], ["seen", "undo", "seen"])
    assert wanted(known, 10) == {0: [2]}


def test_a_sample_keeps_order_and_repeats() -> None:
    known = of([user for user in range(20) for _ in range(2)], list(range(40)), [10, 11] * 20)
    found = targets(known, known.times >= START, known.where(known.times < START), 100)
    few, again, all_ = found.sample(5, 3), found.sample(5, 3), found.sample(50, 3)
    assert len(few.users) == 5
    assert (np.diff(few.users) > 0).all()
    assert [few.of(place).tolist() for place in range(5)] == [[2 * user, 2 * user + 1] for user in few.users]
    np.testing.assert_array_equal(few.items, again.items)
    assert all_ is found


# ------------------------------------------------------------------ leave one out


def rows(sizes: list[int]) -> Histories:
    """People with so many events each, in order, without times."""
    n = sum(sizes)
    people = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    none = np.full(n, NO_TIME, dtype=np.int64)
    return histories(
        KINDS, len(sizes), people, np.arange(n, dtype=np.int32), np.zeros(n, np.int8), np.full(n, np.nan, np.float32), none, True
    )


def test_leave_one_out_takes_each_persons_last_and_labels_those_before() -> None:
    cut = split(rows([5, 3, 2, 4]), Words(protocol="last", labels=2), MOMENT)
    assert cut.kind == "last"
    assert np.flatnonzero(cut.test).tolist() == [4, 7, 13]  # the one with two events keeps both
    assert np.flatnonzero(cut.label).tolist() == [2, 3, 6, 11, 12]  # the one with three keeps one to be known by
    assert np.flatnonzero(cut.base).tolist() == [0, 1, 5, 8, 9, 10]
    assert [np.flatnonzero(took).tolist() for _, took in cut.labels] == [[2, 11], [3, 6, 12]]
    for known, took in cut.labels:
        for event in np.flatnonzero(took):
            own = np.flatnonzero(known & (rows([5, 3, 2, 4]).users == rows([5, 3, 2, 4]).users[event]))
            assert own.max() == event - 1


def test_leave_one_out_is_refused_without_an_order() -> None:
    with pytest.raises(ValueError, match="needs an order"):
        split(unordered([20, 20]), Words(protocol="last"), MOMENT)


def test_a_window_back_is_the_same_split_as_if_the_test_had_not_happened() -> None:
    known = rows([6, 4, 9])
    for words in (Words(protocol="last", labels=2), Words()):
        if words.protocol == "time":
            known = of([event % 7 for event in range(100)], list(range(100)), list(range(100)))
        real, back = (split(known, words.model_copy(update={"back": back}), MOMENT) for back in (0, 1))
        alone = split(known.where(~real.test), words, MOMENT)
        for mask, expected in ((back.base, alone.base), (back.label, alone.label), (back.test, alone.test)):
            assert not (mask & real.test).any()
            assert mask[~real.test].tolist() == expected.tolist()
    last = split(rows([6, 4, 9]), Words(protocol="last", back=1), MOMENT)
    assert np.flatnonzero(last.test).tolist() == [4, 8, 17]


def test_a_window_back_of_data_without_order_draws_anew() -> None:
    known = unordered([30, 30, 30])
    real, back = (split(known, Words(back=back), MOMENT) for back in (0, 1))
    assert not (back.test & real.test).any()
    assert back.test.sum() > 0
    assert not np.array_equal(back.test, real.label)
