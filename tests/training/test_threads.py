"""Parts of a loop cover it once each, in as many threads as are allowed, and an error of any of them is heard."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import threads
from training.threads import in_parts


@given(count=st.integers(0, 60), least=st.integers(0, 20), allowed=st.integers(1, 7))
def test_parts_cover_the_range_once(count: int, least: int, allowed: int) -> None:
    parts: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "_allowed", lambda: allowed)
        in_parts(count, least, lambda first, last: parts.append((first, last)))
    assert sorted(place for first, last in parts for place in range(first, last)) == list(range(count))
    assert len(parts) <= allowed
    assert len(parts) == 1 or min(last - first for first, last in parts) >= least


def test_parts_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_allowed", lambda: 2)
    monkeypatch.setattr(threads, "_pool", lambda: ThreadPoolExecutor(1))
    meeting = threading.Barrier(2)
    in_parts(2, 1, lambda first, last: meeting.wait(10.0))  # raises BrokenBarrierError unless both are there at once


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_of_any_part_is_raised(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_allowed", lambda: 2)

    def work(first: int, last: int) -> None:
        if first <= bad < last:
            raise ValueError(f"part of {bad}")

    with pytest.raises(ValueError, match=f"part of {bad}"):
        in_parts(2, 1, work)


def test_the_environment_limits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads._allowed() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert threads._allowed() >= 1
