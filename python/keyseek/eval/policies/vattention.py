"""vAttention: the best keys, and a sample that is as large as it must be (arXiv 2510.05688)."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from ..block import Attended, Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .top import top_mask

HEAVY = 0.02  # of the indexed keys, those of the largest logits
BASE = 0.02  # of the rest, sampled to learn how much the sample varies


@dataclass(frozen=True)
class VAttention(Policy):
    """As many sampled keys as keep the softmax's denominator within `error` of what it is, with
    probability 1 - `error` by the central limit theorem. So it sets its own budget.

    The heavy keys are those of the true logits, as in the paper's oracle; what finding them reads
    is counted.
    """

    family = "vattention"
    budget: int = 0
    error: float = 0.1

    @property
    def kind(self) -> str:
        return f"{self.family}-{self.error:g}"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        return VAttentionLayer(static.indexed(prompt.tokens), self.error, prompt.layer)


class VAttentionLayer(LayerPolicy):
    def __init__(self, indexed: slice, error: float, seed: int) -> None:
        self._indexed = indexed
        self._error = error
        self._draw = torch.Generator().manual_seed(seed)

    def attend(self, block: Block) -> Attended:
        n = self._indexed.stop - self._indexed.start
        weights = block.weights[..., self._indexed]
        heavy = top_mask(weights, max(1, int(HEAVY * n)))
        rest = n - int(heavy[0, 0, 0].sum())
        # Sampled is who comes first in a random order; heavy keys come last.
        lot = torch.rand(heavy.shape, generator=self._draw).masked_fill(heavy, 2)
        order = lot.argsort(-1)
        base = min(rest, max(2, int(BASE * rest)))
        size = self.sample_size(block, weights, heavy, order[..., :base], rest)
        place = torch.empty_like(order).scatter_(
            -1, order, torch.arange(n).expand_as(order).contiguous()
        )
        sampled = (place < size[..., None]) & ~heavy
        stand_for = torch.where(sampled, rest / size[..., None], 1.0)
        scan = 2.0 * n * block.keys.shape[-1]
        return attend_chosen(
            block, self._indexed, heavy | sampled, read_to_choose=scan, stand_for=stand_for
        )

    def sample_size(
        self, block: Block, weights: Tensor, heavy: Tensor, base: Tensor, rest: int
    ) -> Tensor:
        """How many of the rest are sampled for each query, [Hkv, G, q]; base: ids [..., b]."""
        seen = weights.gather(-1, base)
        indexed_mass = weights.sum(-1)
        exact = 1 - indexed_mass + (weights * heavy).sum(-1)
        total = exact + rest * seen.mean(-1)
        deviations = NormalDist().inv_cdf(1 - self._error / 2)
        needed = (deviations * seen.std(-1) * rest / (self._error * total)) ** 2
        return needed.ceil().clamp(min=base.shape[-1], max=rest)
