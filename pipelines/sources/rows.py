"""Small plain files of several kinds, row by row: each cell is read by a rule, and what is refused is named by file, line, value and
what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path

from features.catalogue import CellError
from pipelines.sources.items import check_id, rows_of
from pipelines.sources.tables import SourceError, find

FORMS = (".csv", ".csv.gz", ".parquet")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)")


@dataclass
class Sheet:
    """One file. `bad` fills while it is read: (line, reason, the row as read); `rows` counts all of them."""

    name: str
    rows: int = 0
    bad: list[tuple[int, str, str]] = field(default_factory=list)


Row = Mapping[str, str]


def exists(folder: Path, stem: str) -> Path | None:
    """The file `stem` in one of the forms that are read, None if there is none."""
    return next((folder / (stem + form) for form in FORMS if (folder / (stem + form)).is_file()), None)


def each(folder: Path, stem: str, required: Sequence[str], optional: Sequence[str], sheet: Sheet, keep: Callable[[Row], None]) -> None:
    """Calls `keep` with the trimmed cells of every row, "" where a cell or a column of `optional` is missing; a CellError it raises makes
    the row a bad one. Raises SourceError if the file or a required column is missing, or the file is damaged."""
    for line, row, text in _read(folder, stem, required, optional, sheet):
        try:
            if isinstance(row, str):
                raise CellError(row)
            keep(row)
        except CellError as error:
            sheet.bad.append((line, str(error), text))


def strictly(
    folder: Path, stem: str, required: Sequence[str], optional: Sequence[str]
) -> Iterator[tuple[Row, Callable[[str], SourceError]]]:
    """The rows of a file in which no row may be bad, each with what makes an error of a message that names file and line."""
    sheet = Sheet(stem)
    for line, row, _ in _read(folder, stem, required, optional, sheet):

        def fault(message: str, line: int = line) -> SourceError:
            return SourceError(f"{sheet.name}, line {line}: {message}")

        if isinstance(row, str):
            raise fault(row)
        yield row, fault


def _read(folder: Path, stem: str, required: Sequence[str], optional: Sequence[str], sheet: Sheet) -> Iterator[tuple[int, Row | str, str]]:
    found = find(folder, [stem + form for form in FORMS], {name: (name,) for name in (*required, *optional)}, required)
    sheet.name = found.path.name
    for line, cells, text in rows_of(found):
        sheet.rows += 1
        if isinstance(cells, str):
            yield line, cells, text
        else:
            own = dict.fromkeys((*required, *optional), "")
            own.update({name: str(cells[at] or "").strip() for name, at in found.columns.items()})
            yield line, own, text


# ------------------------------------------------------------------ cells


def identity(row: Row, name: str) -> str:
    """An id. Raises CellError if it is empty, too long or holds control characters."""
    check_id(row[name], name)
    return row[name]


def whole(row: Row, name: str, low: int, high: int, empty: int | None = None) -> int:
    """A whole number from low to high; `empty` for an empty cell (None: refused). Raises CellError."""
    cell = row[name]
    if not cell and empty is not None:
        return empty
    if not re.fullmatch(r"[+-]?\d{1,9}(\.0+)?", cell) or not low <= int(cell.split(".")[0]) <= high:
        raise CellError(f"{name}: {cell!r} is not allowed; whole numbers from {low} to {high} are")
    return int(cell.split(".")[0])


def money(row: Row, name: str, minor: int) -> int | None:
    """An amount in units of which `minor` are one of the currency; None for an empty cell. Raises CellError."""
    cell = row[name]
    if not cell:
        return None
    try:
        amount = Decimal(cell) * minor
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0 or amount > 2**31 - 1 or amount != amount.to_integral_value():
        raise CellError(f"{name}: {cell!r} is not allowed; amounts from 0 in steps of 1/{minor} are")
    return int(amount)


def truth(row: Row, name: str, empty: bool) -> bool:
    """true or false, `empty` for an empty cell. Raises CellError."""
    word = row[name].casefold()
    if word not in ("", "true", "false", "1", "0", "yes", "no"):
        raise CellError(f"{name}: {row[name]!r} is not allowed; true and false are, and empty for {str(empty).lower()}")
    return word in ("true", "1", "yes") if word else empty


def listed(row: Row, name: str) -> tuple[str, ...]:
    """The parts of a list separated by semicolons, trimmed, each once, in the order given; none for a column that was not asked for."""
    return tuple(dict.fromkeys(part.strip() for part in row.get(name, "").split(";") if part.strip()))


def moment(row: Row, name: str) -> int:
    """Microseconds UTC of an ISO 8601 time with an offset. Raises CellError."""
    when = _moment(row[name])
    if when is None:
        raise CellError(f"{name}: {row[name]!r} is not allowed; ISO 8601 with an offset from UTC is, such as 2026-07-01T13:00:00+05:00")
    return when


@lru_cache(maxsize=65_536)
def _moment(cell: str) -> int | None:
    if not _MOMENT.fullmatch(cell):
        return None
    try:
        when = datetime.fromisoformat(cell)
    except ValueError:
        return None
    since = when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
