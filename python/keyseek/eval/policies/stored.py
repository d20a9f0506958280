"""Caches of all tokens in few bits: the indexed keys and values are not what they were."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from ..block import Attended, Block, Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .groups import bytes_per_number, in_groups


class StoredLayer(LayerPolicy):
    """Full attention with other keys [Hkv, n, d] and values of the indexed tokens. Static tokens
    and what is decoded are as they were, in 16 bits. row: bytes of a token's key and value."""

    def __init__(self, indexed: slice, keys: Tensor, values: Tensor, row: float) -> None:
        self._indexed = indexed
        self._keys = keys
        self._values = values
        self._row = row

    def attend(self, block: Block) -> Attended:
        keys, values = block.keys.clone(), block.values.clone()
        keys[:, self._indexed], values[:, self._indexed] = self._keys, self._values
        count = self._keys.shape[1]
        return Attended(replace(block, keys=keys, values=values).full, count, count * self._row)


@dataclass(frozen=True)
class _StoredInBits(Policy):
    """A cache that keeps every indexed token, so many bits a component."""

    bits: int

    @property
    def kind(self) -> str:
        return f"{self.family}-{self.bits}bit"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        keys, values = prompt.keys[:, indexed], prompt.values[:, indexed]
        return StoredLayer(indexed, *self.store(keys, values, prompt.layer))

    @abstractmethod
    def store(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor, float]:
        """What is read back of them, and the bytes of a token's key and value."""


@dataclass(frozen=True)
class FlexGen(_StoredInBits):
    """FlexGen's cache (arXiv 2303.06865): keys and values of every token in groups of 64
    neighbouring components, 4 bits each."""

    family = "flexgen"
    budget: int = 0
    bits: int = 4
    group: int = 64

    def store(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor, float]:
        row = sum(
            rows.shape[-1] * bytes_per_number(self.bits, min(self.group, rows.shape[-1]))
            for rows in (keys, values)
        )
        stored_keys, stored_values = (
            in_groups(rows, self.bits, self.group) for rows in (keys, values)
        )
        return stored_keys, stored_values, row


@dataclass(frozen=True)
class Kivi(_StoredInBits):
    """KIVI's cache (arXiv 2402.02750): keys in groups of 32 tokens of one channel, values in groups
    of 32 channels of one token. Its residual of 128 tokens in full precision is the window."""

    family = "kivi"
    budget: int = 0
    bits: int = 2
    group: int = 32

    def store(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor, float]:
        by_channel = in_groups(keys.transpose(1, 2), self.bits, self.group).transpose(1, 2)
        by_token = in_groups(values, self.bits, self.group)
        each = bytes_per_number(self.bits, self.group)
        row = (keys.shape[-1] + values.shape[-1]) * each
        return by_channel, by_token, row


@dataclass(frozen=True)
class TurboQuant(_StoredInBits):
    """TurboQuant's cache (arXiv 2504.19874): a random rotation makes components alike, which are
    rounded to the best levels for a normal distribution.

    Values take all bits for that; keys one less, and the signs of a random projection of what is
    left, which makes their logits right on average. The paper's 2.5 and 3.5 bits are a mixture for
    outlier channels; here all channels have the same number.
    """

    family = "turboquant"
    budget: int = 0
    bits: int = 3

    def store(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor, float]:
        draw = torch.Generator().manual_seed(layer)
        stored_keys = unbiased(keys, self.bits, draw)
        stored_values = rotated(values, self.bits, draw)
        # Norms: of a key, of what is left of it, and of a value.
        row = (keys.shape[-1] + values.shape[-1]) * self.bits / 8 + 3 * 2
        return stored_keys, stored_values, row


def rotated(rows: Tensor, bits: int, draw: torch.Generator) -> Tensor:
    """What is read back of rows [..., d], each component of a random rotation in `bits` bits."""
    dim = rows.shape[-1]
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=draw)).Q
    norms = rows.norm(dim=-1, keepdim=True).clamp(min=1e-20)
    normal = rows / norms @ turn * dim**0.5
    levels = normal_levels(bits)
    codes = torch.bucketize(normal, (levels[1:] + levels[:-1]) / 2)
    back: Tensor = levels[codes] @ turn.T * norms / dim**0.5
    return back


def unbiased(rows: Tensor, bits: int, draw: torch.Generator) -> Tensor:
    """As rotated, with one of the bits a sign of a random projection of the rest."""
    coarse = rotated(rows, bits - 1, draw)
    rest = rows - coarse
    dim = rows.shape[-1]
    plane = torch.randn(dim, dim, generator=draw)
    signs = (rest @ plane >= 0) * 2.0 - 1
    scale = (torch.pi / 2) ** 0.5 / dim
    fine: Tensor = scale * rest.norm(dim=-1, keepdim=True) * (signs @ plane.T)
    return coarse + fine


@cache
def normal_levels(bits: int) -> Tensor:
    """The 2^bits levels that a standard normal number is best rounded to (Lloyd and Max)."""
    grid = torch.linspace(-6, 6, 6001, dtype=torch.float64)
    density = (-(grid**2) / 2).exp()
    count = 2**bits
    levels = torch.linspace(-1, 1, count, dtype=torch.float64) * min(3, bits)
    for _ in range(200):
        cell = torch.bucketize(grid, (levels[1:] + levels[:-1]) / 2)
        weight = torch.zeros(count, dtype=torch.float64).index_add_(0, cell, density)
        levels = (
            torch.zeros(count, dtype=torch.float64).index_add_(0, cell, density * grid) / weight
        )
    return levels.float()
