"""Compiled loops over people on several cores: the parts run in threads, because compiled code holds no lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise


def in_parts(count: int, least: int, work: Callable[[int, int], object]) -> None:
    """Calls work(first, last) for parts that together are range(count), none of them below `least` unless it is the only one, and waits
    for all. As many at once as OMP_NUM_THREADS allows, which NumPy's and torch's libraries heed too, else as there are cores. Raises what
    `work` raises."""
    most = min(_allowed(), count // max(least, 1))
    if most < 2:
        work(0, count)
        return
    borders = [count * part // most for part in range(most + 1)]
    others = [_pool().submit(work, first, last) for first, last in pairwise(borders[1:])]
    try:
        work(0, borders[1])
    finally:
        errors = [other.exception() for other in others]
    for error in errors:
        if error is not None:
            raise error


def _allowed() -> int:
    said = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(said)) if said.isdigit() else len(os.sched_getaffinity(0))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _allowed() - 1), thread_name_prefix="parts")
