"""MagicPIG: a sample drawn by hash tables (arXiv 2410.16179)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..block import Attended, Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .scored import logits_of

BITS = 10  # of a hash
MOST_TABLES = 300
OBSERVED = 32  # of the prompt's last queries, which say how many tables a budget has room for
LEAST_CHANCE = 1e-4  # added to a chance before it divides


@dataclass(frozen=True)
class MagicPIG(Policy):
    """The keys that fall into a query's bucket in two tables at least, each for 1 / its chance.

    Signs of random projections of 10 bits; keys are centred. The paper's 150 tables leave the
    number sampled to the data: here there are as many, up to 300, as keep the expected number
    within the budget for the prompt's last queries. Each query head samples for itself. The paper
    leaves two layers dense; here none is, as for every policy.
    """

    family = "magicpig"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        keys = prompt.keys[:, indexed]
        centred = keys - keys.mean(1, keepdim=True)
        tables = tables_for(self.budget, match(prompt.queries[:, :, -OBSERVED:], centred))
        return MagicPIGLayer(indexed, centred, tables, prompt.layer)


def match(queries: Tensor, centred: Tensor) -> Tensor:
    """The chance that one bit of a query and a key agrees: [Hkv, G, q, n]."""
    norms = queries.norm(dim=-1)[..., None] * centred.norm(dim=-1)[:, None, None]
    cosine = logits_of(queries, centred) / norms.clamp(min=1e-20)
    agree: Tensor = 1 - cosine.clamp(-1, 1).arccos() / torch.pi
    return agree


def chance(bit: Tensor, tables: int) -> Tensor:
    """That two or more of `tables` hashes agree, from the chance that a bit does."""
    one = bit**BITS
    return 1 - (1 - one) ** tables - tables * one * (1 - one) ** (tables - 1)


def tables_for(budget: int, bit: Tensor) -> int:
    """The most tables whose expected sample is within the budget, at least two."""
    low, high = 2, MOST_TABLES
    while low < high:
        middle = (low + high + 1) // 2
        if chance(bit, middle).sum(-1).mean() <= budget:
            low = middle
        else:
            high = middle - 1
    return low


class MagicPIGLayer(LayerPolicy):
    def __init__(self, indexed: slice, centred: Tensor, tables: int, seed: int) -> None:
        self._indexed = indexed
        self._centred = centred
        self._tables = tables
        draw = torch.Generator().manual_seed(seed)
        self._planes = torch.randn(centred.shape[-1], tables * BITS, generator=draw)
        self._codes = self._hash(centred).permute(2, 0, 1).contiguous()  # [tables, Hkv, n]

    def _hash(self, rows: Tensor) -> Tensor:
        bits = (rows @ self._planes > 0).unflatten(-1, (self._tables, BITS))
        codes: Tensor = (bits * (1 << torch.arange(BITS))).sum(-1).short()
        return codes

    def collisions(self, queries: Tensor) -> Tensor:
        """In how many tables each key shares the query's bucket: [Hkv, G, q, n]."""
        count = torch.zeros(*queries.shape[:3], self._codes.shape[2], dtype=torch.short)
        asked = self._hash(queries)
        for table in range(self._tables):
            count += asked[..., table, None] == self._codes[table][:, None, None]
        return count

    def attend(self, block: Block) -> Attended:
        collisions = self.collisions(block.queries)
        chosen = collisions >= 2
        share = chance(match(block.queries, self._centred), self._tables) + LEAST_CHANCE
        # A bucket holds the numbers of its keys, four bytes each; each head looks into its own.
        steps = block.queries.shape[0] * block.queries.shape[2]
        read = 4.0 * collisions.sum().item() / steps
        return attend_chosen(block, self._indexed, chosen, read_to_choose=read, stand_for=1 / share)
