"""What can be seen of a sequence model's training after each of its epochs: its learning curve, and the model as it stands then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as lightning
import torch

from training.candidates.sasrec import Sasrec
from training.sequences import Task


@dataclass(frozen=True)
class Epoch:
    """The end of one epoch. `loss`: the mean over its steps; `ndcg`: of the people held out inside the training, NaN if none are;
    `seconds` since the training began. `model()`: what would answer if it ended here."""

    number: int  # 1 = the first
    of: int
    loss: float
    ndcg: float
    seconds: float
    model: Callable[[], Sasrec]


class EachEpoch(lightning.Callback):
    """Calls `told` at the end of each epoch. What `told` raises ends the training and comes out of `fit`."""

    def __init__(self, told: Callable[[Epoch], None]) -> None:
        self._told = told
        self._began = time.monotonic()
        self._sum, self._steps = 0.0, 0

    def on_train_batch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule, outputs: Any, *_: Any) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            self._sum += float(loss.detach())
            self._steps += 1

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        assert isinstance(task, Task)
        ndcg = trainer.callback_metrics.get("ndcg")
        loss = self._sum / max(self._steps, 1)
        self._sum, self._steps = 0.0, 0
        self._told(
            Epoch(
                number=trainer.current_epoch + 1,
                of=int(trainer.max_epochs or 0),
                loss=loss,
                ndcg=float("nan") if ndcg is None else float(ndcg),
                seconds=time.monotonic() - self._began,
                model=lambda: Sasrec.as_of(task),
            )
        )
