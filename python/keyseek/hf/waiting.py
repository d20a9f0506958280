"""A request that attends to everything until it is long enough for a plan of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._core import HeadCache
from .arguments import AttentionCall
from .full import attend_newest
from .planning import LayerOptions, plan_heads
from .queries import PromptQueries


@dataclass(frozen=True)
class Waiting:
    """Its tokens that are there, without padding. Never changed: with more tokens it is another."""

    keys: Tensor  # [Hkv, n, d]
    values: Tensor  # [Hkv, n, dv]
    queries: PromptQueries  # [1, Hq, p, d] of its newest p positions

    def __len__(self) -> int:
        return self.keys.shape[1]

    def is_ready(self, options: LayerOptions) -> bool:
        return len(self) >= options.least_tokens and self.queries.suffice

    def why(self, options: LayerOptions) -> str:
        """What it waits for."""
        if len(self) < options.least_tokens:
            return f"there are {len(self)} tokens, from {options.least_tokens} on it is worth it"
        return "queries were taken back with the end of the text, others are waited for"

    def planned(
        self, options: LayerOptions, rotary: dict[str, Any], call: AttentionCall
    ) -> list[HeadCache]:
        states = self.keys.cpu(), self.values.cpu(), self.queries.joined()
        return plan_heads(options, rotary, call, *states)

    def attend(
        self, states: Sequence[Tensor], call: AttentionCall, options: LayerOptions
    ) -> tuple[Tensor, Waiting]:
        """Query [Hq, q, d], new key [Hkv, q, d] and value [Hkv, q, dv] -> [q, Hq, dv], each over
        all tokens up to its own; and the request with these tokens."""
        query, key, value = states
        keys, values = torch.cat([self.keys, key], 1), torch.cat([self.values, value], 1)
        queries = self.queries.copy()
        queries.add(query[None], options.params.plan_positions(keys.shape[1]))
        out = attend_newest(query[None], keys[None], values[None], call)[0]
        return out, Waiting(keys, values, queries)

    def first(self, tokens: int) -> Waiting:
        queries = self.queries.copy()
        queries.take_back(len(self) - tokens)
        return Waiting(self.keys[:, :tokens], self.values[:, :tokens], queries)
