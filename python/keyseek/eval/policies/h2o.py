"""H2O: heavy hitters (arXiv 2306.14048)."""

from __future__ import annotations

from dataclasses import dataclass

from ..block import Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .fixed import FixedLayer
from .top import top_mask


@dataclass(frozen=True)
class H2O(Policy):
    """The indexed tokens that received most attention from all queries of the prompt.

    Accumulated over the whole prompt, block by block, and over the heads of a group, which share
    what is kept. The recent half of the paper's cache is the window and what was decoded.
    """

    family = "h2o"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        return FixedLayer(indexed, top_mask(prompt.received[:, indexed], self.budget))
