"""The items as arrays: titles, tags, categories and numbers, with the domain's rules for what is missing already applied.

A catalogue is immutable; `with_item` makes the next one, so that a title added while serving is there for the next request
and a request under way never sees half of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray

from configs.domain import Category, Items, Number, Tags
from features.mapped import mapped
from features.vocabulary import Vocabulary

_Scalar = TypeVar("_Scalar", bound=np.generic)

#: A cell of an item as the outside gives it.
Cell = str | float | int | Sequence[str] | None


class CellError(ValueError):
    """A cell that cannot be read; the message says which attribute, what stood there and what is allowed."""


@dataclass(frozen=True)
class TagColumn:
    """`words[codes[indptr[i]:indptr[i+1]]]` are the tags of item i."""

    words: tuple[str, ...]
    indptr: NDArray[np.int64]  # (n + 1,)
    codes: NDArray[np.int32]

    def of(self, item: int) -> NDArray[np.int32]:
        return self.codes[self.indptr[item] : self.indptr[item + 1]]

    def one_hot(self) -> NDArray[np.float32]:
        """(n, words) float32, 0 or 1."""
        matrix = np.zeros((len(self.indptr) - 1, len(self.words)), dtype=np.float32)
        matrix[np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr)), self.codes] = 1.0
        return matrix


@dataclass(frozen=True)
class CategoryColumn:
    words: tuple[str, ...]
    codes: NDArray[np.int32]  # (n,)


@dataclass(frozen=True)
class NumberColumn:
    """`values` hold no NaN: what was missing has been filled with `fill`, and `missing` says where."""

    values: NDArray[np.float32]  # (n,), in the attribute's own unit
    missing: NDArray[np.bool_]  # (n,)
    fill: float


Column = TagColumn | CategoryColumn | NumberColumn


@dataclass(frozen=True)
class Catalogue:
    schema: Items
    ids: Vocabulary
    titles: tuple[str, ...]
    available: NDArray[np.bool_]  # (n,)
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.titles)

    def row(self, item: str) -> int | None:
        """The row of an item, None if this catalogue does not hold it (a later one may)."""
        row = self.ids.row(item)
        return None if row is None or row >= len(self) else row

    def tags(self, name: str) -> TagColumn:
        column = self.columns[name]
        assert isinstance(column, TagColumn)
        return column

    def category(self, name: str) -> CategoryColumn:
        column = self.columns[name]
        assert isinstance(column, CategoryColumn)
        return column

    def number(self, name: str) -> NumberColumn:
        column = self.columns[name]
        assert isinstance(column, NumberColumn)
        return column

    def names(self, kind: type[Tags] | type[Category] | type[Number]) -> tuple[str, ...]:
        """Names of the attributes of one kind, in the order of the YAML."""
        return tuple(name for name, attribute in self.schema.attributes.items() if isinstance(attribute, kind))

    def prior(self) -> NDArray[np.float32]:
        """(n,) the catalogue's own popularity count (the attribute marked `prior`), zeros where a domain has none."""
        for name, attribute in self.schema.attributes.items():
            if isinstance(attribute, Number) and attribute.prior:
                return self.number(name).values
        return np.zeros(len(self), dtype=np.float32)

    def capacity(self) -> NDArray[np.float32]:
        """(n,) how many of each item can be owned in all (the attribute marked `capacity`), NaN where that is not known."""
        name = self.schema.capacity
        if name is None:
            return np.full(len(self), np.nan, dtype=np.float32)
        column = self.number(name)
        return np.where(column.missing | (column.values <= 0), np.float32(np.nan), column.values)

    def describe(self, item: int) -> dict[str, list[str] | str | float | None]:
        """The attributes of one item in their own words; None where a number was missing."""
        out: dict[str, list[str] | str | float | None] = {}
        for name, column in self.columns.items():
            match column:
                case TagColumn():
                    out[name] = [column.words[code] for code in column.of(item)]
                case CategoryColumn():
                    out[name] = column.words[column.codes[item]]
                case NumberColumn():
                    out[name] = None if column.missing[item] else round(float(column.values[item]), 6)
                case _:
                    assert_never(column)
        return out

    def with_item(self, item: str, title: str, cells: Mapping[str, Cell], available: bool = True) -> Catalogue:
        """A catalogue that also holds this item (or holds it anew, if the id is known). Raises CellError, ValueError."""
        row = self.row(item)
        where = len(self) if row is None else row
        columns: dict[str, Column] = {}
        for name, attribute in self.schema.attributes.items():
            column, cell = self.columns[name], cells.get(name)
            match attribute:
                case Tags():
                    assert isinstance(column, TagColumn)
                    columns[name] = _with_tags(column, where, tag_words(attribute, cell, name))
                case Category():
                    assert isinstance(column, CategoryColumn)
                    word = category_word(attribute, cell, name)
                    words = column.words if word in column.words else (*column.words, word)
                    columns[name] = CategoryColumn(words, _put(column.codes, where, words.index(word)))
                case Number():
                    assert isinstance(column, NumberColumn)
                    value = number_value(attribute, cell, name)
                    columns[name] = replace(
                        column,
                        values=_put(column.values, where, column.fill if math.isnan(value) else value),
                        missing=_put(column.missing, where, math.isnan(value)),
                    )
                case _:
                    assert_never(attribute)
        titles = (*self.titles[:where], title, *self.titles[where + 1 :])
        ids = self.ids if row is not None else self.ids.plus(item)
        return replace(self, ids=ids, titles=titles, available=_put(self.available, where, available), columns=columns)

    def save(self, directory: Path) -> None:
        """Writes .npy arrays and one JSON; `load` opens them memory-mapped."""
        directory.mkdir(parents=True, exist_ok=True)
        self.ids.save(directory / "ids")
        np.save(directory / "available.npy", self.available)
        words: dict[str, object] = {}
        for name, column in self.columns.items():
            match column:
                case TagColumn():
                    words[name] = column.words
                    np.save(directory / f"{name}.indptr.npy", column.indptr)
                    np.save(directory / f"{name}.codes.npy", column.codes)
                case CategoryColumn():
                    words[name] = column.words
                    np.save(directory / f"{name}.codes.npy", column.codes)
                case NumberColumn():
                    words[name] = column.fill
                    np.save(directory / f"{name}.values.npy", column.values)
                    np.save(directory / f"{name}.missing.npy", column.missing)
                case _:
                    assert_never(column)
        document = {"schema": self.schema.model_dump(mode="json"), "titles": self.titles, "words": words}
        (directory / "catalogue.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Catalogue:
        document = json.loads((directory / "catalogue.json").read_text(encoding="utf-8"))
        schema = Items.model_validate(document["schema"])

        def array(name: str) -> NDArray[np.generic]:
            return mapped(directory / f"{name}.npy")

        columns: dict[str, Column] = {}
        for name, attribute in schema.attributes.items():
            said = document["words"][name]
            match attribute:
                case Tags():
                    columns[name] = TagColumn(
                        tuple(said),
                        array(f"{name}.indptr").astype(np.int64, copy=False),
                        array(f"{name}.codes").astype(np.int32, copy=False),
                    )
                case Category():
                    columns[name] = CategoryColumn(tuple(said), array(f"{name}.codes").astype(np.int32, copy=False))
                case Number():
                    columns[name] = NumberColumn(
                        array(f"{name}.values").astype(np.float32, copy=False),
                        array(f"{name}.missing").astype(np.bool_, copy=False),
                        float(said),
                    )
                case _:
                    assert_never(attribute)
        return cls(
            schema, Vocabulary.load(directory / "ids"), tuple(document["titles"]), array("available").astype(np.bool_, copy=False), columns
        )


def build(
    schema: Items, ids: Sequence[str], titles: Sequence[str], available: Sequence[bool], cells: Mapping[str, Sequence[Cell]]
) -> Catalogue:
    """A catalogue from columns of raw cells, missing ones filled as the YAML says. Raises CellError at the first bad cell."""
    columns: dict[str, Column] = {}
    for name, attribute in schema.attributes.items():
        raw: Sequence[Cell] = cells.get(name) or [None] * len(ids)
        match attribute:
            case Tags():
                split = [tag_words(attribute, cell, name) for cell in raw]
                words = tuple(sorted({word for tags in split for word in tags}))
                code = {word: position for position, word in enumerate(words)}
                indptr = np.concatenate([[0], np.cumsum([len(tags) for tags in split])]).astype(np.int64)
                columns[name] = TagColumn(words, indptr, np.array([code[word] for tags in split for word in tags], dtype=np.int32))
            case Category():
                chosen = [category_word(attribute, cell, name) for cell in raw]
                words = tuple(sorted(set(chosen)))
                code = {word: position for position, word in enumerate(words)}
                columns[name] = CategoryColumn(words, np.array([code[word] for word in chosen], dtype=np.int32))
            case Number():
                values = np.array([number_value(attribute, cell, name) for cell in raw], dtype=np.float32)
                missing = np.isnan(values)
                known = values[~missing]
                if isinstance(attribute.missing, float | int):
                    fill = float(attribute.missing)
                elif not len(known):
                    fill = 0.0
                else:
                    fill = float(known.mean() if attribute.missing == "mean" else np.median(known))
                columns[name] = NumberColumn(np.where(missing, np.float32(fill), values).astype(np.float32), missing, fill)
            case _:
                assert_never(attribute)
    return Catalogue(schema, Vocabulary(ids), tuple(titles), np.array(available, dtype=np.bool_), columns)


def tag_words(attribute: Tags, cell: Cell, name: str) -> tuple[str, ...]:
    """The tags of a cell: split at the separator, trimmed, each once, sorted. Raises CellError."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return attribute.missing
    if isinstance(cell, int | float):
        raise CellError(f"{name}: {cell!r} is a number, expected words separated by {attribute.separator!r}")
    parts = cell.split(attribute.separator) if isinstance(cell, str) else cell
    words = sorted({part.strip() for part in parts if part.strip()})
    return tuple(words) or attribute.missing


def category_word(attribute: Category, cell: Cell, name: str) -> str:
    """The category of a cell. Raises CellError."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return attribute.missing
    if isinstance(cell, int | float):
        return f"{cell:g}"
    if not isinstance(cell, str):
        raise CellError(f"{name}: {cell!r} is a list, expected one word")
    return cell.strip() or attribute.missing


def number_value(attribute: Number, cell: Cell, name: str) -> float:
    """The number of a cell, NaN where it is missing. Raises CellError if it is no number or out of range."""
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        if cell.strip() in attribute.unreadable:
            return math.nan
        try:
            value = float(cell)
        except ValueError:
            raise CellError(f"{name}: {cell!r} is not a number") from None
    elif isinstance(cell, int | float):
        value = float(cell)
    else:
        raise CellError(f"{name}: {cell!r} is a list, expected a number")
    if math.isnan(value):
        return math.nan
    if (
        math.isinf(value)
        or (attribute.low is not None and value < attribute.low)
        or (attribute.high is not None and value > attribute.high)
    ):
        raise CellError(f"{name}: {value:g} is outside {attribute.low} to {attribute.high}")
    return value


def _put(values: NDArray[_Scalar], where: int, value: object) -> NDArray[_Scalar]:
    out = np.empty(max(len(values), where + 1), dtype=values.dtype)
    out[: len(values)] = values
    out[where] = value
    return out


def _with_tags(column: TagColumn, where: int, tags: Sequence[str]) -> TagColumn:
    words = (*column.words, *(tag for tag in tags if tag not in column.words))
    codes = np.array([words.index(tag) for tag in tags], dtype=np.int32)
    n = len(column.indptr) - 1
    before = column.indptr[where] if where < n else column.indptr[-1]
    after = column.indptr[where + 1] if where < n else column.indptr[-1]
    lengths = np.diff(column.indptr)
    lengths = _put(lengths, where, len(codes))
    return TagColumn(
        words,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([column.codes[:before], codes, column.codes[after:]]),
    )
