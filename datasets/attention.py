"""Causal attention in chunks of queries, for prompts whose score matrix would not fit in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

CHUNK = 1024


@dataclass(frozen=True)
class Pattern:
    """Which earlier tokens a token sees: the first `sink`, and the last `window` (None: all)."""

    window: int | None = None
    sink: int = 0


def chunked_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, pattern: Pattern, chunk: int = CHUNK
) -> Tensor:
    """Causal attention of one sequence, float32.

    query [Hkv, G, n, d], key [Hkv, n, d], value [Hkv, n, dv]; returns [Hkv, G, n, dv].
    """
    n = query.shape[2]
    out = query.new_empty(*query.shape[:3], value.shape[-1])
    for begin in range(0, n, chunk):
        end = min(begin + chunk, n)
        seen = seen_tokens(begin, end, pattern)
        out[:, :, begin:end] = scaled_dot_product_attention(
            query[:, :, begin:end],
            _for_group(key, seen, query.shape[1]),
            _for_group(value, seen, query.shape[1]),
            attn_mask=causal_mask(begin, end, seen, pattern),
            scale=scale,
        )
    return out


def seen_tokens(begin: int, end: int, pattern: Pattern) -> Tensor:
    """Positions that at least one query in [begin, end) sees, in order."""
    first = 0 if pattern.window is None else max(0, begin - pattern.window + 1)
    sink = min(pattern.sink, first)
    return torch.cat([torch.arange(sink), torch.arange(first, end)])


def causal_mask(begin: int, end: int, seen: Tensor, pattern: Pattern) -> Tensor:
    """mask[i, j]: may the query at begin + i see the token seen[j]?  [end - begin, len(seen)]"""
    position = torch.arange(begin, end)[:, None]
    mask = seen <= position
    if pattern.window is not None:
        mask &= (seen > position - pattern.window) | (seen < pattern.sink)
    return mask


def _for_group(rows: Tensor, seen: Tensor, group: int) -> Tensor:
    """rows[:, seen] for each query head of the group, not copied: [Hkv, G, len(seen), d]."""
    # Without sink tokens `seen` is one run, and a slice of it needs no copy at all.
    run = int(seen[-1] - seen[0]) + 1 == len(seen)
    part = rows[:, int(seen[0]) : int(seen[-1]) + 1] if run else rows[:, seen]
    return part[:, None].expand(-1, group, -1, -1)
