"""The source of the films: five raw files become three plain ones, in order; the sample holds what its truth says."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import configs
from pipelines.featurize import featurize, load
from pipelines.ingest import ingest
from pipelines.samples import movies as sample
from pipelines.sources import movies as source
from pipelines.sources.tables import SourceError
from pipelines.steps import Reporter
from training.split import split

SILENT = Reporter(quiet=True)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    sample.make(folder, 80, 60, 5)
    return folder


def test_the_sample_repeats(raw: Path, tmp_path: Path) -> None:
    sample.make(tmp_path, 80, 60, 5)
    for file in raw.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_sequences_bear_the_original_numbers_in_the_order_of_time(raw: Path, tmp_path: Path) -> None:
    source.prepare(configs.load("movies"), raw, tmp_path)
    rows = [line.split(",") for line in (tmp_path / "sequences.csv").read_text().splitlines()[1:]]
    timed = [line.split(",") for line in (tmp_path / "ratings.csv").read_text().splitlines()[1:]]
    own = [item for user, item in rows if user == "1"]
    assert own == [item for user, item, _, _ in timed if user == "1"]
    moments = [int(when) for user, _, _, when in timed if user == "1"]
    assert moments == sorted(moments)


def test_what_did_not_change_is_left_alone(raw: Path, tmp_path: Path) -> None:
    source.prepare(configs.load("movies"), raw, tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    source.prepare(configs.load("movies"), raw / ".." / raw.name, tmp_path)  # the same files by another name of their folder
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


def test_a_broken_line_is_named(raw: Path, tmp_path: Path) -> None:
    for file in raw.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / source.SEQUENCES).open("a", encoding="ascii") as sequences:
        sequences.write("1 2 3\n")
    out = tmp_path / "out"
    out.mkdir()
    line = len((tmp_path / source.SEQUENCES).read_text().splitlines())
    with pytest.raises(SourceError, match=f"{source.SEQUENCES}, line {line}: '1 2 3', expected 2 cells"):
        source.prepare(configs.load("movies"), tmp_path, out)
    (tmp_path / source.ITEM_IDS).unlink()
    with pytest.raises(SourceError, match=f"{source.ITEM_IDS} not there"):
        source.prepare(configs.load("movies"), tmp_path, out)


def test_rows_give_an_order_without_times(raw: Path, tmp_path: Path) -> None:
    domain = configs.load("movies")
    tables = ingest(domain, raw, tmp_path, SILENT)
    report = json.loads((tables / "report.json").read_text())
    assert (report["order"], report["ordered"], report["bad"], report["users"]) == ("rows", True, 0, 80)
    features = load(featurize(domain, tables, tmp_path, SILENT), domain)
    assert features.ordered
    assert features.histories.ordered
    assert not features.histories.timed
    rows = [line.split(",") for line in (tmp_path / "movies" / "raw" / "sequences.csv").read_text().splitlines()[1:]]
    for user in ("1", "7"):
        row = features.users.row(user)
        assert row is not None
        state = features.histories.state(row)
        assert [features.catalogue.ids.id(int(item)) for item in state.items] == [item for other, item in rows if other == user]
        assert state.ordered
    cut = split(features.histories, domain.split, features.moment)
    assert (cut.kind, int(cut.test.sum())) == ("last", 80)


def test_the_next_part_of_a_series_follows_soon(raw: Path, tmp_path: Path) -> None:
    truth = sample.make(tmp_path, 80, 60, 5)
    ids = [line.split("::")[0] for line in (tmp_path / source.MOVIES).read_text("latin-1").splitlines()]
    row = {movie: place for place, movie in enumerate(ids)}
    items = dict(line.split() for line in (tmp_path / source.ITEM_IDS).read_text().splitlines())
    pairs = [line.split() for line in (tmp_path / source.SEQUENCES).read_text().splitlines()]
    films = np.array([row[items[item]] for _, item in pairs])
    same = np.array([one[0] == other[0] for one, other in pairwise(pairs)])
    follows = (truth.series[films[1:]] == truth.series[films[:-1]]) & (truth.part[films[1:]] == truth.part[films[:-1]] + 1)
    assert float(follows[same].mean()) > 10 / len(ids)  # far above chance
