"""The network of SASRec (Kang & McAuley 2018, "Self-Attentive Sequential Recommendation"): causal self-attention over a
person's items, inputs and outputs sharing one embedding; pre-norm blocks.

Two things can be added. `positions="relative"`: instead of an embedding a position, each head learns how much an item so many
places back counts (the bias of T5, Raffel et al. 2020, without buckets). `convolution=k`: before its attention every block adds
to each position a learned, channel by channel mixture of the last k (the short causal convolution of H3, Fu et al. 2023, and
Mamba), which tells the order of the latest items.

The weights live in a module, so that optimisers and files find them; what is computed is a plain function of plain tensors,
the same for training and for answering, where the overhead of modules would be most of the time.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Positions = Literal["end", "relative"]
_SMALL = 1 << 20  # multiplications


class Block(nn.Module):
    def __init__(self, dimensions: int, heads: int, reach: int, convolution: int, widening: int) -> None:
        """`reach`: how far back the relative positions go; 0 = none are learned."""
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(dimensions)
        self.query = nn.Linear(dimensions, dimensions)
        self.key_value = nn.Linear(dimensions, 2 * dimensions)
        self.out = nn.Linear(dimensions, dimensions)
        self.before_feed_forward = nn.LayerNorm(dimensions)
        self.widen = nn.Linear(dimensions, widening * dimensions)
        self.narrow = nn.Linear(widening * dimensions, dimensions)
        self.distances = nn.Parameter(torch.zeros(heads, reach)) if reach else None
        self.mixture = nn.Parameter(torch.zeros(convolution, dimensions)) if convolution else None


class Network(nn.Module):
    """Rows of items -> the vectors that the next item's embedding should resemble."""

    def __init__(
        self,
        items: int,
        dimensions: int,
        blocks: int,
        heads: int,
        window: int,
        dropout: float,
        positions: Positions = "end",
        convolution: int = 0,
        widening: int = 4,
    ) -> None:
        super().__init__()
        self.items = nn.Embedding(items, dimensions)
        relative = positions == "relative"
        self.places = None if relative else nn.Embedding(window, dimensions)  # counted from the end: 0 is the latest item
        self.blocks = nn.ModuleList(Block(dimensions, heads, window if relative else 0, convolution, widening) for _ in range(blocks))
        self.norm = nn.LayerNorm(dimensions)
        self.bias = nn.Parameter(torch.zeros(items))  # how often an item is the next one, whoever asks
        self.window, self.dropout = window, dropout
        nn.init.normal_(self.items.weight, std=dimensions**-0.5)
        if self.places is not None:
            nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, rows: Tensor, last: bool = False, lengths: Tensor | None = None) -> Tensor:
        """rows (n, t) int64, oldest first, t <= window -> (n, t, d); with `last` only of the last position, (n, 1, d).

        `lengths` (n,): how many of a row's first items are its own, where they differ; what stands behind them is read by none of
        them, and the vectors there mean nothing. Not together with `last`."""
        return hidden(self.plain(rows.shape[1]), rows, last, lengths, self.dropout if self.training else 0.0)

    def plain(self, most: int) -> Weights:
        """The weights as `hidden` takes them, for rows of at most `most` items. The gradient finds its way through."""
        return Weights(
            self.items.weight,
            None if self.places is None else self.places.weight,
            tuple(_plain(block, most) for block in self.blocks if isinstance(block, Block)),
            (self.norm.weight, self.norm.bias),
        )


class BlockWeights(NamedTuple):
    """Pairs are weight and bias. `mixture` (k, d); `distances` (heads, t, t): what is added to the attention of a later position
    (row) to an earlier one (column)."""

    heads: int
    mixture: Tensor | None
    before_attention: tuple[Tensor, Tensor]
    query: tuple[Tensor, Tensor]
    key_value: tuple[Tensor, Tensor]
    distances: Tensor | None
    out: tuple[Tensor, Tensor]
    before_feed_forward: tuple[Tensor, Tensor]
    widen: tuple[Tensor, Tensor]
    narrow: tuple[Tensor, Tensor]


class Weights(NamedTuple):
    items: Tensor  # (m, d)
    places: Tensor | None  # (window, d)
    blocks: tuple[BlockWeights, ...]
    norm: tuple[Tensor, Tensor]


def _plain(block: Block, most: int) -> BlockWeights:
    distances = None
    if block.distances is not None:
        places = torch.arange(most, device=block.distances.device)
        apart = places[:, None] - places
        distances = block.distances[:, apart.clamp_min(0)].masked_fill(apart < 0, -torch.inf)
    linear = ((part.weight, part.bias) for part in (block.query, block.key_value, block.out, block.widen, block.narrow))
    query, key_value, out, widen, narrow = linear
    before, between = block.before_attention, block.before_feed_forward
    return BlockWeights(
        block.heads,
        block.mixture,
        (before.weight, before.bias),
        query,
        key_value,
        distances,
        out,
        (between.weight, between.bias),
        widen,
        narrow,
    )


def hidden(weights: Weights, rows: Tensor, last: bool = False, lengths: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """What Network.forward says; `dropout` is the share of values that are set to zero at each place where that is done."""
    t = rows.shape[1]
    x = functional.embedding(rows, weights.items)
    if weights.places is not None:
        if lengths is None:
            x = x + weights.places[:t].flip(0)
        else:
            behind = lengths[:, None] - 1 - torch.arange(t, device=rows.device)
            x = x + functional.embedding(behind.clamp_min(0), weights.places)
    x = thinned(x, dropout)
    for depth, block in enumerate(weights.blocks):
        x = _through(block, x, last and depth == len(weights.blocks) - 1, dropout)
    return functional.layer_norm(x, x.shape[-1:], *weights.norm)


def _through(block: BlockWeights, x: Tensor, last: bool, dropout: float) -> Tensor:
    """(n, t, d) -> (n, t, d), or (n, 1, d) if only the last position is wanted."""
    n, t, d = x.shape
    if block.mixture is not None:
        mixed = torch.addcmul(x, x, block.mixture[0])
        for back in range(1, min(len(block.mixture), t)):
            mixed = mixed + functional.pad(x[:, : t - back] * block.mixture[back], (0, 0, back, 0))
        x = mixed
    seen = functional.layer_norm(x, (d,), *block.before_attention)
    asking = seen[:, -1:] if last else seen
    query = linear(asking, *block.query).view(n, -1, block.heads, d // block.heads).transpose(1, 2)
    both = linear(seen, *block.key_value).view(n, t, 2, block.heads, d // block.heads)
    key, value = both[:, :, 0].transpose(1, 2), both[:, :, 1].transpose(1, 2)
    if block.distances is None:
        # No dropout inside the attention: it would rule out the fused kernel, and cost a third of the time of a step.
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=not last)
    else:
        # Written out: the fused kernels give the learned bias no gradient, and on a CPU their backward pass is slower than this.
        apart = block.distances[:, t - 1 : t, :t] if last else block.distances[:, :t, :t]
        shares = (query * (d // block.heads) ** -0.5) @ key.transpose(-1, -2)
        attended = torch.softmax(shares + apart.to(shares.dtype), dim=-1) @ value
    attended = attended.transpose(1, 2).reshape(n, -1, d)
    x = (x[:, -1:] if last else x) + thinned(linear(attended, *block.out), dropout)
    wide = functional.gelu(linear(functional.layer_norm(x, (d,), *block.before_feed_forward), *block.widen))
    return x + thinned(linear(thinned(wide, dropout), *block.narrow), dropout)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x @ weight.T + bias, as functional.linear. Where only an answer is wanted, in float32 on a CPU, by oneDNN: on the processors that
    MKL does not know well it is two to five times as fast, on others the same; small products it only delays."""
    large = x.numel() * len(weight) > _SMALL
    if not large or torch.is_grad_enabled() or x.dtype != torch.float32 or x.device.type != "cpu" or not _onednn():
        return functional.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


@cache
def _onednn() -> bool:
    """Whether this build of torch has the operation: it is not among those that are promised to stay."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def thinned(x: Tensor, share: float) -> Tensor:
    """Dropout. On a CPU the chances are bytes, eight from each random number drawn: drawing one a value would take longer than
    the attention. The share is therefore rounded to 1/256."""
    if share <= 0.0:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, share)
    border = max(1, round(share * 256))
    drawn = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 7) // 8,), dtype=torch.int64)
    kept = torch.from_numpy(drawn.view(torch.uint8).numpy()[: x.numel()] >= border)  # NumPy compares bytes ten times faster
    return x * kept.view(torch.uint8).to(x.dtype).mul_(256 / (256 - border)).view(x.shape)
