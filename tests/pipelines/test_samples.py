from __future__ import annotations

import csv
import itertools
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import configs
from configs.domain import Sample
from pipelines import samples
from pipelines.ingest import ingest
from pipelines.samples import anime
from tests.pipelines.toy import silent

SMALL = Sample(users=300, items=200, seed=7)


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        samples.make("anime", tmp_path / name, SMALL.model_copy(update={"seed": seed}))
    for file in ("anime.csv", "animelist.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()


def test_the_files_have_the_shape_of_the_brief(tmp_path: Path) -> None:
    samples.make("anime", tmp_path, SMALL)
    with (tmp_path / "anime.csv").open(newline="") as file:
        titles = list(csv.DictReader(file))
    assert list(titles[0]) == ["anime_id", "title", "genre", "type", "episodes", "rating", "members"]
    assert len({one["anime_id"] for one in titles}) == len({one["title"] for one in titles}) == 200
    assert any(one["episodes"] == "Unknown" for one in titles)
    assert any(not one["genre"] for one in titles)
    assert (tmp_path / "animelist.csv").read_text().startswith("user_id,anime_id,rating,status,watched_episodes,event_time\n")


def test_ingest_takes_it_with_a_little_dirt(tmp_path: Path) -> None:
    samples.make("anime", tmp_path / "data", SMALL)
    step = ingest(configs.load("anime"), tmp_path / "data", tmp_path / "home", silent())
    report = json.loads((step / "report.json").read_text())
    lists = report["files"]["animelist.csv"]
    assert (report["items"], report["users"], report["ordered"]) == (200, 300, True)
    assert 0 < lists["share"] < 0.01
    assert len(lists["reasons"]) >= 5
    assert report["events"] == lists["rows"] - lists["bad"]
    year = 366 * 86_400 * 1_000_000
    assert 0.8 * year < report["last_time"] - report["first_time"] < year
    assert report["last_time"] <= anime.END.timestamp() * 1e6


def test_there_is_something_to_learn_for_each_family_of_models(tmp_path: Path) -> None:
    truth = anime.make(tmp_path, 400, 200, 3)
    with (tmp_path / "anime.csv").open(newline="") as file:
        row = {one["anime_id"]: place for place, one in enumerate(csv.DictReader(file))}
    seen: dict[int, list[tuple[str, int]]] = defaultdict(list)
    with (tmp_path / "animelist.csv").open(newline="") as file:
        for one in csv.DictReader(file):
            if one["anime_id"] in row and (one["event_time"] or "").startswith("202"):
                seen[int(one["user_id"]) - 1].append((one["event_time"], row[one["anime_id"]]))
    histories = {user: [item for _, item in sorted(events)] for user, events in seen.items()}
    # sequence: a title that has a sequel is followed by it at once far more often than by chance
    pairs = np.array([pair for items in histories.values() for pair in itertools.pairwise(items)])
    before, after = pairs[:, 0], pairs[:, 1]
    follows = (truth.franchise[before] == truth.franchise[after]) & (truth.part[after] == truth.part[before] + 1)
    assert np.mean(follows) > 0.15 > 20 / 200
    # content: what people watch lies above the mean of their own taste
    share = truth.genres / truth.genres.sum(axis=1, keepdims=True)
    gain = [(truth.taste[user] @ share[items].T).mean() - (truth.taste[user] @ share.T).mean() for user, items in histories.items()]
    assert np.mean(gain) > 0.1
    # circles: it also lies above the mean of what their circle likes apart from genres
    hidden = [truth.hidden[truth.circle[user], items].mean() - truth.hidden[truth.circle[user]].mean() for user, items in histories.items()]
    assert np.mean(hidden) > 0.3


@pytest.mark.parametrize(("users", "items"), [(1, 1), (3, 2), (20, 12_000)])
def test_odd_sizes_work(tmp_path: Path, users: int, items: int) -> None:
    anime.make(tmp_path, users, items, 1)
    with (tmp_path / "anime.csv").open(newline="") as file:
        assert len({one["title"] for one in csv.DictReader(file)}) == items


def test_a_domain_without_a_sample_is_refused(tmp_path: Path) -> None:
    assert "anime" in samples.names()
    for name in ("nothing", "../anime", "__init__"):
        with pytest.raises(ValueError, match=r"there is no sample for .*: pass your own files with --data"):
            samples.make(name, tmp_path / "x", SMALL)
    assert not (tmp_path / "x").exists()
