"""Arrays on disk, opened without reading them: all processes of a machine share the same pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def mapped(path: Path) -> NDArray[Any]:
    """The array of a .npy file, read-only. A plain ndarray over the map: numpy's memmap class costs microseconds at every slice.
    Raises FileNotFoundError; ValueError for a file that is no .npy or would have to be unpickled."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
