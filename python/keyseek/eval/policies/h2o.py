"""H2O: heavy hitters (arXiv 2306.14048)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..block import Block, Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .fixed import FixedLayer
from .top import top_mask

PIECE = 64  # queries at once


@dataclass(frozen=True)
class H2O(Policy):
    """The indexed tokens that received most attention from all queries of the prompt.

    Accumulated over the whole prompt, block by block, and over the heads of a group, which share
    what is kept. The recent half of the paper's cache is the window and what was decoded.
    """

    family = "h2o"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        hit = prompt.once("h2o", received)
        return FixedLayer(indexed, top_mask(hit[:, indexed], self.budget))


def received(prompt: LayerPrompt) -> Tensor:
    """Attention that each token got from all queries of its group, summed: [Hkv, n]."""
    total = torch.zeros(prompt.keys.shape[:2])
    for begin in range(0, prompt.tokens, PIECE):
        end = min(begin + PIECE, prompt.tokens)
        queries = prompt.queries[:, :, begin:end]
        block = Block(queries, prompt.keys[:, :end], prompt.values[:, :end], end, prompt.scale)
        total[:, :end] += block.weights.sum((1, 2))
    return total
