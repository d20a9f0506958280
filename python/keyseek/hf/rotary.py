"""The rotary embedding of a model's layer, in keyseek's words."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ..errors import InvalidArgument

# Frequencies that depend on the length of the text: keys of different ages would not agree.
_CHANGING = ("dynamic", "longrope")


def rotary_options(config: Any, layer_type: str) -> dict[str, Any]:
    """Keyword arguments for HeadCache.prefill: theta or frequencies, rotary_dim, shift.

    Reads config.rope_parameters (transformers 5; by layer type or for all) or config.rope_theta
    and config.rope_scaling (transformers 4).
    """
    parameters = getattr(config, "rope_parameters", None)
    if isinstance(parameters, dict) and layer_type in parameters:
        parameters = parameters[layer_type]
    if parameters is None:
        theta = getattr(config, "rope_theta", None)
        if theta is None:
            return {"shift": False}
        parameters = {"rope_theta": theta, **(getattr(config, "rope_scaling", None) or {})}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind in _CHANGING:
        raise InvalidArgument(
            f"rope_type is '{kind}', whose frequencies change with the length of the text: "
            "retrieval needs fixed ones; use a DynamicCache for this model"
        )
    share = parameters.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))
    rotary_dim = int(_head_dim(config) * (share or 1.0))
    if kind == "default":
        return {"theta": float(parameters["rope_theta"]), "rotary_dim": rotary_dim}
    frequencies, _ = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    return {
        "frequencies": np.asarray(frequencies.double()),
        "rotary_dim": 2 * len(frequencies),
    }


def _head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
