"""Attention over all tokens, as layers have it that do not retrieve."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .arguments import AttentionCall

# So many queries are attended at a time: their logits stay within some hundred megabytes.
_BLOCK = 256
# So many rows, those of the query heads that share a KV head, PyTorch's attention splits well.
_ROWS = 1024


def full_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    call: AttentionCall,
) -> Tensor:
    """query [B, Hq, q, d], key [B, Hkv, n, d], value [B, Hkv, n, dv] -> [B, q, Hq, dv].

    PyTorch's attention, and where it does not know what the call asks for (sinks, soft-capped
    logits) the same in plain tensor operations, block by block.
    """
    if call.is_plain:
        more: dict[str, Any] = {}
        if call.position_bias is not None:
            more["position_bias"] = call.position_bias
        out, _ = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            mask,
            dropout=call.dropout,
            scaling=call.scale,
            is_causal=call.is_causal,
            **more,
        )
        return out
    causal = getattr(module, "is_causal", True) if call.is_causal is None else call.is_causal
    blocks = [
        _block(
            query[:, :, i : i + _BLOCK], key, value, _bias(query, key, mask, call, causal, i), call
        )
        for i in range(0, query.shape[2], _BLOCK)
    ]
    return torch.cat(blocks, dim=2).transpose(1, 2).contiguous()


def attend_newest(query: Tensor, key: Tensor, value: Tensor, call: AttentionCall) -> Tensor:
    """Each query of the newest q tokens over all tokens up to its own.

    query [B, Hq, q, d], key [B, Hkv, n, d], value [B, Hkv, n, dv] -> [B, q, Hq, dv]. Block by
    block, and a block leaves out what is to come for all of it.
    """
    count, tokens = query.shape[2], key.shape[2]
    block = max(1, _ROWS * key.shape[1] // query.shape[1]) if call.is_plain else _BLOCK
    blocks = []
    for first in range(0, count, block):
        end = min(first + block, count)
        seen = tokens - count + end
        bias = query.new_zeros(end - first, seen)
        hidden = torch.ones(end - first, end - first, dtype=torch.bool, device=query.device).triu(1)
        bias[:, seen - (end - first) :].masked_fill_(hidden, float("-inf"))
        states = query[:, :, first:end], key[:, :, :seen], value[:, :, :seen]
        attend = _plain_block if call.is_plain else _block
        blocks.append(attend(*states, bias, call))
    return torch.cat(blocks, dim=2).transpose(1, 2).contiguous()


def _plain_block(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, call: AttentionCall
) -> Tensor:
    """PyTorch's attention -> [B, Hq, q, dv]. The query heads of a KV head are rows of one query, so
    that keys and values are not repeated for them."""
    batch, heads, count, dim = query.shape
    group = heads // key.shape[1]
    out = nn.functional.scaled_dot_product_attention(
        query.reshape(batch, -1, group * count, dim),
        key,
        value,
        attn_mask=bias.repeat(group, 1),
        scale=call.scale,
    )
    return out.reshape(batch, heads, count, -1)


def _bias(
    query: Tensor, key: Tensor, mask: Tensor | None, call: AttentionCall, causal: bool, first: int
) -> Tensor | None:
    """What is added to the logits of queries [first, first + _BLOCK): [.., .., q, n], or None."""
    count, tokens = query.shape[2], key.shape[2]
    end = min(first + _BLOCK, count)
    bias = None
    if mask is not None:
        bias = mask[..., first:end, :tokens]
    elif causal and count > 1:
        at = torch.arange(first, end, device=query.device) + tokens - count
        bias = torch.arange(tokens, device=query.device) <= at[:, None]
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros(bias.shape, device=bias.device).masked_fill(~bias, float("-inf"))
    if call.position_bias is not None:
        own = call.position_bias[..., first:end, :]
        bias = own if bias is None else bias + own
    return bias


def _block(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: AttentionCall
) -> Tensor:
    """Softmax in float32, as eager attention has it -> [B, Hq, q, dv]."""
    batch, heads, count, dim = query.shape
    kv_heads = key.shape[1]
    grouped = query.reshape(batch, kv_heads, -1, dim)
    logits = (grouped @ key.transpose(-1, -2)).view(batch, heads, count, -1).float() * call.scale
    if call.softcap > 0.0:
        logits = call.softcap * torch.tanh(logits / call.softcap)
    if bias is not None:
        logits = logits + bias
    if call.sinks is not None:
        sinks = call.sinks.float().view(1, -1, 1, 1).expand(batch, -1, count, 1)
        logits = torch.cat([logits, sinks], dim=-1)
    # A query that sees nothing, as padding does, gets zeros and not NaN.
    weights = torch.nan_to_num(logits.softmax(-1), nan=0.0)[..., : key.shape[2]].to(value.dtype)
    weights = nn.functional.dropout(weights, call.dropout, training=call.dropout > 0.0)
    out = weights.view(batch, kv_heads, -1, key.shape[2]) @ value
    return out.view(batch, heads, count, -1)
