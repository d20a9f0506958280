"""StreamingLLM: attention sinks and a longer window (arXiv 2309.17453)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..block import Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .fixed import FixedLayer


@dataclass(frozen=True)
class Streaming(Policy):
    """The sink and the newest tokens: the budget lengthens the window."""

    family = "streaming"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        chosen = torch.zeros(indexed.stop - indexed.start, dtype=torch.bool)
        chosen[max(0, len(chosen) - self.budget) :] = True
        return FixedLayer(indexed, chosen.expand(prompt.keys.shape[0], -1))
