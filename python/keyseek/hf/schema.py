"""What `state.pt` of a saved cache holds: fields by name and type, checked as they come back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import Error

NONE = type(None)
Fields = dict[str, tuple[type, ...]]

VERSION = 5
CACHE: Fields = {
    "version": (int,),
    "dtype": (str, NONE),
    "params": (str,),  # keyseek.DecodeParams.to_text
    "fingerprint": (dict,),
    "tokens": (str, NONE),  # a hash of the ids that were read
    "layers": (list,),
}
FINGERPRINT: Fields = {"sizes": (dict,), "rotary": (list,), "weights": (str, NONE)}
RETRIEVAL_LAYER: Fields = {
    "kind": (str,),
    "heads": (int,),  # files of HeadCaches
    "read": (str,),  # a hash of them
    "batch": (int,),
    "tokens": (int,),
    "reason": (str, NONE),
    "visible": (Tensor, int),
    "scale": (float, NONE),  # of the last call, None before the first
    "softcap": (float, NONE),
    "sinks": (Tensor, NONE),
    "keys": (Tensor, NONE),  # these three of a layer that does not retrieve
    "values": (Tensor, NONE),
    "queries": (list,),
    "waiting": (dict,),  # of requests of a layer that retrieves, by number: WAITING
}
WAITING: Fields = {"keys": (Tensor,), "values": (Tensor,), "queries": (list,)}
# Of a pickle, beside what a file has.
PICKLED_LAYER: Fields = {
    **{name: kinds for name, kinds in RETRIEVAL_LAYER.items() if name not in ("kind", "read")},
    "options": (object,),
    "index": (int,),
    "rotary": (dict,),
    "note": (str,),
    "caches": (list,),  # the HeadCaches
}

_KEYS: Fields = {"keys": (Tensor, NONE), "values": (Tensor, NONE), "is_initialized": (bool,)}
_WINDOW: Fields = {"cumulative_length": (int,), "sliding_window": (int,)}
_INDEXER: Fields = {
    "indexer_keys": (Tensor, NONE),
    "indexer_position_ids": (Tensor, NONE),
    "is_indexer_initialized": (bool,),
}
# Of one state, or by number of the state, as the version of transformers has it.
_LINEAR: Fields = {
    "conv_states": (dict, Tensor, NONE),
    "recurrent_states": (dict, Tensor, NONE),
    "is_conv_states_initialized": (dict, bool),
    "is_recurrent_states_initialized": (dict, bool),
    "has_previous_state": (dict, bool),
    "conv_kernel_size": (dict, int, NONE),
}
# Layers of transformers' own, by the name of their class.
_OF_TRANSFORMERS: dict[str, Fields] = {
    "DynamicLayer": _KEYS,
    "DynamicSlidingWindowLayer": _KEYS | _WINDOW,
    "DynamicIndexedLayer": _KEYS | _INDEXER,
    "LinearAttentionLayer": _LINEAR,
    "LinearAttentionAndFullAttentionLayer": _KEYS | _LINEAR,
    "LinearAttentionAndSlidingWindowAttentionLayer": _KEYS | _WINDOW | _LINEAR,
    "DummyLayer": {},
}


def fields_of(layer: Any) -> Fields:
    """Of a layer of transformers' own. Throws Error for a class that is not known here."""
    name = type(layer).__name__
    if name not in _OF_TRANSFORMERS:
        raise Error(
            f"a layer is a {name}, whose state a saved cache has no place for: keep the text and "
            "read it again",
            "unsupported",
        )
    return {
        field: kinds for field, kinds in _OF_TRANSFORMERS[name].items() if hasattr(layer, field)
    }


def checked(what: str, found: Any, fields: Fields) -> dict[str, Any]:
    """`found`, where it is a dict of just these fields. Throws Error(corrupt) that names what is
    missing, unknown or of another type."""
    if not isinstance(found, dict):
        raise Error(f"{what} is a {type(found).__name__}, must be a dict", "corrupt")
    for name in fields:
        if name not in found:
            raise Error(f"{what}: field {name} is missing", "corrupt")
    for name, value in found.items():
        if name not in fields:
            raise Error(f"{what}: there is no field {name}", "corrupt")
        kinds = fields[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("None" if kind is NONE else kind.__name__ for kind in kinds)
            raise Error(f"{what}: {name} is a {type(value).__name__}, must be {wanted}", "corrupt")
    return found
