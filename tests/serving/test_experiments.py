"""Who is in which arm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.domain import Variant
from serving.experiments import DEFAULT, assign

ARMS = {"control": Variant(share=0.5), "diverse": Variant(share=0.3, diversity=0.4), "new": Variant(share=0.2, bundle="challenger")}


def test_nobody_and_no_experiment_are_the_default() -> None:
    assert assign({}, "anime", "u1") == (DEFAULT, None)
    assert assign(ARMS, "anime", None) == (DEFAULT, None)


def test_everybody_stays_where_they_are() -> None:
    for user in map(str, range(50)):
        name, arm = assign(ARMS, "anime", user)
        assert (name, arm) == assign(dict(ARMS), "anime", user)
        assert arm is ARMS[name]


def test_shares_are_those_of_the_yaml() -> None:
    people = 6_000
    names = [assign(ARMS, "anime", str(user))[0] for user in range(people)]
    for name, arm in ARMS.items():
        sigma = np.sqrt(arm.share * (1 - arm.share) / people)
        assert names.count(name) / people == pytest.approx(arm.share, abs=4 * sigma)


def test_another_domain_and_other_arms_draw_anew() -> None:
    users = [str(user) for user in range(400)]
    here = [assign(ARMS, "anime", user)[0] for user in users]
    there = [assign(ARMS, "shop", user)[0] for user in users]
    assert 0.2 < np.mean([a == b for a, b in zip(here, there, strict=True)]) < 0.6  # 0.38 if they are independent


@given(st.text())
def test_any_name_is_in_some_arm(user: str) -> None:
    assert assign(ARMS, "anime", user)[0] in ARMS


def test_rounding_leaves_nobody_out() -> None:
    thirds = {name: Variant(share=1 / 3) for name in "abc"}
    assert {assign(thirds, "anime", str(user))[0] for user in range(300)} == set("abc")
