"""Full attention, and the best keys by their true logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..block import Attended, Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .top import top_mask


@dataclass(frozen=True)
class Full(Policy):
    """Full attention: what the others are compared with."""

    family = "full"
    budget: int = 0

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        return _FullLayer(static.indexed(prompt.tokens))


class _FullLayer(LayerPolicy):
    def __init__(self, indexed: slice) -> None:
        self._indexed = indexed

    def attend(self, block: Block) -> Attended:
        return attend_all(block, self._indexed)


def attend_all(block: Block, indexed: slice) -> Attended:
    """Full attention of a block."""
    vectors = indexed.stop - indexed.start
    row = 2 * (block.keys.shape[-1] + block.values.shape[-1])
    return Attended(block.full, vectors, vectors * row, torch.ones_like(block.log_sum))


@dataclass(frozen=True)
class OracleTopK(Policy):
    """The `budget` indexed keys of the largest logits, by a full scan in float32.

    What exact retrieval of a fixed number of keys can reach at most.
    """

    family = "oracle"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        return _OracleLayer(static.indexed(prompt.tokens), self.budget)


class _OracleLayer(LayerPolicy):
    def __init__(self, indexed: slice, k: int) -> None:
        self._indexed = indexed
        self._k = k

    def attend(self, block: Block) -> Attended:
        chosen = top_mask(block.logits[..., self._indexed], self._k)
        scan = 2 * chosen.shape[-1] * block.keys.shape[-1]
        return attend_chosen(block, self._indexed, chosen, read_to_choose=scan)
