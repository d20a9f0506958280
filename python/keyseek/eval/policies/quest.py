"""Quest: pages by an upper bound of their logits (arXiv 2406.10774)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..block import Attended, Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .scored import logits_of
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


@dataclass(frozen=True)
class Pages:
    """Smallest and largest component of the keys of each page: lows, highs [Hkv, pages, d].

    size: tokens of a page; count: of all pages, the last of which may have fewer.
    """

    lows: Tensor
    highs: Tensor
    size: int
    count: int

    @staticmethod
    def of(keys: Tensor, size: int) -> Pages:
        """Pages of neighbours among keys [Hkv, n, d]."""
        missing = -keys.shape[1] % size

        def pages(filling: float) -> Tensor:
            filled = pad(keys, (0, 0, 0, missing), value=filling)
            paged: Tensor = filled.unflatten(1, (-1, size))
            return paged

        return Pages(pages(torch.inf).amin(2), pages(-torch.inf).amax(2), size, keys.shape[1])

    def bounds(self, queries: Tensor) -> Tensor:
        """At least the largest q.k of each page, of queries [Hkv, G, q, d]: [Hkv, G, q, pages]."""
        high = logits_of(queries.clamp(min=0), self.highs)
        return high + logits_of(queries.clamp(max=0), self.lows)

    def tokens_of(self, pages: Tensor) -> Tensor:
        """A mask of pages [..., pages] as one of tokens."""
        return pages.repeat_interleave(self.size, -1)[..., : self.count]

    @property
    def bytes(self) -> float:
        """What looking at all pages reads per KV head."""
        return 2.0 * (self.lows[0].numel() + self.highs[0].numel())


class QuestLayer(LayerPolicy):
    def __init__(self, indexed: slice, keys: Tensor, count: int) -> None:
        self._indexed = indexed
        self._count = count
        self.pages = Pages.of(keys, TOKENS)

    def attend(self, block: Block) -> Attended:
        chosen = self.pages.tokens_of(top_mask(self.pages.bounds(block.queries), self._count))
        return attend_chosen(block, self._indexed, chosen, read_to_choose=self.pages.bytes)
