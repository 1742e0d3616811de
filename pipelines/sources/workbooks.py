"""Sheets of .xlsx files, row by row: a cell that cannot be read is refused with file, sheet, row and column."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path

from openpyxl import load_workbook
from openpyxl.utils import get_column_letter
from openpyxl.utils.exceptions import InvalidFileException

from pipelines.sources.tables import SourceError

_TEXT_TIMES = ("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M")
_DURATION = re.compile(r"(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?")


@dataclass(frozen=True)
class SheetRow:
    """A row of the first sheet; `cells` by heading. Rows count from 1, which is the heading."""

    file: str
    sheet: str
    number: int
    headings: Mapping[str, int]  # -> column, from 1
    cells: Sequence[object]

    def fault(self, heading: str, allowed: str) -> SourceError:
        """What is wrong with a cell."""
        at = self.headings[heading]
        where = f"{self.file}, sheet {self.sheet!r}, row {self.number}, column {get_column_letter(at)} ({heading or 'no heading'})"
        return SourceError(f"{where}: {self.cells[at - 1]!r} is not allowed; {allowed}")

    def cell(self, heading: str) -> object:
        return self.cells[self.headings[heading] - 1]

    def text(self, heading: str, empty: bool = False) -> str:
        """A cell's text, blanks around it and doubled ones taken away. Raises SourceError for an empty one unless `empty`."""
        value = self.cell(heading)
        said = "" if value is None else re.sub(r"\s+", " ", str(value)).strip()
        if not said and not empty:
            raise self.fault(heading, "text is")
        return said

    def whole(self, heading: str, low: int, high: int, empty: int | None = None) -> int:
        value = self.cell(heading)
        if value is None and empty is not None:
            return empty
        try:
            number = float(str(value).strip())
        except ValueError:
            number = float("nan")
        if isinstance(value, bool) or not (number.is_integer() and low <= number <= high):
            raise self.fault(heading, f"whole numbers from {low} to {high} are")
        return int(number)

    def truth(self, heading: str, empty: bool = False) -> bool:
        word = self.text(heading, empty=True).casefold()
        if word not in ("", "0", "1", "false", "true", "нет", "да"):
            raise self.fault(heading, f"1, 0, True and False are, and empty for {empty}")
        return word in ("1", "true", "да") if word else empty

    def when(self, heading: str) -> datetime:
        """A local time without a zone: a date of the sheet, or text that looks like one."""
        value = self.cell(heading)
        if isinstance(value, datetime):
            return value.replace(tzinfo=None)
        for form in _TEXT_TIMES:
            try:
                return datetime.strptime(str(value).strip(), form)
            except ValueError:
                continue
        raise self.fault(heading, "a date with a time is, or text such as 2022-07-01 13:00:00 or 01.07.2022 13:00")

    def minutes(self, heading: str) -> int:
        """A duration: text HH:MM or HH:MM:SS, or a time of the sheet. Whole minutes, at least one."""
        value = self.cell(heading)
        if isinstance(value, time):
            seconds = value.hour * 3_600 + value.minute * 60 + value.second
        elif isinstance(value, timedelta):
            seconds = int(value.total_seconds())
        elif isinstance(value, str) and (parts := _DURATION.fullmatch(value.strip())) and int(parts[2]) < 60 and int(parts[3] or 0) < 60:
            seconds = int(parts[1]) * 3_600 + int(parts[2]) * 60 + int(parts[3] or 0)
        else:
            seconds = 0
        if seconds < 60 or seconds % 60:
            raise self.fault(heading, "a duration of whole minutes such as 00:45:00 is")
        return seconds // 60


def sheet(path: Path, needed: Sequence[str]) -> Iterator[SheetRow]:
    """The rows of the first sheet below its heading; rows without any cell are passed over. Raises SourceError for what is no workbook,
    and for a heading that is missing."""
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, InvalidFileException) as error:
        raise SourceError(f"{path.name}: cannot be read as a workbook (.xlsx): {error}") from error
    try:
        if not book.worksheets:
            raise SourceError(f"{path.name}: the workbook has no sheet")
        first = book.worksheets[0]
        rows = first.iter_rows(values_only=True)
        heading = ["" if cell is None else str(cell).strip() for cell in next(rows, ())]
        place: dict[str, int] = {}
        for at, name in enumerate(heading, start=1):
            place.setdefault(name, at)
        for name in needed:
            if name not in place:
                found = ", ".join(name for name in heading if name) or "none"
                raise SourceError(f"{path.name}, sheet {first.title!r}, row 1: no column {name!r}; its headings are {found}")
        for number, cells in enumerate(rows, start=2):
            if any(cell is not None and str(cell).strip() for cell in cells):
                full = (*cells, *([None] * (len(heading) - len(cells))))
                yield SheetRow(path.name, first.title, number, place, full)
    finally:
        book.close()
