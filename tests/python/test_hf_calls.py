"""Arguments of attention: served as eager attention serves them, or refused by name."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from keyseek.hf import RetrievalCache, attention
from test_hf import SHAPE, SMALL, cache_of, llama, logits, own, prompt, refused

PIECES = [300] + [1] * 24


def gpt_oss(name="keyseek"):
    config = transformers.GptOssConfig(
        num_hidden_layers=2,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=16,
        **SHAPE,
    )
    torch.manual_seed(0)
    model = transformers.GptOssForCausalLM._from_config(config, attn_implementation=name).eval()
    torch.manual_seed(1)
    for key, parameter in model.named_parameters():
        if "sinks" in key:
            parameter.data.normal_(std=3.0)
    return model


def gemma2(name="keyseek"):
    config = transformers.Gemma2Config(
        num_hidden_layers=2,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        attn_logit_softcapping=20.0,
        query_pre_attn_scalar=8,
        **SHAPE,
    )
    torch.manual_seed(0)
    return transformers.Gemma2ForCausalLM._from_config(config, attn_implementation=name).eval()


@pytest.mark.parametrize("make", [gpt_oss, gemma2])
@pytest.mark.parametrize("kind", ["dynamic", "retrieval", "half"])
def test_sinks_and_soft_caps_are_those_of_eager_attention(make, kind):
    ids, ours = prompt(324), make()
    cache = {
        "dynamic": lambda: own(ours),
        "retrieval": lambda: cache_of(ours, 1e-6),
        "half": lambda: RetrievalCache(ours, 1e-6, **SMALL),
    }[kind]()
    seen = logits(ours, ids, cache, PIECES)
    expected = logits(make("eager"), ids, own(ours), PIECES)
    tolerance = 2e-2 if kind == "half" else 2e-4
    torch.testing.assert_close(seen, expected, atol=tolerance, rtol=tolerance)
    assert kind == "dynamic" or cache.retrieving


@pytest.mark.parametrize("make", [gpt_oss, gemma2])
def test_sinks_and_soft_caps_keep_a_promise(make, tmp_path):
    ids, ours = prompt(684), make()
    pieces = [620] + [1] * 64
    expected = logits(make("eager"), ids, own(ours), pieces)
    cache = cache_of(ours, 0.1)
    seen = logits(ours, ids, cache, pieces)
    assert {plan.retriever for plan in cache.layers[1].plans()} != {"everything"}
    distance = torch.nn.functional.kl_div(
        seen.log_softmax(-1), expected.log_softmax(-1), log_target=True, reduction="sum"
    )
    assert distance < 0.05
    cache.save(tmp_path / "prefix")
    again = RetrievalCache.load(ours, tmp_path / "prefix", threads=1)
    more = prompt(1, seed=9)
    torch.testing.assert_close(logits(ours, more, again, [1]), logits(ours, more, cache, [1]))


class Layer(torch.nn.Module):
    """What a model's attention is, as far as attention functions look at it."""

    is_causal = True
    num_key_value_groups = 1


def call(**arguments):
    states = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    return attention(Layer(), states, states, states, None, **arguments)[0]


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ({"head_mask": torch.ones(2)}, "Layer hands head_mask = a Tensor to attention"),
        ({"relative_bias": torch.ones(2)}, "relative_bias"),
        ({"logit_scale_of_a_model_to_come": 2.0}, "logit_scale_of_a_model_to_come = 2.0"),
        ({"output_attentions": True}, "output_attentions is True.*'eager'"),
        ({"s_aux": torch.ones(3)}, r"s_aux has shape \(3,\), must be one logit for each of 2"),
    ],
)
def test_arguments_that_are_not_served_are_refused_by_name(arguments, pattern):
    with refused(pattern):
        call(**arguments)


def test_arguments_without_effect_are_taken():
    plain = call()
    for arguments in ({"head_mask": None}, {"use_cache": True}, {"position_ids": torch.arange(6)}):
        torch.testing.assert_close(call(**arguments), plain)


@pytest.mark.parametrize("count", [1, 7, 600])
@pytest.mark.parametrize("masked", [False, True])
def test_blocks_of_queries_are_attended_as_by_definition(count, masked):
    torch.manual_seed(count)
    tokens = count + 5
    query, key, value = (
        torch.randn(2, 4, count, 8),
        torch.randn(2, 2, tokens, 8),
        torch.randn(2, 2, tokens, 6),
    )
    sinks = torch.randn(4)
    seen = torch.ones(count, tokens, dtype=torch.bool).tril(5)
    if masked:
        seen = (seen & (torch.rand(2, 1, count, tokens) < 0.8)) | torch.eye(
            count, tokens, dtype=torch.bool
        )
    module = Layer()
    module.num_key_value_groups = 2
    out, _ = attention(
        module, query, key, value, seen if masked else None, scaling=0.3, softcap=1.5, s_aux=sinks
    )
    scores = 0.3 * query.double() @ key.double().repeat_interleave(2, 1).transpose(-1, -2)
    scores = (1.5 * (scores / 1.5).tanh()).masked_fill(~seen, float("-inf"))
    both = torch.cat([scores, sinks.double().view(1, 4, 1, 1).expand(2, 4, count, 1)], -1)
    expected = both.softmax(-1)[..., :tokens] @ value.double().repeat_interleave(2, 1)
    torch.testing.assert_close(out.double(), expected.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_a_call_of_another_kind_than_planned_is_refused():
    model = llama()
    for changes, pattern in (
        ({"scaling": 0.5}, "asked with scaling 0.5"),
        ({"dropout": 0.1}, r"dropout is 0.1.*eval"),
        ({"sliding_window": 8}, "sliding window"),
        ({"softcap": 3.0}, "softcap 3.0"),
    ):
        cache = cache_of(model)
        logits(model, prompt(300), cache, [299, 1])
        key, value = cache.update(torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 8), 0)
        given = {"scaling": 8**-0.5, **changes}
        with refused(pattern):
            attention(Layer(), torch.zeros(1, 4, 1, 8), key, value, None, **given)
        with refused("layer 0 was given tokens that were never attended"):
            cache.update(torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 8), 0)


def test_a_token_is_attended_once():
    model, cache = llama(), None
    cache = cache_of(model)
    logits(model, prompt(300), cache, [299, 1])
    key, value = cache.update(torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 8), 0)
    query = torch.zeros(1, 4, 1, 8)
    attention(Layer(), query, key, value, None)
    with refused("layer 0 is attended a second time"):
        attention(Layer(), query, key, value, None)
    assert len(cache.layers[0].heads[0]) == 301
