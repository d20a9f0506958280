"""RocketKV: tokens that stay, and a sparse look at these (arXiv 2502.14051)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..block import Attended, Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .scored import logits_of
from .snapkv import ObservingLayer
from .top import mask_of, top_mask

POOLING = 63  # neighbours that share the largest attention among them


@dataclass(frozen=True)
class Split:
    """How a compression is shared between the two stages, by the rule of the paper.

    kept: tokens that stay. page: of these, so many share the extremes of their components.
    rank: components of the query that are looked at.
    """

    kept: int
    page: int
    rank: int

    @staticmethod
    def of(tokens: int, budget: int, dim: int) -> Split:
        # The paper's token budget is what a step reads: half of it are the tokens attended.
        read = min(tokens, 2 * budget)
        ratio = tokens / read
        kept = int(tokens / ratio ** min(0.2 + 0.06 * math.log2(ratio), 0.8))
        second = max(1.0, kept / read)
        page = min(math.floor(second), math.ceil(math.sqrt(second)))
        return Split(kept, page, min(dim, max(1, round(dim * page / second))))


@dataclass(frozen=True)
class RocketKV(Policy):
    """What SnapKV would keep of a larger budget, pooled over 63 neighbours, and of these tokens
    the best for each query by bounds of small pages in the query's largest components.

    The question is read with full attention, as SnapKV's is. A group shares its tokens.
    """

    family = "rocketkv"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        return _RocketLayer(prompt, static.indexed(prompt.tokens), self.budget)


class _RocketLayer(ObservingLayer):
    def __init__(self, prompt: LayerPrompt, indexed: slice, budget: int) -> None:
        super().__init__(prompt, indexed)
        self._keys = prompt.keys[:, indexed]
        self._budget = budget

    def keep(self) -> LayerPolicy:
        tokens, dim = self._keys.shape[1:]
        split = Split.of(tokens, self._budget, dim)
        kept = self.pooled(POOLING).topk(min(split.kept, tokens), dim=-1).indices.sort().values
        return HybridLayer(self._indexed, self._keys, kept, split, self._budget)


class HybridLayer(LayerPolicy):
    """The second stage, of kept tokens [Hkv, m] counted from the first indexed one."""

    def __init__(self, indexed: slice, keys: Tensor, kept: Tensor, split: Split, k: int) -> None:
        self._indexed = indexed
        self._kept = kept
        self._split = split
        self._k = k
        own = keys.gather(1, kept[..., None].expand(-1, -1, keys.shape[-1]))
        missing = -own.shape[1] % split.page
        # Repeating the last key of a page that is not full leaves its extremes.
        own = torch.cat([own, own[:, -1:].expand(-1, missing, -1)], 1)
        pages = own.unflatten(1, (-1, split.page))
        self._lows, self._highs = pages.amin(2), pages.amax(2)

    def scores(self, block: Block) -> Tensor:
        """What each kept token's page promises the group, [Hkv, 1, q, m]."""
        size = block.queries.abs()
        rank = self._split.rank
        largest = size.mean(1, keepdim=True).topk(rank, dim=-1).indices
        kept = block.queries * mask_of(largest, size.shape[-1])
        # The group as a whole says of each component whether a page's high or low counts.
        up = block.queries.sum(1, keepdim=True) > 0
        bound = logits_of(kept * up, self._highs) + logits_of(kept * ~up, self._lows)
        coverage = (kept.abs().sum(-1) / size.sum(-1).clamp(min=1e-20)).clamp(min=1e-20)
        bound = bound * block.scale / coverage.sqrt()[..., None]
        by_token = bound.repeat_interleave(self._split.page, -1)[..., : self._kept.shape[1]]
        return by_token.softmax(-1).mean(1, keepdim=True)

    def attend(self, block: Block) -> Attended:
        scores = self.scores(block)
        best = top_mask(scores, self._k)
        chosen = torch.zeros(
            *scores.shape[:3], self._indexed.stop - self._indexed.start, dtype=torch.bool
        )
        kept = self._kept[:, None, None].expand(*scores.shape)
        chosen.scatter_(-1, kept, best)
        # Of each page one of the two extremes, in the components that are looked at.
        read = 2.0 * self._highs.shape[1] * self._split.rank
        return attend_chosen(block, self._indexed, chosen, read_to_choose=read)
