"""Training of the sequence model by pytorch-lightning: windows over whole histories, an epoch's validation, the best weights.

Lightning is imported here and nowhere in what answers requests.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from configs.domain import SasrecModel
from features.state import positive
from training.candidates.transformer import Block, Network, full_cross_entropy, sampled_cross_entropy
from training.contract import Progress, TrainingData

VALIDATION_SHARE, VALIDATION_MOST = 0.05, 1_000  # of the people, whose one item is held out to choose the best epoch
PLACES = 10  # validation is NDCG at so many places
WEIGHT_DECAY = 0.01
WARMUP = 0.05  # of the steps; after it the learning rate falls along a cosine


@dataclass(frozen=True)
class Sequences:
    """Ragged items: those of person p stand at indptr[p]:indptr[p+1] of `rows`, oldest first where `ordered`. `held` (people,)
    is the item kept back for validation, -1 for most; it is not among the rows. Items are numbered by their place in
    `vocabulary`, the catalogue rows that anybody took: the rest would only make the softmax longer."""

    vocabulary: NDArray[np.int64]  # ascending
    indptr: NDArray[np.int64]
    rows: NDArray[np.int64]
    held: NDArray[np.int64]
    ordered: bool

    @classmethod
    def of(cls, data: TrainingData) -> Sequences:
        """Of everybody with at least two items. Raises ValueError if there is nobody."""
        folded = data.histories.folded
        mask = positive(folded)
        users, rows = folded.users[mask], folded.items[mask].astype(np.int64)
        counts = np.bincount(users, minlength=len(data.histories))
        keep = counts[users] >= 2
        users, rows = users[keep], rows[keep]
        lengths = counts[counts >= 2]
        if not len(lengths):
            raise ValueError("nobody took two items: there is no sequence to learn from")
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        vocabulary, rows = np.unique(rows, return_inverse=True)
        chance = np.random.default_rng(data.seed)
        long = np.flatnonzero(lengths >= 3)  # two are left to learn from
        drawn = min(VALIDATION_MOST, max(1, round(len(lengths) * VALIDATION_SHARE)), len(long) // 2)
        people = np.sort(chance.choice(long, drawn, replace=False)) if drawn else np.empty(0, dtype=np.int64)
        places = indptr[people + 1] - 1
        if not data.histories.ordered:
            places = indptr[people] + (chance.random(len(people)) * lengths[people]).astype(np.int64)
        held = np.full(len(lengths), -1, dtype=np.int64)
        held[people] = rows[places]
        lengths = lengths.copy()
        lengths[people] -= 1
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(vocabulary.astype(np.int64), indptr, np.delete(rows, places), held, data.histories.ordered)

    def windows(self, window: int, chance: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Start and length of each window of at most `window` + 1 rows, and the rows they point into. Windows of a person
        share one row, so that each item but the first is foreseen once; the last one ends with the history. Without order the
        rows of each person are shuffled anew."""
        rows = self.rows
        lengths = np.diff(self.indptr)
        if not self.ordered:
            owners = np.repeat(np.arange(len(lengths)), lengths)
            rows = rows[np.lexsort((chance.random(len(rows)), owners))]
        many = np.maximum(1, -(-(lengths - 1) // window))
        ends = np.repeat(self.indptr[1:], many)
        nth = np.arange(len(ends)) - np.repeat(np.cumsum(many) - many, many)
        ends = ends - nth * window
        starts = np.maximum(ends - window - 1, np.repeat(self.indptr[:-1], many))
        return starts, ends - starts, rows


@torch.no_grad()
def prepare(network: Network, sequences: Sequences, seed: int) -> None:
    """A beginning that already knows who goes with whom, so that few epochs suffice.

    The bias is the logarithm of each item's share; the embeddings are the spectral ones of the graph of people and items
    (singular vectors of D_p^-1/2 X D_i^-1/2 without the first, which is the degrees'; rows of length 1); values pass through the
    first attention unchanged, so that a hidden vector is near the mean of the person's items."""
    people, items = len(sequences.held), len(sequences.vocabulary)
    owners = np.repeat(np.arange(people), np.diff(sequences.indptr))
    takers = np.bincount(sequences.rows, minlength=items).astype(np.float64)
    network.bias.copy_(torch.from_numpy(np.log((takers + 1.0) / (takers.sum() + items))))
    own = np.diff(sequences.indptr)[owners]
    weights = 1.0 / np.sqrt(own * takers[sequences.rows])
    graph = sparse.csr_matrix((weights, (owners, sequences.rows)), shape=(people, items), dtype=np.float32)
    dimensions = network.items.embedding_dim
    if min(people, items) > dimensions + 1:
        axes = randomized_svd(graph, dimensions + 1, n_iter=4, random_state=seed)[2][1:].T
        axes = axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-12)
        network.items.weight.copy_(torch.from_numpy(np.ascontiguousarray(axes)))
    first = network.blocks[0]
    assert isinstance(first, Block)
    first.key_value.weight[dimensions:] = torch.eye(dimensions)
    first.out.weight.copy_(torch.eye(dimensions))


class Batches(IterableDataset[Tensor]):
    """One epoch: (n, t + 1) int64 batches of windows of equal length, in a seeded order that differs from epoch to epoch."""

    def __init__(self, sequences: Sequences, window: int, batch: int, seed: int) -> None:
        self._sequences, self._window, self._batch, self._seed = sequences, window, batch, seed
        self.epoch = 0

    def __len__(self) -> int:
        """How many batches an epoch has: the lengths of the windows are the same in each."""
        _, lengths, _ = self._sequences.windows(self._window, np.random.default_rng(0))
        return int(np.sum(-(-np.bincount(lengths)[2:] // self._batch)))

    def __iter__(self) -> Iterator[Tensor]:
        chance = np.random.default_rng((self._seed, self.epoch))
        self.epoch += 1
        starts, lengths, rows = self._sequences.windows(self._window, chance)
        order = chance.permutation(len(starts))
        order = order[np.argsort(lengths[order], kind="stable")]
        borders = np.flatnonzero(np.diff(lengths[order])) + 1
        groups = [part for same in np.split(order, borders) for part in np.split(same, np.arange(self._batch, len(same), self._batch))]
        for at in chance.permutation(len(groups)):
            group = groups[at]
            length = int(lengths[group[0]])
            if length >= 2:
                yield torch.from_numpy(rows[starts[group][:, None] + np.arange(length)])


class Task(lightning.LightningModule):
    """What Lightning runs. Logs `loss` and, after each epoch, `ndcg`."""

    def __init__(self, config: SasrecModel, network: Network, sequences: Sequences, steps: int, rate: float, seed: int) -> None:
        super().__init__()
        self.config, self.network, self.sequences, self.steps, self.rate = config, network, sequences, steps, rate
        counts = np.bincount(sequences.rows, minlength=len(network.bias)).astype(np.float64)
        smoothed = np.sqrt(counts)  # between uniform and as frequent as taken: rare items are met, frequent ones told apart
        self.register_buffer("chances", torch.tensor(smoothed / smoothed.sum(), dtype=torch.float32), persistent=False)
        self.chances: Tensor
        self._draw = torch.Generator().manual_seed(seed)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        hidden = self.network(batch[:, :-1]).flatten(0, 1)
        wanted = batch[:, 1:].flatten()
        weight, bias = self.network.items.weight, self.network.bias
        with torch.autocast(self.device.type, enabled=False):  # the softmax over many items is not for bfloat16
            if not self.config.negatives:
                loss = full_cross_entropy(hidden, weight, bias, wanted)
            else:
                drawn = torch.multinomial(self.chances.cpu(), self.config.negatives, replacement=True, generator=self._draw)
                sampled = drawn.to(wanted.device)
                loss = sampled_cross_entropy(hidden.float(), weight, bias, wanted, sampled, self.chances)
        self.log("loss", loss, batch_size=len(batch))
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        matrices = [p for name, p in self.network.named_parameters() if p.ndim > 1 and name not in ("items.weight", "places.weight")]
        others = [p for name, p in self.network.named_parameters() if p.ndim < 2 or name in ("items.weight", "places.weight")]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.98))
        warm = max(1, round(self.steps * WARMUP))

        def rate(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1, self.steps - warm))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def validate(self) -> float:
        """NDCG at PLACES of the items held out, among all items the person does not have; NaN if none is held out."""
        sequences, window = self.sequences, self.config.window
        people = np.flatnonzero(sequences.held >= 0)
        if not len(people):
            return math.nan
        self.network.eval()
        gains = []
        for person in people:
            own = sequences.rows[sequences.indptr[person] : sequences.indptr[person + 1]]
            hidden = self.network(torch.from_numpy(own[-window:]).to(self.device)[None], last=True)[0, 0].float()
            scores = self.network.items.weight @ hidden + self.network.bias
            scores[torch.from_numpy(own).to(self.device)] = -torch.inf
            place = int((scores > scores[sequences.held[person]]).sum())
            gains.append(1.0 / math.log2(place + 2) if place < PLACES else 0.0)
        self.network.train()
        return float(np.mean(gains))


class Watch(lightning.Callback):
    """Validation after each epoch, the best weights kept, and when to stop: patience, the clock, or the caller."""

    def __init__(self, config: SasrecModel, epochs: int, progress: Progress | None) -> None:
        self._config, self._epochs, self._progress = config, epochs, progress
        self._began = time.monotonic()
        self._best, self._waited = -math.inf, 0
        self.weights: dict[str, Tensor] | None = None
        self.stopped: BaseException | None = None  # what the caller's progress raised

    def on_train_batch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule, *_: Any) -> None:
        if self._config.seconds is not None and time.monotonic() - self._began > self._config.seconds:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        assert isinstance(task, Task)
        ndcg = task.validate()
        task.log("ndcg", ndcg)
        self._waited = 0 if ndcg > self._best or math.isnan(ndcg) else self._waited + 1
        if ndcg >= self._best or math.isnan(ndcg):  # of equally good ones the later, which has seen more
            self._best = self._best if math.isnan(ndcg) else ndcg
            self.weights = {name: value.detach().cpu().clone() for name, value in task.network.state_dict().items()}
        if self._waited >= self._config.patience:
            trainer.should_stop = True
        if self._progress is not None:
            try:
                epoch = trainer.current_epoch + 1
                self._progress(f"sasrec: epoch {epoch}, NDCG@{PLACES} {ndcg:.4f}", min(1.0, epoch / self._epochs))
            except BaseException as reason:  # Lightning would end the process on KeyboardInterrupt; `train` raises it instead
                self.stopped = reason
                trainer.should_stop = True


def train(
    config: SasrecModel,
    network: Network,
    sequences: Sequences,
    epochs: int,
    rate: float,
    seed: int,
    threads: int,
    progress: Progress | None = None,
    callbacks: Sequence[lightning.Callback] = (),
) -> None:
    """Trains the network in place and leaves the weights of its best epoch in it, on the CPU. On a GPU, if there is one, in
    bfloat16. `network` knows the items of `sequences.vocabulary`. Writes no file. Raises what `progress` raises.

    The same seed gives the same weights on one machine's CPU, unless `seconds` ends it: then the clock has its say."""
    batches = Batches(sequences, config.window, config.batch, seed)
    task = Task(config, network, sequences, epochs * len(batches), rate, seed)
    watch = Watch(config, epochs, progress)
    gpu = torch.cuda.is_available()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _quiet():
            trainer = lightning.Trainer(
                max_epochs=epochs,
                accelerator="gpu" if gpu else "cpu",
                devices=1,
                precision="bf16-mixed" if gpu else "32-true",
                gradient_clip_val=1.0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                callbacks=[watch, *callbacks],
            )
            trainer.fit(task, DataLoader(batches, batch_size=None))
    finally:
        torch.set_num_threads(before)
    if watch.stopped is not None:
        raise watch.stopped
    if watch.weights is not None:
        network.load_state_dict(watch.weights)
    network.cpu().eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning tells of devices and workers on every run: nothing a reader of our log could act upon."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
