"""Policies that choose by cheap scores of all keys, and attend exactly what they chose."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from ..block import Attended, Block, attend_chosen
from .base import LayerPolicy
from .top import top_mask


class ScoredLayer(LayerPolicy):
    """The k indexed keys of the best scores."""

    def __init__(self, indexed: slice, k: int) -> None:
        self._indexed = indexed
        self._k = k

    @abstractmethod
    def scores(self, block: Block) -> Tensor:
        """[Hkv, G or 1, q, indexed tokens]; only their order matters."""

    @property
    @abstractmethod
    def bytes_scored(self) -> float:
        """What scores read per step and KV head."""

    def attend(self, block: Block) -> Attended:
        chosen = top_mask(self.scores(block), self._k)
        return attend_chosen(block, self._indexed, chosen, read_to_choose=self.bytes_scored)


def logits_of(queries: Tensor, keys: Tensor) -> Tensor:
    """Inner products of queries [Hkv, G, q, d] with keys [Hkv, n, d]: [Hkv, G, q, n]."""
    heads, group, count, dim = queries.shape
    flat = queries.reshape(heads, group * count, dim)
    return (flat @ keys.transpose(1, 2)).view(heads, group, count, -1)
