"""What is kept, why, and what goes."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from pipelines import clean as sweeping
from pipelines.clean import clean, survey
from pipelines.evaluate import evaluate
from pipelines.publish import publish
from pipelines.train import open_trained, train
from tests.pipelines.small_run import SILENT, SmallRun
from training import bundle

LONG_AGO = time.time() - 100_000


def older(path: Path, seconds: float) -> None:
    for file in [*path.rglob("*"), path]:
        os.utime(file, (LONG_AGO + seconds, LONG_AGO + seconds))


def copies(run: SmallRun, names: list[str]) -> None:
    """More versions of the same bundle, each older than the one there is."""
    folder = bundle.bundles_dir(run.home, "anime")
    for name in names:
        shutil.copytree(folder / run.version, folder / name)
    older(folder, 0)


def kept(run: SmallRun, what: str) -> dict[str, str | None]:
    return {piece.path.name: piece.kept for piece in survey(run.home, run.domain) if piece.what == what}


def test_champions_challenger_and_the_newest_stay(small_run: SmallRun) -> None:
    words = small_run.domain.model_copy(update={"keep_versions": 2})
    copies(small_run, ["1a", "1b", "1c", "1d", "1e", "1f"])
    bundle.point(small_run.home, "anime", "champion", "1b")
    bundle.point(small_run.home, "anime", "champion", "1c")
    bundle.point(small_run.home, "anime", "challenger", "1a")
    pieces, freed = clean(small_run.home, words, SILENT, dry_run=True)
    said = {piece.path.name: piece.kept for piece in pieces if piece.what == "bundle"}
    assert said == {
        "1a": "challenger",
        "1b": "the champion before",
        "1c": "champion",
        "1d": None,
        "1e": None,
        "1f": "among the newest 2",
        small_run.version: "among the newest 2",
    }
    again, really = clean(small_run.home, words, SILENT)
    assert (again, really) == (pieces, freed)
    assert freed == sum(piece.size for piece in pieces if piece.kept is None) > 0
    assert bundle.versions(small_run.home, "anime") == sorted(["1a", "1b", "1c", "1f", small_run.version])
    assert bundle.load(bundle.bundles_dir(small_run.home, "anime") / "1c").version == small_run.version
    assert bundle.pointed_before(small_run.home, "anime", "champion") == "1b"


def test_a_dry_run_touches_nothing(small_run: SmallRun) -> None:
    copies(small_run, [f"1{number}" for number in range(9)])
    before = small_run.made()
    assert any(piece.kept is None for piece in clean(small_run.home, small_run.domain, SILENT, dry_run=True)[0])
    assert small_run.made() == before


def test_half_a_bundle_goes_unless_it_may_be_under_way(small_run: SmallRun) -> None:
    folder = bundle.bundles_dir(small_run.home, "anime")
    for name in ("1fresh", "1stale"):
        shutil.copytree(folder / small_run.version, folder / name)
        (folder / name / "manifest.json").unlink()
    older(folder / "1stale", 0)
    clean(small_run.home, small_run.domain, SILENT)
    assert (folder / "1fresh").is_dir()
    assert not (folder / "1stale").exists()


def trained_with(run: SmallRun, trees: int) -> Path:
    assert run.domain.ranker is not None
    words = run.domain.model_copy(update={"ranker": run.domain.ranker.model_copy(update={"trees": trees})})
    return train(words, run.step("featurize"), run.home, SILENT)


def test_fits_of_kept_trainings_stay_and_can_be_used(small_run: SmallRun) -> None:
    folder = small_run.home / "anime"
    stray = shutil.copytree(next((folder / "fits").glob("als-all-*")), folder / "fits" / "als-all-ofnobody")
    newer = [trained_with(small_run, trees) for trees in (2, 3, 4)]
    first = next(path for path in (folder / "train").iterdir() if path not in newer)
    for place, path in enumerate([first, *newer]):
        older(path, place)
    for path in (folder / "fits").iterdir():
        older(path, 0)
    # The evaluation was of the first training, which is no longer among the newest two.
    assert small_run.step("evaluate").exists()
    clean(small_run.home, small_run.domain, SILENT)
    assert not Path(stray).exists()
    assert {path.name for path in (folder / "train").iterdir()} == {first.name, newer[1].name, newer[2].name}
    for path in (folder / "train").iterdir():
        opened = open_trained(path, small_run.domain, small_run.home)
        assert set(opened.models(small_run.domain, "all")) == set(small_run.domain.candidates)
    assert publish(small_run.domain, small_run.step("evaluate"), small_run.home, SILENT) == small_run.version
    assert evaluate(small_run.domain, first, small_run.home, SILENT).is_dir()


def test_what_a_kept_training_reads_stays_although_newer_ones_came(small_run: SmallRun) -> None:
    folder = small_run.home / "anime"
    for step in ("featurize", "ingest"):
        (there,) = (path for path in (folder / step).iterdir())
        for number in range(3):
            shutil.copytree(there, folder / step / f"newer{number}")
        older(there, 0)
        if step == "featurize":  # these read the newer tables
            for number in range(3):
                done = folder / step / f"newer{number}" / "DONE.json"
                done.write_text(json.dumps({**json.loads(done.read_text()), "tables": f"newer{number}"}))
    needed = {step: next(path for path in (folder / step).iterdir() if "newer" not in path.name) for step in ("featurize", "ingest")}
    clean(small_run.home, small_run.domain, SILENT)
    assert kept(small_run, "featurize")[needed["featurize"].name] == "read by what is kept"
    assert kept(small_run, "ingest")[needed["ingest"].name] == "read by what is kept"
    assert len(kept(small_run, "featurize")) == len(kept(small_run, "ingest")) == 3
    assert open_trained(small_run.step("train"), small_run.domain, small_run.home).ranker is not None


def test_days_of_scores_go_after_a_week(small_run: SmallRun) -> None:
    for day in range(1, 11):
        part = small_run.home / "anime" / "scored" / f"date=2025-06-{day:02d}" / "part-00000.parquet"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x" * 100)
    clean(small_run.home, small_run.domain, SILENT)
    left = sorted(path.name for path in (small_run.home / "anime" / "scored").iterdir())
    assert left == [f"date=2025-06-{day:02d}" for day in range(4, 11)]
    assert sweeping._KEEP_SCORED == 7


def test_an_empty_home_has_nothing_to_sweep(small_run: SmallRun, tmp_path: Path) -> None:
    assert clean(tmp_path / "empty", small_run.domain, SILENT) == ([], 0)
