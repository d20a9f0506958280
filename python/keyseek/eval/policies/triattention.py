"""TriAttention: keys scored by where queries look before rotation (arXiv 2604.04921)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._core import rope_shift
from ...errors import InvalidArgument
from ..block import Static
from ..prompt import LayerPrompt
from .base import LayerPolicy, Policy
from .fixed import FixedLayer
from .top import top_mask

DISTANCES = tuple(2.0**i for i in range(17))  # 1 to 65,536 tokens ahead


@dataclass(frozen=True)
class TriAttention(Policy):
    """The keys that the mean query, turned to positions 1 to 65,536 ahead, would want most on
    average, and a term for how much queries scatter around that mean.

    Means are of the prompt's own queries before rotation, where the paper takes a text for
    calibration. Scores are standardised for each head, and a KV head keeps the best by the largest
    of its group. Chosen once, at the end of the prompt; the paper chooses again every 128 tokens.
    """

    family = "triattention"

    def prepare(self, prompt: LayerPrompt, static: Static) -> LayerPolicy:
        indexed = static.indexed(prompt.tokens)
        scores = prompt.once("triattention", score)[..., indexed]
        centred = scores - scores.mean(-1, keepdim=True)
        deviation = scores.std(-1, unbiased=False, keepdim=True).clamp(min=1e-6)
        best = (centred / deviation).amax(1)
        return FixedLayer(indexed, top_mask(best, self.budget))


def score(prompt: LayerPrompt) -> Tensor:
    """How much each query head will want each key, [Hkv, G, n]."""
    rotary = prompt.rotary
    if "rotary_dim" not in rotary:
        raise InvalidArgument(
            f"layer {prompt.layer} has no rotary embedding that is known, which TriAttention needs"
        )
    positions = np.arange(prompt.tokens, dtype=np.float64)
    plain = torch.stack(
        [torch.stack([turned(head, -positions, rotary) for head in own]) for own in prompt.queries]
    )
    mean = plain.mean(2)  # [Hkv, G, d]
    ahead = np.array(DISTANCES) + prompt.tokens
    looking = torch.stack(
        [
            torch.stack([turned(one.expand(len(ahead), -1), ahead, rotary).mean(0) for one in own])
            for own in mean
        ]
    )
    toward = looking @ prompt.keys.transpose(1, 2)
    scatter = sizes(plain, rotary).mean(2) - sizes(mean, rotary)
    return toward + scatter @ sizes(prompt.keys, rotary).transpose(1, 2)


def turned(rows: Tensor, shifts: np.ndarray, rotary: dict[str, Any]) -> Tensor:
    """Rows [m, d] turned on by `shifts` [m] positions."""
    return torch.from_numpy(rope_shift(rows.contiguous().numpy(), shifts, **rotary))


def sizes(rows: Tensor, rotary: dict[str, Any]) -> Tensor:
    """The length of each pair of elements that turn together, [..., rotary_dim / 2]."""
    first, dim = rotary.get("rotary_first", 0), rotary["rotary_dim"]
    turning = rows[..., first : first + dim]
    if rotary["layout"] == "interleaved":
        pairs, between = turning.unflatten(-1, (-1, 2)), -1
    else:
        pairs, between = turning.unflatten(-1, (2, -1)), -2
    lengths: Tensor = pairs.norm(dim=between)
    return lengths
