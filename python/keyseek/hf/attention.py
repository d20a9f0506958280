"""The attention function that transformers calls in every layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from ..errors import InvalidArgument

ATTENTION_NAME = "keyseek"
# The keys that a RetrievalLayer returns carry the layer under this name.
LAYER = "_keyseek_layer"


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [B, Hq, q, d], key [B, Hkv, n, d], value [B, Hkv, n, dv] -> [B, q, Hq, dv].

    With keys from a RetrievalCache: that cache's attention once it retrieves, and until then
    PyTorch's, while the cache looks at the queries. Otherwise PyTorch's.
    """
    layer = getattr(key, LAYER, None)
    if layer is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    if kwargs.get("softcap") is not None:
        raise InvalidArgument(
            f"softcap is {kwargs['softcap']}: attention with soft-capped logits is not supported; "
            "use a DynamicCache for this model"
        )
    if query.requires_grad:
        raise InvalidArgument(
            "query requires a gradient, which retrieval has not: use torch.inference_mode()"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layer.retrieving:
        return layer.attend(query, key, value), None
    layer.observe(query, attention_mask, scale)
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **kwargs
    )


AttentionInterface.register(ATTENTION_NAME, attention)
AttentionMaskInterface.register(ATTENTION_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
