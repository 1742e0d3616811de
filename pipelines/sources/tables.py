"""Plain files of any domain -> columns of cells, in pieces that fit in memory: .csv, .csv.gz and .parquet.

A piece of a CSV is a range of bytes that begins and ends at a line's end and knows the number of its first line, so that every
row can be named by file and line. A row of an event file is one line: a quoted cell that runs over a line's end is refused
(the item file, read whole by items.py, may hold such cells).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

PIECE_BYTES = 16 * 2**20
_LONGEST_LINE = 2**20
_ROW_CHARACTERS = 2_000  # of a refused row that are kept

WRONG_CELLS = "wrong number of cells"
OPEN_QUOTE = "a quote is not closed on its line"
NOT_TEXT = "not text in the file's encoding"


class SourceError(ValueError):
    """A folder or a file that cannot be read as the YAML says; the message names it, what was found and what is accepted."""


@dataclass(frozen=True)
class Table:
    """A file found, and at which position each role ("user", "item", attribute...) stands."""

    path: Path
    form: Literal["csv", "gz", "parquet"]
    encoding: str
    headings: tuple[str, ...]
    columns: dict[str, int]


@dataclass(frozen=True)
class Piece:
    """A part of a file, as plain values. csv: bytes start..stop; gz: everything; parquet: the row group `start`.

    `line` is the number of its first row: physical lines of a CSV (1 = the heading), rows from 1 of a Parquet file.
    """

    path: str
    form: Literal["csv", "gz", "parquet"]
    encoding: str
    width: int
    columns: dict[str, int]
    start: int
    stop: int
    line: int

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Cells:
    """Rows as read. `columns[role]` is (n,) string, trimmed, "" where the cell is empty; `lines` (n,) int64. `bad` are rows that
    are no rows: (line, reason, the text)."""

    columns: Mapping[str, pa.StringArray]
    lines: NDArray[np.int64]
    bad: Sequence[tuple[int, str, str]]
    _texts: Any  # what `text` reads from

    def text(self, row: int) -> str:
        """The row as it stands in the file (JSON for Parquet), cut at 2,000 characters."""
        if isinstance(self._texts, pa.Table):
            whole = json.dumps(self._texts.slice(row, 1).to_pylist()[0], default=str, ensure_ascii=False)
        else:
            data, starts, ends, rows, encoding = self._texts
            whole = data[starts[rows[row]] : ends[rows[row]]].decode(encoding, errors="replace").rstrip("\r")
        return whole[:_ROW_CHARACTERS]


def find(
    folder: Path, names: Sequence[str], accepted: Mapping[str, Sequence[str]], required: Sequence[str], encoding: str = "utf-8"
) -> Table:
    """The first of `names` that `folder` holds, with the position of each role by its accepted headings (the first of them wins;
    letter case and blanks around do not matter).

    Raises SourceError if there is no such file, if it cannot be read, or if a required role has no column.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        there = ", ".join(sorted(entry.name for entry in folder.iterdir())[:20]) or "nothing"
        raise SourceError(f"{folder}: none of {', '.join(names)} is there (found: {there})")
    form = _form(path)
    headings = _headings(path, form, encoding)
    place: dict[str, int] = {}
    for position, heading in enumerate(headings):
        if (name := heading.strip().casefold()) and place.setdefault(name, position) != position:
            raise SourceError(f"{path.name}: the heading {heading.strip()!r} stands twice")
    columns = {}
    for role, words in accepted.items():
        at = next((place[word.strip().casefold()] for word in words if word.strip().casefold() in place), None)
        if at is not None:
            columns[role] = at
        elif role in required:
            found = f"its headings are {', '.join(headings)}"
            raise SourceError(f"{path.name}: no column for {role!r}; {found}; accepted are {', '.join(words)}")
    return Table(path, form, encoding, headings, columns)


def pieces(table: Table, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """The pieces of a table, in order. A plain CSV is read through once to count its lines. Raises SourceError."""
    whole = Piece(str(table.path), table.form, table.encoding, len(table.headings), table.columns, 0, 0, 2)
    match table.form:
        case "gz":
            yield whole
        case "parquet":
            metadata, first = pq.ParquetFile(table.path).metadata, 1
            for group in range(metadata.num_row_groups):
                yield replace(whole, start=group, stop=group + 1, line=first)
                first += metadata.row_group(group).num_rows
        case "csv":
            with table.path.open("rb") as file:
                heading = file.readline()
                start, line = len(heading), 2
                while data := file.read(piece_bytes):
                    if not data.endswith(b"\n"):
                        rest = file.readline(_LONGEST_LINE)
                        if len(rest) == _LONGEST_LINE and not rest.endswith(b"\n"):
                            here = line + data.count(b"\n")
                            raise SourceError(f"{table.path.name}: line {here} is longer than {_LONGEST_LINE} bytes: not a CSV?")
                        data += rest
                    yield replace(whole, start=start, stop=start + len(data), line=line)
                    start += len(data)
                    line += data.count(b"\n")


def read(piece: Piece, piece_bytes: int = PIECE_BYTES) -> Iterator[Cells]:
    """The cells of a piece; a compressed file comes in several parts, others in one. Raises SourceError if the file is damaged."""
    match piece.form:
        case "csv":
            with open(piece.path, "rb") as file:
                file.seek(piece.start)
                yield _parse(file.read(piece.stop - piece.start), piece.line, piece)
        case "gz":
            line = piece.line
            try:
                with gzip.open(piece.path, "rb") as file:
                    file.readline()
                    while data := file.read(piece_bytes):
                        data += file.readline()
                        yield _parse(data, line, piece)
                        line += data.count(b"\n")
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise SourceError(f"{Path(piece.path).name}: damaged after line {line - 1}: {error}") from error
        case "parquet":
            try:
                rows = pq.ParquetFile(piece.path).read_row_group(piece.start, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise SourceError(f"{Path(piece.path).name}: damaged in row group {piece.start}: {error}") from error
            names = rows.column_names
            columns = {role: as_text(rows.column(names[at])) for role, at in piece.columns.items()}
            yield Cells(columns, np.arange(piece.line, piece.line + rows.num_rows, dtype=np.int64), (), rows)


def as_text(column: pa.ChunkedArray) -> pa.StringArray:
    """(n,) string, trimmed: a typed column as a CSV would hold it. Whole floats lose their ".0" (pandas makes ids with gaps floats),
    times become ISO 8601 in UTC, null and NaN become "". Raises SourceError for nested types."""
    values = _one(column)
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.dictionary_decode()
        kind = values.type
    if pa.types.is_floating(kind):
        values = values.cast(pa.float64())
        values = pc.if_else(pc.is_finite(values), values, None)
        whole = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), 2.0**53))
        values = pc.if_else(whole, pc.if_else(whole, values, 0.0).cast(pa.int64()).cast(pa.string()), values.cast(pa.string()))
    elif pa.types.is_timestamp(kind):
        values = values.cast(pa.timestamp("us", None if kind.tz is None else "UTC"), safe=False).cast(pa.string())
    elif pa.types.is_nested(kind):
        raise SourceError(f"a column of type {kind} cannot be read as cells")
    else:
        values = values.cast(pa.string())
    return pc.utf8_trim_whitespace(pc.fill_null(values, ""))


def _form(path: Path) -> Literal["csv", "gz", "parquet"]:
    name = path.name.lower()
    if name.endswith(".csv"):
        return "csv"
    if name.endswith(".csv.gz"):
        return "gz"
    if name.endswith(".parquet"):
        return "parquet"
    raise SourceError(f"{path.name}: not a form that is read; accepted are .csv, .csv.gz and .parquet")


def _headings(path: Path, form: str, encoding: str) -> tuple[str, ...]:
    try:
        if form == "parquet":
            return tuple(pq.read_schema(path).names)
        with gzip.open(path, "rb") if form == "gz" else path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
        text = first.decode(encoding).removeprefix("\ufeff")
        if "\0" in text:
            raise SourceError(f"{path.name}: its first line holds NUL: is it {encoding}?")
        return tuple(next(csv.reader([text]), ()))
    except UnicodeDecodeError as error:
        raise SourceError(f"{path.name}: its first line is not {encoding}: {error.reason}") from error
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path.name}: cannot be read: {error}") from error


def _parse(data: bytes, first_line: int, piece: Piece) -> Cells:
    """The cells of whole lines, by Arrow where they are regular, line by line by the csv module where Arrow counts otherwise."""
    bytes_ = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(bytes_ == 10)
    if len(data) and bytes_[-1] != 10:
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    bad: list[tuple[int, str, str]] = []
    rows = np.arange(len(ends))

    def text_of(row: int) -> str:
        return data[starts[row] : ends[row]].decode(piece.encoding, errors="replace").rstrip("\r")[:_ROW_CHARACTERS]

    quotes = np.flatnonzero(bytes_ == 34) if b'"' in data else np.empty(0, dtype=np.int64)
    odd = np.flatnonzero(np.bincount(np.searchsorted(ends, quotes), minlength=len(ends)) % 2) if len(quotes) else quotes
    body = data
    if len(odd):
        bad.extend((first_line + int(row), OPEN_QUOTE, text_of(int(row))) for row in odd)
        rows = np.delete(rows, odd)
        body = b"".join(data[starts[row] : ends[row]] + b"\n" for row in rows)
    utf8 = body.decode(piece.encoding, errors="replace")
    broken = "\ufffd" in utf8
    if broken or piece.encoding.lower().replace("-", "") != "utf8":
        body = utf8.encode()
    lengths = ends - starts - (bytes_[np.maximum(ends - 1, 0)] == 13 if len(ends) else 0)
    filled = lengths[rows] > 0
    parsed = _by_arrow(body, piece, len(rows))
    if parsed is None:
        parsed = _by_line(body, piece)
    columns, wrong = parsed
    bad.extend((first_line + int(rows[row]), WRONG_CELLS, text_of(int(rows[row]))) for row in wrong if filled[row])
    regular = np.ones(len(rows), dtype=np.bool_)
    regular[wrong] = False
    kept = filled[regular]
    rows = rows[regular]
    columns = {role: pc.utf8_trim_whitespace(column) for role, column in columns.items()}
    if broken:
        suspect = np.zeros(len(rows), dtype=np.bool_)
        for column in columns.values():
            suspect |= np.asarray(pc.match_substring(column, "\ufffd"))
        suspect &= kept
        bad.extend((first_line + int(row), NOT_TEXT, text_of(int(row))) for row in rows[suspect])
        kept &= ~suspect
    if not kept.all():
        rows, mask = rows[kept], pa.array(kept)
        columns = {role: column.filter(mask) for role, column in columns.items()}
    return Cells(columns, (rows + first_line).astype(np.int64), bad, (data, starts, ends, rows, piece.encoding))


def _by_arrow(body: bytes, piece: Piece, lines: int) -> tuple[dict[str, pa.StringArray], list[int]] | None:
    """(columns of the regular rows, positions of rows with a wrong number of cells); None if Arrow does not see a row in each line."""
    wrong: list[int] = []

    def skip(row: Any) -> str:
        wrong.append(row.number - 1)
        return "skip"

    names = [str(position) for position in range(piece.width)]
    used = [names[position] for position in piece.columns.values()]
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(body),
            read_options=pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(body) + 1),
            parse_options=pa.csv.ParseOptions(ignore_empty_lines=False, invalid_row_handler=skip),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(used, pa.string()),
                include_columns=used,
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if table.num_rows + len(wrong) != lines:
        return None
    return {role: _one(table.column(str(position))) for role, position in piece.columns.items()}, wrong


def _by_line(body: bytes, piece: Piece) -> tuple[dict[str, pa.StringArray], list[int]]:
    good: list[list[str]] = []
    wrong: list[int] = []
    for position, line in enumerate(body.decode("utf-8").removesuffix("\n").split("\n") if body else ()):
        cells = next(csv.reader(io.StringIO(line.rstrip("\r"), newline="")), [])
        if len(cells) == piece.width and not any("\n" in cell or "\r" in cell for cell in cells):
            good.append(cells)
        else:
            wrong.append(position)
    return {role: pa.array([cells[at] for cells in good], pa.string()) for role, at in piece.columns.items()}, wrong


def _one(column: pa.ChunkedArray) -> pa.StringArray:
    return pa.concat_arrays([*column.chunks, pa.array([], column.type)])
