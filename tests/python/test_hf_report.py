"""Options, reports and warnings of a RetrievalCache: nothing is found out late or in silence."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import keyseek
from keyseek.hf import RetrievalCache, RetrievalWarning
from keyseek.hf.report import named
from keyseek.hf.stored import stored_dtype
from test_hf import (
    SHAPE,
    SMALL,
    cache_of,
    full_logits,
    gemma,
    generate,
    llama,
    logits,
    own,
    prompt,
    refused,
)

IS_5 = not transformers.__version__.startswith("4.")


@pytest.fixture(scope="module")
def model():
    return llama()


def test_options_are_those_of_the_core(model):
    """As an object or by name, but for what the model says of itself."""
    params = keyseek.DecodeParams(max_error=0.02, sink=20, window=30, least_indexed=50)
    assert RetrievalCache(model, params=params)._params == params
    named = RetrievalCache(model, 0.02, sink=20, window=30, least_indexed=50)._params
    assert named == params.replace(refresh_delay=256)  # a quarter of the horizon
    assert RetrievalCache(model, horizon=100)._params.refresh_delay == 25
    assert RetrievalCache(model, refresh_delay=0)._params.refresh_delay == 0
    assert RetrievalCache(model, 0.1, params=params)._params == params.replace(max_error=0.1)
    for group in ("logits", "rotary embedding"):
        for name in keyseek.DecodeParams.groups[group]:
            with refused(f"{name} is what the model says of itself"):
                RetrievalCache(model, **{name: 1})


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"sinks": 4}, "there is no option sinks; options are max_error, safety, confidence"),
        ({"sink": "4"}, "sink is '4' .str., must be a whole number"),
        ({"window": 3.5}, "window is 3.5 .float., must be a whole number"),
        ({"scan_novel": 1}, "scan_novel is 1 .int., must be True or False"),
        ({"seed": True}, "seed is True .bool., must be a whole number"),
        ({"index": 3}, "index is 3, must be a function"),
        ({"max_error": 0.0}, r"max_error is 0.*\(0, 1\)"),
        ({"share": 2.0}, "share is 2"),
        ({"window": -1}, "window is -1"),
        ({"rule": "best"}, "rule is 'best'"),
        ({"retriever": "hnsw"}, "retriever is 'hnsw'"),
        ({"retriever": "flat", "rule": "dipr"}, "needs a limit"),
        ({"limit": 3.0}, "limit is 3"),
        ({"retriever": "flat", "max_error": 0.05}, "max_error is 0.05, but retriever is flat"),
        ({"retriever": "flat", "target_recall": 0.9}, "target_recall is 0.9, but retriever is"),
        ({"retriever": "none", "k": 100}, "k is 100, but retriever is none"),
        ({"retriever": "flat", "k": 0}, "k is 0, .* ask for the retriever none"),
        ({"retriever": "complete", "may_miss": True}, "may_miss is true, but retriever is"),
        ({"scan_novel": False}, "scan_novel is false, but only a projection index"),
        ({"index": lambda keys: None, "retriever": "flat"}, "index is a search of your own"),
        ({"threads": True}, "threads is True .bool., must be a whole number"),
        ({"threads": False}, "threads is False .bool., must be a whole number"),
        ({"threads": 2**63}, f"threads is {2**63}, must be a whole number"),
        ({"threads": -1}, "threads is -1"),
        ({"dtype": torch.int8}, "dtype is torch.int8, must be 'auto'"),
        ({"dtype": "half"}, "dtype is 'half', must be 'auto'"),
        ({"progress": 3}, "progress is 3, must be True, False or a function"),
    ],
)
def test_options_are_checked_before_a_prompt_is_read(model, options, pattern):
    with pytest.raises((keyseek.InvalidArgument, TypeError), match=pattern):
        RetrievalCache(model, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_full_attention_is_counted_as_its_keys_and_values_are_stored(model, dtype):
    cache = cache_of(model, 0.1, dtype=dtype)
    logits(model, prompt(302), cache, [300, 1, 1])
    heads = [head for layer in cache.report().layers for head in layer.heads]
    row = 2 * 8 * dtype.itemsize
    assert {head.full_bytes for head in heads} == {head.indexed * row for head in heads}
    assert cache.last_step()["full_bytes_per_head"] == heads[0].indexed * row
    assert cache.plan_table().split("\n")[1].split()[-1] == f"{heads[0].indexed * row / 1000:.1f}"
    for layer in cache.layers:
        for head in getattr(layer, "heads", ()):
            if head.plan.retriever == "everything":
                assert head.stats.bytes_read == head.full_bytes


def test_a_small_error_is_not_shown_as_none(model):
    given = {"retriever": "flat", "k": 1000, "tail_vectors": 0, "least_indexed": 1}
    cache = RetrievalCache(model.config, sink=4, window=32, **given)  # rounding is all there is
    logits(model, prompt(302), cache, [300, 1, 1])
    heads = [head.plan for layer in cache.report().layers for head in layer.heads]
    shown = [float(line.split()[7]) for line in cache.plan_table().split("\n")[1:]]
    assert shown == pytest.approx([plan.expected_error for plan in heads], rel=0.05)
    assert any(0 < error < 5e-5 for error in shown)
    plan = next(plan for plan in heads if plan.expected_error > 0)
    assert f"expected_error={plan.expected_error:.2g}" in repr(plan)


def test_what_a_model_says_of_itself_is_said_in_the_constructor():
    small = {"vocab_size": 97, "hidden_size": 64, "num_attention_heads": 4}
    with refused("MptForCausalLM .* computes its attention itself"):
        RetrievalCache(transformers.MptConfig(d_model=64, n_heads=4, n_layers=2, vocab_size=97))
    with refused("MambaForCausalLM|no layer of plain full attention"):
        RetrievalCache(transformers.MambaConfig(**small, num_hidden_layers=2))
    many = {**SHAPE, "hidden_size": 71 * 8, "num_attention_heads": 71}
    config = transformers.LlamaConfig(num_hidden_layers=2, num_key_value_heads=1, **many)
    with refused("71 query heads for each KV head, at most 64"):
        RetrievalCache(config)
    sliding = transformers.MistralConfig(
        num_hidden_layers=2, num_key_value_heads=2, sliding_window=16, **SHAPE
    )
    with refused(r"nothing to retrieve for \(it attends to a sliding window of 16 tokens\)"):
        RetrievalCache(sliding)
    other = llama()
    other.set_attn_implementation("sdpa")
    with refused("the model's attention is 'sdpa'.*set_attn_implementation"):
        RetrievalCache(other)


def test_models_that_write_their_attention_out_are_refused_by_name_or_right():
    """A table of their own has no such name, or their mask is made by it for another attention."""
    config = transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4)
    with refused("BloomForCausalLM .* computes its attention itself.*'eager' and a DynamicCache"):
        transformers.BloomForCausalLM._from_config(config, attn_implementation="keyseek")
    with refused("FalconForCausalLM .* computes its attention itself"):
        transformers.FalconForCausalLM._from_config(
            transformers.FalconConfig(num_hidden_layers=2, alibi=False, **SHAPE),
            attn_implementation="keyseek",
        )
    japanese = transformers.GPTNeoXJapaneseConfig(
        num_hidden_layers=2,
        intermediate_multiple_size=2,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        **SHAPE,
    )
    seen = []
    for name in ("eager", "keyseek"):
        torch.manual_seed(0)
        net = transformers.GPTNeoXJapaneseModel._from_config(
            japanese, attn_implementation=name
        ).eval()
        with torch.inference_mode():
            seen.append(net(prompt(60)).last_hidden_state)
    torch.testing.assert_close(seen[0], seen[1], atol=1e-4, rtol=1e-4)


def test_a_report_says_what_each_layer_does(model):
    cache = cache_of(gemma(), 0.1)
    text = str(cache.report())
    assert "Layers 0, 2 attend in full: it attends to a sliding window of 16 tokens." in text
    assert "Layer 1 attends in full: no prompt has been read." in text
    cache = cache_of(model, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RetrievalWarning)
        logits(model, prompt(61), cache, [60, 1])  # a short prompt is nothing to warn of
        assert "there are 61 tokens: from 100 on it is worth it" in str(cache.report())
        logits(model, prompt(240), cache, [239, 1])
    report = cache.report()
    assert str(report).startswith("Layers 0-1 retrieve.\nlayer request head")
    assert [len(layer.heads) for layer in report.layers] == [2, 2]
    assert report.layers[1].heads[1].plan.retriever in str(report)
    assert named([3]) == "Layer 3"
    assert named([0, 1, 2, 4, 6, 7]) == "Layers 0-2, 4, 6-7"


def test_a_layer_that_does_not_retrieve_says_so_once(model):
    cache = cache_of(model)
    cache.layers[1].stop("it was told to")
    with pytest.warns(RetrievalWarning, match=r"Layer 1 attends in full: it was told to\.") as seen:
        logits(model, prompt(302), cache, [300, 1, 1])
    assert sum(issubclass(each.category, RetrievalWarning) for each in seen) == 1
    assert [layer.retrieving for layer in cache.layers] == [True, False]


def test_keys_that_are_attended_more_than_once_are_attended_in_full():
    """Layers that share keys: each token is taken once, and the answers are eager attention's."""
    config = transformers.Gemma3nTextConfig(
        vocab_size_per_layer_input=97,
        hidden_size_per_layer_input=16,
        num_hidden_layers=6,
        num_kv_shared_layers=2,
        num_key_value_heads=2,
        head_dim=16,
        laurel_rank=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"] * 3,
        activation_sparsity_pattern=[0.0] * 6,
        **SHAPE,
    )
    torch.manual_seed(0)
    net = transformers.Gemma3nForCausalLM._from_config(config, attn_implementation="keyseek").eval()
    ids, pieces = prompt(340), [300] + [1] * 40
    cache = cache_of(net, 1e-6)
    with pytest.warns(
        RetrievalWarning, match="Layer 3 attends in full: its keys are attended more"
    ):
        ours = logits(net, ids, cache, pieces)
    torch.testing.assert_close(ours, full_logits(net, ids, pieces), atol=2e-4, rtol=2e-4)
    assert cache.layers[1].retrieving
    assert {len(head) for head in cache.layers[1].heads} == {340}


@pytest.mark.parametrize("size", [1e4, 1e-5, 1.0])
def test_keys_and_values_are_stored_as_what_they_need(size):
    """Weights that make keys and values large or tiny, and queries and outputs the opposite."""
    net = llama()
    for layer in net.model.layers:
        for large, small in (("k_proj", "q_proj"), ("v_proj", "o_proj")):
            getattr(layer.self_attn, large).weight.data *= size
            getattr(layer.self_attn, small).weight.data /= size
    ids, pieces = prompt(330), [300] + [1] * 30
    full = full_logits(net, ids, pieces)
    cache = RetrievalCache(net, 1e-6, **SMALL)
    tolerance = 2e-2 if size == 1.0 else 2e-4  # float16, or float32
    torch.testing.assert_close(
        logits(net, ids, cache, pieces), full, atol=tolerance, rtol=tolerance
    )
    if size == 1e4:
        forced = RetrievalCache(net, 1e-6, dtype=torch.float16, **SMALL)
        with refused("beyond the largest float16: choose dtype='auto'"):
            logits(net, ids, forced, pieces)


def test_the_stored_type_is_chosen_by_the_values():
    ones = torch.ones(4, 8)
    assert stored_dtype(ones, ones, "auto") == torch.float16
    assert stored_dtype(ones, 1e4 * ones, "auto") == torch.float32  # no room for larger ones
    assert stored_dtype(1e-6 * ones, ones, "auto") == torch.float32
    assert stored_dtype(1e6 * ones.bfloat16(), ones.bfloat16(), "auto") == torch.bfloat16
    one_tiny = torch.cat([ones, 1e-7 * ones[:1]])
    assert stored_dtype(one_tiny, ones, "auto") == torch.float16  # nothing beside the others
    assert stored_dtype(ones, ones, None) == torch.float32


def test_what_a_cache_that_retrieves_has_not_is_said(model):
    cache = cache_of(model)
    logits(model, prompt(300), cache, [299])
    assert len(list(cache)) == 2  # as long as it is there
    logits(model, prompt(1), cache, [1])
    for ask in (lambda: cache[0], lambda: list(cache), cache.to_legacy_cache):
        with refused("asks for all keys and values, which a cache that retrieves does not keep"):
            ask()
    assert cache.is_croppable
    with refused("output_attentions is True.*'eager'"):
        model.generate(
            prompt(120),
            past_key_values=cache_of(model),
            max_new_tokens=2,
            output_attentions=True,
            return_dict_in_generate=True,
        )


@pytest.mark.skipif(IS_5, reason="transformers 5 does not say where new tokens are")
def test_the_text_is_not_taken_twice(model):
    with refused("tokens from position 0 on were handed over.*use_cache"):
        generate(model, prompt(200), cache_of(model), 3, use_cache=False)


def test_tokens_of_a_prompt_are_taken_back(model):
    """What is planned then is the prompt without them."""
    ids = prompt(340)
    cache, plain = cache_of(model, 1e-6), own(model)
    logits(model, ids[:, :320], cache, [200, 120])
    cache.crop(-20)
    assert cache.get_seq_length() == 300
    ours = logits(model, ids[:, 300:], cache, [1] * 30)
    logits(model, ids[:, :300], plain, [300])
    full = logits(model, ids[:, 300:], plain, [1] * 30)
    assert cache.retrieving
    torch.testing.assert_close(ours, full, atol=2e-4, rtol=2e-4)


def test_caches_are_copied_and_pickled(model):
    ids = prompt(320)
    waiting, retrieving = cache_of(model), cache_of(model)
    logits(model, ids[:, :300], waiting, [300])
    logits(model, ids[:, :300], retrieving, [299, 1])
    for cache in (waiting, retrieving):
        expected = logits(model, ids[:, 300:], cache.copy(), [1] * 20)
        for again in (
            copy.copy(cache),
            copy.deepcopy(cache),
            pickle.loads(pickle.dumps(cache)),
        ):
            torch.testing.assert_close(logits(model, ids[:, 300:], again, [1] * 20), expected)
        assert cache.get_seq_length() == 300
    layer = retrieving.layers[0]
    with pytest.raises(keyseek.Error, match="a pickled layer: field tokens is missing"):
        type(layer).__new__(type(layer)).__setstate__(
            {name: value for name, value in layer.__getstate__().items() if name != "tokens"}
        )


def test_planning_tells_how_far_it_is(model, capfd):
    told = []
    cache = cache_of(model, progress=lambda planned, count: told.append((planned, count)))
    logits(model, prompt(300, batch=2), cache, [299, 1])
    assert told == [(i, 8) for i in range(1, 9)]
    cache = cache_of(model, progress=True)
    logits(model, prompt(300), cache, [299, 1])
    assert "Planning heads" in capfd.readouterr().err


def test_a_compiled_model_leaves_our_call_out(model):
    torch._dynamo.reset()
    net = llama()
    compiled = torch.compile(net, backend="eager")
    ids, pieces = prompt(320), [300] + [1] * 20
    cache = cache_of(net, 1e-6)
    ours = logits(compiled, ids, cache, pieces)
    assert cache.retrieving
    torch.testing.assert_close(ours, full_logits(net, ids, pieces), atol=2e-4, rtol=2e-4)


def test_a_cache_of_another_model_is_refused(model, tmp_path):
    cache = RetrievalCache(model, **SMALL)
    logits(model, prompt(300), cache, [299, 1])
    cache.save(tmp_path / "prefix")
    RetrievalCache.load(model, tmp_path / "prefix")
    RetrievalCache.load(model.config, tmp_path / "prefix")
    other = llama()
    with torch.no_grad():
        other.model.layers[1].self_attn.k_proj.weight += 0.01
    with refused("model of the same shape with other weights"):
        RetrievalCache.load(other, tmp_path / "prefix")
    turned = (
        llama(rope_theta=500.0)
        if not IS_5
        else llama(rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    )
    with refused("layer 0 has .* there and .* here"):
        RetrievalCache.load(turned, tmp_path / "prefix")
    logits(model, prompt(300, seed=5), cache := RetrievalCache(model, **SMALL), [299, 1])
    cache.save(tmp_path / "other")
    for file in (tmp_path / "other").glob("layer-000*"):
        file.replace(tmp_path / "prefix" / file.name)
    with pytest.raises(keyseek.Error, match="files of layer 0 are of another text"):
        RetrievalCache.load(model, tmp_path / "prefix")
