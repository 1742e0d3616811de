"""How much memory a process and all its descendants take: proportional set size (PSS), so that a page shared by ten counts once.

Resident size would count the libraries and memory-mapped model files that all replicas share again for each of them.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.processes import PROC, descendants

_PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)
_HIGHEST = re.compile(rb"^VmHWM:\s+(\d+) kB", re.MULTILINE)
_RSS = re.compile(rb"^VmRSS:\s+(\d+) kB", re.MULTILINE)


def pss_bytes(pid: int) -> int:
    """The PSS of one process in bytes; its resident size where the kernel does not tell PSS; 0 if it is gone."""
    for file, pattern in (("smaps_rollup", _PSS), ("status", _RSS)):
        try:
            match = pattern.search((PROC / str(pid) / file).read_bytes())
        except OSError:
            continue
        if match:
            return int(match[1]) * 1024
    return 0


def most_bytes() -> int:
    """The most that this program ever had resident, by the kernel's own count. (That of getrusage holds, besides, what the process that
    started it had.) Raises OSError where there is no /proc."""
    match = _HIGHEST.search((PROC / "self" / "status").read_bytes())
    assert match is not None
    return int(match[1]) * 1024


class Peak:
    """The largest PSS this process was seen to have between entering and leaving, looked at every `every_s` seconds.

    with Peak() as peak:
        ...
    peak.bytes
    """

    def __init__(self, every_s: float = 0.5) -> None:
        self.bytes = 0
        self._every_s = every_s
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, name="memory-peak", daemon=True)

    def _look(self) -> None:
        while True:
            self.bytes = max(self.bytes, pss_bytes(os.getpid()))
            if self._over.wait(self._every_s):
                return

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._watch.join()
        self.bytes = max(self.bytes, pss_bytes(os.getpid()))


def tree(root: int) -> dict[int, int]:
    """pid -> bytes of PSS for `root` and everything below it."""
    return {pid: pss_bytes(pid) for pid in (root, *(process.pid for process in descendants(root)))}


def name(pid: int) -> str:
    """A short name of a process for a table: what it calls itself, or the program's file."""
    try:
        words = [word.decode(errors="replace") for word in (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")]
    except OSError:
        return "gone"
    if words[0].startswith("ray::"):
        return words[0].split()[0]
    if "-m" in words[1:4]:
        return words[words.index("-m") + 1]
    scripts = [Path(word).name for word in words[1:6] if word.endswith(".py")]
    return scripts[0] if scripts else Path(words[0]).name
