"""A Ray to work on: a local one, on the loopback interface only, started and ended here; or the cluster the user names.

FACTOTUM_RAY_ADDRESS joins a running cluster (`ray up`); RAY_AUTH_MODE is respected where the user set it, and "disabled" for a
local Ray otherwise, since nothing of it can be reached from outside the machine.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

ADDRESS = "FACTOTUM_RAY_ADDRESS"
LOOPBACK = "127.0.0.1"
_MIB = 2**20

#: So many pieces of work (64 MB of input) are not worth the start of a Ray, which takes 5 to 10 seconds.
FEW = 4

#: One unit of work and its answer: plain values that JSON can hold.
Work = Mapping[str, Any]


def prepare_environment() -> None:
    """Sets what Ray reads from the environment, without touching what the user set. Has to run before `ray` is imported.

    On Linux Ray takes the machine's outside address for its own whatever `_node_ip_address` says, and then its GCS, raylets and
    workers listen on every interface. The switch made for Windows and macOS, where there are no clusters, makes it take the
    loopback address, and then all of them (metrics pages and runtime-environment agent too) listen there only.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "disabled" if not os.environ.get(ADDRESS) else "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.environ.get(ADDRESS):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about GPUs where there are none


@contextmanager
def started(cpus: int | None = None, object_store_bytes: int = 512 * _MIB, quiet: bool = True) -> Iterator[None]:
    """Inside, Ray runs. Where this process is connected already, nothing is started and nothing ended.

    cpus: None = all of the machine. object_store_bytes: upper limit of shared memory, lowered where /dev/shm is smaller (Docker
    gives 64 MiB). Raises ConnectionError if FACTOTUM_RAY_ADDRESS names no reachable cluster.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        yield
        return
    level = logging.ERROR if quiet else logging.INFO
    address = os.environ.get(ADDRESS)
    if address:
        ray.init(address=address, logging_level=level, log_to_driver=not quiet)
    else:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            _node_ip_address=LOOPBACK,
            object_store_memory=_store_bytes(object_store_bytes),
            logging_level=level,
            log_to_driver=not quiet,
        )
    if quiet:
        import ray.data  # its loggers are set up when it is imported: hushed afterwards

        for name in ("ray", "ray.data", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def started_for(pieces: int) -> AbstractContextManager[None]:
    """`started()` if there are more than FEW pieces of work, else nothing."""
    return started() if pieces > FEW else nullcontext()


def running() -> bool:
    """Whether this process is connected to a Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def each(function: Callable[[Any], Work], work: Sequence[Work], memory_bytes: int | None = None) -> Iterator[dict[str, Any]]:
    """`function` of each piece of work, by Ray Data, as a stream: answers come in the order in which they are ready.

    One piece is one block and one task: as many run at once as there are cores, and only descriptions and answers (plain values
    that JSON can hold) travel through the object store. What `function` raises is raised here as it was.
    Up to FEW pieces are done in this process where Ray does not run: starting it would take longer than the work.
    memory_bytes: what one task is expected to take; fewer run at once where the machine has less.
    """
    if not work:
        return
    if len(work) <= FEW and not running():
        for piece in work:
            yield dict(function(piece))
        return
    prepare_environment()
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        return {"answer": json.dumps(function(json.loads(row["work"])))}

    pieces = ray.data.from_items([{"work": json.dumps(piece)} for piece in work], override_num_blocks=len(work))
    for row in pieces.map(answer, memory=memory_bytes).iter_rows():
        yield json.loads(row["answer"])


def _store_bytes(wanted: int) -> int:
    """What the object store may take: half of the free shared memory at most, never under what Ray needs to start."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return wanted
    return max(min(wanted, free // 2), 80 * _MIB)
