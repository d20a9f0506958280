"""Double Sparsity: a few fixed channels of the keys, in 4 bits (arXiv 2408.07092)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..block import Block, Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .groups import in_groups
from .scored import ScoredLayer, logits_of

SHARE = 16  # one channel of sixteen is looked at
BITS = 4


@dataclass(frozen=True)
class DoubleSparsity(Policy):
    """The keys that are best in the channels where queries times keys are largest.

    Which channels is found from the prompt, where the paper takes a text for calibration: the
    largest mean |q_c k_c| of tokens that attend to themselves. The label cache holds 4 bits of
    each, with a scale and an offset per token. Heads of a group share the channels, as keys are.
    """

    family = "double-sparsity"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        count = max(1, prompt.keys.shape[-1] // SHARE)
        channels = heavy_channels(prompt)[:, :count]
        return DoubleSparsityLayer(
            static.indexed(prompt.tokens), self.budget, prompt.keys, channels
        )


def heavy_channels(prompt: LayerPrompt) -> Tensor:
    """All channels, the heaviest first: [Hkv, d]."""
    weight = (prompt.queries * prompt.keys[:, None]).abs().mean((1, 2))
    return weight.argsort(dim=-1, descending=True, stable=True)


class DoubleSparsityLayer(ScoredLayer):
    def __init__(self, indexed: slice, k: int, keys: Tensor, channels: Tensor) -> None:
        super().__init__(indexed, k)
        self._channels = channels
        own = channels[:, None].expand(-1, indexed.stop - indexed.start, -1)
        labels = keys[:, indexed].gather(-1, own)
        self._labels = in_groups(labels, BITS, channels.shape[1])

    def scores(self, block: Block) -> Tensor:
        channels = self._channels[:, None, None].expand(*block.queries.shape[:3], -1)
        return logits_of(block.queries.gather(-1, channels), self._labels)

    @property
    def bytes_scored(self) -> float:
        tokens, channels = self._labels.shape[1:]
        return tokens * (channels * BITS / 8 + 4)
