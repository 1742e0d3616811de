from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.state import NO_TIME, Histories, Kinds
from features.vocabulary import Vocabulary
from pipelines import featurize as module
from pipelines.featurize import Features, featurize, load
from pipelines.ingest import ingest
from pipelines.steps import Reporter
from tests.pipelines import toy
from tests.pipelines.toy import HEADING, NOW, domain, folder, row, silent, text


def made(tmp_path: Path, raw: str, **size: int) -> tuple[Path, Path]:
    """(directory of ingest, directory of featurize)."""
    home = tmp_path / "home"
    tables = ingest(domain(), folder(tmp_path / "data", raw), home, silent(), now=NOW, **size)  # type: ignore[arg-type]
    return tables, featurize(domain(), tables, home, silent())


def people(features: Features) -> dict[str, list[tuple[Any, ...]]]:
    """user id -> events as (item id, kind, value, microseconds)."""
    out: dict[str, list[tuple[Any, ...]]] = {}
    for user in range(len(features.users)):
        state = features.histories.state(user)
        kinds = [state.kinds_of.names[kind] for kind in state.kinds]
        values = [None if np.isnan(value) else float(value) for value in state.values]
        times = [None if time == NO_TIME else int(time) for time in state.times]
        out[features.users.id(user)] = list(zip(features.catalogue.ids.ids(state.items), kinds, values, times, strict=True))
    return out


def rows(n: int = 400) -> str:
    return text([HEADING, *(row(f"ü{i * 7919 % 37}", i % 3 + 1, 10**9 + i * 104_729 % 99_991, i % 11, i % 2 + 1) for i in range(n))])


def test_arrays_hold_what_the_tables_hold(tmp_path: Path) -> None:
    tables, directory = made(tmp_path, rows())
    features = load(directory, domain())
    expected: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for user, *event in toy.events(tables):
        expected[user].append(tuple(event))
    assert people(features) == expected
    assert sum(map(len, expected.values())) == features.histories.events > 300
    for user in range(len(features.users)):
        assert features.users.row(features.users.id(user)) == user
        assert (np.diff(features.histories.state(user).times) >= 0).all()
    summary = json.loads((directory / "features.json").read_text())
    assert summary["moment"] == features.moment == summary["last_time"] == int(np.max(features.histories.times))
    assert (features.ordered, features.histories.ordered, summary["users"]) == (True, True, 37)
    assert isinstance(features.histories.items.base, np.memmap) or isinstance(features.histories.items, np.memmap)


def test_partitions_change_the_rows_of_users_only(tmp_path: Path, one_ray: None) -> None:
    _, one = made(tmp_path / "one", rows())
    _, many = made(tmp_path / "many", rows(), piece_bytes=4_000, shard_bytes=2_000)
    assert people(load(one, domain())) == people(load(many, domain()))
    assert not (many / "pieces").exists()


def test_the_layout_is_that_of_histories_and_vocabulary(tmp_path: Path) -> None:
    _, directory = made(tmp_path, rows())
    features = load(directory, domain())
    features.histories.save(tmp_path / "again")
    features.users.save(tmp_path / "ids")
    for ours, theirs in ((directory / "histories", tmp_path / "again"), (directory / "users", tmp_path / "ids")):
        assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
        for path in ours.iterdir():
            np.testing.assert_array_equal(np.load(path), np.load(theirs / path.name))
            assert np.load(path).dtype == np.load(theirs / path.name).dtype


def test_a_source_without_times_is_unordered(tmp_path: Path) -> None:
    _, directory = made(tmp_path, text([["user_id", "item_id", "rating"], ["b", "3", "5"], ["b", "1", "-1"], ["a", "2", "9"]]))
    features = load(directory, domain())
    assert not features.ordered
    assert not features.histories.ordered
    assert people(features) == {"a": [("2", "seen", 9.0, None)], "b": [("3", "seen", 5.0, None), ("1", "seen", None, None)]}
    assert features.moment > NOW, "the moment of the run"


def test_it_is_done_once_and_only_from_a_finished_ingest(tmp_path: Path) -> None:
    tables, directory = made(tmp_path, rows(20))
    stamp = (directory / "DONE.json").stat().st_mtime_ns
    assert featurize(domain(), tables, tmp_path / "home", silent()) == directory
    assert (directory / "DONE.json").stat().st_mtime_ns == stamp
    (directory / "DONE.json").unlink()
    with pytest.raises(FileNotFoundError, match="no finished step"):
        load(directory, domain())
    (tables / "DONE.json").unlink()
    with pytest.raises(FileNotFoundError, match="no finished step"):
        featurize(domain(), tables, tmp_path / "home", silent())


def test_pieces_of_an_interrupted_run_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "each", map)  # one after the other, in this process
    _, directory = made(tmp_path, rows(), shard_bytes=6_000)
    whole = people(load(directory, domain()))
    tables = next((tmp_path / "home" / "toy" / "ingest").iterdir())
    (directory / "DONE.json").unlink()

    class Stops(Reporter):
        def progress(self, what: str, share: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        featurize(domain(), tables, tmp_path / "home", Stops(quiet=True))
    (kept,) = (directory / "pieces").glob("*/piece.json")
    stamp = kept.stat().st_mtime_ns

    seen: list[int] = []

    class Looks(Reporter):
        def progress(self, what: str, share: float) -> None:
            seen.append(kept.stat().st_mtime_ns)

    assert featurize(domain(), tables, tmp_path / "home", Looks(quiet=True)) == directory
    assert set(seen) == {stamp}, "a finished piece was made again"
    assert people(load(directory, domain())) == whole


def test_empty_histories_are_arrays_too(tmp_path: Path) -> None:
    none = Histories.load(_empty(tmp_path), Kinds.of(domain().events))
    assert (len(none), none.events) == (0, 0)


def _empty(tmp_path: Path) -> Path:
    module._join([], tmp_path)
    np.save(tmp_path / "histories" / "ordered.npy", np.array(True))
    assert len(Vocabulary.load(tmp_path / "users")) == 0
    return tmp_path / "histories"
