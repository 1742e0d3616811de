"""The picture of a search: its trials in their order, what each of its words did, and how each trial learnt."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.document import Block, Cells, Heading, Picture, Said, Side, html
from pipelines.drawing import Axis, Point, curves, scatter


def blocks(result: Mapping[str, Any], level: int = 3) -> Iterator[Block]:
    """A search (what `pipelines.tune.tune` returns) as a part of a document."""
    trials = sorted(result["trials"], key=lambda trial: trial["trial"])
    scored = [trial for trial in trials if trial["score"] is not None]
    metric, words = result["metric"], result["space"]["words"]
    ended = sum(trial["stopped"] for trial in trials)
    yield Heading(level, f"{result['domain']}: search for {result['model']}")
    yield Said(
        f"{len(trials)} trials, {ended} of them ended on the way; {metric} on {result['window']}; seed {result['seed']}; commit "
        f"{result['commit'][:13] or 'unknown'}. The best of many trials is flattered by having been picked."
    )
    best, above = [], float("-inf")
    for trial in scored:
        if not trial["stopped"]:
            above = max(above, trial["score"])
        if above > float("-inf"):
            best.append((float(trial["trial"]), above))
    points = [_point(trial, trial["trial"]) for trial in scored]
    order = scatter("Trials in the order in which they were made", points, Axis("trial"), Axis(metric), named=False)
    pictures = [
        Picture(order, "Trials in their order; hollow ones were ended on the way."),
        Picture(curves("The best so far", {"best so far": best}, Axis("trial"), Axis(metric)), "The best so far."),
    ]
    for word, tried in words.items():
        if "choices" in tried and not all(isinstance(choice, int | float) for choice in tried["choices"]):
            places = {choice: place for place, choice in enumerate(tried["choices"], 1)}
            axis = Axis(f"{word}: " + ", ".join(f"{place} = {choice}" for choice, place in places.items()), low=0.5, high=len(places) + 0.5)
            values = [float(places[trial["words"][word]]) for trial in scored]
        else:
            axis, values = Axis(word, log=bool(tried.get("log"))), [float(trial["words"][word]) for trial in scored]
        drawn = [_point(trial, x) for x, trial in zip(values, scored, strict=True)]
        pictures.append(Picture(scatter(f"{metric} by {word}", drawn, axis, Axis(metric), named=False), f"What {word} did."))
    if any(len(trial["curve"]) > 1 for trial in scored):
        learnt = {f"trial {trial['trial']}": [(share, score) for share, score in trial["curve"]] for trial in scored}
        together = curves("Each trial on its way", learnt, Axis("share of the training"), Axis(metric), legend=len(learnt) <= 8)
        pictures.append(Picture(together, "Each trial on its way; those that end early were stopped."))
    yield Side(pictures)
    rows = []
    for trial in result["trials"]:
        score = "failed" if trial["score"] is None else f"{trial['score']:.4f}"
        done = f"{trial['curve'][-1][0]:.0%}" if trial["curve"] else "–"
        now = " (present settings)" if trial["trial"] == result["now_is"] else ""
        said = [_short(trial["words"].get(word)) for word in words]
        rows.append([f"{trial['trial']}{now}", score, done, f"{trial['seconds']:.1f}", *said])
    yield Cells(["trial", metric, "done", "seconds", *words], rows, best=0)
    for trial in trials:
        if trial["error"]:
            yield Said(f"Trial {trial['trial']}: {trial['error']}")
    yield Said("Settings now:", json.dumps(result["now"]))


def page_of(result: Mapping[str, Any]) -> str:
    """The whole document, for a file beside trials.json."""
    return html(f"{result['domain']}: search for {result['model']}", list(blocks(result, level=1)))


def _point(trial: Mapping[str, Any], x: float) -> Point:
    return Point(x, trial["score"], _said(trial), 5 if trial["stopped"] else 0, trial["stopped"])


def _said(trial: Mapping[str, Any]) -> str:
    return f"trial {trial['trial']}, " + ", ".join(f"{word} {_short(value)}" for word, value in trial["words"].items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
