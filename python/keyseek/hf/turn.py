"""A turn: tokens that come at once to a layer that retrieves; and tokens that are taken back."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from .._core import (
    DecodePool,
    HeadCache,
    append_heads,
    copy_tokens,
    extend_heads,
    truncate_heads,
)
from .arguments import AttentionCall
from .full import attend_newest
from .planning import LayerOptions
from .queries import rows
from .stored import DTYPES
from .waiting import Waiting

# Of so many queries of a KV head our attention reads what is stored as it is, once; of more, matrix
# products over a copy are faster.
_FEW = 64
# Of a crop: transformers 4 says how many tokens stay, transformers 5 how many go.
_SAYS_WHAT_STAYS = "max_length" in inspect.signature(DynamicLayer.crop).parameters


def kept_by_crop(number: int, tokens: int) -> int:
    """How many of so many tokens a crop leaves. number: how many to keep (transformers 4), or minus
    how many to take back (both)."""
    if number > 0 or (number == 0 and _SAYS_WHAT_STAYS):
        return min(number, tokens)
    return max(0, tokens + number)


def take_turn(
    requests: Sequence[list[HeadCache] | Waiting],
    states: tuple[Tensor, Tensor, Tensor],
    fresh: Tensor | None,
    call: AttentionCall,
    options: LayerOptions,
) -> tuple[Tensor, list[list[HeadCache] | Waiting]]:
    """Attends the new tokens of every request exactly, each over all tokens up to it, and has the
    request's heads take them. Returns [B, q, Hq, dv], and the requests with these tokens. When it
    raises, no head has taken any.

    states: query [B, Hq, q, d], key [B, Hkv, q, d], value [B, Hkv, q, dv]. fresh: [B, q] bool, of
    tokens that are there, None for all; the others are not taken, and get zeros.
    """
    query, _, value = states
    out = value.new_zeros(len(query), query.shape[2], query.shape[1], value.shape[-1])
    taken = list(requests)
    planned = [(heads, len(heads[0])) for heads in requests if not isinstance(heads, Waiting)]
    try:
        for i, request in enumerate(requests):
            there = slice(None) if fresh is None else fresh[i].to(query.device)
            own = tuple(each[i][:, there] for each in states)
            if own[0].shape[1] == 0:
                continue
            if isinstance(request, Waiting):
                found, taken[i] = request.attend(own, call, options)
            else:
                found = _turn_of(request, own, call, options.pool)
            out[i, there] = found.to(out)
    except BaseException:
        for heads, tokens in planned:
            truncate_heads(heads, [tokens] * len(heads), options.pool)
        raise
    return out, taken


def _turn_of(
    heads: list[HeadCache], own: Sequence[Tensor], call: AttentionCall, pool: DecodePool
) -> Tensor:
    """One request's query [Hq, q, d] over its tokens and the new key [Hkv, q, d] and value
    [Hkv, q, dv] -> [q, Hq, dv]."""
    query, key, value = own
    grouped = query.view(len(heads), -1, *query.shape[1:]).transpose(1, 2)  # [Hkv, q, group, d]
    _, count, group, _ = grouped.shape
    new = rows(key), rows(value)
    if query.device.type == "cpu" and count * group <= _FEW:
        out = torch.from_numpy(extend_heads(heads, rows(grouped), *new, pool))
        return out.view(len(heads), count, group, -1).transpose(0, 1).flatten(1, 2)
    before = len(heads[0])
    keys, values = read_tokens(heads, pool, more=count)
    # As they will be stored.
    keys[:, before:], values[:, before:] = key, value
    keys, values = (each.to(query.device, query.dtype)[None] for each in (keys, values))
    out = attend_newest(query[None], keys, values, call)[0]
    append_heads(heads, *new, pool, rows(grouped))
    return out


def read_tokens(
    heads: Sequence[HeadCache], pool: DecodePool, more: int = 0
) -> tuple[Tensor, Tensor]:
    """Keys [Hkv, n + more, d] and values [Hkv, n + more, dv] of a request's heads as they are
    stored, in order of position, with room for `more`."""
    head, tokens = heads[0], len(heads[0]) + more
    keys = torch.empty(len(heads), tokens, head.dim, dtype=DTYPES[head.key_dtype])
    values = torch.empty(len(heads), tokens, head.value_dim, dtype=DTYPES[head.value_dtype])
    copy_tokens(heads, cast(Any, keys), cast(Any, values), pool)  # a tensor is an array
    return keys, values
