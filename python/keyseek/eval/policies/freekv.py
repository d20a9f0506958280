"""FreeKV: the pages that the query before wanted (arXiv 2505.13109)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..block import Attended, Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .quest import Pages
from .top import top_mask

TOKENS = 32  # of a page
SIMILAR = 0.8  # below this cosine to the query before, a KV head chooses anew


@dataclass(frozen=True)
class FreeKV(Policy):
    """Pages are chosen by Quest's bound for the step before, so that they can be fetched ahead; a
    KV head whose queries moved too far chooses by the queries it has.

    Page size and threshold are the paper's for long prompts. A group shares its pages: the softmax
    of the bounds is averaged over it, and so is the similarity.
    """

    family = "freekv"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        count = max(1, self.budget // TOKENS)
        return FreeKVLayer(indexed, prompt.keys[:, indexed], prompt.queries[:, :, -1:], count)


class FreeKVLayer(LayerPolicy):
    """before: the queries of the last step, [Hkv, G, 1, d]."""

    def __init__(self, indexed: slice, keys: Tensor, before: Tensor, count: int) -> None:
        self._indexed = indexed
        self._pages = Pages.of(keys, TOKENS)
        self._before = before
        self._count = count

    def asking(self, queries: Tensor) -> Tensor:
        """The queries [Hkv, G, q, d] by which the pages of each step are chosen."""
        before = torch.cat([self._before, queries[:, :, :-1]], 2)
        moved = cosine_similarity(queries, before, dim=-1).mean(1, keepdim=True) < SIMILAR
        return queries.where(moved[..., None], before)

    def attend(self, block: Block) -> Attended:
        bounds = self._pages.bounds(self.asking(block.queries)) * block.scale
        self._before = block.queries[:, :, -1:]
        pages = top_mask(bounds.softmax(-1).mean(1, keepdim=True), self._count)
        chosen = self._pages.tokens_of(pages)
        return attend_chosen(block, self._indexed, chosen, read_to_choose=self._pages.bytes)
