"""What every candidate model is, and the few types that travel between models, ranker and engine.

A model answers one question: how much does each item suit each of these people? Everything else (best k, what is excluded,
filters, unions of sources) is done once, in training/retrieval.py, for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.state import Histories, UserState

#: Called by long fits: what is being done, and how much of it (0..1). May raise KeyboardInterrupt to stop.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class TrainingData:
    """What a model may learn from: nothing in it is later than `now`.

    `now` is in microseconds UTC; where the source has no times it is the moment of the run and says nothing.
    """

    histories: Histories
    catalogue: Catalogue
    now: int
    seed: int
    threads: int = 2


@dataclass(frozen=True)
class Evidence:
    """Why a source brought an item, in machine form.

    kind `item`: another item of this person's (row `item`); `attribute`: a shared word (`feature` = "genre:Comedy");
    `popular`: how many chose it; `cluster`: people like this person. `value` is in the source's own unit, larger is stronger. `share`:
    where it is one of several parts of a score, |value| over the sum of all parts' |values|.
    """

    kind: Literal["item", "attribute", "popular", "cluster", "new"]
    value: float
    item: int | None = None
    feature: str | None = None
    share: float = 1.0


def shared(parts: Sequence[Evidence]) -> list[Evidence]:
    """The parts of a score that are not 0, with their shares, the largest |value| first (equal ones in the order given)."""
    total = sum(abs(part.value) for part in parts)
    order = sorted((part for part in parts if part.value != 0.0), key=lambda part: -abs(part.value))
    return [replace(part, share=abs(part.value) / total) for part in order]


class CandidateModel(Protocol):
    """One source of candidates.

    Batch equals single: scores of n people at once are those of each alone (to 1e-5). Same seed, same model. No model reads
    anything later than the data it was fitted on, nor anything of a person but the state given.
    """

    def fit(self, data: TrainingData, progress: Progress | None = None) -> None:
        """Learns. A second call starts anew (SASRec may start from what it has). Raises ValueError if there is nothing to learn from."""
        ...

    def scores(self, states: Sequence[UserState], now: int) -> NDArray[np.float32]:
        """(n, m) float32, higher is better; m = the number of items the model knows, rows 0..m-1 of the catalogue.
        -inf where it has nothing to say. A caller may write into what it gets."""
        ...

    def because(self, state: UserState, items: NDArray[np.int32], thorough: bool = False) -> list[Evidence | None]:
        """Its own evidence for each of these items (rows < m), None where it has none. `thorough`: it may take milliseconds for
        better evidence (an explanation was asked for); most sources have only one kind, and it changes nothing."""
        ...

    def save(self, directory: Path) -> None:
        """Writes .npy, .safetensors and .json files only (nothing that is unpickled); creates the directory."""
        ...

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Opens what `save` wrote, large arrays memory-mapped. Raises FileNotFoundError, ValueError."""
        ...


@runtime_checkable
class TellsParts(Protocol):
    """A model whose score is a sum, and that can say of what."""

    def parts(self, state: UserState, items: NDArray[np.int32]) -> list[list[Evidence]]:
        """For each of these items everything its score is made of, the largest |value| first: the values sum to the score (to 1e-4),
        the shares to 1; a negative part takes away. An empty list where the score is -inf."""
        ...


@runtime_checkable
class PlacesNewItems(Protocol):
    """A model that can score an item it was not trained on."""

    def place(self, catalogue: Catalogue) -> Self:
        """A model that also scores every item of `catalogue` (rows of items known before keep their meaning)."""
        ...


@runtime_checkable
class FollowsStock(Protocol):
    """A model that looks at how many of each item are left, and can be told anew."""

    def stocked(self, left: NDArray[np.float32]) -> Self:
        """The model with these numbers instead; `left`: (m,) float32, NaN where nobody knows."""
        ...


@runtime_checkable
class FindsSimilar(Protocol):
    """A model that can tell which items are like another."""

    def similar(self, item: int) -> NDArray[np.float32]:
        """(m,) float32, higher is more alike; -inf for the item itself. Raises IndexError for a row it does not know."""
        ...


@dataclass(frozen=True)
class Candidates:
    """The union of all sources' best for n people, ragged: everything about pair j stands at position j, people ascending.

    `scores[j, s]` is source s's score of the pair (NaN where it has nothing to say), whether or not s itself brought it;
    `ranks[j, s]` the place s gave it, 1 = best, 0 where s did not bring it.
    """

    sources: tuple[str, ...]
    users: NDArray[np.int32]  # (pairs,) position of the person in the batch
    items: NDArray[np.int32]  # (pairs,)
    scores: NDArray[np.float32]  # (pairs, sources)
    ranks: NDArray[np.int16]  # (pairs, sources)
    failed: tuple[str, ...] = ()  # sources that raised or were out of time

    def __len__(self) -> int:
        return len(self.items)
