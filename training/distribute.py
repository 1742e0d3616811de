"""One sequence model learnt by several workers of Ray Train (Moritz et al. 2018), with gloo between CPUs and NCCL between GPUs.

Every batch is that of one process alone; each worker takes its part of it, and the gradients meet in their mean (synchronous data
parallelism, Li et al. 2020, "PyTorch Distributed"). So the steps, the learning rate and the validation are those of one process, up
to the order of sums, the drawn dropout, and the weight of a batch's parts, which are of nearly equal size.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import ray
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from ray import train as ray_train
from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from configs.domain import SasrecModel, Workers
from training.candidates.sasrec import Sasrec
from training.contract import Progress, TrainingData
from training.epochs import EachEpoch, Epoch
from training.share import Share

Load = Callable[[], TrainingData]


def fit(
    words: SasrecModel,
    load: Load,
    wanted: Workers,
    directory: Path,
    warm: Path | None = None,
    progress: Progress | None = None,
    told: Callable[[Epoch], None] | None = None,
) -> int:
    """Learns in the Ray that is connected and saves the model to `directory`, which has to be where all workers see it. Returns the
    sum of what the workers' memory was at its peak, in bytes.

    `load` is called in each worker, which then has the data for itself. `warm`: a saved model to go on from. `progress` and `told` are
    called in the first worker. Raises what a worker raised: ValueError if nobody took two items."""

    work = _Work(words, load, directory, warm, progress, told)
    resources = {"CPU": wanted.cpus, **({"GPU": wanted.gpus} if wanted.gpus else {})}
    with tempfile.TemporaryDirectory(prefix="factotum-train-") as folder:
        trainer = TorchTrainer(
            _learn,
            train_loop_config={"work": work},
            torch_config=TorchConfig(backend="nccl" if wanted.gpus else "gloo"),
            scaling_config=ray_train.ScalingConfig(num_workers=wanted.workers, use_gpu=wanted.gpus > 0, resources_per_worker=resources),
            run_config=ray_train.RunConfig(name="train", storage_path=folder, worker_runtime_env=_at_home()),  # type: ignore[call-arg]
        )
        trainer.fit()
    memory = _memory(directory)
    try:
        return int(memory.read_text(encoding="utf-8"))
    finally:
        memory.unlink()


@dataclass(frozen=True)
class _Work:
    """What each worker is told."""

    words: SasrecModel
    load: Load
    directory: Path
    warm: Path | None
    progress: Progress | None
    told: Callable[[Epoch], None] | None


def _learn(given: dict[str, _Work]) -> None:
    """What each worker does; the first one speaks and saves."""
    work, context = given["work"], ray_train.get_context()
    first = context.get_world_rank() == 0
    data = work.load()
    model = Sasrec(work.words) if work.warm is None else Sasrec.load(work.warm)
    model.config = work.words.model_copy(update={"seconds": None})  # the clocks of several processes do not agree: `Clock` asks all
    ways = {"devices": "auto", "strategy": RayDDPStrategy(broadcast_buffers=False), "plugins": [RayLightningEnvironment()]}
    callbacks: list[Callback] = [Draws()]
    if work.words.seconds is not None:
        callbacks.append(Clock(work.words.seconds))
    if work.told is not None and first:
        callbacks.append(EachEpoch(work.told))
    model.fit(data, work.progress if first else None, callbacks, Share(context.get_world_rank(), context.get_world_size(), ways))
    peak = torch.tensor([getrusage(RUSAGE_SELF).ru_maxrss * 1024], dtype=torch.int64, device=get_device())
    torch.distributed.all_reduce(peak)
    if first:
        model.config = work.words
        model.save(work.directory)
        _memory(work.directory).write_text(str(int(peak)), encoding="utf-8")


def _memory(directory: Path) -> Path:
    """The file beside the model in which the first worker says what all of them took."""
    return directory.with_name(f"{directory.name}.bytes")


def _at_home() -> dict[str, dict[str, str]]:
    """Where Ray itself listens on the loopback interface only, so does gloo, which would take the machine's outside address."""
    inside = ray.util.get_node_ip_address().startswith("127.")
    return {"env_vars": {"GLOO_SOCKET_IFNAME": "lo"}} if inside else {}


class Draws(Callback):
    """From the beginning on each worker draws its own dropout: equal draws would drop the same places in all parts of a batch."""

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        torch.manual_seed(torch.initial_seed() + trainer.global_rank)


class Clock(Callback):
    """Ends the training after so many seconds, in all workers at the same step."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, *_: object) -> None:
        over = time.monotonic() > self._ends
        trainer.should_stop = trainer.should_stop or bool(trainer.strategy.reduce_boolean_decision(over, all=False))
