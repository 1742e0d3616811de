"""How functions are compiled: by numba, once, kept beside the code or in the user's cache, or only in memory where neither can be written.

What numba keeps lies in the same folders as Python's own compiled files and is trusted as those are; no data comes from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """The function, compiled at its first call with each set of types. It holds no lock while it runs."""
    return _compiled(function, False)


def fused(function: F) -> F:
    """As `compiled`, for linear algebra: a product and a sum may be one instruction, and sums may be taken in another order."""
    return _compiled(function, {"contract", "reassoc", "nsz"})


def _compiled(function: F, free: bool | set[str]) -> F:
    errors: Literal["numpy", "python"] = "numpy" if free else "python"  # a division by zero gives inf, or raises
    try:
        return cast(F, njit(cache=True, nogil=True, boundscheck=False, error_model=errors, fastmath=free)(function))
    except RuntimeError:  # no folder for the cache: a read-only installation of somebody without a home
        return cast(F, njit(nogil=True, boundscheck=False, error_model=errors, fastmath=free)(function))
