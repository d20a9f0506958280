"""What a model asks of one call of attention, and the refusal of what is not served."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..errors import InvalidArgument

# Arguments that models hand to every attention function and that leave its result as it is: they
# are meant for other functions, or the mask says the same.
_WITHOUT_EFFECT = frozenset(
    {
        "block_indices",  # of sparse attention; for other functions the mask has them
        "cache",
        "cache_position",
        "cu_seq_lens_k",
        "cu_seq_lens_q",
        "deterministic",
        "indices",
        "labels",
        "layer_idx",
        "logits_to_keep",
        "max_length_k",
        "max_length_q",
        "num_items_in_batch",
        "output_hidden_states",
        "output_router_logits",
        "past_key_value",
        "past_key_values",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "token_type_ids",
        "use_cache",
    }
)
_TAKES_POSITION_BIAS = "position_bias" in inspect.signature(sdpa_attention_forward).parameters


@dataclass(frozen=True)
class AttentionCall:
    """The arguments of a call, beside queries, keys, values and mask, that change its result."""

    scale: float  # of the logits
    softcap: float = 0.0  # c: a scaled logit x becomes c tanh(x / c) (Gemma 2); 0: it stays
    sinks: Tensor | None = None  # [Hq] a logit per query head that takes mass and has no value
    dropout: float = 0.0
    is_causal: bool | None = None  # without a mask; None: as the module says
    position_bias: Tensor | None = None  # [.., Hq, q, n] added to the scaled logits
    sliding_window: int | None = None  # which the mask, if the model made one, has as well

    @property
    def is_plain(self) -> bool:
        """Whether PyTorch's own attention serves it."""
        return self.softcap == 0.0 and self.sinks is None


def read_call(
    module: nn.Module, query: Tensor, scaling: float | None, arguments: dict[str, Any]
) -> AttentionCall:
    """Reads what transformers hands over beside the tensors.

    Throws InvalidArgument that names an argument which would change the result and is not
    served, whatever the cache is: transformers takes a registered function at its word.
    """
    rest = {name: value for name, value in arguments.items() if name not in _WITHOUT_EFFECT}
    call = AttentionCall(
        scale=_scale_of(module, query) if scaling is None else float(scaling),
        softcap=float(rest.pop("softcap", None) or 0.0),
        sinks=_sinks_of(query, rest),
        dropout=float(rest.pop("dropout", None) or 0.0),
        is_causal=rest.pop("is_causal", None),
        position_bias=rest.pop("position_bias", None),
        sliding_window=rest.pop("sliding_window", None),
    )
    if rest.pop("output_attentions", None):
        raise InvalidArgument(
            "output_attentions is True, but the attention 'keyseek' makes no matrix of weights: "
            "call model.set_attn_implementation('eager') to see it"
        )
    if call.position_bias is not None and not _TAKES_POSITION_BIAS:
        raise InvalidArgument(_not_served(module, "position_bias", "a tensor"))
    for name, value in rest.items():
        if value is not None and value is not False:
            kind = f"a {type(value).__name__}" if isinstance(value, Tensor) else repr(value)
            raise InvalidArgument(_not_served(module, name, kind))
    return call


def require_same_call(call: AttentionCall, planned: AttentionCall, layer: int) -> None:
    """Throws InvalidArgument where a plan for calls like `planned` does not hold for this one."""
    if (call.scale, call.softcap) != (planned.scale, planned.softcap):
        raise InvalidArgument(
            f"layer {layer} is asked with scaling {call.scale} and softcap {call.softcap}, "
            f"its plan is for {planned.scale} and {planned.softcap}"
        )
    if call.dropout > 0.0:
        raise InvalidArgument(
            f"dropout is {call.dropout}, which retrieval has not: call model.eval()"
        )
    if call.position_bias is not None or call.sliding_window is not None:
        raise InvalidArgument(
            f"layer {layer} is asked with a position bias or a sliding window, which it "
            "was not while the prompt was read"
        )


def _scale_of(module: nn.Module, query: Tensor) -> float:
    """The scale that is not handed over: GPT-2's module has flags, which eager attention reads."""
    asked: Any = module
    scale = query.shape[-1] ** -0.5 if getattr(asked, "scale_attn_weights", True) else 1.0
    if getattr(asked, "scale_attn_by_inverse_layer_idx", False):
        scale /= asked.layer_idx + 1
    return float(scale)


def _sinks_of(query: Tensor, rest: dict[str, Any]) -> Tensor | None:
    """gpt-oss calls them s_aux, others sinks."""
    given = [rest.pop(name, None) for name in ("s_aux", "sinks")]
    sinks = next((each for each in given if each is not None), None)
    if sinks is not None and sinks.numel() != query.shape[1]:
        raise InvalidArgument(
            f"s_aux has shape {tuple(sinks.shape)}, must be one logit for each of "
            f"{query.shape[1]} query heads"
        )
    return None if sinks is None else sinks.reshape(-1)


def _not_served(module: nn.Module, name: str, value: str) -> str:
    return (
        f"{type(module).__name__} hands {name} = {value} to attention, which the attention "
        "'keyseek' does not serve: call model.set_attn_implementation('eager') and use a "
        "DynamicCache for this model"
    )
