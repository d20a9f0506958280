"""What a RetrievalCache is made of: its options, its threads, its layers."""

from __future__ import annotations

from typing import Any

import torch

from .._core import DecodeParams, DecodePool
from ..errors import InvalidArgument
from .rotary import LayerRotary

# A refresh is adopted after such a part of a horizon: time to plan all heads, at little to attend.
_HORIZONS_SHARE = 4


def params_for(given: DecodeParams | None, options: dict[str, Any]) -> DecodeParams:
    """Where nothing else is said, no step waits for a refresh."""
    params = (given or DecodeParams()).replace(**options)
    if given is not None or "refresh_delay" in options:
        return params
    return params.replace(refresh_delay=params.horizon // _HORIZONS_SHARE)


def pool_of(threads: int) -> DecodePool:
    """Of PyTorch's number of threads where none is asked for."""
    asked = DecodePool(threads)  # refuses what is no number
    return asked if threads != 0 else DecodePool(torch.get_num_threads())


def make_layers(cache: Any, config: Any) -> None:
    """Gives a cache the layers of a DynamicCache for a configuration."""
    try:
        cache.__init__(config=config)
    except AttributeError as error:
        raise InvalidArgument(
            f"transformers makes no cache for a {type(config).__name__}, which lacks a value "
            f"({error}): use the cache that the model makes itself"
        ) from None


def require_not_of_the_model(options: dict[str, Any]) -> None:
    for group in ("logits", "rotary embedding"):
        for name in DecodeParams.groups[group]:
            if name in options:
                raise InvalidArgument(f"{name} is what the model says of itself: leave it out")


def note_on(rotary: LayerRotary) -> str:
    if rotary.known:
        return ""
    return (
        "the prompt's queries are not moved to where decoding will be, and more is read than need "
        f"be: {rotary.reason}"
    )
