"""Processes of this machine as /proc shows them: who descends from whom, which belong to a session, and how to end them by their ids.

A process is named by its pid and the moment it started: a pid alone may belong to somebody else tomorrow. Where there is no
/proc (macOS) nothing is found, and nothing is ended.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    session: int
    started: int  # kernel's ticks since boot
    uid: int


def look(pid: int) -> Process | None:
    """The process of this id, None if there is none or if it has ended and only waits to be collected."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
        uid = (PROC / str(pid)).stat().st_uid
    except OSError:
        return None
    # the second field is the program's name in parentheses, which may hold spaces and parentheses itself
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), uid)


def everyone() -> Iterator[Process]:
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdigit() and (process := look(int(entry.name))) is not None:
            yield process


def descendants(root: int) -> list[Process]:
    """All processes below `root`, a parent always before its children."""
    children: dict[int, list[Process]] = {}
    for process in everyone():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = list(children.get(root, ()))
    while waiting:
        process = waiting.pop(0)
        found.append(process)
        waiting.extend(children.get(process.pid, ()))
    return found


def of_session(session: int, since: int) -> list[Process]:
    """Our own user's processes of a session that started at `since` (ticks) or later.

    The kernel gives no new process the number of a session that still has members, so with the start of its leader
    a session's number means one thing only.
    """
    return [p for p in everyone() if p.session == session and p.started >= since and p.uid == os.getuid()]


def end(find: Callable[[], Iterable[Process]], patience_s: float = 1.5) -> int:
    """Ends what `find` gives: SIGTERM, then SIGKILL for what is left after `patience_s`. How many there were at first."""
    first = list(find())
    if not first:
        return 0
    send(first, signal.SIGTERM)
    until = time.monotonic() + patience_s
    while (left := list(find())) and time.monotonic() < until:
        time.sleep(0.05)
    until = time.monotonic() + 2.0
    while left and time.monotonic() < until:
        send(left, signal.SIGKILL)
        time.sleep(0.05)
        left = list(find())
    return len(first)


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    """Signals each process that still is the one that was seen."""
    for process in processes:
        now = look(process.pid)
        if now is not None and now.started == process.started:
            try:
                os.kill(process.pid, number)
            except (ProcessLookupError, PermissionError):
                continue
