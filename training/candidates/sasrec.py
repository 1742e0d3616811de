"""The next item by causal self-attention over the last ones: SASRec (Kang & McAuley 2018), trained with cross-entropy
(Klenitskiy & Vasilev 2023, "Turning Dross Into Gold Loss").

Without times there is no order: the items of a person are then shuffled anew each epoch, so the network learns not to rely
on it; while answering they stand as the file has them, and that order carries nothing.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from configs.domain import SasrecModel
from features.state import UserState
from training import folder
from training.candidates.transformer import Network, Weights, hidden, linear
from training.contract import Evidence, Progress, TrainingData
from training.interactions import recent

if TYPE_CHECKING:
    from pytorch_lightning import Callback

    from training.sequences import Task
    from training.share import Share

#: Of the epochs and of the learning rate, for a fit that goes on. On MovieLens-1M, measured on the validation item of all people, a rate of
#: .05 to .3 for a tenth to a fifth of the epochs is better than not to go on (NDCG@10 .2023 to .2029 against .2012) and equal within
#: noise; half the rate for a third of the epochs unlearnt some of what the first fit had found.
AGAIN = 0.2
LEFT_OUT = 5  # items of the history tried as the reason of a score
WEIGHTS = "network.safetensors"


class Sasrec:
    """Score = logit of the item to be the next; -inf for an item nobody took while training, and for somebody without items."""

    def __init__(self, config: SasrecModel) -> None:
        self.config = config
        self._network: Network | None = None
        self._plain: Weights | None = None
        self._ordered = True
        self._heard = np.empty(0, dtype=np.bool_)

    def _fresh(self, items: int) -> Network:
        config = self.config
        return Network(
            items,
            config.dimensions,
            config.blocks,
            config.heads,
            config.window,
            config.dropout,
            config.positions,
            config.convolution,
            config.widening,
        )

    @classmethod
    def as_of(cls, task: Task) -> Self:
        """What would answer if a training under way ended here; the training goes on untouched."""
        model = cls(task.config)
        rows = torch.from_numpy(task.sequences.vocabulary)
        with task.averaged(), torch.random.fork_rng():
            whole = _spread(copy.deepcopy(task.network).cpu(), model._fresh(task.sequences.catalogue), rows)
        model._open(whole, task.sequences.ordered)
        return model

    def fit(
        self, data: TrainingData, progress: Progress | None = None, callbacks: Sequence[Callback] = (), share: Share | None = None
    ) -> None:
        """A new object learns from nothing. One that was fitted or loaded, and whose items are the first of this catalogue,
        goes on from its weights: a fifth of the epochs at a fifth of the learning rate. (Weights that have seen a test window must
        not be the start of a model that is tested on it: make a new object.) Raises ValueError if nobody took two items.

        `callbacks`: Lightning's own, for tuning; `ndcg` and `loss` are logged. `share`: this process is one of several that learn the
        same model together (training/distribute.py); none: it learns alone."""
        from training.sequences import Sequences, prepare, train

        config, before, items = self.config, self._network, len(data.catalogue)
        sequences = Sequences.of(data)
        rows = torch.from_numpy(sequences.vocabulary)
        with torch.random.fork_rng():
            torch.manual_seed(data.seed)
            network = self._fresh(len(rows))
            warm = before is not None and len(before.bias) <= items
            prepare(network, sequences, data.seed)
            if before is not None and warm:
                _take_over(before, network, rows)
            epochs = math.ceil(config.epochs * AGAIN) if warm else config.epochs
            rate = config.learning_rate * (AGAIN if warm else 1.0)
            train(config, network, sequences, epochs, rate, data.seed, data.threads, progress, callbacks, share)
            whole = _spread(network, self._fresh(items), rows)
        self._open(whole, data.histories.ordered)

    def _open(self, network: Network, ordered: bool) -> None:
        self._network, self._ordered = network.eval().requires_grad_(False), ordered
        self._plain = network.plain(self.config.window)
        self._heard = torch.isfinite(network.bias).numpy()  # (m,) False for items that training never met

    def _rows(self, state: UserState) -> NDArray[np.int64]:
        network = self._fitted()
        rows = recent(state, len(network.bias), self.config.window)[0].astype(np.int64)
        return rows[self._heard[rows]]

    def _fitted(self) -> Network:
        if self._network is None:
            raise ValueError("this model has not been fitted")
        return self._network

    @torch.inference_mode()
    def scores(self, states: Sequence[UserState], now: int) -> NDArray[np.float32]:
        """People with equally many items go through the network together, so nothing is padded."""
        network = self._fitted()
        rows = [self._rows(state) for state in states]
        if len(rows) == 1 and len(rows[0]):
            single: NDArray[np.float32] = torch.addmv(network.bias, network.items.weight, self._last(rows[0][None])[0]).numpy()[None, :]
            return single
        lengths = np.array([len(part) for part in rows], dtype=np.int64)
        vectors = torch.zeros((len(states), self.config.dimensions))
        for length in np.unique(lengths[lengths > 0]):
            who = np.flatnonzero(lengths == length)
            vectors[torch.from_numpy(who)] = self._last(np.stack([rows[person] for person in who]))
        table: NDArray[np.float32] = linear(vectors, network.items.weight, network.bias).numpy()
        table[lengths == 0] = -np.inf
        return table

    def _last(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """(n, t) rows -> (n, d), the hidden vectors of the last position."""
        assert self._plain is not None
        return hidden(self._plain, torch.from_numpy(rows), last=True)[:, 0]

    @torch.inference_mode()
    def because(self, state: UserState, items: NDArray[np.int32], thorough: bool = False) -> list[Evidence | None]:
        """The person's item whose embedding is nearest; `value` is their product. `thorough`: the item without which the score
        would be lowest; `value` is then by how much it falls. Tried are LEFT_OUT items: the last ones where there is an order,
        else those whose embeddings are nearest to the items asked about."""
        rows = self._rows(state)
        if not len(rows):
            return [None] * len(items)
        network = self._fitted()
        wanted = network.items.weight[torch.from_numpy(items.astype(np.int64))]
        if not thorough or len(rows) == 1:
            alike = (network.items.weight[torch.from_numpy(rows)] @ wanted.T).numpy()  # (history, items)
            nearest = alike.argmax(axis=0)
            return [
                Evidence("item", float(alike[at, column]), item=int(rows[at])) if alike[at, column] > 0 else None
                for column, at in enumerate(nearest)
            ]
        if self._ordered:
            places = np.arange(max(0, len(rows) - LEFT_OUT), len(rows))
        else:
            near = (network.items.weight[torch.from_numpy(rows)] @ wanted.T).amax(dim=1).numpy() if len(items) else np.zeros(len(rows))
            places = np.sort(np.argsort(-near, kind="stable")[:LEFT_OUT])
        without = np.stack([np.delete(rows, place) for place in places])
        fall = ((self._last(rows[None]) - self._last(without)) @ wanted.T).numpy()  # (places, items); the bias cancels
        best = fall.argmax(axis=0)
        return [
            Evidence("item", float(fall[at, column]), item=int(rows[places[at]])) if fall[at, column] > 0 else None
            for column, at in enumerate(best)
        ]

    def save(self, directory: Path) -> None:
        network = self._fitted()
        folder.write(directory, {"config": self.config.model_dump(mode="json"), "items": len(network.bias), "ordered": self._ordered}, {})
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, directory / WEIGHTS)

    @classmethod
    def load(cls, directory: Path) -> Self:
        document = folder.document(directory)
        model = cls(SasrecModel.model_validate(document["config"]))
        network = model._fresh(int(document["items"]))
        try:
            network.load_state_dict(load_file(directory / WEIGHTS), assign=True)
        except (SafetensorError, RuntimeError, json.JSONDecodeError) as error:
            raise ValueError(f"{directory / WEIGHTS}: {error}") from error
        model._open(network, bool(document["ordered"]))
        return model


@torch.no_grad()
def _take_over(old: Network, new: Network, rows: torch.Tensor) -> None:
    """Gives `new`, whose items are the catalogue's `rows`, the weights of `old`; items that `old` never met keep their own."""
    weights, fresh = old.state_dict(), new.state_dict()
    met = (rows < len(old.bias)).clone()
    met[met.clone()] = torch.isfinite(old.bias[rows[met]])
    for name in ("items.weight", "bias"):
        fresh[name][met] = weights[name][rows[met]]
        weights[name] = fresh[name]
    new.load_state_dict(weights)


@torch.no_grad()
def _spread(trained: Network, whole: Network, rows: torch.Tensor) -> Network:
    """`whole`, which knows every item of the catalogue, with the weights of `trained`, which knows only `rows`."""
    weights = trained.state_dict()
    embedding, bias = torch.zeros_like(whole.items.weight), torch.full_like(whole.bias, -torch.inf)
    embedding[rows], bias[rows] = weights["items.weight"], weights["bias"]
    whole.load_state_dict({**weights, "items.weight": embedding, "bias": bias})
    return whole
