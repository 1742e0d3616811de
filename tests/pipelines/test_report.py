"""The report: every table that was measured is on it, verdicts follow the figures, and what is missing is said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import configs
from configs import ConfigError
from configs.domain import Domain
from pipelines import report_quality
from pipelines.report import goal_rows, report
from tests.configs.test_configs import plain, written

MACHINE = {"cpu": "Small & Co", "cores": 2, "memory_gib": 4.0, "kernel": "6", "load_before": "0.1"}
WAYS = ("two-stage", "sasrec", "popular")


def measured(mean: float) -> dict[str, float | int]:
    return {"mean": mean, "low": round(mean - 0.01, 6), "high": round(mean + 0.01, 6), "people": 600}


def row(mean: float, coverage: float) -> dict[str, Any]:
    per_person = {f"{metric}@10": measured(mean) for metric in ("NDCG", "HR", "MAP", "MRR", "recall", "precision")}
    beyond = {name: measured(0.5) for name in ("novelty", "surprisal", "serendipity", "popularity_bias", "diversity")}
    few = {"NDCG@10": measured(mean), "HR@10": measured(mean)}
    groups = {"warm": few, "cold": {metric: {**value, "people": 0} for metric, value in few.items()}}
    return {**per_person, **beyond, "coverage": coverage, "gini": 0.4, "seconds": 1.5, "groups": groups}


def part(two_stage: float = 0.21, low: float = 0.005) -> dict[str, Any]:
    rows = {"two-stage": row(two_stage, 0.5), "sasrec": row(0.2, 0.4), "popular": row(0.05, 0.02)}
    best, *others = sorted(rows, key=lambda way: -rows[way]["NDCG@10"]["mean"])
    against = {way: {"mean": 0.01, "low": low, "high": 0.015, "people": 600, "p": 0.01, "p_holm": 0.02} for way in others}
    return {
        "k": 10,
        "people": 600,
        "cold_people": 0,
        "items": 90,
        "protocol": "leave one out: the last event of each person is the test",
        "rows": rows,
        "candidates": {"each": 60, "recall": {name: measured(0.6) for name in ("sasrec", "popular", "union")}},
        "importance": {"sasrec.score": 0.7, "item.trend": 0.3},
        "verdict": {"passed": True, "serve": "two-stage", "why": "the ranker beats the best single source"},
        "comparisons": {"best": best, "against": against},
        "seconds": 4.0,
        "costs": {way: {"train_s": 100.0 if way != "sasrec" else 90.0, "peak_bytes": 2**28} for way in WAYS},
        "sampled": {"said": "only for comparison: against 100 random items a person", "rows": {way: row(0.7, 0.1) for way in WAYS}},
        "fingerprint": "feed",
    }


def quality(name: str = "movies", **parts: dict[str, Any]) -> dict[str, Any]:
    reading: dict[str, Any] = {
        "at": "2026-11-25T01:02:03+00:00",
        "part": "own",
        "commit": "c" * 40,
        "fingerprint": "feed",
        "new": True,
        "configuration": "f" * 16,
    }
    return {
        "bench": "quality",
        "machine": MACHINE,
        "commit": "c" * 40,
        "domain": name,
        "data": "movielens",
        "column": "test",
        "parts": parts or {"own": part()},
        "seconds": 120.0,
        "readings": [reading, {**reading, "new": False}],
    }


def home_with(folder: Path, **files: Any) -> Path:
    (folder / "bench").mkdir(parents=True)
    for name, said in files.items():
        (folder / "bench" / f"{name.replace('__', '-')}.json").write_text(json.dumps(said))
    return folder


def test_every_table_and_picture_is_there_and_verdicts_follow_the_figures(tmp_path: Path) -> None:
    own = tmp_path / "home" / "bench" / "quality"
    home = home_with(tmp_path / "home", quality__movies__test=quality())
    made: list[tuple[Path, Any]] = [
        (own / "movies" / "evaluate" / "feed" / "DONE.json", {"train": "movies/train/t"}),
        (own / "movies" / "train" / "t" / "DONE.json", {"units": {"base": {"sasrec": "movies/fits/s"}, "known": {}, "all": {}}}),
        (
            own / "movies" / "fits" / "s" / "epochs.json",
            [{"epoch": e, "loss": 3.0 / e, "ndcg": 0.1 * e, "seconds": 1.0} for e in (1, 2, 3)],
        ),
    ]
    for path, said in made:
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(said))
    result = report(home, tmp_path / "page.html", tmp_path / "docs" / "b.md", 1_700_000_000.0)
    assert (result["reached"], result["not_reached"], result["not_measured"]) == (6, 2, 1)
    page, text = (tmp_path / "page.html").read_text(), (tmp_path / "docs" / "b.md").read_text()
    assert page.count("<svg") == 5  # intervals, accuracy against coverage, two learning curves, importance
    assert "Learning curves: loss" in page
    assert "sasrec, base" in page
    assert "HSTU, full softmax 0.1944" in page  # the line to compare with
    for said in (page, text):
        assert "movies: sasrec NDCG@10" in said
        assert "not reached" in said
        assert "not measured" in said
        assert "NetEase-Media/HSTU-Tensorflow" in said
        assert "factotum bench quality movies --data movielens" in said
        assert "looked at 2 times, 1 of them at new figures" in said
        assert "nly for comparison" in said
        assert "Jarvelin" in said  # the formulas
        assert "2023-11-14" in said
    assert "| movies: sasrec NDCG@10 | ≥ 0.195 | 0.2000 | reached |" in text
    assert "| movies: two-stage HR@10 | ≥ 0.35 | 0.2100 | not reached |" in text
    assert "| movies: gain over the best source, low end | \\> 0 | +0.0050 | reached |" in text
    assert "| movies: seconds for the whole table | ≤ 3,600 | 104 | reached |" in text
    order = [line for line in text.splitlines() if re.match(r"\| (ours|HSTU|SASRec|gSASRec)", line)]
    assert order[0].startswith("| ours: two-stage | 0.2100 | 0.2100 |")
    assert order[2].startswith("| HSTU, full softmax | 0.3419 | 0.1944 |")


def test_a_source_that_is_better_makes_the_gain_negative() -> None:
    domain = configs.load("movies")
    worse = part(two_stage=0.19)
    lines = {line[0]: line for line in report_quality.goals(domain, quality(own=worse))}
    assert lines["movies: gain over the best source, low end"][2:] == ["-0.0150", "not reached"]
    assert lines["movies: two-stage NDCG@10"][2:] == ["0.1900", "not reached"]
    assert all(line[3] == "not measured" for line in report_quality.goals(domain, None))


def test_other_benchmarks_are_shown_whatever_they_hold(tmp_path: Path) -> None:
    speed = {
        "bench": "train",
        "machine": MACHINE,
        "people": 6,
        "items": 9,
        "events": 20,
        "epochs": 2,
        "threads": 2,
        "theirs": {"versions": {"rectools": "0.19.0"}},
        "rows": [
            {
                "name": "SASRec, training",
                "ours": 400.0,
                "theirs": 100.0,
                "unit": "sequences/s",
                "ratio": 4.0,
                "goal": ">= 2x",
                "reached": True,
            },
            {"name": "ranker", "ours": 2.5, "theirs": None, "unit": "ms", "ratio": None, "goal": "< 1", "reached": False},
            {"name": "ALS", "ours": 5.0, "theirs": None, "unit": "people/s", "ratio": None, "goal": ">= 2x", "reached": None},
        ],
    }
    routes = {
        "bench": "routes",
        "machine": MACHINE,
        "domain": "somewhere",
        "seconds": 12.5,
        "chains": 1_234_567,
        "ways": {"exact": {"ms": 3.25, "share": 1.0}, "beam": {"ms": 0.5, "share": 0.98}},
        "days": [{"day": "Friday", "routes": 12}, {"day": "Saturday", "routes": 9}],
        "deep": {"one": {"two": {"three": 3}}},
        "nothing": None,
        "fits": True,
    }
    home = home_with(tmp_path / "home", train=speed, routes=routes, soak={"bench": "soak", "of": "another version"})
    result = report(home, tmp_path / "page.html", tmp_path / "b.md", 1_700_000_000.0)
    text = (tmp_path / "b.md").read_text()
    assert (result["reached"], result["not_reached"]) == (1, 1)
    assert "| speed: SASRec, training | ≥ 2x | 4x | reached |" in text
    assert "| speed: ranker | \\< 1 | 2.5 ms | not reached |" in text
    assert "Theirs: rectools 0.19.0" in text
    assert "## Routes" in text
    assert "| chains | 1,234,567 |" in text
    assert "| exact | 3.25 | 1 |" in text
    assert "| Saturday | 9 |" in text
    assert "| deep, one, two three | 3 |" in text or "three" in text
    assert "| fits | yes |" in text
    assert "| of | another version |" in text
    assert "Small & Co" in text
    assert "Small &amp; Co" in (tmp_path / "page.html").read_text()


def test_the_newest_search_of_each_model_is_on_the_page(tmp_path: Path) -> None:
    from tests.pipelines.test_adopt import searched

    document = plain()
    document["candidates"]["als"] = {"model": "als", "factors": 64}
    home = tmp_path / "home"
    searched(home, written(tmp_path, document))
    result = report(home, tmp_path / "page.html", None, 1_700_000_000.0)
    assert result["from"] == ["books: search for als"]
    page = (tmp_path / "page.html").read_text()
    assert "books: search for als" in page
    assert "present settings" in page
    assert str(tmp_path) not in page


def test_cold_groups_skipped_parts_and_a_domain_that_does_not_ship(tmp_path: Path) -> None:
    cold = {
        "protocol": "leave one out; 5 people and 4 items unknown to training",
        "groups": {
            "new people": {"people": 5, "rows": {way: {"NDCG@10": measured(0.1), "coverage": 0.2} for way in ("popular", "als")}},
            "new items": {"people": 0, "rows": {}},
        },
    }
    home = home_with(tmp_path / "home", quality__books__test=quality("books", own=part(), cold=cold, by_time={"skipped": "no ratings.csv"}))
    report(home, tmp_path / "page.html", tmp_path / "b.md", 1_700_000_000.0)
    text = (tmp_path / "b.md").read_text()
    assert "New people: 5 people." in text
    assert "new items: nobody took any." in text
    assert "Skipped: no ratings.csv" in text
    assert "HSTU" not in text.split("## books")[1].split("## What")[0]


def test_nothing_measured_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no figures: `factotum bench` makes them"):
        report(tmp_path, tmp_path / "page.html", None, 0.0)
    home = home_with(tmp_path / "home", train={})
    (home / "bench" / "train.json").write_text("{")
    with pytest.raises(ValueError, match=r"train\.json: not JSON"):
        report(home, tmp_path / "page.html", None, 0.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"goals": [{"figure": "NDCG@10"}]}, "a goal has either `least` or `most`"),
        ({"goals": [{"part": "later", "figure": "NDCG@10", "least": 1}]}, "'later' is no part of the benchmark; allowed are own, cold"),
        ({"published": {"later": []}}, "'later' is no part of the benchmark"),
    ],
)
def test_goals_that_cannot_be_measured_are_refused(tmp_path: Path, words: dict[str, Any], message: str) -> None:
    path = tmp_path / "books.yaml"
    path.write_text(yaml.safe_dump({**plain(), **words}))
    with pytest.raises(ConfigError, match=message):
        configs.load(str(path))


def test_domains_without_goals_have_no_lines() -> None:
    document = {**plain(), "name": "books"}
    assert goal_rows({}, {"books": Domain.model_validate(document)}) == []


def test_goals_of_routes_are_among_the_goals() -> None:
    said = [
        {"name": "masks on disk", "value": 0.0976, "unit": "bytes", "goal": "<= 0.15", "reached": True},
        {"name": "no filter: kernel", "value": 1.25, "unit": "ms", "goal": "< 1", "reached": False},
        {"name": "no filter: count", "value": 0.3, "unit": "ms", "goal": "", "reached": None},
    ]
    assert goal_rows({"routes": {"rows": said}}, {}) == [
        ["routes: masks on disk", "≤ 0.15", "0.0976 bytes", "reached"],
        ["routes: no filter: kernel", "< 1", "1.25 ms", "not reached"],
    ]


def test_baskets_and_own_routes_are_on_the_page(tmp_path: Path) -> None:
    value = {"mean": 0.25, "low": 0.2, "high": 0.3}
    row = {"NDCG@10": value, "HR@10": value, "groups": {"one person's": {"NDCG@10": value}, "clashing": {"NDCG@10": value}}}
    basket = {
        "said": "one hidden",
        "people": 7,
        "clashing_people": 2,
        "candidates": 9.0,
        "rows": {"popular": row},
        "random": {"all": {"NDCG@10": 0.1, "HR@10": 0.2}},
        "comparisons": {},
    }
    share = {"score": value, "popular": value, "score - popular": value, "random": 0.01}
    routes = {"said": "routes", "routes": 5, "known": 3, "days": 8, "clashing_days": 2, "among": {"day": {"all": {"first 10": share}}}}
    home = home_with(tmp_path / "home", quality__movies__test=quality(basket={"basket": basket, "own_routes": routes}))
    report(home, tmp_path / "page.html", tmp_path / "b.md", 1_700_000_000.0)
    for said in ((tmp_path / "page.html").read_text(), (tmp_path / "b.md").read_text()):
        assert "one hidden: 7 people, 2 of them with tickets that clash; 9 stops to find it among" in said
        assert "2 of 8 such days clash (25.0%: bought for several people)" in said
