"""Raw files -> cells. `tables` reads plain files of any domain; another reader's name in the YAML is a module here.

Such a module has one function, `prepare(data: Path, directory: Path) -> None`: it turns the domain's own files in `data` into
plain ones in `directory`, named as the YAML's `source` section says, and `tables` reads those.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from pipelines.sources.tables import SourceError

#: Modules of this package that are not a domain's reader.
_PLAIN = ("tables", "items", "cells")


def prepare(reader: str, data: Path, directory: Path) -> Path:
    """The folder that holds plain files: `data` itself for the reader `tables`, else `directory`, filled by that reader.

    Raises SourceError if there is no such reader.
    """
    if reader == "tables":
        return data
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", *_PLAIN))
    if reader not in known:
        raise SourceError(f"source.reader: there is no {reader!r}; known are {', '.join(['tables', *known])}")
    directory.mkdir(parents=True, exist_ok=True)
    importlib.import_module(f"pipelines.sources.{reader}").prepare(data, directory)
    return directory
