"""A driver that kills itself at a moment of its own choosing, so that nobody races with it; and the end of all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines import processes

_LONGEST_S = 250.0


def run_until_killed(code: str, words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs Python `code` with `words` as its arguments in a session of its own until it dies of SIGKILL; what is left of the session, Ray
    among it, dies of SIGKILL as well. What is printed goes to `log`. `environment`: besides this process's own."""
    with log.open("wb") as out:
        driver = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    seen = processes.look(driver.pid)
    assert seen is not None
    try:
        assert driver.wait(_LONGEST_S) == -signal.SIGKILL, f"it ended before it was killed: {log.read_text()[-2_000:]}"
        processes.send(processes.of_session(driver.pid, seen.started), signal.SIGKILL)
    finally:
        processes.end(lambda: processes.of_session(driver.pid, seen.started))
