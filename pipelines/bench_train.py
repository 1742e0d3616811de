"""`factotum bench train`: how fast the models learn and answer, as ratios to what people use today, measured in the same run.

The rival is RecTools with its SASRec, and implicit's ALS under it, in a virtual environment of the benchmark's own (the cache folder of
the home directory), so that its needs and ours never meet. Both get the same people, sizes, epochs and cores. The people are generated
from a seed, as many and with as many items as MovieLens-1M has; of each only the last `window` + 1 items are there, because that is
all RecTools reads. A sequence is one such history, read once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.domain import AlsModel, Events, Items, Kind, SasrecModel
from features.catalogue import Catalogue, build
from features.state import NO_TIME, Histories, Kinds, UserState, histories
from pipelines import rectools_rival
from pipelines.memory import most_bytes, pss_bytes
from pipelines.steps import Reporter
from training.contract import CandidateModel, TrainingData

RIVAL = "rectools[torch]==0.19.0"
TORCH = "torch==2.13.0"
K = 10
PEOPLE, ITEMS, LONGEST = 6_040, 3_416, 2_000
_REPEATS = 3
_CANDIDATES = 200  # rows that the ranker scores in one request
_MANY_ITEMS, _FACTORS = 1_000_000, 64
_BATCH = 256  # people asked about together


def run(reporter: Reporter, people: int = PEOPLE, epochs: int = 2, threads: int = 2, rival: bool = True) -> dict[str, Any]:
    """All figures; `rows` is the table: name, ours, theirs (None where there is no rival), unit, ratio, goal, reached.

    Raises RuntimeError if the rival cannot be installed or fails; `rival=False` leaves it out."""
    words = SasrecModel(
        model="sasrec",
        dimensions=128,
        blocks=2,
        heads=2,
        widening=1,  # RecTools' network is no wider between its two linear layers than outside
        window=200,
        dropout=0.2,
        learning_rate=1e-3,
        epochs=epochs,
        batch=64,
        patience=1_000,
    )
    before = os.environ.get("OMP_NUM_THREADS")
    data = TrainingData(_people(people, words.window + 1), _catalogue(), 0, seed=1, threads=threads)
    figures: dict[str, Any] = {"people": people, "items": ITEMS, "events": data.histories.events, "epochs": epochs, "threads": threads}
    figures["settings"] = words.model_dump(mode="json")
    theirs: dict[str, Any] = {}
    if rival:
        reporter.step("rival")
        theirs = _rival(data, words, threads, reporter)
    reporter.step("ours")
    ours = _ours(data, words, threads, reporter)
    figures.update({"ours": ours, "theirs": theirs, "omp_num_threads": before, "rows": _rows(ours, theirs, people * epochs, people)})
    return figures


def table(figures: dict[str, Any]) -> list[str]:
    """The figures for people."""
    lines = [f"{figures['people']} people, {figures['items']} items, {figures['events']} events, {figures['threads']} cores"]
    lines += ["measure".ljust(52) + "ours".rjust(12) + "theirs".rjust(12) + "  unit".ljust(14) + "ratio".rjust(8) + "  goal".ljust(12)]
    for row in figures["rows"]:
        theirs = "-" if row["theirs"] is None else f"{row['theirs']:.4g}"
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        reached = {True: "reached", False: "not reached", None: ""}[row["reached"]]
        lines.append(
            f"{row['name']:<52}{row['ours']:>12.4g}{theirs:>12}  {row['unit']:<12}{ratio:>8}  {row['goal']:<10} {reached}".rstrip()
        )
    return lines


# ------------------------------------------------------------------ data


def _people(people: int, most: int) -> Histories:
    """Histories of log-normal length (median 96, at least 20, as MovieLens-1M's), of items that are the more frequent the smaller
    their row; of each the last `most`."""
    chance = np.random.default_rng(7)
    lengths = np.clip(np.exp(chance.normal(np.log(96), 0.95, people)).astype(np.int64), 20, LONGEST)
    popular = -0.8 * np.log(np.arange(1, ITEMS + 1) + 20.0)
    parts = []
    for length in lengths:
        drawn = popular + chance.gumbel(size=ITEMS)
        parts.append(np.argpartition(-drawn, length)[:length][-most:].astype(np.int32))
    users = np.repeat(np.arange(people, dtype=np.int32), [len(part) for part in parts])
    rows = np.concatenate(parts)
    kinds = Kinds.of(Events(kinds={"seen": Kind(means=("seen",), weight=1.0)}))
    n = len(rows)
    return histories(
        kinds, people, users, rows, np.zeros(n, dtype=np.int8), np.full(n, np.nan, dtype=np.float32), np.full(n, NO_TIME), ordered=True
    )


def _catalogue() -> Catalogue:
    return build(Items(attributes={}), [str(row) for row in range(ITEMS)], [f"Item {row}" for row in range(ITEMS)], [True] * ITEMS, {})


# ------------------------------------------------------------------ theirs


def _environment(reporter: Reporter) -> Path:
    """The Python of the rival's environment, made at the first call. torch is installed first and by itself: asked for together with
    the rest, pip may take the CUDA build, which is ten times larger."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "factotum" / "rectools-0.19.0"
    python, mark = cache / "bin" / "python", cache / "installed.json"
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == [TORCH, RIVAL]:
        return python
    reporter.say(f"installing {RIVAL} into {cache}")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for command in ([sys.executable, "-m", "venv", str(cache)], [*pip, TORCH], [*pip, TORCH, RIVAL]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[-3:])} failed: {done.stderr.strip()[-600:]}")
    mark.write_text(json.dumps([TORCH, RIVAL]), encoding="utf-8")
    return python


def _rival(data: TrainingData, words: SasrecModel, threads: int, reporter: Reporter) -> dict[str, Any]:
    python = _environment(reporter)
    settings = {
        **words.model_dump(mode="json"),
        "threads": threads,
        "k": K,
        "recommend_batch": _BATCH,
        "factors": _FACTORS,
        "repeats": _REPEATS,
    }
    with tempfile.TemporaryDirectory(prefix="factotum-bench-") as name:
        place = Path(name)
        np.savez(place / "data.npz", users=data.histories.users.astype(np.int64), items=data.histories.items.astype(np.int64))
        (place / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        script = [str(python), rectools_rival.__file__, *(str(place / part) for part in ("data.npz", "settings.json", "out.json"))]
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
        limits["OPENBLAS_NUM_THREADS"] = "1"  # implicit brings its own threads and asks for this
        done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=place, env={**os.environ, **limits})
        if done.returncode:
            raise RuntimeError(f"{RIVAL} failed: {done.stderr.strip()[-600:]}")
        figures: dict[str, Any] = json.loads((place / "out.json").read_text(encoding="utf-8"))
    return figures


# ------------------------------------------------------------------ ours


def _ours(data: TrainingData, words: SasrecModel, threads: int, reporter: Reporter) -> dict[str, Any]:
    from threadpoolctl import threadpool_limits

    from training.candidates.als import Als
    from training.candidates.sasrec import Sasrec

    figures: dict[str, Any] = {}
    sequence = Sasrec(words)
    figures["fit_s"] = _seconds(lambda: sequence.fit(data), 1)
    reporter.say(f"SASRec learnt in {figures['fit_s']:.1f} s")
    als = Als(AlsModel(model="als", factors=_FACTORS, iterations=2))
    als.fit(data)
    import torch

    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        # New states each time: nothing that was read of a person before may help.
        figures["recommend_s"] = _seconds(lambda: recommend(sequence, _states(data), data.now, K), _REPEATS)
        figures["als_s"] = _seconds(lambda: recommend(als, _states(data), data.now, K), _REPEATS)
        figures["evaluate_s"] = _seconds(lambda: places_of_last(sequence, _states(data), data.now), _REPEATS)
    state = data.histories.state(0)
    single = [_seconds(lambda: sequence.scores([state], data.now), 1) for _ in range(50)]
    figures["single_ms"] = float(np.median(single)) * 1e3
    figures["ranker"], figures["ranker_settings"] = _ranker()
    figures["many_items"] = _many_items()
    return figures


def _states(data: TrainingData) -> list[UserState]:
    return data.histories.states(np.arange(len(data.histories), dtype=np.int32))


def recommend(model: CandidateModel, states: list[UserState], now: int, k: int) -> NDArray[np.int32]:
    """(n, k) int32 rows of the best that each does not have, best first, -1 where there are fewer."""
    from training.topk import top

    order = np.argsort([len(state) for state in states], kind="stable")  # people with equally many items stand together
    answers = np.full((len(states), k), -1, dtype=np.int32)
    for first in range(0, len(order), _BATCH):
        some = order[first : first + _BATCH]
        batch = [states[person] for person in some]
        scores = model.scores(batch, now)
        own = [state.excluded for state in batch]
        scores[np.repeat(np.arange(len(batch)), [len(part) for part in own]), np.concatenate(own)] = -np.inf
        best = top(scores, k)
        answers[some, : best.shape[1]] = best
    return answers


def places_of_last(model: CandidateModel, states: list[UserState], now: int) -> NDArray[np.int64]:
    """(n,) the place of each person's last item among all that stand not before it, 0 = first, ties against it: what full-rank
    evaluation by leave-one-out computes."""
    order = np.argsort([len(state) for state in states], kind="stable")
    places = np.empty(len(states), dtype=np.int64)
    for first in range(0, len(order), _BATCH):
        some = order[first : first + _BATCH]
        batch = [states[person] for person in some]
        before = [
            UserState(state.kinds_of, state.items[:-1], state.kinds[:-1], state.values[:-1], state.times[:-1], ordered=state.ordered)
            for state in batch
        ]
        scores = model.scores(before, now)
        targets = np.array([int(state.items[-1]) for state in batch])
        wanted = scores[np.arange(len(batch)), targets]
        own = [state.excluded for state in before]
        scores[np.repeat(np.arange(len(batch)), [len(part) for part in own]), np.concatenate(own)] = -np.inf
        scores[np.arange(len(batch)), targets] = -np.inf
        places[some] = (scores >= wanted[:, None]).sum(axis=1)
    return places


def _ranker() -> tuple[dict[str, float], dict[str, int]]:
    """Milliseconds (median) to score one request's candidates on one thread, by our forest and by LightGBM's own predictor; the sizes."""
    import lightgbm

    from training.ranker import Ranker

    trees, leaves, columns = 300, 31, 40
    chance = np.random.default_rng(3)
    rows = chance.normal(size=(40 * _CANDIDATES, columns)).astype(np.float32)
    labels = (rows[:, 0] + rows[:, 1] * rows[:, 2] + chance.normal(size=len(rows)) > 2.0).astype(np.int8)
    groups = np.full(40, _CANDIDATES, dtype=np.int64)
    words = {"objective": "lambdarank", "num_leaves": leaves, "num_threads": 2, "verbosity": -1, "seed": 1}
    booster = lightgbm.train(words, lightgbm.Dataset(rows, labels, group=groups), num_boost_round=trees)
    ranker = Ranker(booster, tuple(f"f{i}" for i in range(columns)), ())
    request = rows[:_CANDIDATES]
    own = [_seconds(lambda: booster.predict(request, num_threads=1, validate_features=False), 1) for _ in range(200)]
    ours = [_seconds(lambda: ranker.scores(request), 1) for _ in range(200)]
    worst = float(np.abs(ranker.scores(request) - np.asarray(booster.predict(request, num_threads=1))).max())
    figures = {"ours_ms": float(np.median(ours)) * 1e3, "lightgbm_ms": float(np.median(own)) * 1e3, "largest_difference": worst}
    return figures, {"trees": booster.num_trees(), "leaves": leaves, "features": columns, "rows": _CANDIDATES}


def _many_items() -> dict[str, float]:
    """Milliseconds a person and MiB above the factors while the best of a million items are sought, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="factotum-bench-") as name:
        out = Path(name) / "out.json"
        command = [sys.executable, "-c", f"from pipelines.bench_train import measure_many; measure_many({str(out)!r})"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
        if done.returncode:
            raise RuntimeError(f"top-k over {_MANY_ITEMS} items failed: {done.stderr.strip()[-600:]}")
        figures: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
    return figures


def measure_many(out: str, people: int = 512) -> None:
    """What `_many_items` runs."""
    from training.topk import best

    chance = np.random.default_rng(1)
    items = chance.standard_normal((_MANY_ITEMS, _FACTORS), dtype=np.float32)
    asked = chance.standard_normal((people, _FACTORS), dtype=np.float32)
    held = pss_bytes(os.getpid())
    seconds = _seconds(lambda: best(asked, items, K), 1)
    figures = {"people": people, "ms_a_person": seconds / people * 1e3, "mib_above": (most_bytes() - held) / 2**20}
    Path(out).write_text(json.dumps(figures), encoding="utf-8")


def _seconds(what: Callable[[], object], repeats: int) -> float:
    """Of the quickest of so many calls."""
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        what()
        best = min(best, time.perf_counter() - began)
    return float(best)


# ------------------------------------------------------------------ the table


def _rows(ours: dict[str, Any], theirs: dict[str, Any], sequences: int, people: int) -> list[dict[str, Any]]:
    def pace(name: str, unit: str, count: int, mine: str, other: str, goal: float | None) -> dict[str, Any]:
        """Where more is better: so many a second."""
        yours = count / theirs[other] if other in theirs else None
        ratio = None if yours is None else count / ours[mine] / yours
        reached = None if ratio is None or goal is None else ratio >= goal
        said = "" if goal is None else f">= {goal:g}x"
        return {"name": name, "ours": count / ours[mine], "theirs": yours, "unit": unit, "ratio": ratio, "goal": said, "reached": reached}

    def limit(name: str, unit: str, value: float, most: float | None, other: float | None = None) -> dict[str, Any]:
        goal, reached = ("", None) if most is None else (f"< {most:g}", value < most)
        ratio = None if other is None else other / value
        return {"name": name, "ours": value, "theirs": other, "unit": unit, "ratio": ratio, "goal": goal, "reached": reached}

    return [
        pace("SASRec, training", "sequences/s", sequences, "fit_s", "fit_s", 2.0),
        pace(f"SASRec, best {K} for all, seen left out", "people/s", people, "recommend_s", "recommend_s", 3.0),
        pace(f"ALS, best {K} for all, everybody's factor solved for", "people/s", people, "als_s", "als_solved_s", 2.0),
        pace(f"ALS, best {K} for all; theirs from stored factors", "people/s", people, "als_s", "als_stored_s", 2.0),
        limit(f"full-rank evaluation of {people}, SASRec", "s", ours["evaluate_s"], 5.0),
        limit("SASRec, one person", "ms", ours["single_ms"], None),
        limit(
            f"ranker, {_CANDIDATES} candidates, {ours['ranker_settings']['trees']} trees; theirs: LightGBM's own",
            "ms",
            ours["ranker"]["ours_ms"],
            1.0,
            ours["ranker"]["lightgbm_ms"],
        ),
        limit(f"top {K} of {_MANY_ITEMS} items x {_FACTORS}", "ms/person", ours["many_items"]["ms_a_person"], None),
        limit("  memory above the factors", "MiB", ours["many_items"]["mib_above"], 1024.0),
    ]
