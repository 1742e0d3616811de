from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.state import NO_TIME, Folded, Histories, Kinds, Means, UserState, fold, histories, mask_of, positive
from tests.worlds import EVENTS, KINDS

NAN = float("nan")

#: user, item, kind, value, time; times in order over the list, with ties
Event = tuple[int, int, int, float, int]
event = st.tuples(
    st.integers(0, 3),
    st.integers(0, 4),
    st.integers(0, len(KINDS.names) - 1),
    st.sampled_from([NAN, 1.0, 4.0, 5.5, 7.0, 10.0]),
    st.integers(0, 6),
)


#: users, items, kinds, values, times
Arrays = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int8], NDArray[np.float32], NDArray[np.int64]]


def arrays(events: Sequence[Event]) -> Arrays:
    return (
        np.array([one[0] for one in events], dtype=np.int32),
        np.array([one[1] for one in events], dtype=np.int32),
        np.array([one[2] for one in events], dtype=np.int8),
        np.array([one[3] for one in events], dtype=np.float32),
        np.array([one[4] for one in events], dtype=np.int64),
    )


def one_by_one(events: Sequence[Event]) -> dict[tuple[int, int], tuple[int, float, float, int]]:
    """(user, item) -> (meanings, weight, rating, time): the same in plain words, an event at a time, each undo as it comes."""
    standing: dict[tuple[int, int], list[Event]] = {}
    for user, item, kind, value, time in events:
        means = EVENTS.kinds[KINDS.names[kind]].means
        stack = standing.setdefault((user, item), [])
        if "undo" in means:
            if stack:
                stack.pop()
        elif means != ("shown",) or (not math.isnan(value) and not 4 < value < 7):
            stack.append((user, item, kind, value, time))
    out = {}
    for pair, stack in standing.items():
        if not stack:
            continue
        meanings = 0
        rating = NAN
        for _, _, kind, value, _ in stack:
            own = mask_of(EVENTS.kinds[KINDS.names[kind]].means)
            own |= int(Means.LIKED) if value >= 7 else int(Means.DISLIKED) if value <= 4 else 0
            meanings = own | meanings & int(Means.SEEN | Means.OWNED)
            rating = rating if math.isnan(value) else value
        _, _, kind, value, time = stack[-1]
        weight = EVENTS.kinds[KINDS.names[kind]].weight
        out[pair] = (meanings, weight if math.isnan(value) else weight * (0.5 + (value - 1) / 9), rating, time)
    return out


def as_dict(folded: Folded) -> dict[tuple[int, int], tuple[int, float, float, int]]:
    out = {}
    for place in range(len(folded.users)):
        pair = (int(folded.users[place]), int(folded.items[place]))
        assert pair not in out, "a pair stands twice"
        out[pair] = (int(folded.meanings[place]), float(folded.weights[place]), float(folded.values[place]), int(folded.times[place]))
    return out


def same(left: dict[tuple[int, int], tuple[int, float, float, int]], right: dict[tuple[int, int], tuple[int, float, float, int]]) -> None:
    assert left.keys() == right.keys()
    for pair in left:
        np.testing.assert_allclose(left[pair], right[pair], rtol=1e-6)


@given(events=st.lists(event, max_size=30), together=st.integers(1, 3))
def test_people_asked_for_together_are_those_asked_for_alone(events: list[Event], together: int) -> None:
    everybody = histories(KINDS, 4, *arrays(sorted(events, key=lambda one: one[4])), ordered=True)
    users = [3, 0, 2, 2, 1, 0, 3, 1] * together
    for user, state in zip(users, everybody.states(users), strict=True):
        alone = everybody.state(user)
        for name in ("users", "items", "meanings", "weights", "values", "times"):
            one, other = getattr(state.folded, name), getattr(alone.folded, name)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        for name in ("positives", "weights", "disliked", "excluded"):
            one, other = getattr(state, name), getattr(alone, name)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


@given(st.lists(event, max_size=40))
def test_folding_everybody_at_once_equals_folding_events_one_by_one(events: list[Event]) -> None:
    events = sorted(events, key=lambda one: (one[0], one[4]))
    folded = fold(KINDS, *arrays(events))
    same(as_dict(folded), one_by_one(events))
    assert (np.diff(folded.users) >= 0).all()
    for user in set(folded.users.tolist()):
        assert (np.diff(folded.times[folded.users == user]) >= 0).all()


@given(st.lists(event, max_size=40))
def test_a_person_alone_is_the_person_among_all(events: list[Event]) -> None:
    everybody = histories(KINDS, 4, *arrays(events), ordered=True)
    whole = as_dict(everybody.folded)
    for user in range(4):
        state = everybody.state(user)
        same(
            {(user, item): said for (_, item), said in as_dict(state.folded).items()},
            {pair: said for pair, said in whole.items() if pair[0] == user},
        )
        assert set(state.positives.tolist()) == set(
            everybody.folded.items[positive(everybody.folded) & (everybody.folded.users == user)].tolist()
        )
        assert not set(state.positives.tolist()) & set(state.disliked.tolist())
        assert len(state.weights) == len(state.positives)


@given(st.lists(event, max_size=25), st.randoms(use_true_random=False))
def test_events_may_come_late(events: list[Event], chance: object) -> None:
    mine = [(0, item, kind, value, 10 * place) for place, (_, item, kind, value, _) in enumerate(events)]
    shuffled = list(mine)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    state = UserState.empty(KINDS)
    for _, item, kind, value, time in shuffled:
        state = state.then(item, kind, value, time)
    at_once = histories(KINDS, 1, *arrays(mine), ordered=True).state(0)
    for name in ("items", "kinds", "values", "times"):
        np.testing.assert_array_equal(getattr(state, name), getattr(at_once, name))
        assert getattr(state, name).dtype == getattr(at_once, name).dtype
    for moment in (0, 15, 10 * len(mine)):
        same(as_dict(state.until(moment).folded), one_by_one([one for one in mine if one[4] < moment]))


def test_the_last_word_counts_and_seen_stays() -> None:
    seen, planned, dislike, shown, undo = (KINDS.code(name) for name in ("seen", "planned", "dislike", "shown", "undo"))
    state = UserState.empty(KINDS).then(1, seen, 9.0, 10).then(2, planned, NAN, 20).then(3, shown, NAN, 30)
    assert state.positives.tolist() == [1, 2]
    assert state.weights.tolist() == pytest.approx([0.5 + 8 / 9, 0.3])
    assert state.excluded.tolist() == [1]
    later = state.then(1, dislike, NAN, 40)
    assert (later.positives.tolist(), later.disliked.tolist(), later.excluded.tolist()) == ([2], [1], [1])
    assert later.folded.values[later.folded.items == 1].tolist() == [9.0]
    undone = later.then(1, undo, NAN, 50)
    assert (undone.positives.tolist(), undone.disliked.tolist()) == ([1, 2], [])
    assert undone.then(1, undo, NAN, 60).positives.tolist() == [2]
    assert undone.then(1, undo, NAN, 60).then(1, undo, NAN, 70).positives.tolist() == [2]
    assert len(UserState.empty(KINDS).folded.items) == 0


def test_an_undo_is_of_one_person_and_one_item() -> None:
    seen, undo = KINDS.code("seen"), KINDS.code("undo")
    events = [(0, 1, seen, NAN, 0), (0, 2, seen, NAN, 1), (0, 1, undo, NAN, 2), (1, 1, seen, NAN, 0), (1, 2, undo, NAN, 1)]
    assert as_dict(fold(KINDS, *arrays(events))).keys() == {(0, 2), (1, 1)}


def test_meanings_without_a_scale() -> None:
    plain = Kinds.of(EVENTS.model_copy(update={"scale": None}))
    kinds, values = np.zeros(2, dtype=np.int8), np.array([NAN, 10.0], dtype=np.float32)
    assert plain.meanings(kinds, values).tolist() == [int(Means.SEEN)] * 2
    assert plain.strengths(kinds, values).tolist() == [1.0, 1.0]
    assert mask_of(("seen", "liked")) == 3
    with pytest.raises(KeyError):
        mask_of(("adored",))


@given(st.lists(event, max_size=40), st.booleans())
def test_histories_come_back_from_disk(tmp_path_factory: pytest.TempPathFactory, events: list[Event], ordered: bool) -> None:
    made = histories(KINDS, 5, *arrays(events), ordered=ordered)
    directory = tmp_path_factory.mktemp("histories")
    made.save(directory)
    back = Histories.load(directory, KINDS)
    assert (len(back), back.events, back.ordered) == (5, len(events), ordered)
    for name in ("indptr", "items", "kinds", "values", "times"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
        assert getattr(back, name).dtype == getattr(made, name).dtype
    if not ordered:  # the order given
        assert [int(item) for user in range(5) for item in back.state(user).items] == [
            one[1] for one in sorted(events, key=lambda one: one[0])
        ]


@given(st.lists(event, max_size=40), st.integers(0, 6))
def test_where_keeps_the_users_and_some_events(events: list[Event], moment: int) -> None:
    made = histories(KINDS, 4, *arrays(events), ordered=True)
    before = made.where(made.times < moment)
    assert len(before) == 4
    assert before.events == sum(one[4] < moment for one in events)
    for user in range(4):
        np.testing.assert_array_equal(before.state(user).items, made.state(user).until(moment).items)
    assert before.users.tolist() == sorted(one[0] for one in events if one[4] < moment)


def test_items_of_a_list_are_a_history() -> None:
    state = UserState.of_items(KINDS, [5, 3], 0, 77, {"genre": ("Drama",)})
    assert (state.positives.tolist(), state.times.tolist(), dict(state.preferences)) == ([5, 3], [77, 77], {"genre": ("Drama",)})
    assert state.then(1, 0, NAN, NO_TIME).items.tolist() == [1, 5, 3]
