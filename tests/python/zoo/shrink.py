"""A small configuration of any causal language model class."""

from __future__ import annotations

from typing import Any

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .exceptions import CONFIGURATIONS, OF_CONFIGURATIONS, WITHOUT_PARTS

VOCABULARY = 97
WINDOW = 16  # of sliding layers: shorter than every prompt
MOST_LAYERS = 4

# Values go by the names that configurations use for them. What a class's default configuration
# has under such a name, and larger, is replaced.
SMALL: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "emb_dim", "d_embed"), 64),
    **dict.fromkeys(("embedding_size", "input_embedding_size", "output_embedding_size"), 64),
    **dict.fromkeys(("word_embed_proj_dim", "lru_width", "embedding_dim"), 64),
    "attention_hidden_size": 64,
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "dff", "dim_ff"), 96),
    **dict.fromkeys(("d_inner", "ffn_hidden_size", "decoder_ffn_dim", "encoder_ffn_dim"), 96),
    **dict.fromkeys(("feed_forward_size", "dense_intermediate_size", "intermediate_size_mlp"), 96),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("shared_experts_intermediate_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    "attention_heads": 4,
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("swa_num_attention_heads", "num_query_groups"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("num_global_key_value_heads",), 1),
    **dict.fromkeys(("head_dim", "swa_head_dim", "global_head_dim", "attention_head_size"), 16),
    **dict.fromkeys(("d_head", "dim_head", "kv_channels"), 16),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "zero_expert_num"), 1),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "o_lora_rank", "qk_nope_head_dim"), 16),
    "qk_rope_head_dim": 8,
    "qk_head_dim": 24,
    "v_head_dim": 16,
    "rotary_dim": 8,
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "text_vocab_size"), VOCABULARY),
    **dict.fromkeys(("hidden_size_per_layer_input", "laurel_rank", "linear_head_dim"), 16),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("linear_num_heads", "linear_num_key_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size"), 8),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "block_size"), 16),
    **dict.fromkeys(("mamba_dt_rank", "time_step_rank"), 8),
    "n_groups": 1,
    "mamba_d_ssm": 128,
    **dict.fromkeys(("sliding_window", "sliding_window_size", "window_size"), WINDOW),
    **dict.fromkeys(("attention_window_size", "local_attention", "attention_chunk_size"), WINDOW),
    "index_topk": 24,
    "index_head_dim": 16,
    "index_n_heads": 4,
    "query_pre_attn_scalar": 16,
}
LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_target_positions")
LENGTH = 512
LAYERS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
    "num_encoder_layers", "num_decoder_layers", "num_blocks",
)  # fmt: skip
# This standard deviation of weights makes attention far from uniform and keeps activations finite.
STANDARD_DEVIATION = ("initializer_range", "init_std", "initializer_factor")
DEVIATION = 0.2


def class_names() -> list[str]:
    """Names of all causal language model classes, of PyTorch."""
    names = {
        name
        for value in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        for name in (value if isinstance(value, (tuple, list)) else [value])
    }
    names |= {
        name
        for name in dir(transformers)
        if name.endswith(("ForCausalLM", "LMHeadModel"))
        and not name.startswith(("TF", "Flax", "Auto"))
    }
    return sorted(names)


def small_config(name: str, changes: dict[str, Any]) -> Any:
    """Of the class of that name; what its constructor raises means that it cannot be made."""
    named = CONFIGURATIONS.get(name)
    kind = getattr(transformers, named) if named else getattr(transformers, name).config_class
    return kind(**{**small_values(kind()), **changes})


def small_values(default: Any) -> dict[str, Any]:
    """Keyword arguments that make a configuration of the same class small."""
    values: dict[str, Any] = {}
    own = default.to_dict()
    parts = getattr(default, "sub_configs", {})
    layers = next((own[name] for name in LAYERS if isinstance(own.get(name), int)), None)
    chosen = _chosen_layers(own, layers)
    for name, value in own.items():
        if name in parts and (value is not None or type(default).__name__ in WITHOUT_PARTS):
            values[name] = small_values(getattr(default, name) or parts[name]())
        elif name in SMALL and isinstance(value, int) and not isinstance(value, bool):
            values[name] = min(value, SMALL[name])
        elif name in LENGTHS and isinstance(value, int):
            values[name] = max(LENGTH, min(value, 4 * LENGTH))
        elif name == "head_dim" and value is None:
            values[name] = SMALL[name]
        elif name in LAYERS and isinstance(value, int):
            values[name] = len(chosen)
        elif _is_of_layers(name, value, layers):
            values[name] = type(value)(value[i] for i in chosen)
        elif name.endswith(("token_id", "_index")) and isinstance(value, int):
            values[name] = min(value, VOCABULARY - 1)
        elif name in STANDARD_DEVIATION:
            values[name] = DEVIATION
    if "qk_rope_head_dim" in own:  # latent attention, where `head_dim` is one of several
        parts_of_head = ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
        same = next((part for part in parts_of_head if own.get("head_dim") == own.get(part)), None)
        if "head_dim" in values and same is not None:
            values["head_dim"] = SMALL[same]
        values["num_key_value_heads"] = values["num_attention_heads"]
    if "vocab_size" in own:
        values |= {"eos_token_id": None, "bos_token_id": 1, "pad_token_id": 0, "is_decoder": True}
    return values | OF_CONFIGURATIONS.get(type(default).__name__, {})


def _is_of_layers(name: str, value: Any, layers: int | None) -> bool:
    return (
        isinstance(value, (list, tuple))
        and layers is not None
        and len(value) == layers
        and not name.startswith("_")
    )


def _chosen_layers(own: dict[str, Any], layers: int | None) -> list[int]:
    """Which of the default's layers to keep: one of every kind, in their order of appearance."""
    lists = [value for name, value in own.items() if _is_of_layers(name, value, layers)]
    if not lists:
        return [0, 1]
    first: dict[str, int] = {}
    for i in range(len(lists[0])):
        first.setdefault(str([each[i] for each in lists if not isinstance(each[i], float)]), i)
    chosen = list(first.values())[:MOST_LAYERS]
    return sorted(chosen * 2 if len(chosen) == 1 else chosen)
