from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.tables import EVENTS
from pipelines import cluster
from pipelines import ingest as module
from pipelines.ingest import IngestRefused, ingest
from pipelines.quarantine import quarantined
from pipelines.sources.items import Added
from pipelines.sources.tables import SourceError
from pipelines.steps import Reporter, StepBusy
from tests.pipelines import toy
from tests.pipelines.toy import HEADING, NOW, domain, folder, row, silent, text

HOUR = 3_600_000_000
DAY = "2023-05-01T00:00:00+00:00"
DAY_US = 1_682_899_200_000_000


def done(tmp_path: Path, data: Path, **more: Any) -> Path:
    return ingest(more.pop("domain", None) or domain(), data, tmp_path / "home", silent(), now=NOW, **more)


def faults(step: Path) -> dict[int, str]:
    return {int(bad["line"]): str(bad["reason"]) for bad in quarantined(step)}


def test_a_valid_file_becomes_events_by_user_oldest_first(tmp_path: Path) -> None:
    rows = [
        row("b", 1, "2023-05-02", 8),
        row("a", 2, "2023-05-03", "-1", "2"),
        row("a", 1, "2023-05-01", "7.5", " Seen "),
        row("b", 3, DAY, "", "PLAN TO WATCH", 4),
    ]
    step = done(tmp_path, folder(tmp_path / "data", text([HEADING, *rows])))
    day = 24 * HOUR
    assert toy.events(step) == [
        ("a", "1", "seen", 7.5, DAY_US),
        ("a", "2", "planned", None, DAY_US + 2 * day),
        ("b", "3", "planned", None, DAY_US),
        ("b", "1", "seen", 8.0, DAY_US + day),
    ]
    part = pq.read_table(next((step / "events").glob("*.parquet")))
    assert part.schema.equals(EVENTS)
    report = json.loads((step / "report.json").read_text())
    assert (report["events"], report["users"], report["items"], report["bad"], report["ordered"]) == (4, 2, 3, 0, True)
    assert (report["first_time"], report["last_time"]) == (DAY_US, DAY_US + 2 * day)


def test_each_kind_of_bad_row_is_named_with_its_line(tmp_path: Path) -> None:
    lines = {
        ",".join(row("a", 1, DAY)): None,
        "a,1,5": "wrong number of cells",
        "a,1,5,seen,0,2023-01-01,more": "wrong number of cells",
        ",".join(row("a", 9, DAY)): "item: unknown",
        ",".join(row("a", "", DAY)): "item: empty",
        ",".join(row("", 1, DAY)): "user: empty",
        ",".join(row("u" * 201, 1, DAY)): "user: longer than 200 bytes",
        ",".join(row("u\x07v", 1, DAY)): "user: holds control characters",
        ",".join(row("a", 2, DAY, 11)): "value: outside the scale",
        ",".join(row("a", 2, DAY, "0.5")): "value: outside the scale",
        ",".join(row("a", 2, DAY, "good")): "value: not a number",
        ",".join(row("a", 2, DAY, "NaN")): "value: not a number",
        ",".join(row("a", 2, DAY, 5, "7")): "kind: unknown",
        ",".join(row("a", 2, DAY, 5, "")): "kind: unknown",
        ",".join(row("a", 2, DAY, 5, "seen", "many")): "progress: not a number",
        ",".join(row("a", 2, DAY, 5, "seen", "-3")): "progress: not a number",
        ",".join(row("a", 2, "")): "time: empty",
        ",".join(row("a", 2, "2023-02-30")): "time: not a time",
        ",".join(row("a", 2, "yesterday")): "time: not a time",
        ",".join(row("a", 2, (NOW + 2 * HOUR) // 1_000_000)): "time: in the future",
        ",".join(row("a", 2, (NOW + HOUR // 2) // 1_000_000)): None,
        'a,"2,5,seen,,' + DAY: "a quote is not closed on its line",
        ",".join(row("a", 1, "2023-05-01T02:00:00+02:00", 9)): "the same user, item and time twice",
    }
    step = done(tmp_path, folder(tmp_path / "data", "\n".join([",".join(HEADING), *lines])))
    expected = {place: reason for place, reason in enumerate(lines.values(), start=2) if reason}
    assert faults(step) == expected
    bad = {int(one["line"]): one for one in quarantined(step)}
    texts = list(lines)
    assert all(bad[line]["row"] == texts[line - 2] for line in expected if expected[line] != "the same user, item and time twice")
    assert all(one["file"] == "events.csv" for one in bad.values())
    report = json.loads((step / "report.json").read_text())
    found = report["files"]["events.csv"]
    assert found["rows"] == len(lines)
    assert found["bad"] == len(expected) == len(lines) - report["events"]
    assert found["reasons"]["value: outside the scale"] == {"count": 2, "examples": [[10, texts[8]], [11, texts[9]]]}


cell = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda one: one.strip() == one and "\ufffd" not in one
)
good_row = st.builds(
    row,
    user=cell,
    item=st.sampled_from(["1", "2", "3"]),
    when=st.integers(10**9, NOW // 10**6).map(str),
    rating=st.sampled_from(["", "-1", "1", "7.25", "10"]),
    status=st.sampled_from(["seen", "1", "plan to watch"]),
)
bad_row = st.sampled_from([["a"], row("a", "9", DAY), row("a", "1", "soon"), row("a", "1", DAY, "12"), [*row("a", "1", DAY), ""]])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    good=st.lists(good_row, min_size=1, max_size=12, unique_by=lambda one: (one[0], one[1], one[5])),
    bad=st.lists(bad_row, max_size=5),
    data=st.data(),
)
def test_good_and_quarantined_rows_are_all_rows_in_whatever_order(
    tmp_path_factory: pytest.TempPathFactory, good: list[list[str]], bad: list[list[str]], data: st.DataObject
) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    mixed = data.draw(st.permutations([*good, *bad]))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    step = done(tmp_path, folder(tmp_path / "data", text([HEADING, *mixed], end)))
    assert {(one[0], one[1], one[4]) for one in toy.events(step)} == {(one[0], one[1], int(one[5]) * 10**6) for one in good}
    assert len(toy.events(step)) == len(good)
    lines = {place for place, one in enumerate(mixed, start=2) if any(one is wrong for wrong in bad)}
    assert set(faults(step)) == lines


ROWS = [
    row("a", 1, DAY, 8, "seen", 3),
    row("b", 2, "2023-05-02T00:00:00+00:00", 5, "planned"),
    row("a", 3, "2023-05-03T00:00:00+00:00", "", "seen"),
    row("c", 3, "2023-05-03T00:00:01+00:00", 9, "seen"),
    row("c", 99, "2023-05-03T00:00:01+00:00", 9, "seen"),
]


@pytest.mark.parametrize(
    "dress",
    [
        lambda raw: raw.replace("\n", "\r\n"),
        lambda raw: "\ufeff" + raw,
        lambda raw: raw.rstrip("\n"),
        lambda raw: raw.replace("\n", "\n\n", 2).replace("\n\n", "\n", 1) + "\n\n",
        lambda raw: raw.replace("a,", '"a",'),
        lambda raw: raw.replace("user_id", " USER_ID "),
        lambda raw: raw.replace("a,1", " a , 1 "),
    ],
    ids=["crlf", "bom", "no last newline", "blank lines", "quotes", "heading", "blanks"],
)
def test_the_dress_of_a_csv_changes_nothing(tmp_path: Path, dress: Callable[[str], str]) -> None:
    plain = done(tmp_path / "plain", folder(tmp_path / "1", text([HEADING, *ROWS])))
    dressed = done(tmp_path / "dressed", folder(tmp_path / "2", dress(text([HEADING, *ROWS]))))
    assert toy.events(dressed) == toy.events(plain)
    assert len(toy.events(plain)) == 4
    assert list(faults(dressed).values()) == ["item: unknown"]


def test_gz_and_parquet_equal_csv(tmp_path: Path) -> None:
    raw = text([HEADING, *ROWS])
    plain = done(tmp_path / "plain", folder(tmp_path / "1", raw))
    packed = done(tmp_path / "packed", folder(tmp_path / "2", raw, name="events.csv.gz"))
    typed = done(tmp_path / "typed", toy.parquet(tmp_path / "3", raw))
    assert toy.events(plain) == toy.events(packed) == toy.events(typed)
    assert faults(plain) == faults(packed) == {6: "item: unknown"}
    assert faults(typed) == {5: "item: unknown"}  # rows of a Parquet file count from 1


def test_parquet_ids_that_a_gap_made_floats_lose_their_point(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", "")
    (data / "events.csv").unlink()
    table = pa.table(
        {
            "user_id": pa.array([5114.0, None, 7.0]),
            "item_id": pa.array([1, 2, 3]),
            "rating": pa.array([7.5, 3.0, float("nan")]),
            "status": pa.array([1.0, 2.0, 2.0]),
            "event_time": pa.array([DAY_US] * 3, pa.timestamp("us")),
        }
    )
    pq.write_table(table, data / "events.parquet")
    step = done(tmp_path, data)
    assert toy.events(step) == [("5114", "1", "seen", 7.5, DAY_US), ("7", "3", "planned", None, DAY_US)]
    assert faults(step) == {2: "user: empty"}


def test_cells_with_commas_quotes_and_odd_letters_survive(tmp_path: Path) -> None:
    people = ["Ann, B.", 'the "one"', "Ünï©ode 漢字 🙂", "a\u200db", "x" * 200]
    step = done(tmp_path, folder(tmp_path / "data", text([HEADING, *(row(one, 1, DAY) for one in people)])))
    assert sorted(one[0] for one in toy.events(step)) == sorted(people)
    assert faults(step) == {}


def test_bytes_that_are_no_text_spoil_their_row_only(tmp_path: Path) -> None:
    raw = text([HEADING, row("a", 1, DAY), row("b", 1, DAY), row("c", 1, DAY)]).encode().replace(b"\nb,", b"\n\xff\xfe,")
    step = done(tmp_path, folder(tmp_path / "data", raw))
    assert [one[0] for one in toy.events(step)] == ["a", "c"]
    assert faults(step) == {3: "not text in the file's encoding"}
    latin = domain(events=[{"files": ["events.csv"], "encoding": "latin-1"}])
    step = done(tmp_path, folder(tmp_path / "data", raw), domain=latin)
    assert [one[0] for one in toy.events(step)] == ["a", "c", "ÿþ"]


def test_an_item_file_is_cleaned_by_the_rules(tmp_path: Path) -> None:
    items = [
        ["item_id", "title", "genre", "length"],
        ["1", "Tom &amp; Co\nagain", " War,Drama,War", "24"],
        ["2", "", "", ""],
        ["1", "Twice", "", ""],
        ["3", "Gamma", "", "long"],
        ["4", "Delta", "", "-1"],
        ["5", "Short"],
        ["", "Nobody", "", ""],
    ]
    said = {"files": ["items.csv"], "unescape_html": True}
    step = done(tmp_path, folder(tmp_path / "data", text([HEADING, row("a", 1, DAY)]), items), domain=domain(items=said))
    assert pq.read_table(step / "items.parquet").to_pylist() == [
        {"item": "1", "title": "Tom & Co\nagain", "available": True, "genre": ["Drama", "War"], "length": 24.0},
        {"item": "2", "title": "2", "available": True, "genre": None, "length": None},
    ]
    assert faults(step) == {
        5: "item: stands twice",
        6: "length: 'long' is not a number",
        7: "length: -1 is outside 0.0 to None",
        8: "wrong number of cells",
        9: "item: empty",
    }
    first = quarantined(step)[0]
    assert (first["file"], first["row"]) == ("items.csv", "1,Twice,,")


def test_above_the_limit_the_run_is_refused_and_nothing_is_done(tmp_path: Path) -> None:
    rows = [row(f"u{n}", 1, DAY) for n in range(90)] + [row(f"u{n}", 1, DAY, "99") for n in range(10)]
    data = folder(tmp_path / "data", text([HEADING, *rows]))
    with pytest.raises(
        IngestRefused, match=r"events.csv: 10 of 100 rows are bad \(10.0%\): 10 x value: outside the scale; the first, line 92"
    ) as refused:
        done(tmp_path, data, domain=domain(bad_rows={"share": 0.05, "rows": 9}))
    assert "accepted are 5.0%" in str(refused.value)
    with refused.value.quarantine.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 10
    step = refused.value.quarantine.parent
    assert not (step / "DONE.json").exists()
    assert json.loads((step / "report.json").read_text())["refused"]
    # few bad rows are accepted whatever their share, and so is a small share whatever the number
    assert done(tmp_path, data, domain=domain(bad_rows={"share": 0.05, "rows": 10})).is_dir()
    assert done(tmp_path, data, domain=domain(bad_rows={"share": 0.1, "rows": 0})).is_dir()


def test_duplicates_count_towards_the_limit(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", text([HEADING, *[row("a", 1, DAY)] * 20]))
    with pytest.raises(IngestRefused, match="19 x the same user, item and time twice"):
        done(tmp_path, data, domain=domain(bad_rows={"share": 0.5, "rows": 1}))


def test_a_run_without_any_good_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngestRefused, match="no good event"):
        done(tmp_path, folder(tmp_path / "1", text([HEADING])))
    with pytest.raises(IngestRefused, match=r"items\.csv has no good row"):
        done(tmp_path, folder(tmp_path / "2", text([HEADING, row("a", 1, DAY)]), [["item_id", "title"], ["", "x"]]))


def test_without_times_a_pair_stands_once_and_order_is_the_files(tmp_path: Path) -> None:
    heading = ["user_id", "item_id", "rating"]
    step = done(tmp_path, folder(tmp_path / "data", text([heading, ["b", "3", "5"], ["a", "2", "-1"], ["b", "1", "6"], ["b", "3", "9"]])))
    assert toy.events(step) == [("a", "2", "seen", None, None), ("b", "3", "seen", 5.0, None), ("b", "1", "seen", 6.0, None)]
    assert faults(step) == {5: "the same user, item and time twice"}
    assert json.loads((step / "report.json").read_text())["ordered"] is False


def recorded(*rows: tuple[str, str, str, float | None, int]) -> pa.Table:
    columns = list(zip(*rows, strict=True))
    return pa.table([*columns[:4], pa.array(columns[4], pa.timestamp("us", "UTC"))], schema=EVENTS)


def test_recorded_events_follow_the_files(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", text([HEADING, row("a", 1, DAY, 8)]))
    live = recorded(
        ("a", "1", "undo", None, DAY_US + 5),
        ("n", "2", "seen", 7.0, DAY_US),
        ("a", "gone", "seen", None, DAY_US),
        ("a", "1", "seen", 8.0, DAY_US),
    )
    step = done(tmp_path, data, recorded=live, domain=domain(bad_rows={"share": 0.0, "rows": 0}))
    assert toy.events(step) == [("a", "1", "seen", 8.0, DAY_US), ("a", "1", "undo", None, DAY_US + 5), ("n", "2", "seen", 7.0, DAY_US)]
    assert [(bad["file"], bad["reason"]) for bad in quarantined(step)] == [
        ("recorded", "item: unknown"),
        ("recorded", "the same user, item and time twice"),
    ]
    assert done(tmp_path, data, recorded=live, domain=domain(bad_rows={"share": 0.0, "rows": 0})) == step
    assert done(tmp_path, data, domain=domain(bad_rows={"share": 0.0, "rows": 0})) != step


def test_recorded_events_of_an_unordered_source_keep_their_times(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", text([["user_id", "item_id", "rating"], ["a", "1", "5"]]))
    step = done(tmp_path, data, recorded=recorded(("a", "1", "seen", 9.0, DAY_US)))
    assert toy.events(step) == [("a", "1", "seen", 5.0, None), ("a", "1", "seen", 9.0, DAY_US)]
    assert json.loads((step / "report.json").read_text())["ordered"] is False


def test_items_added_while_serving_stay(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", text([HEADING, row("a", 1, DAY), row("a", "new", DAY)]))
    added = [Added("new", "Newcomer", {"genre": ["Odd"], "length": 3}), Added("1", "Alpha anew")]
    step = done(tmp_path, data, added=added)
    items = pq.read_table(step / "items.parquet").to_pylist()
    assert [(one["item"], one["title"], one["genre"]) for one in items] == [
        ("1", "Alpha anew", None),
        ("2", "Beta", None),
        ("3", "Gamma", ["Comedy"]),
        ("new", "Newcomer", ["Odd"]),
    ]
    assert faults(step) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: (data / "events.csv").unlink(), r"none of events.csv, events.csv.gz, events.parquet is there \(found: items.csv\)"),
        (lambda data: (data / "items.csv").unlink(), "none of items.csv"),
        (
            lambda data: (data / "events.csv").write_text("who,item_id,rating\n"),
            "events.csv: no column for 'user'; its headings are who, item_id, rating; accepted are user, user_id",
        ),
        (lambda data: (data / "events.csv").write_text("user_id,item_id\n"), "no column for 'value'"),
        (lambda data: (data / "events.csv").write_text("user_id,item_id,rating,Rating\n"), "'Rating' stands twice"),
        (lambda data: (data / "events.csv").write_text(""), "no column for 'user'"),
        (lambda data: (data / "events.csv").write_bytes("user_id".encode("utf-16")), "first line"),
        (lambda data: (data / "items.csv").rename(data / "items.parquet"), "items.parquet: cannot be read"),
        (lambda data: (data / "events.csv").rename(data / "events.csv.gz"), "events.csv.gz: cannot be read"),
    ],
    ids=["no events", "no items", "no user", "no value", "twice", "empty", "utf-16", "no parquet", "no gzip"],
)
def test_a_folder_that_cannot_be_read_is_refused_by_name(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    data = folder(tmp_path / "data", text([HEADING, row("a", 1, DAY)]))
    change(data)
    with pytest.raises(SourceError, match=message):
        done(tmp_path, data)


def test_a_truncated_gz_is_named(tmp_path: Path) -> None:
    data = folder(
        tmp_path / "data", text([HEADING, *(row(f"u{n}", n % 3 + 1, 10**9 + n * 7919) for n in range(5_000))]), name="events.csv.gz"
    )
    packed = (data / "events.csv.gz").read_bytes()
    (data / "events.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(SourceError, match=r"events.csv.gz: damaged after line \d+"):
        done(tmp_path, data)


def many_rows() -> str:
    rows = [row(f"u{n * 7919 % 61}", n % 3 + 1, 10**9 + n * 104_729 % 99_991, n % 10 + 1) for n in range(900)]
    rows[500] = row("u1", 77, DAY)
    rows[700] = rows[3]
    return text([HEADING, *rows])


def here(function: Callable[[Any], Any], work: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """Stands for cluster.each where a test wants to know exactly when what is done."""
    yield from map(function, work)


def test_many_pieces_and_partitions_equal_one(tmp_path: Path, one_ray: None) -> None:
    data = folder(tmp_path / "data", many_rows())
    one = done(tmp_path / "one", data)
    many = done(tmp_path / "many", data, piece_bytes=4_000, shard_bytes=4_000)
    assert len(list((many / "events").iterdir())) > 3
    assert sorted(toy.events(many)) == sorted(toy.events(one))
    assert faults(many) == faults(one) == {502: "item: unknown", 702: "the same user, item and time twice"}
    homes = [set(pq.read_table(part).column("user").to_pylist()) for part in (many / "events").iterdir()]
    assert sum(len(users) for users in homes) == len(set().union(*homes)) == 61
    assert not (many / "scatter").exists()


def test_what_a_task_raises_is_raised_as_it_was(one_ray: None) -> None:
    def fails(work: Mapping[str, Any]) -> dict[str, Any]:
        raise SourceError(f"damaged: {work['n']}")

    with pytest.raises(SourceError, match="damaged: 3"):
        list(cluster.each(fails, [{"n": 3}, {"n": 3}]))


@pytest.mark.parametrize("fatal", [2, 6], ids=["while reading", "while sorting"])
def test_an_interrupted_run_goes_on_from_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fatal: int) -> None:
    data = folder(tmp_path / "data", many_rows())
    calls: list[tuple[str, int]] = []

    def dies(function: Callable[[Any], Any], work: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
        for one in work:
            if len(calls) == fatal:
                raise KeyboardInterrupt
            calls.append((function.__name__, one["number"]))
            yield function(one)

    size = {"piece_bytes": 8_000, "shard_bytes": 4_000}
    monkeypatch.setattr(module, "started_for", nullcontext)
    monkeypatch.setattr(module, "each", dies)
    with pytest.raises(KeyboardInterrupt):
        done(tmp_path, data, **size)
    step = next((tmp_path / "home" / "toy" / "ingest").iterdir())
    assert not (step / "DONE.json").exists()
    before = list(calls)
    calls.clear()
    fatal = -1
    assert done(tmp_path, data, **size) == step
    assert not set(before) & set(calls), "a finished piece was done again"
    monkeypatch.setattr(module, "each", here)
    assert toy.events(step) == toy.events(done(tmp_path / "whole", data, **size))


def test_a_finished_step_is_not_done_again_and_a_changed_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path / "data", text([HEADING, row("a", 1, DAY)]))
    first = done(tmp_path, data)

    def never(*_: object) -> Iterator[Any]:
        raise AssertionError("done again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "each", never)
        assert done(tmp_path, data) == first
    folder(data, text([HEADING, row("a", 1, DAY), row("b", 1, DAY)]))
    second = done(tmp_path, data)
    assert second != first
    assert len(toy.events(second)) == 2


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", text([HEADING, row("a", 1, DAY)]))

    class Nosy(Reporter):
        def progress(self, what: str, share: float) -> None:
            with pytest.raises(StepBusy):
                done(tmp_path, data)
            told.append(what)

    told: list[str] = []
    ingest(domain(), data, tmp_path / "home", Nosy(quiet=True), now=NOW)
    assert told
