"""The rotary embedding of every layer, against the model's own queries at another position."""

from __future__ import annotations

import numpy as np
import pytest

import keyseek

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from keyseek.hf.probe import ask
from keyseek.hf.rotary import LayerRotary, require_same_rotary, rotary_of

NEWEST = not transformers.__version__.startswith("4.")
SMALL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
}
HEAD = {"head_dim": 16}
MIXED = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 16}
LATENT = {
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "n_group": 1,
    "topk_group": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 2,
    "num_key_value_heads": 4,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
LINEAR = {"rope_type": "linear", "factor": 4.0}
HALF, PAIRS, NONE = "half-split", "interleaved", "none"


def scaled(scaling, theta=10000.0):
    """Options of a configuration for a scaled embedding, in the words of either version."""
    if NEWEST:
        return {"rope_parameters": {**scaling, "rope_theta": theta}}
    return {"rope_scaling": scaling, "rope_theta": theta}


def partial(share):
    if NEWEST:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": share}
        return {"rope_parameters": rope}
    return {"partial_rotary_factor": share}


# Each has its model, options, layout of each layer, and rotated elements (first, dim).
KINDS = {
    "Llama": ("Llama", {}, [HALF] * 4, (0, 16)),
    "Llama, wide heads": ("Llama", {"head_dim": 32}, [HALF] * 4, (0, 32)),
    "Llama, theta 5e5": ("Llama", scaled({"rope_type": "default"}, 5e5), [HALF] * 4, (0, 16)),
    "Llama, llama3": ("Llama", scaled(LLAMA3, 5e5), [HALF] * 4, (0, 16)),
    "Llama, yarn": ("Llama", scaled(YARN), [HALF] * 4, (0, 16)),
    "Llama, linear": ("Llama", scaled(LINEAR), [HALF] * 4, (0, 16)),
    "Mistral": ("Mistral", {"sliding_window": None}, [HALF] * 4, (0, 16)),
    "Mixtral": ("Mixtral", {"num_local_experts": 4}, [HALF] * 4, (0, 16)),
    "Qwen2": ("Qwen2", {}, [HALF] * 4, (0, 16)),
    "Qwen3": ("Qwen3", HEAD, [HALF] * 4, (0, 16)),
    "Gemma": ("Gemma", HEAD, [HALF] * 4, (0, 16)),
    "Gemma2": ("Gemma2", {**HEAD, **MIXED}, [HALF] * 4, (0, 16)),
    "Gemma3": ("Gemma3", {**HEAD, **MIXED}, [HALF] * 4, (0, 16)),
    "Granite": ("Granite", {}, [HALF] * 4, (0, 16)),
    "Olmo2": ("Olmo2", {}, [HALF] * 4, (0, 16)),
    "GptOss": ("GptOss", {**HEAD, "num_local_experts": 4, **MIXED}, [HALF] * 4, (0, 16)),
    "GPTNeoX": ("GPTNeoX", {"num_key_value_heads": 4}, [HALF] * 4, (0, 4)),
    "Phi": ("Phi", partial(0.5), [HALF] * 4, (0, 8)),
    "Phi3, partial": ("Phi3", {**partial(0.5), "sliding_window": None}, [HALF] * 4, (0, 8)),
    "Glm4Moe": ("Glm4Moe", {**HEAD, **partial(0.5)}, [HALF] * 4, (0, 8)),
    "Glm": ("Glm", HEAD, [PAIRS] * 4, (0, 8)),
    "Glm4": ("Glm4", HEAD, [PAIRS] * 4, (0, 8)),
    "Cohere": ("Cohere", {}, [PAIRS] * 4, (0, 16)),
    "Ernie4_5": ("Ernie4_5", HEAD, [PAIRS] * 4, (0, 16)),
    "Helium": ("Helium", HEAD, [PAIRS] * 4, (0, 16)),
    "SmolLM3": ("SmolLM3", {"no_rope_layers": [1, 1, 1, 0]}, [HALF, HALF, HALF, NONE], (0, 16)),
    "Cohere2": ("Cohere2", MIXED, [PAIRS, NONE] * 2, (0, 16)),
    "Exaone4": ("Exaone4", MIXED, [HALF, NONE] * 2, (0, 16)),
    "Llama4": (
        "Llama4",
        {
            **HEAD,
            "no_rope_layers": [1, 0, 1, 0],
            "num_local_experts": 2,
            "intermediate_size_mlp": 96,
        },
        [PAIRS, NONE] * 2,
        (0, 16),
    ),
    "DeepseekV2": ("DeepseekV2", LATENT, [PAIRS] * 4, (16, 8)),
    "DeepseekV3": ("DeepseekV3", LATENT, [HALF] * 4, (16, 8)),
}
if NEWEST:  # on the attention interface since transformers 5
    KINDS["StableLm"] = ("StableLm", partial(0.25), [HALF] * 4, (0, 4))
    KINDS["Gemma4"] = ("Gemma4", {**HEAD, "global_head_dim": 32, **MIXED}, [HALF] * 4, None)


def config_of(kind):
    name, options, _, _ = KINDS[kind]
    names = [name + "TextConfig", name + "Config"]
    made = next(getattr(transformers, each) for each in names if hasattr(transformers, each))
    return made(**{**SMALL, **options})


def model_of(kind, dtype=torch.float32):
    torch.manual_seed(0)
    made = getattr(transformers, KINDS[kind][0] + "ForCausalLM")
    return made._from_config(config_of(kind), dtype=dtype).eval()


_asked = {}


def note(module, query, key, value, mask, **options):
    _asked[module.layer_idx] = query.detach().double()
    options.pop("softcap", None)  # of Gemma 2: which keys it attends to does not matter here
    return sdpa_attention_forward(module, query, key, value, mask, **options)


AttentionInterface.register("note", note)


def queries_at(model, start, count=24):
    """Queries [count, heads, d] of each layer for a prompt that begins at a position."""
    chosen = model.config._attn_implementation
    model.set_attn_implementation("note")
    _asked.clear()
    ids = torch.arange(3, 3 + count)[None]
    with torch.no_grad():
        model(ids, position_ids=torch.arange(start, start + count)[None], use_cache=False)
    model.set_attn_implementation(chosen)
    return {i: q[0].transpose(0, 1).float().contiguous() for i, q in _asked.items()}


def moved(queries, shift, rotary):
    options = rotary.options()
    rows = queries.reshape(-1, queries.shape[-1]).numpy()
    if options.pop("shift", True):
        rows = keyseek.rope_shift(rows, np.full(len(rows), float(shift)), **options)
    return torch.from_numpy(np.array(rows)).reshape(queries.shape)


def off(got, want):
    return ((got - want).norm() / want.norm()).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["model", "config"])
def test_queries_are_moved_to_where_the_model_has_them(kind, source):
    _, _, layouts, elements = KINDS[kind]
    model = model_of(kind)
    rotary = rotary_of(model if source == "model" else model.config)
    assert [layer.layout for layer in rotary] == layouts
    for layer in rotary:
        if elements is not None and layer.layout != "none":
            assert (layer.first, layer.dim) == elements
    here = queries_at(model, 0)
    for shift in (1, 700, 3999):
        there = queries_at(model, shift)
        assert sorted(there) == list(range(4))
        for i, layer in enumerate(rotary):
            assert off(moved(here[i], shift, layer), there[i]) < 5e-4, f"layer {i}"


def test_the_old_guess_was_wrong_for_half_of_them():
    """What the comparison above is worth: Llama's embedding does not pass it for the others."""
    guess = LayerRotary("half-split", 0, 16, theta=10000.0)
    for kind in ("Glm", "Cohere", "SmolLM3", "Exaone4", "Ernie4_5", "DeepseekV3"):
        model = model_of(kind)
        here, there = queries_at(model, 0), queries_at(model, 700)
        if here[3].shape[-1] == 16:
            assert off(moved(here[3], 700, guess), there[3]) > 0.1, kind


def test_local_and_global_layers_have_their_own_speed():
    rotary = rotary_of(config_of("Gemma3"))
    assert [layer.theta for layer in rotary] == [10000.0, 1e6] * 2


@pytest.mark.parametrize("scaling", [LLAMA3, YARN, LINEAR], ids=lambda s: s["rope_type"])
def test_frequencies_hold_for_a_million_positions(scaling):
    options = {**SMALL, "max_position_embeddings": 1 << 20, **scaled(scaling, 5e5)}
    config = transformers.LlamaConfig(**options)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    own = model.model.rotary_emb.inv_freq.double().numpy()
    for source in (model, config):
        for layer in rotary_of(source):
            assert np.abs(np.array(layer.frequencies) - own).max() * 1e6 < 1e-3


@pytest.mark.parametrize("kind", ["Llama", "Glm", "Cohere2", "Exaone4", "DeepseekV3", "Gemma3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_of_small_types_is_no_misfit(kind, dtype):
    """Loaded in that type, which leaves the frequencies in float32."""
    rotary = rotary_of(model_of(kind, dtype))
    assert [layer.layout for layer in rotary] == KINDS[kind][2]
    require_same_rotary(rotary, rotary_of(config_of(kind)), "x")


def test_a_model_that_was_converted_turns_by_its_own_frequencies():
    """`to` rounds them as well: only the model itself tells."""
    model = model_of("Llama").to(torch.bfloat16)
    rotary = rotary_of(model)
    own = model.model.rotary_emb.inv_freq.double().numpy()
    assert all(np.array_equal(layer.frequencies, own) for layer in rotary)
    with pytest.raises(keyseek.InvalidArgument, match="x is of another model: layer 0 has"):
        require_same_rotary(rotary, rotary_of(model.config), "x")


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_embeddings_that_change_with_length_are_refused(kind):
    scaling = {"rope_type": kind, "factor": 2.0, "original_max_position_embeddings": 1024}
    if kind == "longrope":
        scaling.update(short_factor=[1.0] * 8, long_factor=[2.0] * 8)
    config = transformers.LlamaConfig(**{**SMALL, **scaled(scaling)})
    with pytest.raises(keyseek.InvalidArgument, match=f"rope_type is '{kind}'"):
        rotary_of(config)


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_the_old_name_of_longrope_is_refused_too(key):
    config = transformers.LlamaConfig(**SMALL)
    config.rope_scaling = {key: "su"}
    with pytest.raises(
        keyseek.InvalidArgument, match="rope_type is 'su', whose frequencies change"
    ):
        rotary_of(config)


@pytest.mark.parametrize("name", ["GPT2", "OPT", "Bloom"])
def test_what_is_no_rotation_is_left_where_it_is_and_says_why(name):
    config = getattr(transformers, name + "Config")(
        vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, ffn_dim=96
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    for source in (model, config):
        for layer in rotary_of(source):
            assert not layer.known and layer.options() == {"shift": False}
            assert "position" in layer.reason


def test_a_class_that_is_not_known_says_so():
    class OwnConfig(transformers.LlamaConfig):
        model_type = "own"

    for layer in rotary_of(OwnConfig(**SMALL)):
        assert layer.reason == "no model class is known for OwnConfig: pass the model itself"


def test_a_model_with_pictures_is_asked_for_its_text():
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = transformers.Gemma3Config(
        text_config={**SMALL, **HEAD, **MIXED},
        vision_config={**vision, "image_size": 28, "patch_size": 14},
    )
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    assert rotary_of(model) == rotary_of(config) == rotary_of(config_of("Gemma3"))


def test_asking_leaves_the_model_as_it_was():
    model = model_of("Gemma3").train()
    model.model.layers[1].eval()
    training = [module.training for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    rotary_of(model)
    rotary_of(model_of("Qwen3").config)
    assert [module.training for module in model.modules()] == training
    assert model.config._attn_implementation == model.model.config._attn_implementation == "sdpa"
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    torch.manual_seed(5)
    rotary_of(transformers.LlamaConfig(**{**SMALL, "vocab_size": 98}))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert drawn == torch.rand(1)


def test_asking_that_fails_leaves_the_model_as_it_was(monkeypatch):
    model = model_of("Llama")
    broken = model.model.layers[2].mlp
    monkeypatch.setattr(broken, "forward", lambda x: 1 / 0)
    with pytest.raises(keyseek.hf.probe.AskFailed, match="ZeroDivisionError"):
        ask(model)
    assert model.config._attn_implementation == "sdpa"
    assert [layer.layout for layer in rotary_of(model)] == [
        "half-split"
    ] * 4  # a small one is asked


def test_one_batch_and_one_by_one_say_the_same():
    model = model_of("DeepseekV3")
    one, other = ask(model), ask(model, together=False)
    for layer, queries in one.of_layer.items():
        np.testing.assert_allclose(queries, other.of_layer[layer], atol=1e-4)


def test_states_come_back_the_same():
    for kind in ("Llama, yarn", "DeepseekV3", "SmolLM3"):
        for layer in rotary_of(config_of(kind)):
            again = LayerRotary.of_state(layer.state())
            assert again == layer and again.same(layer)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (LayerRotary("half-split", 0, 16, theta=5e5), "theta 10000 there and .*theta 500000 here"),
        (LayerRotary("interleaved", 0, 16, theta=1e4), "there and interleaved pairs"),
        (
            LayerRotary("half-split", 8, 8, theta=1e4),
            "there and half-split pairs of elements 8..15",
        ),
        (LayerRotary("none"), "there and no rotation here"),
        (LayerRotary("unknown", reason="of rain"), r"unknown rotation \(of rain\) here"),
    ],
)
def test_another_embedding_is_refused(other, message):
    own = LayerRotary("half-split", 0, 16, theta=1e4)
    require_same_rotary((own, own), (own, own), "x")
    with pytest.raises(
        keyseek.InvalidArgument, match=f"x is of another model: layer 1 .*{message}"
    ):
        require_same_rotary((own, own), (own, other), "x")
    with pytest.raises(keyseek.InvalidArgument, match="of a model of 2 layers, this one has 1"):
        require_same_rotary((own, own), (own,), "x")
