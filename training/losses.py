"""The losses of the sequence model, both the cross-entropy of the next item: over all items, and over sampled ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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


class _SampledCrossEntropy(torch.autograd.Function):
    """As _FullCrossEntropy, over the wanted item and the sampled ones instead of all."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, wanted: Tensor, sampled: Tensor, expected: Tensor) -> Tensor:
        tokens, dtype = len(hidden), hidden.dtype
        items, targets = weight[sampled].to(dtype), weight[wanted].to(dtype)
        level, own = (bias[sampled] - expected).to(dtype), bias[wanted].to(dtype)
        by_hidden, by_target, by_own = torch.empty_like(hidden), torch.empty_like(hidden), torch.empty_like(own)
        by_items, by_level = torch.zeros_like(items, dtype=torch.float32), torch.zeros_like(level, dtype=torch.float32)
        place = torch.full((len(weight),), -1, dtype=torch.int64, device=hidden.device)
        place[sampled] = torch.arange(len(sampled), device=hidden.device)
        at = place[wanted]  # where in the sample the wanted item stands: there it does not count against itself
        loss = torch.zeros((), device=hidden.device)
        step = max(1, LOSS_BYTES // (hidden.element_size() * (len(sampled) + 1)))
        for start in range(0, tokens, step):
            rows = slice(start, start + step)
            part, goal = hidden[rows], targets[rows]
            right = (part * goal).sum(dim=1) + own[rows]
            shares = torch.addmm(level, part, items.T)
            met = (at[rows] >= 0).nonzero()[:, 0]
            shares[met, at[rows][met]] = -torch.inf
            top = torch.maximum(shares.amax(dim=1), right)
            chosen = (right - top).exp_()
            total = shares.sub_(top[:, None]).exp_().sum(dim=1).add_(chosen)
            shares.div_(total[:, None])
            chosen.div_(total)
            loss -= chosen.float().clamp_min(1e-30).log().sum()
            short = chosen.sub_(1.0)[:, None]  # the derivative by the right logit
            torch.mm(shares, items, out=by_hidden[rows])
            by_hidden[rows].addcmul_(short, goal)
            torch.mul(part, short, out=by_target[rows])
            by_own[rows] = short[:, 0]
            by_items += shares.T @ part
            by_level += shares.sum(dim=0, dtype=torch.float32)
        by_weight = torch.zeros_like(weight, dtype=torch.float32).index_add_(0, sampled, by_items).index_add_(0, wanted, by_target.float())
        by_bias = torch.zeros_like(bias, dtype=torch.float32).index_add_(0, sampled, by_level).index_add_(0, wanted, by_own.float())
        ctx.save_for_backward(by_hidden, by_weight, by_bias)
        return loss / tokens

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        by_hidden, by_weight, by_bias = ctx.saved_tensors
        share = grads[0] / len(by_hidden)
        return by_hidden * share.to(by_hidden.dtype), by_weight * share, by_bias * share, None, None, None


def sampled_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, wanted: Tensor, sampled: Tensor, chances: Tensor) -> Tensor:
    """The same over `wanted` and the rows `sampled` (negatives,), all different, shared by the batch; `chances` (items,) is how likely
    each item was to be among them.

    A sampled logit is lessened by the logarithm of its chance (logQ, Bengio & Senecal 2008), so that the sum over the sample has
    the sum over all other items as its mean. The wanted item is always there and is not corrected; where it was sampled as well
    it does not count against itself."""
    expected = chances.clamp_min(1e-12).log()[sampled]
    loss: Tensor = _SampledCrossEntropy.apply(hidden, weight, bias, wanted, sampled, expected)  # type: ignore[no-untyped-call]
    return loss


def inclusion(counts: Tensor, sampled: int) -> Tensor:
    """(items,) float32: with which chance each item joins a sample of about so many, independently of the others (Poisson sampling):
    as the square root of its count, at most 1, so that what is often taken always stands in it, and nothing twice."""
    weights = counts.double().clamp_min(1.0).sqrt()
    if sampled >= len(weights):
        return torch.ones(len(weights))
    ascending = weights.sort().values
    below = ascending.cumsum(0)  # if the n smallest are not certain, they share what the certain ones leave
    certain = len(weights) - torch.arange(1, len(weights) + 1)
    scales = (sampled - certain) / below
    right = int(((scales * ascending <= 1.0) & (certain < sampled)).nonzero()[-1])
    return (weights * scales[right]).clamp_max(1.0).float()
