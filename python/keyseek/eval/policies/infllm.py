"""InfLLM: blocks behind representative tokens (arXiv 2402.04617)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..block import Attended, Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .top import top_mask

TOKENS = 128  # of a block; fewer for budgets below four such blocks
REPRESENTATIVES = 4  # of a block


@dataclass(frozen=True)
class InfLLM(Policy):
    """Whole blocks of indexed tokens, those whose representative tokens fit the query best.

    A token represents its block when the queries of the window that follows it want it most. A
    block is 128 tokens as in the paper, or a quarter of a smaller budget. The heads of a group
    share blocks; KV heads choose their own (the paper: one choice per layer).
    """

    family = "infllm"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        size = max(REPRESENTATIVES, min(TOKENS, self.budget // 4))
        wanted = _wanted(prompt, max(1, static.window))[:, indexed]
        return _BlocksLayer(indexed, size, self.budget // size, prompt.keys[:, indexed], wanted)


def _wanted(prompt: LayerPrompt, window: int) -> Tensor:
    """How much the queries of the `window` positions after a key want it, on average: [Hkv, n]."""
    sums = torch.zeros_like(prompt.keys[:, :1]).double()
    sums = torch.cat([sums, prompt.queries.sum(1).double().cumsum(1)], 1)
    begin = torch.arange(1, prompt.tokens + 1)
    end = (begin + window).clamp(max=prompt.tokens)
    means = (sums[:, end] - sums[:, begin]) / (end - begin).clamp(min=1)[:, None]
    return (means.float() * prompt.keys).sum(-1)


class _BlocksLayer(LayerPolicy):
    def __init__(self, indexed: slice, size: int, count: int, keys: Tensor, wanted: Tensor) -> None:
        heads, n, dim = keys.shape
        self._indexed = indexed
        self._size = size
        self._count = count
        blocks = -(-n // size)
        padding = wanted.new_full((heads, blocks * size - n), -torch.inf)
        by_block = torch.cat([wanted, padding], 1).view(heads, blocks, size)
        inside = by_block.topk(REPRESENTATIVES, dim=-1).indices
        ids = (inside + size * torch.arange(blocks)[:, None]).clamp(max=n - 1).flatten(1)
        self.representatives = keys.gather(1, ids[..., None].expand(-1, -1, dim))

    def attend(self, block: Block) -> Attended:
        return attend_chosen(
            block,
            self._indexed,
            self.choose(block),
            read_to_choose=2 * self.representatives[0].numel(),
        )

    def choose(self, block: Block) -> Tensor:
        """[Hkv, 1, q, indexed tokens]: for each query, its group's blocks."""
        scores = block.logits_of(self.representatives).sum(1, keepdim=True)
        scores = scores.unflatten(-1, (-1, REPRESENTATIVES)).sum(-1)
        chosen = top_mask(scores, self._count).repeat_interleave(self._size, -1)
        return chosen[..., : self._indexed.stop - self._indexed.start]
