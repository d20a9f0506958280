"""What transformers' classes say of the attention and the cache of their models."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import transformers
from transformers import PreTrainedModel

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _remembered(function: _Function) -> _Function:
    """functools.cache with the function's own types, since its stub takes no classes."""
    return cast(_Function, functools.cache(function))


@_remembered
def model_class_of(config: type) -> type[PreTrainedModel] | None:
    """The class that transformers makes of a configuration of this class, if it knows one."""
    for known in (transformers.MODEL_FOR_CAUSAL_LM_MAPPING, transformers.MODEL_MAPPING):
        found = known.get(config, None)
        if found is not None:
            return found[0] if isinstance(found, (list, tuple)) else found
    return None


@_remembered
def exchanges_attention(model: type[PreTrainedModel]) -> bool:
    """Whether the attention goes by transformers' interface, or is written out in the model, or
    chosen from a table of its own."""
    return bool(model._can_set_attn_implementation()) and not any(
        isinstance(value, dict)
        and "eager" in value
        and all(isinstance(each, type) for each in value.values())
        for value in vars(sys.modules[model.__module__]).values()
    )


def takes_dynamic_caches(model: type[PreTrainedModel]) -> bool:
    """Whether the model takes transformers' DynamicCache, or only a cache of its own."""
    supports = getattr(model, "_supports_default_dynamic_cache", None)
    return supports is None or bool(supports())


def config_value(config: Any, name: str) -> Any:
    """What a configuration says under a name; None where it says nothing; a list with an entry for
    each layer where it says something else of each (transformers 5 refuses to give one then)."""
    try:
        return getattr(config, name, None)
    except RuntimeError:
        return [getattr(layer, name, None) for layer in config.per_layer_config]
