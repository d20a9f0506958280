"""DuoAttention: heads that retrieve and heads that do not (arXiv 2410.10819)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..block import Block, Static, attend_chosen
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .fixed import FixedLayer

OBSERVED = 64  # of the prompt's last queries, on which heads are judged


@dataclass(frozen=True)
class DuoAttention(Policy):
    """Some KV heads attend to everything, the others to static tokens alone.

    Which of them retrieve is found from the prompt, not by training as in the paper: those whose
    output the prompt's last queries would change most without the indexed tokens. As many as the
    budget has room for on average, over all layers.
    """

    family = "duoattention"

    def by_layer(self, prompts: Mapping[int, LayerPrompt], static: Static) -> Mapping[int, Policy]:
        if not prompts:
            return {}
        some = next(iter(prompts.values()))
        indexed = static.indexed(some.tokens)
        heads = sum(prompt.keys.shape[0] for prompt in prompts.values())
        count = self.retrieving(heads, indexed.stop - indexed.start)
        return retrieval_heads(prompts, static, count)

    def retrieving(self, heads: int, indexed: int) -> int:
        """How many of all KV heads retrieve."""
        return min(heads, self.budget * heads // indexed)

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        return self.by_layer({prompt.layer: prompt}, static)[prompt.layer].prepare(prompt, static)


@dataclass(frozen=True)
class DuoShare(DuoAttention):
    """The paper's setting: a given share of the heads retrieves, whatever that reads."""

    budget: int = 0
    share: float = 0.5

    @property
    def kind(self) -> str:
        return f"{self.family}-{self.share:g}"

    def retrieving(self, heads: int, indexed: int) -> int:
        return round(self.share * heads)


@dataclass(frozen=True)
class TwoKinds(Policy):
    """One layer: the KV heads that retrieve."""

    family = "two-kinds"
    budget: int = 0
    retrieve: tuple[bool, ...] = ()

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        chosen = torch.tensor(self.retrieve)[:, None]
        return FixedLayer(indexed, chosen.expand(-1, indexed.stop - indexed.start))


def retrieval_heads(
    prompts: Mapping[int, LayerPrompt], static: Static, count: int
) -> dict[int, Policy]:
    """The `count` KV heads of all layers that need the indexed tokens most."""
    needs = {
        i: prompt.once(f"needs {static}", lambda p: need(p, static))
        for i, prompt in prompts.items()
    }
    ranked = sorted(
        (
            (float(-value), layer, head)
            for layer, own in needs.items()
            for head, value in enumerate(own)
        )
    )
    best = {(layer, head) for _, layer, head in ranked[:count]}
    return {
        layer: TwoKinds(retrieve=tuple((layer, head) in best for head in range(len(own))))
        for layer, own in needs.items()
    }


def need(prompt: LayerPrompt, static: Static) -> Tensor:
    """The relative error of each KV head's output without the indexed tokens, over the prompt's
    last queries and the heads of its group: [Hkv]."""
    last = prompt.queries[:, :, -OBSERVED:]
    block = Block(last, prompt.keys, prompt.values, prompt.tokens, prompt.scale)
    indexed = static.indexed(prompt.tokens)
    nothing = torch.zeros(1, 1, 1, indexed.stop - indexed.start, dtype=torch.bool)
    out = attend_chosen(block, indexed, nothing).out
    error = (out - block.full).norm(dim=-1) / block.full.norm(dim=-1).clamp(min=1e-20)
    # Where the static tokens' weights are nothing at all in float32, there is no output to compare.
    means: Tensor = error.nan_to_num(nan=torch.inf).mean((1, 2))
    return means
