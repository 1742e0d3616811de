"""The latest answers made in batch, for when the recommender is late: `home/<domain>/scored/date=YYYY-MM-DD/*.parquet`.

`latest.json` beside the dates says which one is whole: {"date": ..., "version": ...}.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from features.tables import ITEM, MODEL_VERSION, RANK, SCORE, USER

_LOOK_AGAIN_S = 5.0

log = logging.getLogger("factotum.scored")


@dataclass(frozen=True)
class Scored:
    """One person's list: item ids best first, their scores, and of when and which model they are."""

    items: tuple[str, ...]
    scores: tuple[float, ...]
    version: str
    date: str


class ScoredFiles:
    """Called from any thread; reads one person's rows, skipping by the files' statistics (they are sorted by user)."""

    def __init__(self, home: Path, domain: str) -> None:
        self._folder = home / domain / "scored"
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._date: str | None = None
        self._said: object = None  # what latest.json held when `_files` was opened
        self._files: ds.Dataset | None = None

    def of(self, user: str) -> Scored | None:
        """None where nothing was scored, or not this person."""
        files, date = self._latest()
        if files is None or date is None:
            return None
        try:
            table = files.to_table(columns=[ITEM, RANK, SCORE, MODEL_VERSION], filter=ds.field(USER) == user).sort_by(RANK)
        except (OSError, pa.ArrowException) as error:  # the day is being replaced: the next look finds the new files
            log.warning("scored files went away", extra={"fields": {"folder": self._folder.name, "why": str(error)}})
            return None
        if not table.num_rows:
            return None
        return Scored(tuple(table[ITEM].to_pylist()), tuple(table[SCORE].to_pylist()), str(table[MODEL_VERSION][0].as_py()), date)

    def _latest(self) -> tuple[ds.Dataset | None, str | None]:
        with self._lock:
            if time.monotonic() - self._looked >= _LOOK_AGAIN_S:
                self._looked = time.monotonic()
                try:
                    said = json.loads((self._folder / "latest.json").read_text(encoding="utf-8"))
                    if said != self._said:  # the same date may have been scored once more
                        date = str(said["date"])
                        self._files, self._date, self._said = ds.dataset(self._folder / f"date={date}", format="parquet"), date, said
                except FileNotFoundError:
                    self._files = self._date = self._said = None
                except (OSError, ValueError, KeyError) as error:
                    log.error("scored files cannot be read", extra={"fields": {"folder": self._folder.name, "why": str(error)}})
            return self._files, self._date
