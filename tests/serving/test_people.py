"""Histories of the bundle and, above them, everybody touched since."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import configs
from features.state import Kinds, UserState, histories
from features.vocabulary import Vocabulary
from serving.people import Happening, People

KINDS = Kinds.of(configs.load("anime").events)
NAN = float("nan")


def people() -> People:
    """`ann` has seen items 1 and 2 at the times 10 and 20, `bob` nothing."""
    before = histories(
        KINDS,
        2,
        np.array([0, 0], dtype=np.int32),
        np.array([1, 2], dtype=np.int32),
        np.full(2, KINDS.code("seen"), dtype=np.int8),
        np.full(2, np.nan, dtype=np.float32),
        np.array([10, 20], dtype=np.int64),
        True,
    )
    return People(Vocabulary(["ann", "bob"]), before, KINDS)


def happened(user: str, item: int, kind: str = "seen", value: float = NAN, time: int = 100) -> Happening:
    return Happening(user, item, KINDS.code(kind), value, time)


def same(one: UserState, other: UserState) -> bool:
    pairs = ((one.items, other.items), (one.kinds, other.kinds), (one.values, other.values), (one.times, other.times))
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def test_known_and_unknown() -> None:
    crowd = people()
    state = crowd.state("ann")
    assert state is not None
    assert state.items.tolist() == [1, 2]
    assert crowd.state("nobody") is None
    assert ("bob" in crowd, "nobody" in crowd, len(crowd)) == (True, False, 2)


def test_an_event_stands_where_its_time_belongs_and_the_bundle_is_untouched() -> None:
    crowd = people()
    before = crowd.state("ann")
    crowd.fold([happened("ann", 7, time=15)])
    state = crowd.state("ann")
    assert state is not None
    assert state.items.tolist() == [1, 7, 2]
    assert before is not None
    assert before.items.tolist() == [1, 2]
    untouched = people().state("ann")
    assert untouched is not None
    assert untouched.items.tolist() == [1, 2]


def test_somebody_new_is_known_from_the_first_event() -> None:
    crowd = people()
    crowd.fold([happened("eve", 3, "like")])
    state = crowd.state("eve")
    assert state is not None
    assert state.positives.tolist() == [3]
    assert len(crowd) == 3


def test_an_undo_withdraws_the_latest_word() -> None:
    crowd = people()
    crowd.fold([happened("ann", 5, "dislike", time=30), happened("ann", 5, "undo", time=40)])
    state = crowd.state("ann")
    assert state is not None
    assert 5 not in state.excluded
    assert 1 in state.excluded


def test_what_was_only_shown_makes_a_person_known_and_leaves_no_other_trace() -> None:
    crowd = people()
    crowd.fold([happened("eve", 3, "impression"), happened("ann", 3, "impression")])
    newcomer, ann = crowd.state("eve"), crowd.state("ann")
    assert newcomer is not None
    assert ann is not None
    assert (len(newcomer), len(ann)) == (0, 2)


_event = st.tuples(
    st.sampled_from(["ann", "bob", "eve"]),
    st.integers(0, 5),
    st.sampled_from(KINDS.names),
    st.sampled_from([NAN, 1.0, 9.0]),
    st.integers(0, 30),
)


@given(st.lists(_event, max_size=12))
def test_many_at_once_are_the_same_as_one_after_the_other(drawn: list[tuple[str, int, str, float, int]]) -> None:
    events = [happened(*one) for one in drawn]
    at_once, one_by_one = people(), people()
    at_once.fold(events)
    for event in events:
        one_by_one.fold([event])
    for user in ("ann", "bob", "eve"):
        first, second = at_once.state(user), one_by_one.state(user)
        assert (first is None) == (second is None)
        assert first is None or second is None or same(first, second)
