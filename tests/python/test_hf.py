"""The transformers cache on small models with random weights, beside transformers' own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import keyseek
from keyseek.hf import RetrievalCache

SMALL = {
    "sink": 4,
    "window": 32,
    "least_indexed": 64,
    "horizon": 64,
    "observed": 64,
    "held_out": 16,
    "tail_vectors": 8,
    "max_k": 64,
    "threads": 1,
}
VOCABULARY = 97
# transformers 5.24 has changed the argument's name.
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
CACHE = "cache" if VERSION >= (5, 24) else "past_key_values"
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}


def llama(**changes):
    config = transformers.LlamaConfig(
        num_hidden_layers=2,
        num_key_value_heads=2,
        **SHAPE,
        **changes,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM._from_config(config, attn_implementation="keyseek").eval()


def gemma():
    config = transformers.Gemma3TextConfig(
        num_hidden_layers=3,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        **SHAPE,
    )
    torch.manual_seed(0)
    return transformers.Gemma3ForCausalLM._from_config(config, attn_implementation="keyseek").eval()


@pytest.fixture(scope="module")
def model():
    return llama()


def prompt(length, batch=1, seed=0):
    torch.manual_seed(seed)
    return torch.randint(2, VOCABULARY, (batch, length))


def cache_of(model, max_error=0.05, **changes):
    options = {**SMALL, "dtype": None, **changes}
    if "retriever" in options:  # which leaves nothing to a planner
        max_error = None
        del options["max_k"]
    return RetrievalCache(model.config, max_error, **options)


def logits(model, ids, cache, pieces, mask=None):
    """Logits of the last piece, the pieces fed one after the other."""
    begin = 0
    with torch.inference_mode():
        for count in pieces:
            end = begin + count
            given = {} if mask is None else {"attention_mask": mask[:, :end]}
            if mask is not None:
                positions = (mask[:, :end].cumsum(-1) - 1).clamp(min=0)
                given["position_ids"] = positions[:, begin:end]
            out = model(ids[:, begin:end], **{CACHE: cache}, use_cache=True, **given)
            begin = end
    return out.logits[:, -1]


def full_logits(model, ids, pieces, mask=None):
    return logits(model, ids, transformers.DynamicCache(config=model.config), pieces, mask)


def generate(model, ids, cache, count=20, **options):
    with torch.inference_mode():
        return model.generate(
            ids,
            **{CACHE: cache},
            max_new_tokens=count,
            do_sample=options.pop("do_sample", False),
            **options,
        )


def own(model):
    return transformers.DynamicCache(config=model.config)


@pytest.mark.parametrize("make", [llama, gemma])
def test_a_short_prompt_is_attended_in_full(make):
    model = make()
    ids, cache = prompt(40), cache_of(model)
    assert torch.equal(generate(model, ids, cache), generate(model, ids, own(model)))
    assert not cache.retrieving
    assert cache.plan_table() == ""


@pytest.mark.parametrize("make", [llama, gemma])
def test_a_strict_promise_gives_the_answers_of_full_attention(make):
    model = make()
    ids, cache = prompt(330), cache_of(model, max_error=1e-6)
    pieces = [300] + [1] * 30
    ours, full = logits(model, ids, cache, pieces), full_logits(model, ids, pieces)
    assert cache.retrieving
    torch.testing.assert_close(ours, full, atol=2e-4, rtol=2e-4)
    assert {plan.retriever for _, layer in cache._retrieval_layers() for plan in layer.plans()} == {
        "everything"
    }


def test_a_loose_promise_reads_less_and_stays_near(model):
    ids, cache = prompt(660), cache_of(model, max_error=0.1)
    pieces = [620] + [1] * 40
    ours, full = logits(model, ids, cache, pieces), full_logits(model, ids, pieces)
    seen = cache.last_step()
    assert seen["bytes_per_head"] < 0.7 * seen["full_bytes_per_head"]
    distance = torch.nn.functional.kl_div(
        ours.log_softmax(-1), full.log_softmax(-1), log_target=True, reduction="sum"
    )
    assert distance < 0.05
    assert cache.nbytes > 0
    lines = cache.plan_table().splitlines()
    assert len(lines) == 1 + 2 * 2
    assert lines[1].split()[:3] == ["0", "0", "0"]


def test_only_layers_of_full_attention_retrieve():
    model = gemma()
    cache = cache_of(model)
    generate(model, prompt(200), cache, 4)
    assert [hasattr(layer, "heads") for layer in cache.layers] == [False, True, False]
    assert cache.layers[1].retrieving


def test_prefill_in_pieces_is_the_same(model):
    ids = prompt(320)
    whole = logits(model, ids, cache_of(model), [300] + [1] * 20)
    pieces = logits(model, ids, cache_of(model), [100, 150, 50] + [1] * 20)
    torch.testing.assert_close(whole, pieces, atol=1e-3, rtol=1e-3)


def test_a_conversation_goes_on(model):
    ids = prompt(340)
    one_by_one = logits(model, ids, cache_of(model, 1e-6), [300] + [1] * 40)
    together = logits(model, ids, cache_of(model, 1e-6), [300] + [1] * 10 + [30])
    torch.testing.assert_close(one_by_one, together, atol=1e-3, rtol=1e-3)


def test_refreshing_keeps_the_answers(model):
    ids = prompt(520)
    pieces = [300] + [1] * 220  # more than three horizons
    cache = cache_of(model, max_error=1e-6)
    ours = logits(model, ids, cache, pieces)
    torch.testing.assert_close(ours, full_logits(model, ids, pieces), atol=2e-4, rtol=2e-4)
    head = cache.layers[0].heads[0]
    assert len(head) == 520
    assert head.indexed > 300


def test_a_padded_batch_equals_its_requests(model):
    lengths, steps = [300, 240], 20
    rows = [prompt(length + steps, seed=length)[0] for length in lengths]
    ids = torch.zeros(2, 300 + steps, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, -len(row) :] = row
        mask[i, -len(row) :] = 1
    together = logits(model, ids, cache_of(model, 0.1), [300] + [1] * steps, mask)
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        alone = logits(model, row[None], cache_of(model, 0.1), [length] + [1] * steps)
        torch.testing.assert_close(together[i], alone[0], atol=1e-3, rtol=1e-3)


def test_sampling_and_generations_in_sequence(model):
    ids = prompt(200)
    torch.manual_seed(3)
    sampled = generate(model, ids, cache_of(model, 1e-6), do_sample=True)
    torch.manual_seed(3)
    assert torch.equal(sampled, generate(model, ids, own(model), do_sample=True))
    cache = cache_of(model, 1e-6)
    first = generate(model, ids, cache)
    cache.reset()
    assert not cache.retrieving
    assert cache.get_seq_length() == 0
    assert torch.equal(generate(model, ids, cache), first)


def test_requests_of_a_batch_can_be_chosen_and_repeated(model):
    ids, cache = prompt(200, batch=2), cache_of(model, 1e-6)
    logits(model, ids, cache, [198, 1])
    for layer in cache.layers:
        layer.batch_select_indices(torch.tensor([1, 1, 0]))
    chosen = ids[[1, 1, 0]]
    with torch.inference_mode():
        ours = model(chosen[:, 199:], past_key_values=cache).logits[:, -1]
    torch.testing.assert_close(ours, full_logits(model, chosen, [199, 1]), atol=2e-4, rtol=2e-4)


def test_engines_can_ask_for_the_tokens_alone(model):
    cache = cache_of(model, 0.1)
    logits(model, prompt(302, batch=2), cache, [300, 1, 1])
    queries = torch.randn(2, 4, 8)
    indices, lengths = cache.retrieve_topk(queries, 1, 20)
    assert indices.shape == (2, 4, 20)
    assert lengths.shape == (2, 4)
    for request, heads in enumerate(indices):
        for query_head, row in enumerate(heads):
            head = cache.layers[1].heads[2 * request + query_head // 2]
            valid = row[row >= 0]
            assert len(valid) == lengths[request, query_head] == len(set(valid.tolist()))
            if head.plan.retriever in ("flat", "sketch", "projection"):
                assert len(valid) == 20
                assert SMALL["sink"] <= valid.min()
                assert valid.max() < SMALL["sink"] + head.indexed
    planned, _ = cache.retrieve_topk(queries, 1)
    assert planned.shape[-1] == max(head.plan.k for head in cache.layers[1].heads)
    for layer in (7, -1):
        with refused(f"layer_idx is {layer}, must be in"):
            cache.retrieve_topk(queries, layer)
    for k in (0, -1, 303, 2**63):
        with refused(rf"k is {k}, must be in \[1, 302\]"):
            cache.retrieve_topk(queries, 1, k)
    for wrong in ({"k": True}, {"k": 1.5}, {"layer_idx": True}):
        with pytest.raises(TypeError, match=f"{next(iter(wrong))} is .*must be a whole number"):
            cache.retrieve_topk(queries, **{"layer_idx": 1, **wrong})
    with refused("1 requests and dimension 8"):
        cache.retrieve_topk(queries[:1], 1)


def test_half_precision_is_what_is_stored_by_default(model):
    small, large = cache_of(model, 0.1, dtype=torch.float16), cache_of(model, 0.1)
    for cache in (small, large):
        logits(model, prompt(302), cache, [300, 1, 1])
    assert small.nbytes < 0.75 * large.nbytes


def refused(pattern):
    return pytest.raises(keyseek.InvalidArgument, match=pattern)


def test_what_cannot_work_is_said(model):
    with refused("max_error is 2"):
        cache_of(model, 2.0)
    other = llama()
    other.set_attn_implementation("sdpa")
    with refused(r"set_attn_implementation\('keyseek'\)"):
        logits(other, prompt(10), cache_of(other), [10])
    with refused("layer 2 .* 2 layers"):
        cache = cache_of(model)
        cache.update(torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 8), 2)
    with refused("requires a gradient"):
        model(prompt(10), past_key_values=cache_of(model))
    retrieving = cache_of(model)
    logits(model, prompt(200), retrieving, [199, 1])
    with refused("3 requests, the cache of 1"):
        logits(model, prompt(1, batch=3), retrieving, [1])


def test_embeddings_that_change_with_length_are_refused():
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    if transformers.__version__.startswith("4."):
        config = llama(rope_scaling=scaling).config
    else:
        config = llama(rope_parameters={**scaling, "rope_theta": 10000.0}).config
    with refused("rope_type is 'dynamic'"):
        RetrievalCache(config)


def test_scaled_embeddings_have_their_own_frequencies():
    scaling = {"rope_type": "linear", "factor": 4.0}
    if transformers.__version__.startswith("4."):
        scaled = llama(rope_scaling=scaling)
    else:
        scaled = llama(rope_parameters={**scaling, "rope_theta": 10000.0})
    frequencies = cache_of(scaled).layers[0]._rotary["frequencies"]
    expected = scaled.model.rotary_emb.inv_freq.double().numpy()
    assert frequencies == pytest.approx(expected)
