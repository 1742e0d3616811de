"""The part of one process in what several learn together: plain values, so that whoever learns alone needs no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """One process of several that learn together: of every batch it reads its part, and `trainer` says to Lightning how the gradients
    meet. The batches, and with them the steps, are those of one process alone."""

    rank: int
    workers: int
    trainer: Mapping[str, Any]
