"""One pass of a model over a long text: attention in chunks, no logits of the whole prompt."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attention import Pattern, chunked_attention
from errors import DatasetError

ATTENTION_NAME = "keyseek_capture"
LOSS_POSITIONS = 512
STRETCHED = Pattern(window=4096, sink=128)

# Called once per layer with query [Hkv, G, n, d], key [Hkv, n, d], value [Hkv, n, dv] after RoPE.
Observer = Callable[[int, Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class Pass:
    """What one pass over a text gave: final hidden states [n, hidden] and the next-token loss."""

    hidden: Tensor
    loss: float


def run_pass(
    network: Any, ids: Tensor, observe: Observer | None = None, pattern: Pattern | None = None
) -> Pass:
    """Run a network over ids [n]. `pattern` replaces the layers' own attention pattern.

    The hidden states are those after the last norm, which the output layer multiplies with.
    """
    with (
        _attention_function(network, _attention(network, observe, pattern)),
        torch.inference_mode(),
    ):
        hidden = network.model(ids[None], use_cache=False).last_hidden_state[0]
        return Pass(hidden, _next_token_loss(network, ids, hidden))


def head_dim(config: Any) -> int:
    """Components of one key."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rope_theta(config: Any, layer: int) -> float:
    """The base of the rotary embedding of one layer; Gemma's sliding layers have their own."""
    kinds = getattr(config, "layer_types", None)
    local = getattr(config, "rope_local_base_freq", None)
    if local is not None and kinds and kinds[layer] == "sliding_attention":
        return float(local)
    return float(config.rope_theta)


def stretched_theta(theta: float, dim: int, factor: float) -> float:
    """The NTK-aware base: the lowest frequency is stretched by `factor`, the highest not at all."""
    return theta * factor ** (dim / (dim - 2))


def stretch_rope(network: Any, factor: float) -> None:
    """Give a Llama-like network, for good, the NTK-aware base for `factor` times its context."""
    config = network.config
    config.rope_theta = stretched_theta(config.rope_theta, head_dim(config), factor)
    network.model.rotary_emb = type(network.model.rotary_emb)(config=config)


def _attention(network: Any, observe: Observer | None, pattern: Pattern | None) -> Callable:
    """The function that transformers calls in each layer instead of its own attention."""
    layers = network.config.num_hidden_layers
    begin = time.monotonic()

    def attend(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float,
        sliding_window: int | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """query [1, Hq, n, d], key [1, Hkv, n, d], value [1, Hkv, n, dv] -> [1, n, Hq, dv]."""
        kv_heads, n = key.shape[1], key.shape[2]
        # Query head h belongs to KV head h // G.
        grouped = query[0].view(kv_heads, -1, n, query.shape[-1])
        if observe is not None:
            observe(module.layer_idx, grouped, key[0], value[0])
        seen = pattern or Pattern(window=sliding_window)
        out = chunked_attention(grouped, key[0], value[0], scaling, seen)
        _report(module.layer_idx + 1, layers, time.monotonic() - begin)
        return out.flatten(0, 1).transpose(0, 1).unsqueeze(0), None

    return attend


@contextmanager
def _attention_function(network: Any, function: Callable) -> Iterator[None]:
    """Let the network's attention be `function` for a while."""
    before = network.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, function)
    # No mask function is registered under this name: transformers then builds no n x n mask.
    network.config._attn_implementation = ATTENTION_NAME
    try:
        yield
    finally:
        network.config._attn_implementation = before


def _next_token_loss(network: Any, ids: Tensor, hidden: Tensor) -> float:
    """Mean cross entropy (nats) of the last tokens, each predicted from all before it."""
    count = min(LOSS_POSITIONS, len(ids) - 1)
    logits = network.lm_head(hidden[-count - 1 : -1])
    loss = float(cross_entropy(logits, ids[-count:]))
    if not math.isfinite(loss):
        raise DatasetError(f"the next-token loss is {loss}: the run is wrong, nothing was written")
    return loss


def _report(layer: int, layers: int, seconds: float) -> None:
    print(f"layer {layer}/{layers}  {seconds:.0f} s", file=sys.stderr, flush=True)
