"""keyseek's HeadCache as a policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..._core import HeadCache, step_heads
from ..block import Attended, Block, Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy

# The newest part of a prompt whose queries train index and tail, as keyseek.hf keeps it.
_KEPT_SHARE = 0.2
_KEPT_LEAST = 1024


@dataclass(frozen=True)
class Keyseek(Policy):
    """Retrieval and the trained tail, as a HeadCache plans them or is told to.

    options: of HeadCache.prefill, beyond those that the prompt gives. label: the policy's name.
    """

    family = "keyseek"
    label: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.label

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        kept = max(_KEPT_LEAST, int(_KEPT_SHARE * prompt.tokens))
        queries = prompt.queries[:, :, -kept:].transpose(1, 2)  # [Hkv, p, G, d]
        return KeyseekLayer(
            [
                HeadCache.prefill(
                    keys.half().contiguous(),
                    values.half().contiguous(),
                    rows(own),
                    own.shape[1],
                    scale=prompt.scale,
                    sink=static.sink,
                    window=static.window,
                    threads=torch.get_num_threads(),
                    **prompt.rotary,
                    **self.options,
                )
                for keys, values, own in zip(prompt.keys, prompt.values, queries, strict=True)
            ]
        )


class KeyseekLayer(LayerPolicy):
    def __init__(self, heads: list[HeadCache]) -> None:
        self.heads = heads

    def fork(self) -> LayerPolicy:
        return KeyseekLayer([head.copy() for head in self.heads])

    def attend(self, block: Block) -> Attended:
        heads, group, count, _ = block.queries.shape
        first = block.keys.shape[1] - count
        steps, vectors, read = [], 0.0, 0.0
        for t in range(count):
            out = step_heads(
                self.heads,
                rows(block.queries[:, :, t]),
                rows(block.keys[:, first + t]),
                rows(block.values[:, first + t]),
                threads=min(torch.get_num_threads(), heads),
            )
            steps.append(torch.from_numpy(out).view(heads, group, -1))
            vectors += sum(map(_vectors, self.heads)) / heads
            read += sum(map(_bytes, self.heads)) / heads
        return Attended(torch.stack(steps, dim=2), vectors / count, read / count)


def _vectors(head: HeadCache) -> float:
    """Attended per query in the last step, beyond the static tokens."""
    if head.plan.retriever == "everything":
        return head.indexed
    return head.stats.retrieved / head.group + head.plan.tail_vectors


def _bytes(head: HeadCache) -> float:
    if head.plan.retriever == "everything":
        return 2.0 * head.indexed * (head.dim + head.value_dim)
    return head.stats.bytes_read


def rows(states: Tensor) -> Tensor:
    """[..., d] as float32 rows [m, d]."""
    return states.reshape(-1, states.shape[-1]).float().contiguous()
