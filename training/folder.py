"""A model's folder on disk: `model.json` and one .npy file an array, opened memory-mapped so that replicas share the pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.mapped import mapped

DOCUMENT = "model.json"


def write(directory: Path, document: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Creates the directory; `document` must be plain JSON."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
    (directory / DOCUMENT).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def document(directory: Path) -> dict[str, Any]:
    """Raises FileNotFoundError, ValueError if it is not the JSON of an object."""
    read = json.loads((directory / DOCUMENT).read_text(encoding="utf-8"))
    if not isinstance(read, dict):
        raise ValueError(f"{directory / DOCUMENT}: expected a JSON object")
    return read


def array(directory: Path, name: str) -> NDArray[Any]:
    """One array, read-only and memory-mapped. Raises FileNotFoundError, ValueError."""
    return mapped(directory / f"{name}.npy")
