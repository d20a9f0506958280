"""Policies that choose once and drop the rest."""

from __future__ import annotations

from torch import Tensor

from ..block import Attended, Block, attend_chosen
from .base import LayerPolicy


class FixedLayer(LayerPolicy):
    """The same indexed tokens for all queries of a KV head; chosen: bool [Hkv, indexed tokens]."""

    def __init__(self, indexed: slice, chosen: Tensor) -> None:
        self._indexed = indexed
        self._chosen = chosen[:, None, None]

    def attend(self, block: Block) -> Attended:
        return attend_chosen(block, self._indexed, self._chosen)
