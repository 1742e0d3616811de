"""The question and the answer, as plain values that cross between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from features.state import UserState

#: A filter on an attribute: any of these words, or a range of numbers (both ends included).
Words = tuple[str, ...]


@dataclass(frozen=True)
class Range:
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Question:
    """What is asked of the engine. `state` is all that is known of the person; `user` only seeds chance and names the log row.

    `sources`: only these sources are asked and their own order is kept (None: all, ranked). `seed`: None = hash(user, day,
    model version). `budget_s`: sources that come after so many seconds are left out and named in `degraded`.
    """

    state: UserState
    k: int
    now: int  # microseconds UTC
    user: str | None = None
    filters: dict[str, Words | Range] = field(default_factory=dict)
    exclude: tuple[int, ...] = ()
    diversity: float = 0.0
    exploration: float | None = None  # None: as the domain's YAML says
    explain: bool = False
    seed: int | None = None
    sources: tuple[str, ...] | None = None
    budget_s: float | None = None
    language: Literal["en", "ru"] = "en"
    reasons: bool = True  # batch scoring does without
    variant: str = "default"  # arm of the experiment the person is in


@dataclass(frozen=True)
class Reason:
    """One piece of evidence: {kind, item or feature, value, sign, share}.

    kind `item`, `attribute`, `popular`, `cluster`, `new`: what a source itself knows (contract.Evidence); `feature`: a feature
    of the ranker. `share`: of the item's sources by the place they gave it, or, where an explanation was asked for, of the
    ranker's contributions (absolute, over all features): then `value` of a `feature` is its contribution to the score, and a source
    whose score is a sum (items that carry it, words that are shared) names several of its parts, which share what it contributed.
    `sign`: whether it speaks for the item.
    """

    kind: str
    value: float
    sign: Literal[-1, 0, 1]
    share: float
    item: str | None = None
    feature: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class SlateItem:
    item: str
    title: str
    score: float
    rank: int
    sources: tuple[str, ...]
    reasons: tuple[Reason, ...]
    propensity: float
    explanation: str | None = None


@dataclass(frozen=True)
class Slate:
    """`degraded` names what was missing ("sasrec", "recommender"); `notes` says in words what the reader should know."""

    slate: str
    domain: str
    version: str
    variant: str
    mode: str  # "two-stage", or the single source that is served
    items: tuple[SlateItem, ...]
    degraded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stages_ms: dict[str, float] = field(default_factory=dict)
