"""Makes HeadCaches of what a layer has read of a request, and asks them for tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._core import DecodeParams, DecodePool, HeadCache
from ..errors import InvalidArgument
from . import device as devices
from .arguments import AttentionCall
from .queries import rows
from .stored import stored_dtype
from .visible import as_visible
from .whole import whole_number


@dataclass(frozen=True)
class LayerOptions:
    """What every layer of a cache shares: options of decoding, storage, threads."""

    params: DecodeParams  # but for what the model says of itself
    dtype: torch.dtype | str | None  # see stored_dtype
    pool: DecodePool
    progress: Callable[[int], None]  # told how many heads have been planned since it was called

    @property
    def least_tokens(self) -> int:
        """A shorter prompt is attended in full."""
        return self.params.sink + self.params.window + self.params.least_indexed


def reason_against(
    query: Tensor, keys: Tensor, mask: Tensor | None, call: AttentionCall
) -> str | None:
    """Why a call over all keys [B, Hkv, n, d] cannot be answered by retrieval."""
    if call.position_bias is not None:
        return (
            "its logits have a position bias, so that keys of large q.k are not those of large "
            "logits"
        )
    if call.sliding_window is not None:
        return f"it attends to a sliding window of {call.sliding_window} tokens"
    if call.softcap > 0.0 and devices.retrieves_beside(query.device):
        return "its logits are soft-capped, which is not served on a GPU"
    if query.shape[1] % keys.shape[1] != 0:
        return f"its {query.shape[1]} query heads do not share {keys.shape[1]} KV heads evenly"
    if mask is not None:
        try:
            as_visible(mask[:, :, -1:], keys.shape[2])
        except InvalidArgument as error:
            return str(error)
    return None


def plan_heads(
    options: LayerOptions,
    rotary: dict[str, Any],
    call: AttentionCall,
    keys: Tensor,
    values: Tensor,
    queries: Tensor,
) -> list[HeadCache]:
    """A request's HeadCaches from its keys [Hkv, n, d], values [Hkv, n, dv] and the queries
    [Hq, p, d] of its newest p positions. rotary: keyword arguments of HeadCache.prefill."""
    dtype = stored_dtype(keys, values, options.dtype)
    group = queries.shape[0] // keys.shape[0]
    heads = []
    for head in range(keys.shape[0]):
        own = queries[head * group : (head + 1) * group]
        heads.append(
            HeadCache.prefill(
                _array(keys[head].to(dtype)),
                _array(values[head].to(dtype)),
                rows(own.transpose(0, 1)),
                group,
                params=options.params,
                threads=options.pool.threads,
                scale=call.scale,
                **_logits(call, head * group, group),
                **rotary,
            )
        )
        options.progress(1)
    return heads


def _array(states: Tensor) -> Any:
    """Rows as the native module takes them: a tensor, since NumPy has no bfloat16."""
    return states.contiguous()


def _logits(call: AttentionCall, first: int, group: int) -> dict[str, Any]:
    """Keyword arguments of HeadCache.prefill for query heads [first, first + group)."""
    own: dict[str, Any] = {}
    if call.softcap > 0.0:
        own["softcap"] = call.softcap
    if call.sinks is not None:
        sinks = call.sinks[first : first + group].detach().float().cpu()
        own["null_logits"] = sinks.contiguous().numpy()
    return own


def retrieve_topk(
    planned: Sequence[tuple[int, list[HeadCache]]], batch: int, queries: Tensor, k: int | None
) -> tuple[Tensor, Tensor]:
    """See RetrievalCache.retrieve_topk. planned: the requests that retrieve, by number; the others,
    and heads that attend to everything, have no indices."""
    heads = [head for _, own in planned for head in own]
    requests, query_heads, dim = queries.shape
    if (requests, dim) != (batch, heads[0].dim):
        raise InvalidArgument(
            f"queries are of {requests} requests and dimension {dim}, the cache of {batch} and "
            f"{heads[0].dim}"
        )
    group = heads[0].group
    if k is not None:
        k = whole_number(k, "k", 1, max(len(head) for head in heads))
    width = max(head.plan.k for head in heads) if k is None else k
    indices = torch.full((batch, query_heads // group, group, width), -1, dtype=torch.long)
    asked = rows(queries).reshape(batch, -1, group, dim)
    for request, own in planned:
        for i, head in enumerate(own):
            wanted = min(head.plan.k if k is None else k, head.indexed)
            if head.plan.retriever not in ("everything", "none") and wanted > 0:
                found = head.retrieve(asked[request, i], wanted)
                indices[request, i, :, :wanted] = torch.from_numpy(found.ids)
    indices = indices.view(batch, query_heads, width).to(queries.device)
    return indices, (indices >= 0).sum(-1)
