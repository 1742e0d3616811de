"""The quality benchmark on a tiny sample: validation first, then the test column, each reading of which is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import configs
from configs.domain import Domain
from pipelines.bench_quality import READINGS, lines, parts, run, shaped
from pipelines.steps import DONE, Reporter

SILENT = Reporter(quiet=True)


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    document = yaml.safe_load((Path(configs.__file__).parent / "movies.yaml").read_text(encoding="utf-8"))
    document |= {
        "sample": {"users": 200, "items": 80, "seed": 7},
        "candidates": {
            "popular": {"model": "popularity"},
            "content": {"model": "content", "title_words": 256, "dimensions": 8},
            "next": {"model": "neighbours", "similarity": "following", "neighbours": 20, "history": 5, "fade": 0.7},
        },
        "ranker": {"candidates": 20, "trees": 10, "leaves": 7, "leaf_rows": 5},
        "search": {},
    }
    path = tmp_path_factory.mktemp("quality") / "movies.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return configs.load(str(path))


def test_a_part_is_measured_one_window_earlier_until_the_test_is_wanted(domain: Domain, tmp_path: Path, one_ray: None) -> None:
    readings = tmp_path / "bench" / "quality" / "movies" / READINGS
    checked = run(domain, None, tmp_path, SILENT, ["own"], validation=True)
    assert not readings.exists()
    assert "validation" in checked["parts"]["own"]["protocol"]
    tested = run(domain, None, tmp_path, SILENT)
    own, timed, cold = (tested["parts"][name] for name in ("own", "by_time", "cold"))
    assert own["people"] == 200
    assert own["rows"] != checked["parts"]["own"]["rows"]
    assert own["rows"]["next"]["NDCG@10"]["mean"] > own["rows"]["popular"]["NDCG@10"]["mean"]  # series are in the order alone
    assert set(own["sampled"]["rows"]) == {"two-stage", "popular", "content", "next"}
    assert all(0 < row["HR@10"]["mean"] <= 1 for row in own["sampled"]["rows"].values())
    assert own["costs"]["two-stage"]["train_s"] >= own["costs"]["next"]["train_s"]
    assert timed["last_target"]["people"] > 0
    spread = timed["equal_times"]["rows"]["next"]
    assert spread["lowest"] <= spread["highest"]
    among = cold["groups"]["new items, among themselves"]["rows"]
    assert among["next"]["NDCG@10"]["mean"] == 0.0  # nobody was seen to take them
    assert cold["groups"]["new people"]["people"] > 0
    assert [json.loads(line)["part"] for line in readings.read_text().splitlines()] == ["own", "by_time", "cold"]
    assert any("two-stage" in line for line in lines(tested))
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(DONE)}
    again = run(domain, None, tmp_path, SILENT, ["own"])
    assert again["parts"]["own"]["rows"] == own["rows"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob(DONE)} == made  # nothing was done again
    assert [json.loads(line)["new"] for line in readings.read_text().splitlines()] == [True, True, True, False]
    assert sum(entry["new"] for entry in again["readings"]) == 3


def test_a_part_that_is_not_there_is_refused(domain: Domain, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no part nonsense; movies has own, by_time, cold"):
        run(domain, None, tmp_path, SILENT, ["nonsense"])


def test_a_protocol_changes_only_what_it_says(domain: Domain) -> None:
    assert parts(domain) == ("own", "by_time", "cold")
    timed = shaped(domain, "by_time", validation=True)
    assert (timed.split.protocol, timed.split.back) == ("time", 1)
    assert timed.source.events[0].files == ("ratings.csv",)
    assert timed.candidates == domain.candidates
    assert timed.ranker is not None
    assert not timed.ranker.refit
    assert shaped(domain, "own", validation=False).split == domain.split
