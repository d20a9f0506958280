"""The attention function that transformers calls in every layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from ..errors import InvalidArgument
from .arguments import read_call
from .full import full_attention
from .model_class import exchanges_attention, model_class_of

ATTENTION_NAME = "keyseek"
# The keys that a RetrievalLayer returns carry the layer under this name.
LAYER = "_keyseek_layer"
# Models of these add a bias to the causal mask, and without a mask attend to what is to come.
_ADDS_TO_THE_MASK = ("DogeConfig",)


# A compiled model leaves this call out of its graph: what happens here depends on what was read.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """query [B, Hq, q, d], key [B, Hkv, n, d], value [B, Hkv, n, dv] -> [B, q, Hq, dv].

    With keys from a RetrievalCache: that cache's attention once it retrieves, and until then
    full attention, while the cache looks at the queries. Otherwise full attention. Learned sinks
    (s_aux) and soft-capped logits (softcap) are served; other arguments that would change the
    result are refused by name.
    """
    call = read_call(module, query, scaling, arguments)
    layer = getattr(key, LAYER, None)
    if layer is not None:
        if query.requires_grad:
            raise InvalidArgument(
                "query requires a gradient, which retrieval has not: use torch.inference_mode()"
            )
        if layer.retrieving:
            return layer.attend(query, key, value, attention_mask, call), None
        layer.observe(query, attention_mask, call)
        # Decoders of encoder-decoder models say that they are not causal, and leave it to the mask,
        # which is None where it would be nothing but causal.
        call = replace(call, is_causal=query.shape[2] > 1 and attention_mask is None)
    return full_attention(module, query, key, value, attention_mask, call), None


def attention_mask(*args: Any, config: Any = None, **kwargs: Any) -> Any:
    """The mask that PyTorch's attention takes. A model whose attention is written out in its own
    code goes on with it under any name, and expects eager attention's mask."""
    if type(config).__name__ in _ADDS_TO_THE_MASK:
        kwargs["allow_is_causal_skip"] = False
    return ALL_MASK_ATTENTION_FUNCTIONS[_mask_of(type(config))](*args, config=config, **kwargs)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _mask_of(config: type) -> str:
    model = model_class_of(config)
    return "eager" if model is not None and not exchanges_attention(model) else "sdpa"


AttentionInterface.register(ATTENTION_NAME, attention)
AttentionMaskInterface.register(ATTENTION_NAME, attention_mask)
