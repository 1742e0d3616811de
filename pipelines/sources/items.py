"""The item file, read whole: each cell checked by the rules of the YAML, so that the catalogue built from the result cannot fail."""

from __future__ import annotations

import csv
import gzip
import html
import io
import math
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import pyarrow as pa
import pyarrow.parquet as pq

from configs.domain import Category, Domain, Items, Number, Tags
from features.catalogue import Catalogue, Cell, CellError, build, category_word, number_value, tag_words
from features.tables import AVAILABLE, ITEM, TITLE
from features.vocabulary import MAX_ID_BYTES
from pipelines.sources.tables import NOT_TEXT, OPEN_QUOTE, WRONG_CELLS, SourceError, Table, as_text, find

_YES = frozenset({"", "1", "1.0", "true", "t", "yes", "y"})
_NO = frozenset({"0", "0.0", "false", "f", "no", "n"})


@dataclass(frozen=True)
class Added:
    """An item that was added while serving: it stands in no file."""

    item: str
    title: str
    cells: Mapping[str, Cell] = field(default_factory=dict)
    available: bool = True


@dataclass(frozen=True)
class ItemRows:
    """`table`: item, title, available and the attributes (tags: list of strings, category: string, number: double; null = missing), in
    the order of the file. `bad`: (line, reason, row as read). `rows`: how many were read, bad ones included."""

    table: pa.Table
    bad: Sequence[tuple[int, str, str]]
    rows: int


def find_items(domain: Domain, folder: Path) -> Table:
    """The item file of the folder. Raises SourceError; the attributes' columns may be absent, then all their cells are missing."""
    file = domain.source.items
    attributes = {f"attribute {name}": file.attributes.get(name, (name,)) for name in domain.items.attributes}
    accepted = {ITEM: file.item, TITLE: file.title, AVAILABLE: file.available, **attributes}
    return find(folder, file.files, accepted, required=(ITEM, TITLE), encoding=file.encoding)


def read_items(domain: Domain, found: Table, added: Sequence[Added] = ()) -> ItemRows:
    """Reads and checks. An item of `added` takes the place of the file's row of the same id. Raises SourceError if the file is damaged."""
    schema, file = domain.items, domain.source.items
    columns: dict[str, list[object]] = {name: [] for name in (ITEM, TITLE, AVAILABLE, *schema.attributes)}
    bad: list[tuple[int, str, str]] = []
    seen: dict[str, int] = {}
    count = 0

    def keep(item: str, title: str, available: bool, cells: Mapping[str, object]) -> None:
        where = seen.setdefault(item, len(columns[ITEM]))
        for name, value in {ITEM: item, TITLE: title, AVAILABLE: available, **cells}.items():
            columns[name][where : where + 1] = [value]

    for line, row, text in rows_of(found):
        count += 1
        if isinstance(row, str):
            bad.append((line, row, text))
            continue
        try:
            item = str(row[found.columns[ITEM]] or "").strip()
            check_id(item)
            if item in seen:
                raise CellError("item: stands twice")
            cells: dict[str, object] = {}
            for name in schema.attributes:
                at = found.columns.get(f"attribute {name}")
                cells[name] = clean(schema, name, _unescaped(row[at], file.unescape_html) if at is not None else None)
            title = str(_unescaped(row[found.columns[TITLE]], file.unescape_html) or "").strip()
            at = found.columns.get(AVAILABLE)
            keep(item, title or item, _available(row[at]) if at is not None else True, cells)
        except CellError as error:
            bad.append((line, str(error), text))
    for extra in added:
        keep(extra.item, extra.title, extra.available, {name: clean(schema, name, extra.cells.get(name)) for name in schema.attributes})
    return ItemRows(pa.table(columns, schema=arrow_schema(schema)), bad, count)


def arrow_schema(schema: Items) -> pa.Schema:
    """The columns of items.parquet."""
    own = {ITEM: pa.string(), TITLE: pa.string(), AVAILABLE: pa.bool_()}
    fields = [pa.field(name, kind, nullable=False) for name, kind in own.items()]
    for name, attribute in schema.attributes.items():
        match attribute:
            case Tags():
                fields.append(pa.field(name, pa.list_(pa.string())))
            case Category():
                fields.append(pa.field(name, pa.string()))
            case Number():
                fields.append(pa.field(name, pa.float64()))
            case _:
                assert_never(attribute)
    return pa.schema(fields)


def clean(schema: Items, name: str, cell: Cell) -> list[str] | str | float | None:
    """A cell as items.parquet holds it: None where it is missing. Raises CellError."""
    attribute = schema.attributes[name]
    match attribute:
        case Tags():
            tags = tag_words(attribute.model_copy(update={"missing": ()}), cell, name)
            return list(tags) or None
        case Category():
            return category_word(attribute.model_copy(update={"missing": ""}), cell, name) or None
        case Number():
            value = number_value(attribute, cell, name)
            return None if math.isnan(value) else value
        case _:
            assert_never(attribute)


def catalogue_of(schema: Items, table: pa.Table) -> Catalogue:
    """The catalogue of items.parquet: row i of the table is item i, what is missing filled as the YAML says."""
    columns = table.to_pydict()
    return build(schema, columns[ITEM], columns[TITLE], columns[AVAILABLE], {name: columns[name] for name in schema.attributes})


def check_id(item: str, column: str = "item") -> None:
    """Raises CellError if an outside id is empty, too long, or holds control characters."""
    if not item:
        raise CellError(f"{column}: empty")
    if len(item.encode("utf-8", "replace")) > MAX_ID_BYTES:
        raise CellError(f"{column}: longer than {MAX_ID_BYTES} bytes")
    if any(unicodedata.category(letter) == "Cc" for letter in item):
        raise CellError(f"{column}: holds control characters")


def rows_of(found: Table) -> Iterator[tuple[int, Sequence[Cell] | str, str]]:
    """(line, its cells or why they cannot be had, the text) of every row of a file; rows of a CSV are physical lines, 1 = the heading.
    Raises SourceError if it is damaged."""
    return _parquet_rows(found) if found.form == "parquet" else _csv_rows(found)


def _available(cell: Cell) -> bool:
    word = str("" if cell is None else cell).strip().lower()
    if word not in _YES | _NO:
        raise CellError(f"available: {cell!r} is neither true nor false")
    return word in _YES


def _unescaped(cell: Cell, wanted: bool) -> Cell:
    return html.unescape(cell) if wanted and isinstance(cell, str) else cell


def _csv_rows(found: Table) -> Iterator[tuple[int, Sequence[Cell] | str, str]]:
    """(first line of the row, its cells or why they cannot be had, the text)."""
    try:
        with gzip.open(found.path, "rb") if found.form == "gz" else found.path.open("rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{found.path.name}: cannot be read: {error}") from error
    text = data.decode(found.encoding, errors="replace").removeprefix("\ufeff")
    lines = io.StringIO(text, newline="").readlines()
    broken = "\ufffd" in text
    reader = csv.reader(iter(lines))
    next(reader, None)
    before = reader.line_num
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield before + 1, f"unreadable: {error}", "".join(lines[before : reader.line_num])[:2_000].rstrip("\r\n")
            before = reader.line_num
            continue
        whole = "".join(lines[before : reader.line_num])[:2_000].rstrip("\r\n")
        first, before = before + 1, reader.line_num
        if not row:
            continue
        if len(row) != len(found.headings):
            yield first, OPEN_QUOTE if before - first > 20 else WRONG_CELLS, whole
        elif broken and any("\ufffd" in cell for cell in row):
            yield first, NOT_TEXT, whole
        else:
            yield first, row, whole


def _parquet_rows(found: Table) -> Iterator[tuple[int, Sequence[Cell] | str, str]]:
    try:
        table = pq.read_table(found.path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{found.path.name}: cannot be read: {error}") from error
    columns: list[list[Cell]] = []
    for column in table.columns:
        nested = pa.types.is_nested(column.type)
        columns.append(column.to_pylist() if nested else as_text(column).to_pylist())
    for position, row in enumerate(zip(*columns, strict=True)):
        yield position + 1, row, ",".join(str(cell) for cell in row)[:2_000]
