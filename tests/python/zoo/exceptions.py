"""What `shrink` cannot know, by the names of configuration classes and of models."""

from __future__ import annotations

from typing import Any

# These models are not made of the configuration that their class names.
CONFIGURATIONS = {
    "ClvpForCausalLM": "ClvpDecoderConfig",
    "CsmDepthDecoderForCausalLM": "CsmDepthDecoderConfig",
}  # Configurations whose default lacks a part that the model wants.
WITHOUT_PARTS = {"Phi4MultimodalConfig"}

MIXED = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
GEMMA3N = {
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "num_kv_shared_layers": 2,
    "activation_sparsity_pattern": [0.0] * 6,
    "intermediate_size": [96] * 6,
}
GEMMA4 = {
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "num_kv_shared_layers": 2,
    "global_head_dim": 32,
}

# These values replace those that `shrink` chose.
OF_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "BambaConfig": {"attn_layer_indices": [1], "mamba_d_head": 16, "mamba_n_heads": 8},
    "BltConfig": {"encoder_hash_byte_group_vocab": 500},
    "CohereCompassTextConfig": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "CsmDepthDecoderConfig": {"backbone_hidden_size": 64, "num_codebooks": 4},
    "DbrxConfig": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "DeepseekV2Config": {"num_experts_per_tok": 2},
    "DoryConfig": {**MIXED, "n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1},
    "Dots1Config": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
    },
    "Dots3NoteTextConfig": {
        "num_key_value_heads": 4,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 24,
        "swa_qk_nope_head_dim": 16,
        "swa_v_head_dim": 16,
    },
    "FalconH1Config": {"mamba_d_head": 16, "mamba_n_heads": 8},
    "Gemma3nTextConfig": GEMMA3N,
    "Gemma4TextConfig": GEMMA4,
    "Gemma4UnifiedTextConfig": GEMMA4,
    "GPTNeoConfig": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "GraniteConfig": {"attention_multiplier": 0.25},
    "GraniteMoeConfig": {"attention_multiplier": 0.25},
    "GraniteMoeHybridConfig": {
        "attention_multiplier": 0.25,
        "layer_types": ["mamba", "attention"],
        "num_hidden_layers": 2,
        "mamba_d_head": 16,
        "mamba_n_heads": 8,
    },
    "GraniteMoeSharedConfig": {"attention_multiplier": 0.25},
    "Inkling2TextConfig": {"vocab_size": 97, "unpadded_vocab_size": 97},
    "Inkling2LoopTextConfig": {"vocab_size": 97, "unpadded_vocab_size": 97},
    "JambaConfig": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "Lfm2Config": {"layer_types": ["conv", "full_attention"] * 2, "num_hidden_layers": 4},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention"] * 2, "num_hidden_layers": 4},
    "Mamba2Config": {"num_heads": 8, "head_dim": 16},
    "MegaConfig": {"bidirectional": False},
    "MiniMaxM3VLTextConfig": {"index_block_size": 8, "index_topk_blocks": 4},
    "MinistralConfig": MIXED,
    "Mistral4Config": {"qk_nope_head_dim": 8},
    "MistralConfig": {"sliding_window": None},
    "MllamaTextConfig": {
        "cross_attention_layers": [],
        "rope_scaling": {"rope_type": "default", "rope_theta": 1e4},
    },
    "MusicgenDecoderConfig": {"num_codebooks": 1},
    "MusicgenMelodyDecoderConfig": {"num_codebooks": 1},
    "NemotronConfig": {"head_dim": 16, "num_key_value_heads": 2},
    "Qwen4ExpTextConfig": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 24,
        "indexer_compress_ratio": 4,
        "hc_lowrank": 16,
        "ngram_vocab_size_base": 200,
    },
    "RecurrentGemmaConfig": {
        "block_types": ["recurrent", "attention"],
        "num_hidden_layers": 2,
    },
    "ReformerConfig": {"axial_pos_embds_dim": [32, 32], "axial_pos_shape": [16, 32]},
    "RoCBertConfig": {
        "pronunciation_vocab_size": 97,
        "shape_vocab_size": 97,
        "pronunciation_embed_dim": 16,
        "shape_embed_dim": 16,
    },
    "TransfoXLConfig": {"cutoffs": [20, 40, 60]},
    "Zamba2Config": {
        "layers_block_type": ["mamba", "hybrid"],
        "num_hidden_layers": 2,
        "num_mem_blocks": 1,
        "n_mamba_heads": 8,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
    },
    "ZambaConfig": {
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "layers_block_type": ["mamba", "hybrid"] * 2,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "n_mamba_heads": 2,
        "use_mamba_kernels": False,
    },
    "xLSTMConfig": {"qk_dim_factor": 1.0},
}

# transformers itself cannot make these small, or run them with a cache of keys and values.
NOT_BUILDABLE: dict[str, str] = {
    "CsmDepthDecoderForCausalLM": "it decodes the codebooks of one frame, not a text",
    "Gemma3nForConditionalGeneration": "it needs the package timm",
    "Gemma4AssistantForCausalLM": "it drafts from the keys of another model",
    "Gemma4UnifiedAssistantForCausalLM": "it drafts from the keys of another model",
    "OpenAIGPTLMHeadModel": "it keeps no cache of keys and values",
    "QDQBertLMHeadModel": "it needs the package pytorch-quantization",
    "Speech2Text2ForCausalLM": "transformers' own constructor fails",
    "TransfoXLLMHeadModel": "it keeps no cache of keys and values",
}
