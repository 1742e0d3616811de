"""Whether a pair stands twice, in either way of looking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import repeats as module
from features.repeats import repeats


@given(people=st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=6), sparse=st.sampled_from([0, module._SPARSE, 10**6]))
def test_a_pair_that_stands_twice_is_seen(people: list[list[int]], sparse: int) -> None:
    users = np.repeat(np.arange(len(people)), [len(items) for items in people]).astype(np.int32)
    items = np.array([item for own in people for item in own], dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SPARSE", sparse)
        assert repeats(users, items) == any(len(set(own)) < len(own) for own in people)
