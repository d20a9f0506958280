"""PyramidKV: SnapKV with more for the lower layers (arXiv 2406.02069)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..block import Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .snapkv import SnapKV

BETA = 20  # the last layer has this share of the mean


@dataclass(frozen=True)
class PyramidKV(Policy):
    """What SnapKV keeps, in numbers that fall in equal steps from the first layer to the last.

    Their mean is the budget. Observation window and pooling are SnapKV's.
    """

    family = "pyramidkv"

    def by_layer(self, prompts: Mapping[int, LayerPrompt], static: Static) -> Mapping[int, Policy]:
        if not prompts:
            return {}
        indexed = static.indexed(next(iter(prompts.values())).tokens)
        budgets = pyramid(self.budget, len(prompts), indexed.stop - indexed.start)
        return {
            layer: SnapKV(budget) for layer, budget in zip(sorted(prompts), budgets, strict=True)
        }

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        return SnapKV(self.budget).prepare(prompt, static)


def pyramid(budget: int, layers: int, tokens: int) -> list[int]:
    """Budgets of the layers, the first first; none is above `tokens`."""
    least = budget / BETA
    most = 2 * budget - least
    if most > tokens:
        most, least = tokens, max(0, 2 * budget - tokens)
    step = (most - least) / max(1, layers - 1)
    return [round(most - step * i) for i in range(layers)] if layers > 1 else [budget]
