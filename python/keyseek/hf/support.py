"""What a model and its configuration say about retrieval before a prompt is read."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from ..errors import InvalidArgument
from .attention import ATTENTION_NAME
from .loading import own_attention
from .model_class import (
    config_value,
    exchanges_attention,
    model_class_of,
    takes_dynamic_caches,
)

_MAX_GROUP = 64  # query heads of one KV head


def require_support(config: Any, text: Any, model: PreTrainedModel | None) -> None:
    """Throws InvalidArgument for a model none of whose layers can retrieve."""
    if getattr(text, "alibi", False) or getattr(text, "use_alibi", False):
        raise InvalidArgument(
            "the model uses ALiBi, a position bias that retrieval by q.k cannot serve: use a "
            "DynamicCache for it"
        )
    kind = type(model) if model is not None else model_class_of(type(config))
    if kind is not None and not _exchanges_attention(kind, model):
        raise InvalidArgument(own_attention(kind))
    if kind is not None and not takes_dynamic_caches(kind):
        raise InvalidArgument(
            f"{kind.__name__} takes only a cache of its own, which cannot retrieve: use the one "
            "that it makes itself"
        )
    if model is not None:
        require_attention(text)
    heads = config_value(text, "num_attention_heads")
    kv_heads = config_value(text, "num_key_value_heads") or heads
    if isinstance(heads, int) and isinstance(kv_heads, int) and heads > _MAX_GROUP * kv_heads:
        raise InvalidArgument(
            f"the model has {heads // kv_heads} query heads for each KV head, at most {_MAX_GROUP} "
            "can be searched together: use a DynamicCache for it"
        )


def require_attention(text: Any) -> None:
    """Throws InvalidArgument where the model's attention is another one."""
    chosen = getattr(text, "_attn_implementation", None)
    if chosen != ATTENTION_NAME:
        raise InvalidArgument(
            f"the model's attention is '{chosen}', a RetrievalCache needs '{ATTENTION_NAME}': "
            f"call model.set_attn_implementation('{ATTENTION_NAME}') on the model whose "
            "configuration the cache was made from"
        )


def reason_of(layer: Any, kind: str) -> str | None:
    """Why a layer of transformers' own cache is left as it is; None for plain full attention.

    kind: of the layer, as the configuration has it.
    """
    if type(layer) is DynamicLayer:
        # transformers 4 also makes such a layer for kinds that it has no cache for.
        return None if kind in ("full_attention", "attention") else f"its kind is '{kind}'"
    name = type(layer).__name__
    if getattr(layer, "is_sliding", False):
        return f"it attends to a sliding window of {layer.sliding_window} tokens"
    return {
        "DummyLayer": "it has no keys of its own",
        "DynamicIndexedLayer": "it chooses its keys by an indexer of its own",
    }.get(name, f"its cache is a {name}, not one of keys and values alone")


def _exchanges_attention(kind: type[PreTrainedModel], model: PreTrainedModel | None) -> bool:
    """Whether the model itself, or one that it wraps, takes another attention."""
    if exchanges_attention(kind):
        return True
    inside = [] if model is None else [m for m in model.modules() if isinstance(m, PreTrainedModel)]
    return any(exchanges_attention(type(m)) for m in inside if m is not model)
