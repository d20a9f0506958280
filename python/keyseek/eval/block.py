"""Attention of a block of decode steps over chosen tokens, beside full attention.

Gold answers are known, so their tokens are decoded as one block: the query of every step sees
the tokens before it, as if they had come one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import InvalidArgument


@dataclass(frozen=True)
class Static:
    """Tokens of a prompt that every policy attends: the first `sink` and the last `window`.

    What is decoded is attended as well. The tokens between are the indexed ones.
    """

    sink: int = 32
    window: int = 128

    def __post_init__(self) -> None:
        for name in ("sink", "window"):
            if getattr(self, name) < 0:
                raise InvalidArgument(f"{name} is {getattr(self, name)}, must be at least 0")

    def indexed(self, tokens: int) -> slice:
        """The indexed tokens of a prompt."""
        if tokens <= self.sink + self.window:
            raise InvalidArgument(
                f"the prompt has {tokens} tokens, sink {self.sink} and window {self.window} leave "
                "none to choose from"
            )
        return slice(self.sink, tokens - self.window)


@dataclass(frozen=True)
class Block:
    """Queries [Hkv, G, q, d] of the newest q tokens; keys [Hkv, n, d], values [Hkv, n, dv] of all.

    The first `prompt` tokens are the prompt's.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    prompt: int
    scale: float

    def logits_of(self, keys: Tensor) -> Tensor:
        """Logits [Hkv, G, q, m] of the queries with some keys [Hkv, m, d]."""
        heads, group, count, dim = self.queries.shape
        rows = self.queries.reshape(heads, group * count, dim)
        return (rows @ keys.transpose(1, 2) * self.scale).view(heads, group, count, -1)

    @cached_property
    def logits(self) -> Tensor:
        """Logits [Hkv, G, q, n], -inf where a token is newer than the query. Not to be changed."""
        count, n = self.queries.shape[2], self.keys.shape[1]
        newer = torch.ones(count, count, dtype=torch.bool).triu(1)
        logits = self.logits_of(self.keys)
        logits[..., n - count :].masked_fill_(newer, -torch.inf)
        return logits

    @cached_property
    def log_sum(self) -> Tensor:
        """The logarithm of the softmax's denominator over all tokens, [Hkv, G, q]."""
        return self.logits.logsumexp(-1)

    @cached_property
    def weights(self) -> Tensor:
        """Full attention's weights [Hkv, G, q, n]. Not to be changed."""
        return self.logits.softmax(-1)

    @cached_property
    def full(self) -> Tensor:
        """The output of full attention, [Hkv, G, q, dv]."""
        return weighted(self.weights, self.values)


def weighted(weights: Tensor, values: Tensor) -> Tensor:
    """Sums [Hkv, G, q, dv] of values [Hkv, m, dv] with weights [Hkv, G, q, m]."""
    heads, group, count, m = weights.shape
    return (weights.reshape(heads, group * count, m) @ values).view(heads, group, count, -1)


@dataclass(frozen=True)
class Summary:
    """Vectors that stand for indexed tokens: keys [Hkv, C, d], values [Hkv, C, dv], and what is
    added to their logits, [Hkv, G, q, C].

    attended: how many of them a query attends, on average, where the others have a bias of -inf.
    """

    keys: Tensor
    values: Tensor
    bias: Tensor
    attended: float | None = None  # all


@dataclass(frozen=True)
class Attended:
    """The output [Hkv, G, q, dv] of a block, and what it cost.

    mass: share of full attention's weights that the attended tokens hold, [Hkv, G, q], where
    it is known. vectors: attended per query beyond the static tokens, tail vectors counted.
    bytes: read for them per step and KV head, what choosing reads included, at 2 bytes a number.
    """

    out: Tensor
    vectors: float
    bytes: float
    mass: Tensor | None = None


def attend_chosen(
    block: Block,
    indexed: slice,
    chosen: Tensor,
    summary: Summary | None = None,
    read_to_choose: float = 0.0,
    stand_for: Tensor | None = None,
) -> Attended:
    """Attention over the static tokens, the indexed ones that are `chosen`, and a summary.

    chosen: bool [Hkv, G or 1, q or 1, indexed tokens]. read_to_choose: bytes per step and KV head.
    stand_for: how many tokens each chosen one counts for, where they are a sample.
    """
    # All of these weights are relative to full attention's denominator.
    weights = block.weights.clone()
    weights[..., indexed] *= chosen
    mass = weights.sum(-1)
    if stand_for is not None:
        weights[..., indexed] *= stand_for
    out, total, extra = weighted(weights, block.values), weights.sum(-1), 0.0
    if summary is not None:
        logits = block.logits_of(summary.keys) + summary.bias
        added = (logits - block.log_sum[..., None]).exp()
        out = out + weighted(added, summary.values)
        total = total + added.sum(-1)
        extra = summary.keys.shape[1] if summary.attended is None else summary.attended
    out = out / total[..., None]
    row = 2 * (block.keys.shape[-1] + block.values.shape[-1])
    # A row that several heads of the group want is read once.
    rows = chosen.any(1).sum(-1).float().mean().item() + extra
    vectors = chosen.sum(-1).float().mean().item() + extra
    return Attended(out, vectors, rows * row + read_to_choose, mass)
