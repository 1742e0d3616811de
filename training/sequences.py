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
from training.candidates.transformer import Block, Network
from training.contract import Progress, TrainingData
from training.losses import full_cross_entropy, inclusion, sampled_cross_entropy
from training.share import Share

VALIDATION_SHARE, VALIDATION_MOST = 0.05, 1_000  # of the people, whose one item is held out to choose the best epoch
PLACES = 10  # validation is NDCG at so many places
WEIGHT_DECAY = 0.01
DECAYING = ("query.weight", "key_value.weight", "out.weight", "widen.weight", "narrow.weight")
VALIDATION_BATCH = 64
LONGEST_GRADIENT = 1.0
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
    catalogue: int  # rows of the whole catalogue

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
        return cls(vocabulary.astype(np.int64), indptr, np.delete(rows, places), held, data.histories.ordered, len(data.catalogue))

    def windows(self, window: int, chance: np.random.Generator) -> Windows:
        """Every item of a person but the first is foreseen once, from at most `window` before it. Histories longer than that are
        cut into windows: for half of the people from their end, for the others from a random place, so that no item always
        stands where little is before it; the piece that is then left at the end is read with what stands before it as well.
        Without order the rows of each person are shuffled anew."""
        rows = self.rows
        lengths = np.diff(self.indptr)
        if not self.ordered:
            owners = np.repeat(np.arange(len(lengths)), lengths)
            rows = rows[np.lexsort((chance.random(len(rows)), owners))]
        long = lengths - 1 > window
        cut = np.where(long & (chance.random(len(lengths)) < 0.5), chance.integers(1, window, size=len(lengths), endpoint=True), 0)
        many = np.maximum(1, -(-(lengths - 1 - cut) // window)) + (cut > 0)
        first, end = np.repeat(self.indptr[:-1], many), np.repeat(self.indptr[1:], many)
        nth = np.arange(len(end)) - np.repeat(np.cumsum(many) - many, many)
        cut = np.repeat(cut, many)
        step = np.where(cut > 0, cut + (nth - 1) * window, nth * window)  # how far before the end a window ends
        ends = end - np.where(nth == 0, 0, step)
        starts = np.maximum(ends - window - 1, first)
        fresh = np.where((nth == 0) & (cut > 0), cut, ends - starts - 1)
        return Windows(starts, ends - starts, fresh, rows)


@dataclass(frozen=True)
class Windows:
    """Where each window starts in `rows` and how many rows it has; its last `fresh` rows are to be foreseen, those before are read."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    fresh: NDArray[np.int64]
    rows: NDArray[np.int64]


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


Batch = tuple[Tensor, Tensor, Tensor]  # rows (n, t + 1) int64; how many of each are its own (n,) int64; what is foreseen (n, t) bool


class Batches(IterableDataset[Batch]):
    """One epoch of windows of nearly equal length: `batch` of the longest, or as many shorter ones as fill the same space. What is
    empty stands at the end, where causal attention does not see it. The order is seeded and differs from epoch to epoch."""

    def __init__(self, sequences: Sequences, window: int, batch: int, seed: int, share: Share | None = None) -> None:
        self._sequences, self._window, self._batch, self._seed = sequences, window, batch, seed
        self._share = share
        self.epoch = 0

    def _groups(self, epoch: int) -> tuple[Windows, list[NDArray[np.int64]]]:
        chance = np.random.default_rng((self._seed, epoch))
        windows = self._sequences.windows(self._window, chance)
        order = chance.permutation(np.flatnonzero(windows.lengths >= 2))
        order = order[np.argsort(-windows.lengths[order], kind="stable")]
        groups, at, space = list[NDArray[np.int64]](), 0, self._batch * self._window
        while at < len(order):
            many = max(1, space // int(windows.lengths[order[at]] - 1))
            groups.append(order[at : at + many])
            at += many
        return windows, [groups[place] for place in chance.permutation(len(groups))]

    def steps(self, epochs: int) -> int:
        """How many batches the first so many epochs have."""
        return sum(len(self._groups(epoch)[1]) for epoch in range(epochs))

    def __iter__(self) -> Iterator[Batch]:
        windows, groups = self._groups(self.epoch)
        self.epoch += 1
        for whole in groups:
            group = whole
            if self._share is not None:  # a batch of fewer windows than workers has some twice: nobody may be left without
                group = np.resize(whole, max(len(whole), self._share.workers))[self._share.rank :: self._share.workers]
            starts, lengths = windows.starts[group], windows.lengths[group]
            places = np.arange(lengths.max())
            own = places < lengths[:, None]
            rows = windows.rows[np.where(own, starts[:, None] + places, starts[:, None])]
            foreseen = own & (places >= (lengths - windows.fresh[group])[:, None])
            yield torch.from_numpy(rows), torch.from_numpy(lengths), torch.from_numpy(foreseen[:, 1:])


class Task(lightning.LightningModule):
    """What Lightning runs. Logs `loss` and, after each epoch, `ndcg`. `averaged` are the weights that count in the end: their
    exponential average over the steps (Polyak & Juditsky 1992), if the configuration asks for one."""

    def __init__(self, config: SasrecModel, network: Network, sequences: Sequences, steps: int, rate: float, seed: int) -> None:
        super().__init__()
        self.config, self.network, self.sequences, self.steps, self.rate = config, network, sequences, steps, rate
        counts = np.bincount(sequences.rows, minlength=len(network.bias)).astype(np.float64)
        self.register_buffer("chances", inclusion(torch.from_numpy(counts), config.negatives or len(counts)), persistent=False)
        self.chances: Tensor
        self._draw = torch.Generator().manual_seed(seed)
        self._averaged: list[Tensor] | None = None
        self._taken = 0

    def training_step(self, batch: Batch, index: int) -> Tensor:
        rows, lengths, foreseen = batch
        hidden = self.network(rows[:, :-1], lengths=lengths - 1)[foreseen]
        wanted = rows[:, 1:][foreseen]
        weight, bias = self.network.items.weight, self.network.bias
        # What leaves the last norm is float32 or bfloat16, as the run is; the losses see to their sums themselves.
        hidden = hidden.to(torch.get_autocast_dtype(self.device.type)) if torch.is_autocast_enabled(self.device.type) else hidden
        with torch.autocast(self.device.type, enabled=False):
            if not self.config.negatives:
                loss = full_cross_entropy(hidden, weight, bias, wanted)
            else:
                drawn = (torch.rand(len(bias), generator=self._draw).to(wanted.device) < self.chances).nonzero()[:, 0]
                loss = sampled_cross_entropy(hidden, weight, bias, wanted, drawn, self.chances)
        self.log("loss", loss, batch_size=len(rows))
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        if not self.config.average:
            return
        now = [part.detach() for part in self.network.parameters()]
        if self._averaged is None:
            self._averaged = [part.clone() for part in now]
        self._taken += 1
        kept = min(self.config.average, self._taken / (self._taken + 10))  # while there were few steps they are forgotten sooner
        torch._foreach_lerp_(self._averaged, now, 1.0 - kept)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the network has its averaged weights."""
        parts = list(self.network.parameters())
        own = None if self._averaged is None else [part.detach().clone() for part in parts]
        try:
            with torch.no_grad():
                for part, mean in zip(parts, self._averaged or (), strict=False):
                    part.copy_(mean)
            yield
        finally:
            with torch.no_grad():
                for part, value in zip(parts, own or (), strict=False):
                    part.copy_(value)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LONGEST_GRADIENT)  # Lightning refuses to, of a fused optimiser

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        matrices = [part for name, part in self.network.named_parameters() if name.startswith("blocks.") and name.endswith(DECAYING)]
        chosen = {id(part) for part in matrices}
        others = [part for part in self.network.parameters() if id(part) not in chosen]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.98), fused=True)
        warm = max(1, round(self.steps * WARMUP))

        def rate(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1, self.steps - warm))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def validate(self) -> float:
        """NDCG at PLACES of the items held out, among all items the person does not have, ties against us; NaN if none is held out."""
        sequences, window = self.sequences, self.config.window
        people = np.flatnonzero(sequences.held >= 0)
        if not len(people):
            return math.nan
        histories = [sequences.rows[sequences.indptr[person] : sequences.indptr[person + 1]] for person in people]
        order = np.argsort([len(own) for own in histories], kind="stable")
        places = np.empty(len(people), dtype=np.int64)
        with self.averaged():
            self.network.eval()
            for group in np.array_split(order, -(-len(order) // VALIDATION_BATCH)):
                read = [histories[at][-window:] for at in group]
                lengths = np.array([len(own) for own in read])
                rows = np.zeros((len(group), lengths.max()), dtype=np.int64)
                for line, own in zip(rows, read, strict=True):
                    line[: len(own)] = own
                ends = torch.from_numpy(lengths).to(self.device)
                hidden = self.network(torch.from_numpy(rows).to(self.device), lengths=ends)[torch.arange(len(group)), ends - 1]
                scores = torch.addmm(self.network.bias, hidden.float(), self.network.items.weight.T).cpu().numpy()
                for line, at in zip(scores, group, strict=True):
                    target = sequences.held[people[at]]
                    wanted = line[target]
                    line[histories[at]] = -np.inf
                    line[target] = -np.inf
                    places[at] = int((line >= wanted).sum())
            self.network.train()
        return float(np.where(places < PLACES, 1.0 / np.log2(places + 2.0), 0.0).mean())


class Watch(lightning.Callback):
    """Validation after each epoch, the weights to be kept, and when to stop: patience, the clock, or the caller.

    Kept are the weights of the best epoch: of averaged ones the last, unless patience ended it. An average over thousands of steps
    rises steadily, while the few people of the validation would choose among its last epochs by chance."""

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
        last = bool(self._config.average) and (trainer.current_epoch + 1 >= self._epochs or trainer.should_stop)
        if ndcg >= self._best or math.isnan(ndcg) or last:  # of equally good ones the later, which has seen more
            self._best = self._best if math.isnan(ndcg) else max(self._best, ndcg)
            with task.averaged():
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
    share: Share | None = None,
) -> None:
    """Trains the network in place and leaves the weights of its best epoch in it, on the CPU. On a GPU, if there is one, in
    bfloat16. `network` knows the items of `sequences.vocabulary`. Writes no file. Raises what `progress` raises.

    The same seed gives the same weights on one machine's CPU, unless `seconds` ends it: then the clock has its say."""
    batches = Batches(sequences, config.window, config.batch, seed, share)
    task = Task(config, network, sequences, batches.steps(epochs), rate, seed)
    watch = Watch(config, epochs, progress)
    gpu = torch.cuda.is_available()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _quiet():
            trainer = lightning.Trainer(
                max_epochs=epochs,
                accelerator="gpu" if gpu else "cpu",
                **({"devices": 1} if share is None else share.trainer),
                precision="bf16-mixed" if _half(config, gpu) else "32-true",
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


def _half(config: SasrecModel, gpu: bool) -> bool:
    """Whether to multiply in bfloat16: what the configuration says, or else where the device does so natively."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if gpu:
        return bool(torch.cuda.is_bf16_supported())
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


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
