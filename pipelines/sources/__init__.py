"""Raw files -> cells. `tables` reads plain files of any domain; another reader's name in the YAML is a module here.

Such a module has one function, `prepare(domain: Domain, data: Path, directory: Path) -> None`: it turns the domain's own files in `data`
into plain ones in `directory`, named as the YAML's `source` section says, and `tables` reads those. In a domain with an itinerary the
plain files are those of `timetable`, from which items and events are made.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.domain import Domain
from pipelines.sources.rows import Sheet, exists
from pipelines.sources.stops import write
from pipelines.sources.tables import SourceError
from pipelines.sources.timetable import Programme, read

#: Modules of this package that are not a domain's reader.
_PLAIN = ("tables", "items", "cells", "rows", "timetable", "labels", "stops", "workbooks")


@dataclass(frozen=True)
class Prepared:
    """The folder that holds the plain items and events; what stood in the timetable's files, where the domain has an itinerary."""

    folder: Path
    programme: Programme | None = None

    @property
    def sheets(self) -> Sequence[Sheet]:
        """Files in which bad rows were set aside before there were any items and events."""
        return () if self.programme is None else self.programme.sheets


def prepare(domain: Domain, data: Path, directory: Path) -> Prepared:
    """`data` itself for the reader `tables`, else `directory`, filled by that reader. Raises SourceError if there is no such reader, and
    what it raises."""
    if domain.itinerary is None:
        return Prepared(_plain(domain, data, directory))
    programme = timetable_of(domain, data, directory)
    directory.mkdir(parents=True, exist_ok=True)
    write(programme, domain.itinerary.minor_units, directory)
    return Prepared(directory, programme)


def timetable_of(domain: Domain, data: Path, directory: Path, as_of: int | None = None) -> Programme:
    """The timetable's files alone, as of a moment (microseconds UTC, None: now); items and events are not written. A folder that holds
    them in the plain form needs no reader. Raises as `prepare`."""
    plain = data if domain.source.reader == "timetable" or exists(data, "concerts") else _plain(domain, data, directory)
    return read(domain, plain, as_of)


def _plain(domain: Domain, data: Path, directory: Path) -> Path:
    reader = domain.source.reader
    if reader == "tables":
        return data
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", *_PLAIN))
    if reader not in known:
        raise SourceError(f"source.reader: there is no {reader!r}; known are {', '.join(['tables', 'timetable', *known])}")
    directory.mkdir(parents=True, exist_ok=True)
    importlib.import_module(f"pipelines.sources.{reader}").prepare(domain, data, directory)
    return directory
