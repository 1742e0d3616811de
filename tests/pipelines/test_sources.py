from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.domain import Tags
from features.catalogue import tag_words
from pipelines.sources import prepare
from pipelines.sources.cells import moments, numbers, shards
from pipelines.sources.tables import Piece, SourceError, as_text, find, pieces, read
from tests.pipelines.toy import domain

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def strings(*cells: str) -> pa.StringArray:
    return pa.array(cells, pa.string())


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_is_read_as_python_reads_it(value: float) -> None:
    readable, values = numbers(strings(repr(value), f" {value!r}"))
    assert readable.tolist() == [True, False]  # cells come trimmed
    assert values[0] == value


@given(st.text(max_size=8))
def test_what_is_no_number_for_python_is_none_here(cell: str) -> None:
    readable, values = numbers(strings(cell))
    if readable[0]:
        assert values[0] == float(cell)


@pytest.mark.parametrize("cell", ["", "nan", "inf", "1e999", "1_000", "0x10", "--1", "1,5", ".", "e5"])
def test_these_are_no_numbers(cell: str) -> None:
    assert not numbers(strings(cell))[0][0]


offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(
    st.datetimes(datetime(1600, 1, 2), datetime(2999, 12, 30), timezones=st.one_of(st.none(), st.just(UTC), offsets)), st.sampled_from("T ")
)
def test_iso_times_are_read_to_the_microsecond(when: datetime, between: str) -> None:
    readable, values = moments(strings(when.isoformat(sep=between)))
    expected = (when if when.tzinfo else when.replace(tzinfo=UTC)) - EPOCH
    assert readable[0]
    assert values[0] == expected // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("cell", "microseconds"),
    [
        ("2022-05-17", 1_652_745_600_000_000),
        ("2022-05-17T10:08Z", 1_652_782_080_000_000),
        ("2022-05-17T13:08:00+03", 1_652_782_080_000_000),
        ("2022-05-17T13:08:00+0300", 1_652_782_080_000_000),
        ("2022-05-17T10:08:00.123456789Z", 1_652_782_080_123_456),
        ("1652782080", 1_652_782_080_000_000),
        ("1652782080.0", 1_652_782_080_000_000),
        ("1652782080123", 1_652_782_080_123_000),
        ("1652782080123456", 1_652_782_080_123_456),
        ("-100000000", -100_000_000_000_000),
    ],
)
def test_accepted_forms_of_a_time(cell: str, microseconds: int) -> None:
    # among others, so that no form spoils its neighbours
    readable, values = moments(strings("2020-01-01", cell, "x", "1600000000", "2020-01-01T00:00:00+01:00"))
    assert readable.tolist() == [True, True, False, True, True]
    assert values[1] == microseconds


@pytest.mark.parametrize(
    "cell",
    [
        *("", "2022", "20220517", "17.05.2022", "1652782080.5"),
        *("2022-13-01", "2022-00-10", "2022-01-32", "2023-02-29", "1900-02-29", "2022-04-31"),
        *("2022-05-17T24:00:00", "2022-05-17T10:60", "2022-05-17T10:08:00+24:00"),
    ],
)
def test_these_are_no_times(cell: str) -> None:
    assert not moments(strings(cell, "2024-02-29"))[0][0]


@given(st.integers(1, 2999), st.integers(1, 12), st.integers(1, 31))
def test_a_day_is_read_if_the_calendar_has_it(year: int, month: int, day: int) -> None:
    readable, _ = moments(strings(f"{year:04d}-{month:02d}-{day:02d}"))
    assert readable[0] == (year >= 1000 and day <= calendar.monthrange(year, month)[1])


@given(st.text(max_size=20), st.sampled_from([",", "|", " / "]))
def test_tags_are_trimmed_distinct_and_sorted(cell: str, separator: str) -> None:
    words = tag_words(Tags(type="tags", separator=separator, missing=("None",)), cell, "genre")
    assert list(words) == sorted({part.strip() for part in cell.split(separator) if part.strip()} or {"None"})


def shard_of(word: str) -> int:
    """The hash of one id in plain integers, as cells.shards describes it."""
    whole = 2**64
    at = sum((byte + 1) * pow(0x9E3779B97F4A7C15, place, whole) for place, byte in enumerate(word.encode(), start=1)) % whole
    at = (at ^ (at >> 30)) * 0xBF58476D1CE4E5B9 % whole
    at = (at ^ (at >> 27)) * 0x94D049BB133111EB % whole
    return at ^ (at >> 31)


def test_partitions_are_the_same_in_every_process_and_even() -> None:
    ids = [str(one) for one in range(20_000)]
    where = shards(pa.array(ids), 16)
    words = ["a", "1", "", "漢字", "a", "x" * 200]
    assert shards(strings(*words), 1_000).tolist() == [shard_of(word) % 1_000 for word in words]
    assert np.bincount(where, minlength=16).min() > 1_100
    assert shards(pa.array(ids[5_000:]), 16).tolist() == where[5_000:].tolist()
    assert len(shards(pa.array([], pa.string()), 4)) == 0


@pytest.mark.parametrize("piece_bytes", [1, 7, 64, 10_000])
def test_pieces_are_whole_lines_that_know_their_number(tmp_path: Path, piece_bytes: int) -> None:
    lines = [f"u{n},{'x' * (n % 13)}" for n in range(100)]
    (tmp_path / "e.csv").write_text("user,item\n" + "\n".join(lines))
    table = find(tmp_path, ["e.csv"], {"user": ["user"], "item": ["item"]}, ["user"])
    found: list[tuple[int, str, str]] = []
    for piece in pieces(table, piece_bytes):
        for cells in read(piece):
            found.extend(zip(cells.lines.tolist(), cells.columns["user"].to_pylist(), cells.columns["item"].to_pylist(), strict=True))
            assert [cells.text(row) for row in range(len(cells.lines))] == [lines[line - 2] for line in cells.lines]
    assert found == [(n + 2, *line.split(",")) for n, line in enumerate(lines)]


@given(st.lists(st.text(st.sampled_from('ab,"\r\té'), max_size=9), max_size=8))
def test_whatever_stands_in_a_file_each_line_is_a_row_or_bad(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("odd") / "e.csv"
    data = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(data)
    piece = Piece(str(path), "csv", "utf-8", 2, {"user": 0, "item": 1}, 0, len(data), 1)
    (cells,) = read(piece)
    numbers_of = [*cells.lines.tolist(), *(line for line, _, _ in cells.bad)]
    assert sorted(numbers_of) == [number for number, line in enumerate(lines, start=1) if line.removesuffix("\r")]


def test_typed_columns_become_the_cells_of_a_csv() -> None:
    def text(values: list[object], kind: pa.DataType) -> list[str]:
        cells: list[str] = as_text(pa.chunked_array([pa.array(values, kind)])).to_pylist()
        return cells

    assert text([5114.0, 0.5, None, float("nan"), float("inf"), -0.0], pa.float64()) == ["5114", "0.5", "", "", "", "0"]
    assert text([7.0, 2.5], pa.float32()) == ["7", "2.5"]
    assert text([10**15, None], pa.int64()) == ["1000000000000000", ""]
    assert text([" a ", None], pa.string()) == ["a", ""]
    assert text(["a"], pa.dictionary(pa.int32(), pa.string())) == ["a"]
    times = [datetime(2022, 5, 17, 10, 8, tzinfo=UTC)]
    for kind in (pa.timestamp("ns", "UTC"), pa.timestamp("s", "Asia/Tokyo"), pa.timestamp("ms")):
        readable, values = moments(pa.array(text(list(times), kind)))
        assert readable[0], kind
        assert values[0] == 1_652_782_080_000_000, kind
    assert as_text(pa.chunked_array([], pa.string())).to_pylist() == []
    with pytest.raises(SourceError, match="list"):
        as_text(pa.chunked_array([pa.array([["a"]])]))


def test_a_very_long_line_is_no_csv(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item\n" + "x" * 2_000_000)
    table = find(tmp_path, ["e.csv"], {"user": ["user"]}, ["user"])
    with pytest.raises(SourceError, match=r"e.csv: line 2 is longer"):
        list(pieces(table, 1_000))


def test_the_first_file_and_the_first_heading_win(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("id,uid,user\n")
    (tmp_path / "c.csv").write_text("user\n")
    found = find(tmp_path, ["a.csv", "b.csv", "c.csv"], {"user": ["user", "uid"], "time": ["t"]}, ["user"])
    assert (found.path.name, found.columns) == ("b.csv", {"user": 2})
    with pytest.raises(SourceError, match="is not a folder"):
        find(tmp_path / "none", ["a.csv"], {}, [])
    (tmp_path / "d.txt").write_text("user\n")
    with pytest.raises(SourceError, match=r"d.txt: not a form that is read"):
        find(tmp_path, ["d.txt"], {}, [])


def test_a_reader_that_is_not_there_is_refused(tmp_path: Path) -> None:
    toy = domain()
    assert prepare(toy, tmp_path, tmp_path / "raw").folder == tmp_path
    for name in ("nothing", "cells", "os"):
        with pytest.raises(SourceError, match=f"there is no '{name}'; known are tables"):
            prepare(domain(reader=name), tmp_path, tmp_path / "raw")
