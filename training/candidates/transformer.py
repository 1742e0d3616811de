"""The network of SASRec (Kang & McAuley 2018, "Self-Attentive Sequential Recommendation"): causal self-attention over a
person's items, inputs and outputs sharing one embedding. Pre-norm blocks; no padding: the rows of a batch are of one length.

Also the two losses, both the cross-entropy of the next item: over all items, and over sampled ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LOSS_BYTES = 16 << 20  # of logits held at once


class Block(nn.Module):
    def __init__(self, dimensions: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(dimensions)
        self.query = nn.Linear(dimensions, dimensions)
        self.key_value = nn.Linear(dimensions, 2 * dimensions)
        self.out = nn.Linear(dimensions, dimensions)
        self.before_feed_forward = nn.LayerNorm(dimensions)
        self.widen = nn.Linear(dimensions, 4 * dimensions)
        self.narrow = nn.Linear(4 * dimensions, dimensions)
        self.dropout = dropout

    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        """(n, t, d) -> (n, t, d), or (n, 1, d) if only the last position is wanted."""
        n, t, d = x.shape
        dropout = self.dropout if self.training else 0.0
        seen = self.before_attention(x)
        asking = seen[:, -1:] if last else seen
        query = self.query(asking).view(n, -1, self.heads, d // self.heads).transpose(1, 2)
        key, value = self.key_value(seen).view(n, t, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        # No dropout inside the attention: it would rule out the fused kernel, and cost a third of the time of a step.
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=not last)
        x = (x[:, -1:] if last else x) + functional.dropout(self.out(attended.transpose(1, 2).reshape(n, -1, d)), dropout, self.training)
        wide = functional.gelu(self.widen(self.before_feed_forward(x)))
        return x + functional.dropout(self.narrow(functional.dropout(wide, dropout, self.training)), dropout, self.training)


class Network(nn.Module):
    """Rows of items -> the vectors that the next item's embedding should resemble."""

    def __init__(self, items: int, dimensions: int, blocks: int, heads: int, window: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Embedding(items, dimensions)
        self.places = nn.Embedding(window, dimensions)  # counted from the end: 0 is the latest item
        self.blocks = nn.ModuleList(Block(dimensions, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dimensions)
        self.bias = nn.Parameter(torch.zeros(items))  # how often an item is the next one, whoever asks
        self.dropout = dropout
        nn.init.normal_(self.items.weight, std=dimensions**-0.5)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, rows: Tensor, last: bool = False) -> Tensor:
        """rows (n, t) int64, oldest first, t <= window -> (n, t, d); with `last` only of the last position, (n, 1, d)."""
        t = rows.shape[1]
        x = self.items(rows) + self.places.weight[:t].flip(0)
        x = functional.dropout(x, self.dropout, self.training)
        for depth, block in enumerate(self.blocks):
            x = block(x, last and depth == len(self.blocks) - 1)
        out: Tensor = self.norm(x)
        return out


class _FullCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of softmax(hidden @ weight.T + bias), a few rows at a time: the gradient is made together with the
    loss, so that the (tokens, items) table never exists."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, wanted: Tensor) -> Tensor:
        tokens = len(hidden)
        by_hidden, by_weight, by_bias = torch.empty_like(hidden), torch.zeros_like(weight), torch.zeros_like(bias)
        loss = hidden.new_zeros(())
        step = max(1, LOSS_BYTES // (4 * len(weight)))
        for start in range(0, tokens, step):
            part, target = hidden[start : start + step], wanted[start : start + step, None]
            logits = torch.addmm(bias, part, weight.T)
            loss -= logits.gather(1, target).sum()
            largest = logits.amax(dim=1, keepdim=True)
            shares = logits.sub_(largest).exp_()
            total = shares.sum(dim=1, keepdim=True)
            loss += (total.log() + largest).sum()
            shares.div_(total)
            shares.scatter_add_(1, target, torch.full_like(target, -1, dtype=shares.dtype))
            torch.mm(shares, weight, out=by_hidden[start : start + step])
            by_weight.addmm_(shares.T, part)
            by_bias.add_(shares.sum(dim=0))
        ctx.save_for_backward(by_hidden / tokens, by_weight / tokens, by_bias / tokens)
        return loss / tokens

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        by_hidden, by_weight, by_bias = ctx.saved_tensors
        return grads[0] * by_hidden, grads[0] * by_weight, grads[0] * by_bias, None


def full_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, wanted: Tensor) -> Tensor:
    """hidden (tokens, d), weight (items, d), bias (items,), wanted (tokens,) int64 -> mean -log softmax at `wanted`, float32."""
    loss: Tensor = _FullCrossEntropy.apply(hidden.float(), weight.float(), bias.float(), wanted)  # type: ignore[no-untyped-call]
    return loss


def sampled_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, wanted: Tensor, sampled: Tensor, chances: Tensor) -> Tensor:
    """The same over `wanted` and the rows `sampled` (negatives,) drawn with `chances` (items,), shared by the batch.

    A sampled logit is lessened by the logarithm of how often its item was to be expected in the sample (logQ, Bengio & Senecal
    2008), so that the sum over the sample has the sum over all other items as its mean. The wanted item is always there and is
    not corrected; where it was sampled as well it does not count against itself."""
    expected = (chances * len(sampled)).clamp_min(1e-12).log()
    right = (hidden * functional.embedding(wanted, weight)).sum(dim=1) + bias[wanted]
    wrong = hidden @ functional.embedding(sampled, weight).T + (bias[sampled] - expected[sampled])
    wrong = wrong.masked_fill(sampled[None, :] == wanted[:, None], -torch.inf)
    return (torch.logaddexp(right, wrong.logsumexp(dim=1)) - right).mean()
