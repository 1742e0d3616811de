from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.domain import Category, Items, Number, Tags
from features.catalogue import Catalogue, Cell, CellError, build, number_value
from tests.worlds import ITEMS

Row = tuple[str, str, bool, str, str, str]
word = st.sampled_from(["Drama", "War", "Comedy", " Odd one "])
cells = st.tuples(
    st.sampled_from(list("abcdef")),
    st.text(max_size=5),
    st.booleans(),
    st.lists(word, max_size=3).map(",".join),
    st.sampled_from(["", "Film", "Series"]),
    st.sampled_from(["", "Unknown", "3", "12.5"]),
)


def of(rows: Sequence[Row]) -> Catalogue:
    ids, titles, available, genre, form, length = zip(*rows, strict=True) if rows else [()] * 6
    columns: dict[str, Sequence[Cell]] = {"genre": genre, "form": form, "length": length}
    return build(ITEMS, ids, titles, available, columns)


def fields(row: Row) -> dict[str, Cell]:
    return {"genre": row[3], "form": row[4], "length": row[5]}


@given(st.lists(cells, min_size=1, max_size=6, unique_by=lambda row: row[0]), st.lists(cells, max_size=6))
def test_an_item_added_later_is_as_if_it_had_been_there(first: list[Row], later: list[Row]) -> None:
    grown = of(first)
    before = [grown.describe(item) for item in range(len(grown))]
    final = {row[0]: row for row in first}
    catalogue = grown
    for row in later:
        catalogue = catalogue.with_item(row[0], row[1], fields(row), row[2])
        final[row[0]] = row
    expected = of(list(final.values()))
    assert catalogue.titles == expected.titles
    assert catalogue.available.tolist() == expected.available.tolist()
    for item in range(len(expected)):
        ours, theirs = catalogue.describe(item), expected.describe(item)
        assert sorted(ours.pop("genre")) == theirs.pop("genre")  # type: ignore[arg-type]
        assert ours == theirs
        assert catalogue.row(expected.ids.id(item)) == item
    assert [grown.describe(item) for item in range(len(grown))] == before, "the catalogue before is as it was"
    assert len(grown) == len(first) == len(grown.ids)


def test_two_successors_do_not_know_each_other() -> None:
    first = of([("a", "A", True, "Drama", "Film", "1")])
    left, right = first.with_item("l", "L", {}), first.with_item("r", "R", {"genre": ["New"]})
    assert (left.row("l"), left.row("r"), right.row("r"), right.row("l")) == (1, None, 1, None)
    assert (left.titles, right.titles) == (("A", "L"), ("A", "R"))
    assert right.describe(1)["genre"] == ["New"]
    again = left.with_item("r", "R", {})
    assert (again.row("r"), again.titles) == (2, ("A", "L", "R"))


def test_a_bad_cell_adds_nothing() -> None:
    first = of([("a", "A", True, "", "", "")])
    with pytest.raises(CellError, match="length: 'long' is not a number"):
        first.with_item("b", "B", {"length": "long"})
    with pytest.raises(CellError, match="genre: 3 is a number"):
        first.with_item("b", "B", {"genre": 3})
    with pytest.raises(ValueError, match="not an id"):
        first.with_item("", "B", {})
    assert (len(first), first.row("b")) == (1, None)


@given(st.lists(cells, max_size=6, unique_by=lambda row: row[0]), st.lists(cells, max_size=2))
def test_it_comes_back_from_disk(tmp_path_factory: pytest.TempPathFactory, first: list[Row], later: list[Row]) -> None:
    catalogue = of(first)
    for row in later:
        catalogue = catalogue.with_item(row[0], row[1], fields(row), row[2])
    directory = tmp_path_factory.mktemp("catalogue")
    catalogue.save(directory)
    back = Catalogue.load(directory)
    assert (back.schema, back.titles, back.available.tolist()) == (catalogue.schema, catalogue.titles, catalogue.available.tolist())
    for item in range(len(catalogue)):
        assert back.describe(item) == catalogue.describe(item)
        assert back.row(catalogue.ids.id(item)) == item
    assert back.with_item("new", "New", {}).row("new") == len(catalogue)


def test_what_is_missing_is_filled_as_the_yaml_says() -> None:
    schema = Items(
        attributes={
            "genre": Tags(type="tags", missing=("Untold",)),
            "form": Category(type="category", missing="Other"),
            "mean": Number(type="number", missing="mean"),
            "median": Number(type="number"),
            "fixed": Number(type="number", missing=7.0, prior=True),
        }
    )
    numbers: list[Cell] = ["1", "2", "6", None]
    made = build(
        schema,
        list("abcd"),
        list("ABCD"),
        [True] * 4,
        {"mean": numbers, "median": numbers, "fixed": numbers, "form": ["Film", None, "", 3.0]},
    )
    assert [made.number(name).values[3] for name in ("mean", "median", "fixed")] == [3.0, 2.0, 7.0]
    assert made.number("mean").missing.tolist() == [False, False, False, True]
    assert made.describe(3) == {"genre": ["Untold"], "form": "3", "mean": None, "median": None, "fixed": None}
    assert made.describe(1)["form"] == "Other"
    assert made.prior().tolist() == [1.0, 2.0, 6.0, 7.0]
    assert made.names(Number) == ("mean", "median", "fixed")
    assert made.tags("genre").one_hot().tolist() == [[1.0]] * 4


def test_numbers_are_checked_against_their_range() -> None:
    number = Number(type="number", low=0, high=10)
    assert number_value(number, " 10 ", "rating") == 10.0
    assert all(np.isnan(number_value(number, cell, "rating")) for cell in (None, "", "Unknown", float("nan")))
    for cell in ("10.1", -1, "inf", float("inf")):
        with pytest.raises(CellError, match=r"rating: .* is outside 0.0 to 10.0"):
            number_value(number, cell, "rating")
    with pytest.raises(CellError, match="a list"):
        number_value(number, ["1"], "rating")


def test_an_empty_catalogue_can_grow(tmp_path: Path) -> None:
    made = of([]).with_item("a", "A", {"genre": "War", "form": "Film", "length": 3})
    assert made.describe(0) == {"genre": ["War"], "form": "Film", "length": 3.0, "members": None}
