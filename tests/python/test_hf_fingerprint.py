"""What tells a model, and what it has read, from others."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import keyseek

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from keyseek.hf.fingerprint import (
    ModelFingerprint,
    fingerprint_of,
    heads_hash,
    require_same_model,
    tokens_hash,
    weights_hash,
)
from keyseek.hf.rotary import rotary_of

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def llama(seed=0, **options):
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SIZES, **options})).eval()


def fingerprint(source):
    return fingerprint_of(source, rotary_of(source))


def refused(sentence):
    return pytest.raises(keyseek.InvalidArgument, match=sentence)


def test_a_model_is_the_same_again():
    saved = fingerprint(llama())
    again = ModelFingerprint.of_state(copy.deepcopy(saved.state()))
    assert again == saved and saved.weights
    require_same_model(again, fingerprint(llama()), "x")
    # A configuration alone is compared as far as it goes.
    require_same_model(saved, fingerprint(llama(seed=1).config), "x")
    require_same_model(fingerprint(llama().config), fingerprint(llama(seed=1)), "x")


def test_a_state_is_plain(tmp_path):
    saved = fingerprint(llama(layer_types=["full_attention"] * 2)).state()
    torch.save(saved, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == saved


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 128}, "head_dim is 16 there and 32 here|hidden_size is 64 there and 128"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 2 there and 3 here"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 2 there and 4 here"),
        ({"vocab_size": 98}, "vocab_size is 97 there and 98 here"),
    ],
)
def test_another_shape_is_refused(options, message):
    saved = fingerprint(llama().config)
    with refused(f"x is of another model: ({message})"):
        require_same_model(saved, fingerprint(llama(**options).config), "x")


def test_another_embedding_is_refused():
    saved = fingerprint(llama().config)
    if transformers.__version__.startswith("4."):
        other = llama(rope_theta=5e5)
    else:
        other = llama(rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    with refused("layer 0 has .* theta 10000 there and .* theta 500000 here"):
        require_same_model(saved, fingerprint(other.config), "x")


def test_another_architecture_is_refused():
    saved = fingerprint(llama().config)
    with refused("model_type is llama there and mistral here"):
        require_same_model(saved, fingerprint(transformers.MistralConfig(**SIZES)), "x")


def test_what_does_not_matter_is_not_compared():
    saved = fingerprint(llama().config)
    config = llama().config
    config._attn_implementation = "eager"
    config.use_cache = False
    config._name_or_path = "somewhere/else"
    require_same_model(saved, fingerprint(config), "x")


def test_other_weights_are_refused():
    model = llama()
    saved = fingerprint(model)
    for change in (0, -1):  # of a norm's weights, and of the last weight
        other = copy.deepcopy(model)
        with torch.no_grad():
            list(other.parameters())[change].add_(0.01)
        with refused("x is of a model of the same shape with other weights"):
            require_same_model(saved, fingerprint(other), "x")
    with refused("with other weights"):
        require_same_model(saved, fingerprint(llama(seed=1)), "x")


@pytest.mark.parametrize("name", ["q_proj", "k_proj", "down_proj"])
def test_a_fine_tuned_layer_shows(name):
    """A change of low rank, as adapters leave behind when they are merged."""
    model = llama()
    tuned = copy.deepcopy(model)
    module = dict(tuned.named_modules())
    chosen = next(
        m
        for path, m in module.items()
        if path.endswith("layers.1.self_attn." + name) or path.endswith("layers.1.mlp." + name)
    )
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(chosen.weight.shape[0], 1, generator=generator)
    b = torch.randn(1, chosen.weight.shape[1], generator=generator)
    with torch.no_grad():
        chosen.weight.add_(1e-4 * a @ b)
    assert weights_hash(tuned) != weights_hash(model)


def test_weights_are_the_same_numbers_in_any_type_and_wrapping():
    small = llama().to(torch.bfloat16)
    wide = copy.deepcopy(small).float()
    assert weights_hash(small) == weights_hash(wide) != weights_hash(llama())
    assert weights_hash(torch.compile(small)) == weights_hash(small)


def test_weights_that_are_not_there_are_not_compared():
    with torch.device("meta"):
        model = llama()
    assert weights_hash(model) is None


def test_tokens():
    own = tokens_hash([1, 2, 3], 3)
    for same in (torch.tensor([[1, 2, 3]]), torch.tensor([1, 2, 3]).int()):
        assert tokens_hash(same, 3) == own
    others = [[1, 2], [3, 2, 1], [1, 2, 3, 0]]
    assert len({own, *(tokens_hash(each, len(each)) for each in others)}) == 4
    assert tokens_hash(torch.tensor([[1, 2], [3, 4]]), 2) != tokens_hash([1, 2, 3, 4], 4)
    with refused("tokens are torch.float32 of 1 dimensions, must be integers"):
        tokens_hash(torch.ones(3), 3)
    with refused("tokens are 2, the cache has read 3"):
        tokens_hash([1, 2], 3)


def test_heads_of_another_prompt_show(tmp_path):
    def head(seed, tokens=300):
        random = np.random.default_rng(seed)
        keys, values, queries = random.standard_normal((3, tokens, 16)).astype(np.float32)
        return keyseek.HeadCache.prefill(
            keys, values, queries, scale=0.25, sink=4, window=32, least_indexed=64, horizon=64,
            observed=64, held_out=16, tail_vectors=8, threads=1,
        )  # fmt: skip

    own = head(1)
    own.save(tmp_path / "own.ks")
    loaded = keyseek.HeadCache.map(tmp_path / "own.ks")
    assert heads_hash([own]) == heads_hash([loaded])
    assert heads_hash([own]) != heads_hash([head(2)]) != heads_hash([own, own])
    assert heads_hash([own, head(2)]) != heads_hash([head(2), own])
