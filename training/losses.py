"""The losses of the sequence model, both the cross-entropy of the next item: over all items, and over sampled ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOSS_BYTES = 4 << 20  # of logits held at once, so that they stay in the cache between the passes over them


class _FullCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of softmax(hidden @ weight.T + bias), a few rows at a time: the gradient is made together with the
    loss, so that the (tokens, items) table never exists. In the dtype of `hidden`; sums over tokens are float32."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, wanted: Tensor) -> Tensor:
        tokens, dtype = len(hidden), hidden.dtype
        by_hidden = torch.empty_like(hidden)
        by_weight, by_bias = torch.zeros_like(weight, dtype=torch.float32), torch.zeros_like(bias, dtype=torch.float32)
        items, level = weight.to(dtype), (bias - bias.mean()).to(dtype)  # a constant changes no share, but costs digits
        loss = torch.zeros((), device=hidden.device)
        step = max(1, LOSS_BYTES // (hidden.element_size() * len(weight)))
        for start in range(0, tokens, step):
            part, target = hidden[start : start + step], wanted[start : start + step, None]
            shares = torch.softmax(torch.addmm(level, part, items.T), dim=1)
            right = shares.gather(1, target)
            loss -= right.float().clamp_min(1e-30).log().sum()
            shares.scatter_(1, target, right - 1)
            torch.mm(shares, items, out=by_hidden[start : start + step])
            by_weight += shares.T @ part
            by_bias += shares.sum(dim=0, dtype=torch.float32)
        ctx.save_for_backward(by_hidden, by_weight, by_bias)
        return loss / tokens

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        by_hidden, by_weight, by_bias = ctx.saved_tensors
        share = grads[0] / len(by_hidden)
        return by_hidden * share.to(by_hidden.dtype), by_weight * share, by_bias * share, None


def full_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, wanted: Tensor) -> Tensor:
    """hidden (tokens, d) float32 or bfloat16, weight (items, d) float32, bias (items,) float32, wanted (tokens,) int64 -> mean
    -log softmax at `wanted`, float32. The table of logits is of the dtype of `hidden`."""
    loss: Tensor = _FullCrossEntropy.apply(hidden, weight, bias, wanted)  # type: ignore[no-untyped-call]
    return loss


def sampled_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, wanted: Tensor, sampled: Tensor, chances: Tensor) -> Tensor:
    """The same over `wanted` and the rows `sampled` (negatives,) drawn with `chances` (items,), shared by the batch.

    A sampled logit is lessened by the logarithm of how often its item was to be expected in the sample (logQ, Bengio & Senecal
    2008), so that the sum over the sample has the sum over all other items as its mean. The wanted item is always there and is
    not corrected; where it was sampled as well it does not count against itself."""
    expected = (chances * len(sampled)).clamp_min(1e-12).log()
    right = (hidden * functional.embedding(wanted, weight).to(hidden.dtype)).sum(dim=1).float() + bias[wanted]
    wrong = (hidden @ functional.embedding(sampled, weight).to(hidden.dtype).T).float() + (bias[sampled] - expected[sampled])
    wrong = wrong.masked_fill(sampled[None, :] == wanted[:, None], -torch.inf)
    return (torch.logaddexp(right, wrong.logsumexp(dim=1)) - right).mean()
