"""SparQ: the largest components of the query, and the mean of the values (arXiv 2312.04985)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..block import Attended, Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .scored import logits_of
from .top import mask_of, top_mask

SHARE = 4  # a quarter of the components is looked at


@dataclass(frozen=True)
class SparQ(Policy):
    """The keys that are best by the query's largest components; the rest of the attention, as far
    as these components tell, goes to the mean of all values.

    The heads of a group share components and keys: magnitudes and scores are summed. The paper's
    local tokens are the window. The mean counts as one vector of the budget.
    """

    family = "sparq"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        rank = max(1, prompt.keys.shape[-1] // SHARE)
        return SparQLayer(static.indexed(prompt.tokens), self.budget - 1, rank)


class SparQLayer(LayerPolicy):
    def __init__(self, indexed: slice, k: int, rank: int) -> None:
        self._indexed = indexed
        self._k = k
        self._rank = rank

    def scores(self, block: Block) -> Tensor:
        """Approximate logits of all keys, [Hkv, G, q, n]: the softmax's temperature allows for
        what is left out of the query."""
        size = block.queries.abs()
        largest = size.sum(1, keepdim=True).topk(self._rank, dim=-1).indices
        kept = block.queries * mask_of(largest, size.shape[-1])
        coverage = (kept.abs().sum(-1) / size.sum(-1).clamp(min=1e-20)).clamp(min=1e-20)
        scores = logits_of(kept, block.keys) * block.scale / coverage.sqrt()[..., None]
        return scores.masked_fill(block.logits == -torch.inf, -torch.inf)

    def attend(self, block: Block) -> Attended:
        scores = self.scores(block)
        chosen = top_mask(scores[..., self._indexed].sum(1, keepdim=True), self._k)
        read = 2 * self._rank * chosen.shape[-1] + 2 * block.values.shape[-1]
        exact = attend_chosen(block, self._indexed, chosen, read_to_choose=read)
        share = scores.softmax(-1)
        missed = (share[..., self._indexed] * ~chosen).sum(-1)[..., None]
        out = (1 - missed) * exact.out + missed * _means(block)[:, None]
        return replace(exact, out=out, vectors=exact.vectors + 1)


def _means(block: Block) -> Tensor:
    """The mean of the values that each query sees, [Hkv, q, dv]."""
    count, n = block.queries.shape[2], block.keys.shape[1]
    seen = torch.arange(n - count + 1, n + 1)
    return block.values.cumsum(1)[:, n - count :] / seen[:, None]
