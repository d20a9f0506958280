"""Quest: pages by an upper bound of their logits (arXiv 2406.10774)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..block import Attended, Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .top import top_mask

TOKENS = 16  # of a page


@dataclass(frozen=True)
class Quest(Policy):
    """Whole pages of 16 indexed tokens, those with the largest bound for the query.

    Each query head chooses its own pages. The paper leaves the first two layers dense; here all
    layers are given to the policy unless the run says otherwise, as for every policy.
    """

    family = "quest"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        return QuestLayer(indexed, prompt.keys[:, indexed], max(1, self.budget // TOKENS))


class QuestLayer(LayerPolicy):
    """Smallest and largest component of the keys of each page: lows, highs [Hkv, pages, d]."""

    def __init__(self, indexed: slice, keys: Tensor, count: int) -> None:
        self._indexed = indexed
        self._count = count
        self.lows = _pages(keys, torch.inf).amin(2)
        self.highs = _pages(keys, -torch.inf).amax(2)

    def bounds(self, queries: Tensor) -> Tensor:
        """At least the largest q.k of each page, of queries [Hkv, G, q, d]: [Hkv, G, q, pages]."""
        heads, group, count, dim = queries.shape
        flat = queries.reshape(heads, group * count, dim)
        positive, negative = flat.clamp(min=0), flat.clamp(max=0)
        bound = positive @ self.highs.transpose(1, 2) + negative @ self.lows.transpose(1, 2)
        return bound.view(heads, group, count, -1)

    def attend(self, block: Block) -> Attended:
        pages = top_mask(self.bounds(block.queries), self._count)
        chosen = pages.repeat_interleave(TOKENS, -1)
        chosen = chosen[..., : self._indexed.stop - self._indexed.start]
        read = 2 * (self.lows[0].numel() + self.highs[0].numel())
        return attend_chosen(block, self._indexed, chosen, read_to_choose=read)


def _pages(keys: Tensor, filling: float) -> Tensor:
    """Keys [Hkv, n, d] as [Hkv, pages, TOKENS, d], the last page filled up."""
    missing = -keys.shape[1] % TOKENS
    filled = pad(keys, (0, 0, 0, missing), value=filling)
    pages: Tensor = filled.unflatten(1, (-1, TOKENS))
    return pages
