"""A bundle: what was written is what is opened, anything else is refused by name, and aliases change in one step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.domain import Domain
from features.compute import PairFeatures
from features.state import Kinds
from features.statistics import ItemStatistics
from features.vocabulary import Vocabulary
from serving.engine import Engine
from serving.slate import Question
from tests.worlds import World, checkerboard
from training import build, bundle, contract, examples
from training.bundle import BundleError, Verdict
from training.ranker import Ranker
from training.retrieval import feature_names
from training.split import Split, split, targets

DOMAIN = Domain.model_validate(
    {
        "name": "board",
        "title": "Board",
        "items": {
            "attributes": {
                "genre": {"type": "tags"},
                "form": {"type": "category"},
                "length": {"type": "number", "logarithm": True},
                "members": {"type": "number", "missing": 0.0, "prior": True},
            }
        },
        "events": {
            "kinds": {
                "seen": {"means": ["seen"]},
                "planned": {"means": ["interest"], "weight": 0.3},
                "dislike": {"means": ["disliked"], "weight": 0},
                "shown": {"means": ["shown"], "weight": 0},
                "undo": {"means": ["undo"], "weight": 0},
            },
            "scale": {"low": 1, "high": 10, "liked_from": 7, "disliked_to": 4},
        },
        "source": {"items": {"files": ["items.csv"]}, "events": [{"files": ["events.csv"]}]},
        "candidates": {
            "popular": {"model": "popularity"},
            "content": {"model": "content", "title_words": 64, "dimensions": 8},
            "neighbours": {"model": "neighbours", "neighbours": 10},
        },
        "ranker": {"candidates": 15, "trees": 10, "leaves": 7, "leaf_rows": 2},
    }
)


def written(home: Path, mode: str = bundle.TWO_STAGE, passed: bool = True) -> Path:
    place = checkerboard()
    kinds = Kinds.of(DOMAIN.events)
    cut: Split = split(place.histories, DOMAIN.split, place.now)
    known = place.histories.where(cut.base)
    statistics = ItemStatistics.as_of(place.histories, len(place.catalogue), place.now)
    models = {name: build.build(words) for name, words in DOMAIN.candidates.items()}
    for model in models.values():
        model.fit(contract.TrainingData(known, place.catalogue, cut.label_moment, 3, threads=1))
    assert DOMAIN.ranker is not None
    pairs = PairFeatures(place.catalogue, statistics)
    wanted = targets(place.histories, cut.label, known, len(place.catalogue))
    made = examples.make(DOMAIN.ranker, models, pairs, known, wanted, 40, place.catalogue.available, cut.label_moment, 3)
    ranker = Ranker.fit(DOMAIN.ranker, feature_names(tuple(models), pairs), tuple(models), made.rows, made.labels, made.groups, 3, 1)
    assert kinds.names == place.kinds_of.names
    return bundle.write(
        home, DOMAIN, place.catalogue, Vocabulary([f"u{user}" for user in range(60)]), place.histories, statistics, models,
        ranker if mode == bundle.TWO_STAGE else None, Verdict(passed=passed, serve=mode, why="a test"), {"NDCG": 0.5}, {"rows": 1},
        place.now, 17, "mark",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("home"))


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, bundle.bundles_dir(tmp_path, "board") / whole.name))


def answers(engine: Engine, place: World) -> list[list[tuple[str, float]]]:
    states = [*engine.histories.states(np.arange(10, dtype=np.int32)), place.person([]), place.person([2, 4])]
    slates = engine.recommend([Question(state, 8, place.now, exploration=0.0, explain=True) for state in states])
    return [[(item.item, item.score) for item in slate.items] for slate in slates]


def test_opened_twice_it_gives_the_same_slates(whole: Path, copy: Path) -> None:
    place = checkerboard()
    first, second = bundle.load(whole), bundle.load(copy)
    assert first.manifest == second.manifest
    assert first.manifest.events_through == 17
    assert first.manifest.moment == place.now
    assert answers(Engine(first), place) == answers(Engine(second), place)


def test_what_was_saved_is_what_was_fitted(whole: Path) -> None:
    place = checkerboard()
    opened = bundle.load(whole)
    states = place.histories.states(np.arange(5, dtype=np.int32))
    cut = split(place.histories, DOMAIN.split, place.now)
    for name, words in DOMAIN.candidates.items():
        fresh = build.build(words)
        fresh.fit(contract.TrainingData(place.histories.where(cut.base), place.catalogue, cut.label_moment, 3, threads=1))
        np.testing.assert_allclose(opened.models[name].scores(states, place.now), fresh.scores(states, place.now), rtol=1e-5, atol=1e-6)


def test_nothing_in_it_has_to_be_unpickled(whole: Path) -> None:
    assert {path.suffix for path in whole.rglob("*") if path.is_file()} <= {".npy", ".json", ".txt", ".safetensors"}
    for path in whole.rglob("*.npy"):
        np.load(path, allow_pickle=False)


def test_the_top_list_stands_in_it_as_json(whole: Path) -> None:
    leading = json.loads((whole / "top.json").read_text())
    assert len(leading) == 40
    assert [entry["takers"] for entry in leading] == sorted((entry["takers"] for entry in leading), reverse=True)
    assert {"item", "title", "takers"} == set(leading[0])


def every_file() -> list[str]:
    return ["histories/items.npy", "catalogue/catalogue.json", "ranker/ranker.txt", "sources/content/vectors.npy", "domain.json"]


@pytest.mark.parametrize("name", every_file())
def test_a_flipped_byte_is_found_and_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(bytes(data))
    for look in (bundle.verify, bundle.load):
        with pytest.raises(BundleError, match=rf"{copy.name}: {name} has sha256"):
            look(copy)


@pytest.mark.parametrize("name", every_file())
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{copy.name}: {name} is missing"):
        bundle.load(copy)


def test_a_file_that_nobody_checked_is_refused(copy: Path) -> None:
    (copy / "sources" / "als").mkdir()
    (copy / "sources" / "als" / "model.json").write_text("{}")
    with pytest.raises(BundleError, match=r"sources/als/model\.json is not named by manifest\.json"):
        bundle.load(copy)


def cut_short(text: str) -> str:
    return text[: len(text) // 2]


def outside(text: str) -> str:
    document = json.loads(text)
    document["files"]["../../../secret"] = "0" * 64
    return json.dumps(document)


def strange_format(text: str) -> str:
    return text.replace('"format": 1', '"format": 2').replace('"format":1', '"format":2')


def unknown_word(text: str) -> str:
    return json.dumps({**json.loads(text), "more": 1})


@pytest.mark.parametrize("damage", [cut_short, strange_format, unknown_word])
def test_a_damaged_manifest_is_refused(copy: Path, damage: Callable[[str], str]) -> None:
    path = copy / "manifest.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(BundleError, match=rf"{copy.name}: manifest\.json cannot be read"):
        bundle.load(copy)


def test_bytes_that_are_no_text_are_refused(copy: Path) -> None:
    (copy / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.read_manifest(copy)


def test_a_name_that_leads_outside_is_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not ours")
    path = copy / "manifest.json"
    path.write_text(outside(path.read_text()))
    with pytest.raises(BundleError, match=r"\.\./\.\./\.\./secret is missing"):
        bundle.load(copy)


def test_without_its_manifest_it_does_not_exist_for_readers(copy: Path, tmp_path: Path) -> None:
    assert bundle.versions(tmp_path, "board") == [copy.name]
    (copy / "manifest.json").unlink()
    assert bundle.versions(tmp_path, "board") == []
    with pytest.raises(BundleError, match="never finished"):
        bundle.load(copy)
    with pytest.raises(BundleError, match="there are none"):
        bundle.point(tmp_path, "board", "champion", copy.name)


def test_a_verdict_for_a_source_that_is_not_there_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    document = json.loads(path.read_text())
    document["verdict"]["serve"] = "als"
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="'als' is served, but holds only popular, content, neighbours"):
        bundle.load(copy)


def test_two_stages_without_a_ranker_are_refused(copy: Path) -> None:
    shutil.rmtree(copy / "ranker")
    path = copy / "manifest.json"
    document = json.loads(path.read_text())
    document["files"] = {name: digest for name, digest in document["files"].items() if not name.startswith("ranker/")}
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="holds no ranker"):
        bundle.load(copy)


def test_one_source_alone_is_served_as_such(tmp_path: Path) -> None:
    opened = bundle.load(written(tmp_path, "neighbours"))
    assert opened.ranker is None
    assert opened.mode == "neighbours"
    place = checkerboard()
    slate = Engine(opened).recommend([Question(place.histories.state(0), 3, place.now)])[0]
    assert slate.mode == "neighbours"
    best = np.setdiff1d(np.arange(0, 40, 2), place.histories.state(0).positives)
    assert {item.item for item in slate.items} == {f"i{row}" for row in best}


# ------------------------------------------------------------ versions and aliases


def versions_made(home: Path, names: list[str], whole: Path) -> None:
    for name in names:
        shutil.copytree(whole, bundle.bundles_dir(home, "board") / name)


def test_versions_made_one_after_another_sort_so() -> None:
    names = [bundle.new_version() for _ in range(200)]
    assert len(set(names)) == 200
    moments = [name.split("-")[0] for name in names]
    assert moments == sorted(moments)
    assert len(set(moments)) > 1  # finer than the time that two of them take


def test_aliases_and_the_way_back(whole: Path, tmp_path: Path) -> None:
    versions_made(tmp_path, ["v1", "v2", "v3"], whole)
    assert bundle.alias(tmp_path, "board", "champion") is None
    assert bundle.pointed_before(tmp_path, "board", "champion") is None
    bundle.point(tmp_path, "board", "champion", "v1")
    assert bundle.alias(tmp_path, "board", "champion") == "v1"
    assert bundle.alias(tmp_path, "board", "challenger") is None
    assert bundle.pointed_before(tmp_path, "board", "champion") is None
    bundle.point(tmp_path, "board", "champion", "v2")
    bundle.point(tmp_path, "board", "champion", "v3")
    assert bundle.pointed_before(tmp_path, "board", "champion") == "v2"
    shutil.rmtree(bundle.bundles_dir(tmp_path, "board") / "v2")
    assert bundle.pointed_before(tmp_path, "board", "champion") == "v1"
    with pytest.raises(BundleError, match="no version 'v2'; there are v1, v3"):
        bundle.point(tmp_path, "board", "champion", "v2")
    assert bundle.alias(tmp_path, "board", "champion") == "v3"


def test_pointing_leaves_no_half_written_file(whole: Path, tmp_path: Path) -> None:
    versions_made(tmp_path, ["v1"], whole)
    bundle.point(tmp_path, "board", "challenger", "v1")
    folder = bundle.bundles_dir(tmp_path, "board")
    assert sorted(path.name for path in folder.iterdir()) == ["challenger", "challenger.history", "v1"]
