"""How functions are compiled: by numba, once, kept beside the code or in the user's cache, or only in memory where neither can be written.

What numba keeps lies in the same folders as Python's own compiled files and is trusted as those are; no data comes from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """The function, compiled at its first call with each set of types (`search.warm` makes these calls). It holds no lock while it runs."""
    try:
        return cast(F, njit(cache=True, nogil=True, boundscheck=False)(function))
    except RuntimeError:  # no folder for the cache: a read-only installation of somebody without a home
        return cast(F, njit(nogil=True, boundscheck=False)(function))
