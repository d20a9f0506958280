"""InfiniGen: keys chosen a layer ahead (arXiv 2406.19707)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..block import Attended, Block, Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .scored import ScoredLayer, logits_of

SHARE = 0.3  # of the skewed columns that are looked at


@dataclass(frozen=True)
class InfiniGen(Policy):
    """The keys that are best for the queries which this layer would make of the input of the layer
    before, in the 30 % of skewed columns that weigh most.

    Queries and keys are skewed by the singular vectors of the prompt's queries, after rotation (the
    paper: of a sample text's), the same for the heads of a group. The budget says how many keys,
    not a threshold below the best. The first layer has none before it and uses its own queries.
    """

    family = "infinigen"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        skewed = prompt.once("skewed columns", skewed_columns)
        return InfiniGenLayer(static.indexed(prompt.tokens), self.budget, prompt.keys, skewed)


def skewed_columns(prompt: LayerPrompt) -> Tensor:
    """The directions that are looked at, as columns: [Hkv, d, 30 % of d]."""
    queries = prompt.queries.flatten(1, 2)
    # The right singular vectors are the eigenvectors of the Gram matrix.
    skew: Tensor = torch.linalg.eigh(queries.transpose(1, 2) @ queries).eigenvectors
    weight = (queries @ skew).abs().sum(1) + (prompt.keys @ skew).abs().sum(1)
    count = max(1, int(SHARE * skew.shape[-1]))
    best = weight.topk(count, dim=-1).indices
    return skew.gather(-1, best[:, None].expand(-1, skew.shape[1], -1))


class InfiniGenLayer(ScoredLayer):
    looks_ahead = True

    def __init__(self, indexed: slice, k: int, keys: Tensor, columns: Tensor) -> None:
        super().__init__(indexed, k)
        self._columns = columns
        self._keys = keys[:, indexed] @ columns
        self._foreseen: Tensor | None = None

    def foresee(self, queries: Tensor) -> None:
        self._foreseen = queries

    def scores(self, block: Block) -> Tensor:
        queries = block.queries if self._foreseen is None else self._foreseen
        return logits_of(queries @ self._columns[:, None], self._keys)

    @property
    def bytes_scored(self) -> float:
        return 2.0 * self._keys[0].numel()

    def attend(self, block: Block) -> Attended:
        attended = super().attend(block)
        self._foreseen = None
        return attended
