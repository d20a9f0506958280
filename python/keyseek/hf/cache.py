"""The cache that transformers' generate takes."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from .._core import DecodePool
from ..errors import InvalidArgument
from .attention import ATTENTION_NAME
from .layer import LayerOptions, RetrievalLayer
from .prefix import copy_layer, read_state, restore, save_cache
from .rotary import rotary_options


class RetrievalCache(DynamicCache):
    """A DynamicCache whose layers retrieve once decoding has begun.

    config: of the model, whose attention must be "keyseek". max_error: wanted mean of
    |out - full| / |full| of a layer's attention output, head by head. dtype: keys and values are
    stored as this (None: as the model gives them); on a GPU float16 or bfloat16. threads: for
    planning and for steps; 0: as PyTorch. Further options go to keyseek.HeadCache.prefill: sink,
    window, horizon, least_indexed, pinned, int8_values, scan_novel, tail_vectors, least_k, max_k,
    rule, share, observed, held_out, seed; or a given plan by retriever, k, target_recall, limit,
    index.

    A prompt is read with full attention, in one piece or several; the plan is made before the
    first single token after it. Prompts that are too short to gain anything, and tokens until
    there are enough, are attended to in full. A cache serves one batch; `reset` frees it for
    the next. Cropping, and so assisted generation, is not possible once it retrieves.
    """

    def __init__(
        self,
        config: Any,
        max_error: float = 0.05,
        *,
        dtype: torch.dtype | None = torch.float16,
        threads: int = 0,
        **options: Any,
    ) -> None:
        text = config.get_text_config(decoder=True)
        _require_known_attention(text)
        super().__init__(config=config)
        if not 0 < max_error < 1:
            raise InvalidArgument(f"max_error is {max_error}, must be in (0, 1)")
        sink, window = options.get("sink", 128), options.get("window", 512)
        shared = LayerOptions(
            prefill={"max_error": max_error, **options},
            static=sink + window + options.get("least_indexed", 1024),
            dtype=dtype,
            pool=DecodePool(threads or torch.get_num_threads()),
        )
        self._config = text
        self._max_error, self._dtype, self._given = max_error, dtype, options
        kinds = getattr(text, "layer_types", None) or ["full_attention"] * len(self.layers)
        for i, kind in enumerate(kinds[: len(self.layers)]):
            if kind == "full_attention" and not self.layers[i].is_sliding:
                self.layers[i] = RetrievalLayer(shared, rotary_options(text, kind))
        if not self._retrieval_layers():
            raise InvalidArgument("the model has no layer of full attention: nothing to retrieve")

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        chosen = getattr(self._config, "_attn_implementation", None)
        if chosen != ATTENTION_NAME:
            raise InvalidArgument(
                f"the model's attention is '{chosen}', a RetrievalCache needs '{ATTENTION_NAME}': "
                f"call model.set_attn_implementation('{ATTENTION_NAME}')"
            )
        if layer_idx >= len(self.layers):
            raise InvalidArgument(
                f"layer {layer_idx} of a model, but the cache was made for one of "
                f"{len(self.layers)} layers"
            )
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def plan(self) -> None:
        """Makes the plan now, which the first single token after the prompt does otherwise."""
        for _, layer in self._retrieval_layers():
            layer.plan()

    def copy(self) -> RetrievalCache:
        """A cache that continues the same text another way; what is indexed is shared."""
        other = copy.copy(self)
        other.layers = [copy_layer(layer) for layer in self.layers]
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Plans, then writes all of it to a new folder, for a prompt that many requests share."""
        if "index" in self._given:
            raise InvalidArgument("index is a search of your own, which cannot be saved")
        self.plan()
        save_cache(self, path)

    @classmethod
    def load(
        cls,
        config: Any,
        path: str | os.PathLike[str],
        *,
        threads: int = 0,
        device: torch.device | str = "cpu",
    ) -> RetrievalCache:
        """What `save` wrote, for the same model on `device`. Indexed keys are mapped: processes
        share them."""
        state = read_state(path, device)
        dtype = None if state["dtype"] is None else getattr(torch, state["dtype"])
        cache = cls(config, state["max_error"], dtype=dtype, threads=threads, **state["options"])
        restore(cache, state, path)
        return cache

    @property
    def retrieving(self) -> bool:
        """Whether a plan has been made and decode steps retrieve."""
        return any(layer.retrieving for _, layer in self._retrieval_layers())

    @property
    def nbytes(self) -> int:
        """Memory of the layers that retrieve: keys, values, indexes, tails."""
        return sum(head.nbytes for _, layer in self._retrieval_layers() for head in layer.heads)

    def last_step(self) -> dict[str, float]:
        """Of the last decode step, over all heads that retrieve: keys attended per query, keys
        scanned and bytes read per head, and the bytes that full attention would have read."""
        heads = [head for _, layer in self._retrieval_layers() for head in layer.heads]
        if not heads:
            return {}
        return {
            "retrieved_per_query": sum(h.stats.retrieved / h.group for h in heads) / len(heads),
            "scanned_per_head": sum(h.stats.scanned for h in heads) / len(heads),
            "bytes_per_head": sum(h.stats.bytes_read for h in heads) / len(heads),
            "full_bytes_per_head": sum(2 * h.indexed * (h.dim + h.value_dim) for h in heads)
            / len(heads),
        }

    def retrieve_topk(
        self, queries: Tensor, layer_idx: int, k: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The tokens that a layer would retrieve for queries [B, Hq, d] (after rotation).

        Returns indices [B, Hq, k] int64, positions in the request's own sequence, best first,
        padded with -1; and valid_lengths [B, Hq]. k: None for what the plans say. This is what
        engines with sparse attention over a paged cache ask for (SGLang's retrieve_topk).
        Sink and window are not among them: they are attended anyway.
        """
        layer = dict(self._retrieval_layers()).get(layer_idx)
        if layer is None or not layer.retrieving:
            raise InvalidArgument(f"layer_idx is {layer_idx}: that layer does not retrieve")
        return layer.retrieve_topk(queries, k)

    def plan_table(self) -> str:
        """The plan of every layer and KV head as text; empty until there is one."""
        lines = []
        for index, layer in self._retrieval_layers():
            per_request = len(layer.heads) // max(1, layer._batch) or 1
            for i, head in enumerate(layer.heads):
                plan = head.plan
                lines.append(
                    f"{index:5} {i // per_request:7} {i % per_request:4}  {plan.retriever:10} "
                    f"{plan.k:4} {plan.target_recall:7.3f} {plan.tail_vectors:5} "
                    f"{plan.expected_error:9.4f} {plan.bytes_per_step / 1000:9.1f} "
                    f"{2e-3 * head.indexed * (head.dim + head.value_dim):9.1f}"
                )
        if not lines:
            return ""
        head = (
            "layer request head  retriever     k  recall  tail  expected  KB/step   full KB\n"
        )
        return head + "\n".join(lines)

    def _retrieval_layers(self) -> list[tuple[int, RetrievalLayer]]:
        return [
            (i, layer) for i, layer in enumerate(self.layers) if isinstance(layer, RetrievalLayer)
        ]


def _require_known_attention(config: Any) -> None:
    if getattr(config, "alibi", False) or getattr(config, "use_alibi", False):
        raise InvalidArgument("the model uses ALiBi, which retrieval by q.k cannot serve")
    if getattr(config, "attn_logit_softcapping", None):
        raise InvalidArgument(
            "the model soft-caps its attention logits, which is not supported; use a DynamicCache"
        )
