"""Evidence -> reasons -> a sentence. Sentences are made from reasons only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from configs.domain import Items
from features.catalogue import Catalogue
from serving.slate import Question, Reason
from training.contract import CandidateModel, Evidence, TellsParts
from training.retrieval import SOURCE_COLUMNS

MOST_REASONS = 4
MOST_PARTS = 3  # of one source's score that are named
#: Source -> what it says of an item, the strongest first.
Told = dict[str, Sequence[Evidence]]
_log = logging.getLogger(__name__)


def gather(
    models: Mapping[str, CandidateModel], question: Question, sources: Sequence[str], rows: NDArray[np.int32], ranks: NDArray[np.int16]
) -> list[Told]:
    """What each source that brought an item says of it: one dict an item. `ranks` (items, sources), 0 = did not bring it. Where an
    explanation is asked for, a source whose score is a sum names the MOST_PARTS largest parts of it."""
    told: list[Told] = [{} for _ in rows]
    if not question.reasons:
        return told
    for column, source in enumerate(sources):
        places = np.flatnonzero(ranks[:, column] > 0)
        if not len(places):
            continue
        model = models[source]
        try:
            if question.explain and isinstance(model, TellsParts):
                because = [
                    [part for part in parts if part.item is None or part.item != row][:MOST_PARTS]  # an item is no reason for itself
                    for row, parts in zip(rows[places], model.parts(question.state, rows[places]), strict=True)
                ]
            else:
                because = [[] if said is None else [said] for said in model.because(question.state, rows[places], question.explain)]
        except Exception:  # an answer without one source's reasons is better than none
            _log.exception("source %s cannot say why", source)
            continue
        for place, parts in zip(places, because, strict=True):
            if parts:
                told[place][source] = parts
    return told


def reasons(
    evidence: Mapping[str, Sequence[Evidence]], strengths: Mapping[str, float], features: Mapping[str, float], catalogue: Catalogue
) -> tuple[Reason, ...]:
    """The strongest reasons for one item, largest share first.

    `evidence`: what each source says; `strengths`: how much each source mattered (signed; its contribution to the score, or
    1 / place); `features`: contributions of the ranker's other features, empty where none were asked for. Of a source that names
    parts of its score each part has its share of the source's strength, and speaks against the item where it takes away. Sources
    that say the same thing are one reason, their shares added. Shares are of everything in `strengths` and `features`.
    """
    total = sum(abs(value) for value in (*strengths.values(), *features.values())) or 1.0
    merged: dict[tuple[str, int | None, str | None], list[tuple[str, float, float]]] = {}
    for source, parts in evidence.items():
        for said in parts:
            strength = strengths.get(source, 0.0) * said.share * (-1.0 if said.value < 0.0 else 1.0)
            merged.setdefault((said.kind, said.item, said.feature), []).append((source, said.value, strength))
    out = [
        Reason(
            kind=kind,
            item=None if item is None else catalogue.ids.id(item),
            feature=feature,
            source="+".join(source for source, _, _ in said),
            value=round(_furthest([value for _, value, _ in said]), 6),
            sign=_sign(sum(strength for _, _, strength in said)),
            share=round(sum(abs(strength) for _, _, strength in said) / total, 4),
        )
        for (kind, item, feature), said in merged.items()
    ]
    out += [
        Reason(kind="feature", feature=name, value=round(value, 6), sign=_sign(value), share=round(abs(value) / total, 4))
        for name, value in sorted(features.items(), key=lambda pair: -abs(pair[1]))[:2]
        if value
    ]
    out.sort(key=lambda reason: (-reason.share, reason.kind, reason.item or "", reason.feature or ""))
    return tuple(out[:MOST_REASONS])


def split_contributions(
    names: Sequence[str], sources: Sequence[str], row: NDArray[np.float64]
) -> tuple[dict[str, float], dict[str, float]]:
    """A row of Ranker.contributions -> what each source's columns add together, and what each other feature adds."""
    by_source = dict.fromkeys(sources, 0.0)
    others: dict[str, float] = {}
    for name, value in zip(names, row[: len(names)], strict=True):
        source, _, column = name.rpartition(".")
        if column in SOURCE_COLUMNS and source in by_source:
            by_source[source] += float(value)
        else:
            others[name] = float(value)
    return by_source, others


def sentence(why: Sequence[Reason], title_of: Callable[[str], str], schema: Items, language: Literal["en", "ru"]) -> str | None:
    """One sentence from the strongest reasons that speak for the item; None where there is nothing to say."""
    english = language == "en"
    phrases, joint, quoted = (_ENGLISH, " and ", "“{}”") if english else (_RUSSIAN, " и ", "«{}»")
    speaking = [reason for reason in why if reason.sign >= 0 and reason.kind != "feature"][:2]
    titles = joint.join(quoted.format(title_of(reason.item or "")) for reason in speaking if reason.kind == "item")
    known = f"it goes with {titles}, which you know" if english else f"подходит к тому, что вы знаете: {titles}"
    # Titles stand together in one phrase, where the first of them stands.
    said = dict.fromkeys(known if reason.kind == "item" else phrases[reason.kind](reason, schema) for reason in speaking)
    text = joint.join(said)
    return text[0].upper() + text[1:] + "." if text else None


Phrase = Callable[[Reason, Items], str]


def _attribute(reason: Reason, schema: Items) -> str:
    name, _, word = (reason.feature or "").partition(":")
    attribute = schema.attributes.get(name)
    return attribute.phrase.format(value=word) if attribute is not None else word or name


_ENGLISH: Mapping[str, Phrase] = {
    "attribute": lambda reason, schema: f"it shares {_attribute(reason, schema)} with what you like",
    "popular": lambda reason, schema: (
        f"it is known for {_attribute(reason, schema)}"  # the catalogue's own count: nobody here was seen choosing it
        if reason.feature
        else f"{reason.value:,.0f} people chose it"
        if reason.value >= 1
        else "many people know it"
    ),
    "cluster": lambda reason, schema: f"{min(reason.value, 1.0):.0%} of people with a taste like yours chose it",
    "new": lambda reason, schema: f"it is new among the {schema.nouns}",
}
_RUSSIAN: Mapping[str, Phrase] = {
    "attribute": lambda reason, schema: f"общее с тем, что вам нравится: {(reason.feature or '').partition(':')[2] or reason.feature}",
    "popular": lambda reason, schema: (
        f"выбрали столько людей: {reason.value:.0f}" if reason.value >= 1 and not reason.feature else "известно многим"
    ),
    "cluster": lambda reason, schema: f"так выбирают {min(reason.value, 1.0):.0%} людей с похожим вкусом",
    "new": lambda reason, schema: "это новинка",
}


def _furthest(values: Sequence[float]) -> float:
    return max(values, key=abs)


def _sign(value: float) -> Literal[-1, 0, 1]:
    return 1 if value > 0 else -1 if value < 0 else 0
