"""A small model of the same class and rotary embedding as a configuration describes."""

from __future__ import annotations

import copy
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
)

from .probe import AskFailed

_VOCABULARY = 64
_HEADS = 2
_EXPERTS = 2  # and both of them are asked
# These may be so small without any effect on heads and their positions.
_WIDTHS = {
    "vocab_size": _VOCABULARY,
    "intermediate_size": 16,
    "intermediate_size_mlp": 16,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "ffn_hidden_size": 16,
    "expert_ffn_hidden_size": 16,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": _VOCABULARY,
    "num_experts": _EXPERTS,
    "num_local_experts": _EXPERTS,
    "n_routed_experts": _EXPERTS,
    "moe_num_experts": _EXPERTS,
    "zero_expert_num": 1,
    "num_experts_per_tok": _EXPERTS,
    "num_experts_per_token": _EXPERTS,
    "moe_topk": _EXPERTS,
    "moe_k": _EXPERTS,
    "top_k_experts": _EXPERTS,
    "n_group": 1,
    "topk_group": 1,
    "mamba_d_state": 16,
    "ssm_state_size": 16,
    "mamba_n_groups": 1,
    "mamba_ngroups": 1,
    "n_groups": 1,
    "mamba_chunk_size": 16,
    "chunk_size": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_head_dim": 16,
}
# A model larger than this is not built, whatever its configuration says.
_MOST_WEIGHTS = 300_000_000


def small_model(config: Any, sizes: Callable[[Any], Any]) -> nn.Module:
    """All layers with their head dimension, on the CPU in float32, with weights that are the same
    every time. config: of a decoder. sizes: one of SIZES, which are to be tried in turn. Throws
    AskFailed."""
    kind = _class_of(config)
    try:
        small = sizes(config)
        with torch.device("cpu"), _random_state_kept(), _weights_limited():
            model = kind._from_config(small, attn_implementation="eager")
        _fill(model)
    except Exception as error:  # whatever a model's code raises
        sentence = " ".join(str(error).split())[:200]
        raise AskFailed(
            f"no small {kind.__name__} can be made: {type(error).__name__}: {sentence}"
        ) from error
    small_model: nn.Module = model.eval()
    return small_model


def _class_of(config: Any) -> type[PreTrainedModel]:
    """The class in transformers' own tables, or one of the same file that says it is for that."""
    for mapping in (MODEL_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING):
        if type(config) in mapping:
            known: Any = mapping[type(config)]
            found: type[PreTrainedModel] = known[0] if isinstance(known, (list, tuple)) else known
            return found
    name = type(config).__module__.replace(".configuration_", ".modeling_")
    if name.startswith("transformers.models."):
        for kind in vars(importlib.import_module(name)).values():
            is_for_it = getattr(kind, "config_class", None) is type(config)
            if is_for_it and isinstance(kind, type) and kind.__name__.endswith("TextModel"):
                return kind
    raise AskFailed(f"no model class is known for {type(config).__name__}: pass the model itself")


def _shallow(config: Any) -> Any:
    """Smaller in what the attention does not see."""
    small = copy.deepcopy(config)
    for nested in (each for each in vars(small).values() if isinstance(each, PretrainedConfig)):
        _limit_widths(nested)
    _limit_widths(small)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(small, name, None)
    _set(small, "use_mamba_kernels", False)
    small.dtype = torch.float32
    return small


def _limit_widths(small: Any) -> None:
    for name, size in _WIDTHS.items():
        given = getattr(small, name, None)
        if isinstance(given, list):
            setattr(small, name, [min(size, each) for each in given])
        elif isinstance(given, int) and not isinstance(given, bool):
            setattr(small, name, min(size, given))


def _narrow(config: Any) -> Any:
    """Smaller in the number of heads as well, and no wider than they need."""
    small = _shallow(config)
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    small.num_attention_heads = _HEADS
    if kv_heads is not None:
        small.num_key_value_heads = _HEADS if kv_heads == heads else 1
    small.hidden_size = _HEADS * head_dim
    # State-space layers beside the attention have heads of their own, over one hidden size here.
    for name in ("mamba_expand", "expand"):
        _set(small, name, 1)
    for name in ("mamba_n_heads", "n_mamba_heads", "mamba_num_heads"):
        _set(small, name, _HEADS)
    for name in ("mamba_d_head", "mamba_headdim", "mamba_head_dim"):
        _set(small, name, head_dim)
    _set(small, "mamba_d_ssm", small.hidden_size)
    return small


def _set(config: Any, name: str, value: Any) -> None:
    if getattr(config, name, None) is not None:
        setattr(config, name, value)


SIZES = (_narrow, _shallow)


@contextmanager
def _weights_limited() -> Iterator[None]:
    """Refuses a model, in this thread, before the memory of its weights is touched."""
    total, own = 0, threading.get_ident()

    def count(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        nonlocal total
        if weight is not None and threading.get_ident() == own:
            total += weight.numel()
            if total > _MOST_WEIGHTS:
                raise ValueError(f"it has more than {_MOST_WEIGHTS} weights")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _fill(model: nn.Module) -> None:
    """Some classes leave weights as memory was, or set them to zero. Tokens weigh more than what
    layers add to them, so that rounding does not grow with the depth."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.02, generator=generator)
            else:
                weight.nan_to_num_(0)
        cast(Any, model).get_input_embeddings().weight.normal_(0, 1, generator=generator)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """What a model draws while it is built must not show in what the caller draws later."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
