"""The cache of one layer: plain until decoding begins, then a HeadCache per request and head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from .._core import DecodePool, HeadCache, HeadPlan, step_heads
from ..errors import InvalidArgument
from . import device as devices
from .attention import LAYER

# The newest part of a prompt whose queries are kept until the plan is made.
_KEPT_SHARE = 0.2
_KEPT_LEAST = 2048


@dataclass(frozen=True)
class LayerOptions:
    """What every layer of a cache shares: options of HeadCache.prefill, storage, threads."""

    prefill: dict[str, Any]
    static: int  # tokens that are attended exactly before anything is worth indexing
    dtype: torch.dtype | None
    pool: DecodePool


class RetrievalLayer(DynamicLayer):
    """Keys and values of a layer that attends to everything.

    While a prompt is read it is a DynamicLayer that also keeps the newest queries. The first
    single token after a prompt that is long enough makes it plan; from then on it retrieves,
    and `keys` and `values` are gone. Tensors on a CUDA device stay there until the plan is made;
    then the HeadCaches have everything, and a session on the device has sink and window as well.
    """

    def __init__(self, options: LayerOptions, rotary: dict[str, Any]) -> None:
        super().__init__()
        self._options = options
        self._rotary = rotary
        self._forget()

    def _forget(self) -> None:
        self.heads: list[HeadCache] = []
        self._queries: list[Tensor] = []
        self._starts: list[int] | None = None
        self._scale: float | None = None
        self._tokens = 0
        self._batch = 0
        self._session: devices.LayerSession | None = None

    @property
    def retrieving(self) -> bool:
        return bool(self.heads)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Takes keys and values [B, Hkv, q, d] of new tokens.

        Returns what the attention function needs: all of them, or only the new ones once the
        layer retrieves; the keys carry this layer along.
        """
        if self._tokens == 0 and devices.retrieves_beside(key_states.device):
            dtype = self._options.dtype or key_states.dtype
            devices.require_session(key_states.device, key_states, value_states, dtype)
        if self.retrieving and key_states.shape[0] != self._batch:
            raise InvalidArgument(
                f"keys are of {key_states.shape[0]} requests, the cache of {self._batch}"
            )
        if key_states.shape[-2] == 1:
            self.plan()
        if self.retrieving:
            keys, values = key_states, value_states
        else:
            keys, values = super().update(key_states, value_states)
            keys = keys.view_as(keys)  # a tensor object of its own, to carry the attribute
        self._tokens += key_states.shape[-2]
        setattr(keys, LAYER, self)
        return keys, values

    def observe(self, query: Tensor, mask: Tensor | None, scale: float) -> None:
        """Keeps the newest queries [B, Hq, q, d] of a prompt, and where its requests begin."""
        self._scale = scale
        self._starts = _starts_of(mask, query.shape[0], self._tokens)
        kept = kept_positions(self._tokens)
        newest = query[:, :, -kept:].detach()
        self._queries.append(newest.to(torch.float16, copy=True) if _fits_f16(newest) else newest.clone())
        total = sum(piece.shape[2] for piece in self._queries)
        while total - self._queries[0].shape[2] >= kept:
            total -= self._queries.pop(0).shape[2]

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [B, Hq, q, d], new key and value [B, Hkv, q, d]: token by token -> [B, q, Hq, dv]."""
        batch, query_heads, count, _ = query.shape
        step = self._step_beside if devices.retrieves_beside(query.device) else self._step_here
        if count == 1:
            out = step(query[:, :, 0], key[:, :, 0], value[:, :, 0])
        else:
            # A copy of each: a session has one output.
            steps = [step(query[:, :, t], key[:, :, t], value[:, :, t]).clone() for t in range(count)]
            out = torch.stack(steps)
        return out.view(count, batch, query_heads, -1).transpose(0, 1).to(query.dtype)

    def _step_here(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [B, Hq, d], key and value [B, Hkv, d] -> [B * Hq, dv]."""
        return torch.from_numpy(
            step_heads(self.heads, rows(query), rows(key), rows(value), self._options.pool)
        )

    def _step_beside(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The same with sink and window on the tensors' device. The heads have all tokens, so a
        session can be made at any time: here after planning, loading, or a change of stream."""
        if self._session is None or self._session.stream != devices.current_stream(query.device):
            self._session = devices.LayerSession(self.heads, query.device)
        return self._session.step(self.heads, self._options.pool, query, key, value)

    def retrieve_topk(self, queries: Tensor, k: int | None) -> tuple[Tensor, Tensor]:
        """See RetrievalCache.retrieve_topk. Heads that attend to everything have no indices."""
        batch, query_heads, dim = queries.shape
        if (batch, dim) != (self._batch, self.heads[0].dim):
            raise InvalidArgument(
                f"queries are of {batch} requests and dimension {dim}, the cache of {self._batch} "
                f"and {self.heads[0].dim}"
            )
        group = self.heads[0].group
        width = max(head.plan.k for head in self.heads) if k is None else k
        indices = torch.full((len(self.heads), group, width), -1, dtype=torch.long)
        own = rows(queries).reshape(len(self.heads), group, dim)
        for i, head in enumerate(self.heads):
            wanted = min(head.plan.k if k is None else k, head.indexed)
            if head.plan.retriever not in ("everything", "none") and wanted > 0:
                found = head.retrieve(own[i], wanted)
                indices[i, :, :wanted] = torch.from_numpy(found.ids)
        indices = indices.view(batch, query_heads, width).to(queries.device)
        return indices, (indices >= 0).sum(-1)

    def plans(self) -> list[HeadPlan]:
        """Of all requests' KV heads, request after request; empty until the layer retrieves."""
        return [head.plan for head in self.heads]

    def get_seq_length(self) -> int:
        return self._tokens

    def get_mask_sizes(self, query: Tensor | int, *args: Any) -> tuple[int, int]:
        # transformers 4 passes the new positions, transformers 5 their number.
        count = query if isinstance(query, int) else query.shape[0]
        return self._tokens + count, 0

    def reset(self) -> None:
        self._forget()
        self.keys = self.values = None
        self.is_initialized = False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        if not self.retrieving:
            super().batch_select_indices(indices)
            self._queries = [piece[indices] for piece in self._queries]
            if self._starts is not None:
                self._starts = [self._starts[i] for i in indices.tolist()]
            return
        before = len(self.heads)
        per_request = before // self._batch
        chosen = indices.tolist()
        # A request that is chosen once moves, one that is chosen again is copied.
        seen: set[int] = set()
        heads: list[HeadCache] = []
        for request in chosen:
            of_request = self.heads[request * per_request : (request + 1) * per_request]
            heads += [head.copy() for head in of_request] if request in seen else of_request
            seen.add(request)
        self.heads = heads
        self._batch = len(chosen)
        if self._session is not None and len(chosen) * per_request == before:
            self._session.load(heads)
        else:
            self._session = None  # of another size: the next step makes one

    def batch_repeat_interleave(self, repeats: int) -> None:
        batch = self._batch if self.retrieving else (0 if self.keys is None else self.keys.shape[0])
        if batch:
            self.batch_select_indices(torch.arange(batch).repeat_interleave(repeats))

    def crop(self, max_length: int) -> None:
        if self.retrieving:
            raise InvalidArgument(
                "a cache that retrieves cannot be cropped (assisted generation does): use a "
                "DynamicCache for that"
            )
        before = self._tokens
        super().crop(max_length)
        self._tokens = 0 if self.keys is None else self.keys.shape[-2]
        if self._tokens < before:
            self._queries = []

    def _is_long_enough(self) -> bool:
        if not self._queries or self._starts is None:
            return False
        shortest = self._tokens - max(self._starts)
        return shortest >= self._options.static

    def plan(self) -> None:
        """Turns the prompt into HeadCaches, if it is long enough and they are not there yet."""
        if self.retrieving or not self._is_long_enough():
            return
        queries = torch.cat(self._queries, dim=2).cpu()
        keys, values = self.keys.cpu(), self.values.cpu()
        batch, kv_heads = keys.shape[:2]
        group = queries.shape[1] // kv_heads
        dtype = self._options.dtype or keys.dtype
        heads = []
        for request in range(batch):
            start = self._starts[request]
            positions = min(queries.shape[2], self._tokens - start)
            for head in range(kv_heads):
                own = queries[request, head * group : (head + 1) * group, -positions:]
                heads.append(
                    HeadCache.prefill(
                        keys[request, head, start:].to(dtype).contiguous(),
                        values[request, head, start:].to(dtype).contiguous(),
                        rows(own.transpose(0, 1)),
                        group,
                        scale=self._scale,
                        threads=self._options.pool.threads,
                        **self._rotary,
                        **self._options.prefill,
                    )
                )
        self.heads = heads
        self._batch = batch
        self._queries = []
        self.keys = self.keys[..., :0, :].clone()
        self.values = self.values[..., :0, :].clone()


def kept_positions(tokens: int) -> int:
    """How many of the newest positions of a prompt keep their queries for the plan."""
    return max(_KEPT_LEAST, int(_KEPT_SHARE * tokens))


def rows(states: Tensor) -> NDArray[np.float32]:
    """[..., d] as float32 rows [m, d]; NumPy's arrays are handed over in a tenth of the time."""
    return states.detach().reshape(-1, states.shape[-1]).float().cpu().contiguous().numpy()


def _fits_f16(states: Tensor) -> bool:
    return bool(states.abs().max() < torch.finfo(torch.float16).max)


def _starts_of(mask: Tensor | None, batch: int, tokens: int) -> list[int]:
    """The first token of each request, from the mask [B, 1, q, n] of a left-padded batch."""
    if mask is None:
        return [0] * batch
    last = mask[:, 0, -1, :tokens]
    seen = last if last.dtype == torch.bool else last == 0
    starts = []
    for request in range(mask.shape[0]):
        row = seen[request]
        count = int(row.sum())
        if not bool(row[tokens - count :].all()):
            raise InvalidArgument(
                f"attention_mask of request {request} hides tokens behind its first one: "
                "pad on the left"
            )
        starts.append(tokens - count)
    return starts * (batch // len(starts))
