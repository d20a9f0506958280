"""SnapKV: the question says which tokens of the prompt stay (arXiv 2404.14469)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

from ..block import Attended, Block, Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .exact import attend_all
from .fixed import FixedLayer
from .top import top_mask

OBSERVED = 32  # queries in the observation window
POOLING = 7  # neighbours that share the largest attention among them


@dataclass(frozen=True)
class SnapKV(Policy):
    """The indexed tokens that the last queries before the answer attend to most, pooled.

    The question is read with full attention, as the end of a prompt is in the paper, and so is what
    it says of the answer's first token; its queries, and the document's last ones where it is
    short, are the observation window. Settings are the paper's for long documents. A group's heads
    share what is kept: their attention is summed.
    """

    family = "snapkv"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        return _SnapLayer(prompt, static.indexed(prompt.tokens), self.budget)


class ObservingLayer(LayerPolicy):
    """Reads the question with full attention, and chooses what stays when the answer begins."""

    def __init__(self, prompt: LayerPrompt, indexed: slice) -> None:
        self._indexed = indexed
        self._received = _received(prompt, indexed)
        self._kept: LayerPolicy | None = None

    @abstractmethod
    def keep(self) -> LayerPolicy:
        """What decodes the answer."""

    def pooled(self, size: int) -> Tensor:
        """What the observed queries gave to each indexed token or one of its `size` neighbours,
        summed over queries and group: [Hkv, n]."""
        return max_pool1d(self._received.sum(1), size, stride=1, padding=size // 2)

    def attend(self, block: Block) -> Attended:
        if self._kept is not None:
            return self._kept.attend(block)
        weights = block.weights[..., self._indexed].sum(1)
        self._received = torch.cat([self._received, weights], 1)[:, -OBSERVED:]
        return attend_all(block, self._indexed)

    def begin_answer(self) -> None:
        self._kept = self.keep()


class _SnapLayer(ObservingLayer):
    def __init__(self, prompt: LayerPrompt, indexed: slice, budget: int) -> None:
        super().__init__(prompt, indexed)
        self._budget = budget

    def keep(self) -> LayerPolicy:
        return FixedLayer(self._indexed, top_mask(self.pooled(POOLING), self._budget))


def _received(prompt: LayerPrompt, indexed: slice) -> Tensor:
    """What the prompt's last queries give to indexed tokens, summed over the group: [Hkv, q, n]."""
    last = prompt.queries[:, :, -OBSERVED:]
    end = Block(last, prompt.keys, prompt.values, prompt.tokens, prompt.scale)
    return end.weights[..., indexed].sum(1)
