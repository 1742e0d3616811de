"""What may be served, and what becomes the champion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.evaluate import gate
from pipelines.publish import NotPromotedError, promote, publish, rollback
from serving.engine import Engine
from serving.slate import Question
from tests.pipelines.small_run import SILENT, SmallRun
from training import bundle
from training.bundle import TWO_STAGE, BundleError

PEOPLE = 400


def person(mean: float, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).beta(2 * mean, 2 * (1 - mean), PEOPLE)


POPULAR, ALS = person(0.2, 1), person(0.4, 2)


def test_a_ranker_that_beats_the_best_source_is_served(whole_run: SmallRun) -> None:
    said = gate(whole_run.domain, {TWO_STAGE: ALS + 0.05, "popular": POPULAR, "als": ALS})
    assert (said.serve, said.passed) == (TWO_STAGE, True)
    assert "of als" in said.why
    assert "+0.0500" in said.why


@pytest.mark.parametrize("shift", [-0.05, 0.0], ids=["worse", "equal"])
def test_a_ranker_that_does_not_gives_way_to_the_best_source(whole_run: SmallRun, shift: float) -> None:
    said = gate(whole_run.domain, {TWO_STAGE: ALS + shift, "popular": POPULAR, "als": ALS, "content": POPULAR})
    assert (said.serve, said.passed) == ("als", True)
    assert "does not beat the best single source, so als is served alone" in said.why


def test_better_by_chance_is_not_better(whole_run: SmallRun) -> None:
    noise = np.random.default_rng(3).normal(0.004, 0.3, PEOPLE)
    said = gate(whole_run.domain, {TWO_STAGE: ALS + noise, "popular": POPULAR, "als": ALS})
    assert said.serve == "als"


def test_without_a_ranker_the_best_source_is_served(whole_run: SmallRun) -> None:
    said = gate(whole_run.domain, {"popular": POPULAR, "als": ALS})
    assert (said.serve, said.passed) == ("als", True)
    assert "there is no ranker" in said.why


def test_popularity_itself_may_be_served(whole_run: SmallRun) -> None:
    said = gate(whole_run.domain, {TWO_STAGE: POPULAR - 0.1, "popular": POPULAR, "als": POPULAR - 0.1})
    assert (said.serve, said.passed) == ("popular", True)


# ------------------------------------------------------------ publish, promote, roll back


REFUSED = {"passed": False, "serve": TWO_STAGE, "why": "below popularity (0.2000); a test"}


def test_what_the_gate_refused_is_published_but_the_champion_stays(small_run: SmallRun) -> None:
    evaluated = small_run.judged(REFUSED)
    with pytest.raises(NotPromotedError, match="was not promoted, the champion stays: below popularity"):
        publish(small_run.domain, evaluated, small_run.home, SILENT)
    assert bundle.alias(small_run.home, "anime", "champion") == small_run.version
    newer = bundle.versions(small_run.home, "anime")[-1]
    assert newer != small_run.version
    for version in (None, newer):
        with pytest.raises(NotPromotedError):
            promote(small_run.home, "anime", version, SILENT)
    assert bundle.alias(small_run.home, "anime", "champion") == small_run.version


def test_a_source_served_alone_has_no_ranker(small_run: SmallRun) -> None:
    evaluated = small_run.judged({"passed": True, "serve": "als", "why": "a test"})
    version = publish(small_run.domain, evaluated, small_run.home, SILENT)
    assert bundle.alias(small_run.home, "anime", "champion") == version
    opened = bundle.load(bundle.bundles_dir(small_run.home, "anime") / version)
    assert opened.ranker is None
    engine = Engine(opened)
    slate = engine.recommend([Question(engine.histories.state(0), 5, opened.manifest.moment, exploration=0.0)])[0]
    assert slate.mode == "als"
    scores = opened.models["als"].scores([engine.histories.state(0)], opened.manifest.moment)[0]
    scores[engine.histories.state(0).excluded] = -np.inf
    best = np.lexsort((np.arange(len(scores)), -scores))[:5]
    assert [item.item for item in slate.items] == engine.catalogue.ids.ids(best)


def test_published_without_promoting_it_waits(small_run: SmallRun) -> None:
    evaluated = small_run.judged({"passed": True, "serve": "als", "why": "a test"})
    version = publish(small_run.domain, evaluated, small_run.home, SILENT, promoted=False)
    assert bundle.alias(small_run.home, "anime", "champion") == small_run.version
    before = small_run.made("bundles")
    assert promote(small_run.home, "anime", None, SILENT, dry_run=True).version == version
    assert small_run.made("bundles") == before
    promote(small_run.home, "anime", None, SILENT)
    assert bundle.alias(small_run.home, "anime", "champion") == version
    assert rollback(small_run.home, "anime", None, SILENT, dry_run=True) == small_run.version
    assert bundle.alias(small_run.home, "anime", "champion") == version
    assert rollback(small_run.home, "anime", None, SILENT) == small_run.version
    assert bundle.alias(small_run.home, "anime", "champion") == small_run.version
    assert rollback(small_run.home, "anime", version, SILENT) == version


def test_the_same_training_is_published_once(small_run: SmallRun) -> None:
    assert publish(small_run.domain, small_run.step("evaluate"), small_run.home, SILENT) == small_run.version
    assert bundle.versions(small_run.home, "anime") == [small_run.version]
    serving = small_run.domain.serving.model_copy(update={"k": 5})
    words = small_run.domain.model_copy(update={"serving": serving})
    assert publish(words, small_run.step("evaluate"), small_run.home, SILENT) != small_run.version


def test_a_damaged_version_is_neither_promoted_nor_gone_back_to(small_run: SmallRun) -> None:
    directory = bundle.bundles_dir(small_run.home, "anime") / small_run.version
    other = Path(shutil.copytree(directory, directory.with_name("other")))
    bundle.point(small_run.home, "anime", "champion", "other")
    (directory / "catalogue" / "available.npy").write_bytes(b"broken")
    for act in (promote, rollback):
        with pytest.raises(BundleError, match=r"catalogue/available\.npy has sha256"):
            act(small_run.home, "anime", small_run.version, SILENT)
    assert bundle.alias(small_run.home, "anime", "champion") == "other"
    assert json.loads((other / "manifest.json").read_text())["verdict"]["passed"] is True


def test_what_is_not_there_is_said(small_run: SmallRun, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no version 'v9'; there are"):
        promote(small_run.home, "anime", "v9", SILENT)
    with pytest.raises(BundleError, match="no finished bundle: `factotum run anime` makes one"):
        promote(tmp_path / "empty", "anime", None, SILENT)
    with pytest.raises(BundleError, match="had no other champion before"):
        rollback(small_run.home, "anime", None, SILENT)
