"""Outside id <-> row number, for any number of ids, without a dictionary in every process.

Ids are kept as sorted fixed-width UTF-8 bytes: a memory-mapped array that all replicas of a machine share, searched by
bisection. Ids that come later live in a small dictionary on top.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.mapped import mapped

MAX_ID_BYTES = 200


class Vocabulary:
    """Rows are 0..len-1. `ids` at creation keep their order: the id at position i has row i."""

    def __init__(self, ids: Sequence[str]) -> None:
        """Raises ValueError if an id is empty, too long, holds a NUL, or occurs twice."""
        encoded = [identifier.encode() for identifier in ids]
        for identifier in encoded:
            if not identifier or len(identifier) > MAX_ID_BYTES or b"\0" in identifier:
                raise ValueError(f"not an id: {identifier!r} (1 to {MAX_ID_BYTES} bytes, no NUL)")
        self._index(np.array(encoded, dtype=f"S{max((len(i) for i in encoded), default=1)}"))

    @classmethod
    def of_bytes(cls, ids: NDArray[np.bytes_]) -> Vocabulary:
        """From (n,) fixed-width UTF-8 ids that were checked before, without a Python object for each. Raises ValueError as above."""
        made = cls.__new__(cls)
        made._index(ids)
        return made

    def _index(self, by_row: NDArray[np.bytes_]) -> None:
        order = np.argsort(by_row, kind="stable").astype(np.int32)
        ascending = by_row[order]
        if len(ascending) > 1 and bool((ascending[1:] == ascending[:-1]).any()):
            twice = ascending[1:][ascending[1:] == ascending[:-1]][0]
            raise ValueError(f"id {twice.decode()!r} occurs twice")
        self._open(by_row, ascending, order)

    def _open(self, by_row: NDArray[np.bytes_], ascending: NDArray[np.bytes_], order: NDArray[np.int32]) -> None:
        self._by_row, self._ascending, self._order = by_row, ascending, order
        self._later: dict[str, int] = {}
        self._later_ids: list[str] = []

    def __len__(self) -> int:
        return len(self._by_row) + len(self._later_ids)

    def __contains__(self, identifier: str) -> bool:
        return self.row(identifier) is not None

    def row(self, identifier: str) -> int | None:
        """The row of an id, None if it is unknown."""
        if self._later:
            row = self._later.get(identifier)
            if row is not None:
                return row
        try:
            wanted = identifier.encode()
        except UnicodeEncodeError:
            return None
        if not wanted or len(wanted) > self._ascending.dtype.itemsize or wanted[-1] == 0:
            return None
        place = bisect_left(self._ascending, wanted)  # numpy's own would first convert the whole array to the width of `wanted`
        if place < len(self._ascending) and self._ascending[place] == wanted:
            return int(self._order[place])
        return None

    def rows(self, identifiers: Sequence[str]) -> NDArray[np.int32]:
        """(n,) int32 rows, -1 where unknown; vectorised over the sorted part."""
        if not len(self._ascending) or not len(identifiers):
            return np.array([-1 if (row := self.row(i)) is None else row for i in identifiers], dtype=np.int32)
        wanted = np.char.encode(np.asarray(identifiers, dtype=np.str_), "utf-8")
        place = np.minimum(np.searchsorted(self._ascending, wanted), len(self._ascending) - 1)
        found = np.where(self._ascending[place] == wanted, self._order[place], -1).astype(np.int32)
        if self._later:
            for position in np.flatnonzero(found < 0).tolist():
                found[position] = self._later.get(identifiers[position], -1)
        return found

    def id(self, row: int) -> str:
        """The id of a row. Raises IndexError beyond the last."""
        fixed = len(self._by_row)
        if row < 0:
            raise IndexError(f"row {row}")
        return bytes(self._by_row[row]).decode() if row < fixed else self._later_ids[row - fixed]

    def ids(self, rows: Iterable[int]) -> list[str]:
        return [self.id(int(row)) for row in rows]

    def add(self, identifier: str) -> int:
        """The row of an id, given a new one at the end if it is unknown. Raises ValueError as the constructor does."""
        known = self.row(identifier)
        if known is not None:
            return known
        if not identifier or "\0" in identifier or len(identifier.encode()) > MAX_ID_BYTES:
            raise ValueError(f"not an id: {identifier!r} (1 to {MAX_ID_BYTES} bytes, no NUL)")
        row = len(self)
        self._later[identifier] = row
        self._later_ids.append(identifier)
        return row

    def plus(self, identifier: str) -> Vocabulary:
        """A vocabulary that also holds this id, at its end; this one stays as it is. Raises ValueError as the constructor does."""
        more = Vocabulary.__new__(Vocabulary)
        more._by_row, more._ascending, more._order = self._by_row, self._ascending, self._order
        more._later, more._later_ids = dict(self._later), list(self._later_ids)
        more.add(identifier)
        return more

    def save(self, directory: Path) -> None:
        """Writes the ids (those added later too) as three .npy files."""
        whole = Vocabulary([self.id(row) for row in range(len(self))]) if self._later_ids else self
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / "ids.npy", whole._by_row)
        np.save(directory / "ascending.npy", whole._ascending)
        np.save(directory / "order.npy", whole._order)

    @classmethod
    def load(cls, directory: Path) -> Vocabulary:
        """Opens the files memory-mapped. Raises FileNotFoundError, ValueError if they are not what `save` wrote."""
        opened = cls.__new__(cls)
        opened._open(*(mapped(directory / f"{name}.npy") for name in ("ids", "ascending", "order")))
        return opened
