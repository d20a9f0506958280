"""Loki: scores in the leading directions of the keys (arXiv 2406.02542)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..block import Block, Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .scored import ScoredLayer, logits_of

SHARE = 4  # a quarter of the directions is looked at


@dataclass(frozen=True)
class Loki(Policy):
    """The keys that are best in the directions in which keys vary most.

    The directions are those of the prompt's own keys after rotation; the paper takes them from a
    text for calibration. Every query head chooses for itself.
    """

    family = "loki"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        rank = max(1, prompt.keys.shape[-1] // SHARE)
        directions = prompt.once("key directions", key_directions)[..., :rank]
        return LokiLayer(static.indexed(prompt.tokens), self.budget, prompt.keys, directions)


def key_directions(prompt: LayerPrompt) -> Tensor:
    """Principal components of the keys, the leading first, as columns: [Hkv, d, d]."""
    centred = prompt.keys - prompt.keys.mean(1, keepdim=True)
    vectors: Tensor = torch.linalg.eigh(centred.transpose(1, 2) @ centred).eigenvectors
    return vectors.flip(-1)


class LokiLayer(ScoredLayer):
    def __init__(self, indexed: slice, k: int, keys: Tensor, directions: Tensor) -> None:
        super().__init__(indexed, k)
        self._directions = directions
        self._keys = keys[:, indexed] @ directions

    def scores(self, block: Block) -> Tensor:
        return logits_of(block.queries @ self._directions[:, None], self._keys)

    @property
    def bytes_scored(self) -> float:
        return 2.0 * self._keys[0].numel()
