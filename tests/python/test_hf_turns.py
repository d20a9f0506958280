"""A conversation that goes on: many tokens at once, and some taken back, beside a DynamicCache."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from keyseek.hf import RetrievalCache
from keyseek.hf import turn as turns
from test_hf import CACHE, SMALL, VERSION, cache_of, gemma, generate, llama, own, prompt, refused
from test_hf_calls import gemma2, gpt_oss

STRICT = 1e-6
KEEPS = VERSION < (5, 0)  # what the number of a crop says: how many stay; from 5 on, how many go


@pytest.fixture(scope="module")
def model():
    return llama()


def crop(cache, kept):
    """In the words of the installed version."""
    cache.crop(kept if KEEPS else kept - cache.get_seq_length())


def read(model, ids, cache, mask=None):
    """Logits of the tokens that the cache has not read yet [B, q, v]."""
    begin, end, given = cache.get_seq_length(), ids.shape[1], {}
    if mask is not None:
        positions = (mask[:, :end].cumsum(-1) - 1).clamp(min=0)
        given = {"attention_mask": mask[:, :end], "position_ids": positions[:, begin:end]}
    with torch.inference_mode():
        return model(ids[:, begin:], **{CACHE: cache}, use_cache=True, **given).logits


def planned(model, ids, max_error=0.3, **options):
    """A cache that has read ids, and retrieves from now on."""
    cache = cache_of(model, max_error, **options)
    read(model, ids, cache)
    cache.plan()
    assert cache.retrieving
    return cache


def whole(model, ids, count, mask=None):
    """Of the newest `count` tokens, the logits of one reading."""
    return read(model, ids, own(model), mask)[:, -count:]


def retrievers(cache):
    return {plan.retriever for _, layer in cache._retrieval_layers() for plan in layer.plans()}


def close(ours, full, tolerance=2e-4):
    torch.testing.assert_close(ours, full, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("count", [3, 64, 700])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [None, "auto"])
def test_a_second_turn_has_the_logits_of_full_attention(count, dtype, stored):
    model = llama().to(dtype)
    ids = prompt(300 + count)
    cache = planned(model, ids[:, :300], dtype=stored)
    assert retrievers(cache) != {"everything"}
    ours, full = read(model, ids, cache), own(model)
    read(model, ids[:, :300], full)
    tolerance = {torch.float32: 2e-4 if stored is None else 5e-2, torch.bfloat16: 0.1}[dtype]
    close(ours, read(model, ids, full), tolerance)
    assert {len(head) for head in cache.layers[1].heads} == {300 + count}


def test_a_turn_is_planned_once_with_the_next_token(model):
    ids, cache = prompt(702), None
    cache = planned(model, ids[:, :300], refresh_delay=0)
    indexed = cache.layers[0].heads[0].indexed
    read(model, ids[:, :701], cache)
    assert cache.layers[0].heads[0].indexed == indexed
    read(model, ids, cache)
    assert cache.layers[0].heads[0].indexed == 701 - SMALL["sink"] - SMALL["window"]
    assert retrievers(cache) != {"everything"}


@pytest.mark.parametrize("make", [gpt_oss, gemma2, gemma])
def test_turns_of_models_with_sinks_soft_caps_and_sliding_windows(make):
    model, ids = make(), prompt(664)
    cache = planned(model, ids[:, :300])
    for end in (303, 664):
        ours = read(model, ids[:, :end], cache)
        close(ours, whole(model, ids[:, :end], ours.shape[1]))


def test_a_turn_of_a_batch_with_padding_before_and_within_it(model):
    ids = prompt(400, batch=3)
    mask = torch.ones_like(ids)
    mask[1, :50] = 0
    mask[2, 300:] = 0  # says nothing in this turn
    mask[0, 300:310] = mask[1, 390:] = 0
    cache = cache_of(model, 0.3)
    read(model, ids[:, :300], cache, mask)
    cache.plan()
    ours, full = read(model, ids, cache, mask), whole(model, ids, 100, mask)
    shown = mask[:, 300:].bool()
    close(ours[shown], full[shown])
    assert [len(cache.layers[0].heads[2 * i]) for i in range(3)] == [390, 340, 300]


def test_a_turn_that_fails_takes_no_token(model, monkeypatch):
    ids = prompt(400, batch=2)
    cache = planned(model, ids[:, :300])
    append, calls = turns.append_heads, []

    def failing(*arguments):
        calls.append(len(arguments[0]))
        if len(calls) == 4:
            raise MemoryError
        append(*arguments)

    monkeypatch.setattr(turns, "append_heads", failing)
    with pytest.raises(MemoryError):
        read(model, ids, cache)
    assert [{len(head) for head in layer.heads} for layer in cache.layers] == [{400}, {300}]
    with refused("layer 1 was given tokens that were never attended.* crop the cache to 300 tok"):
        read(model, prompt(401, batch=2), cache)
    crop(cache, 300)
    close(read(model, ids, cache), whole(model, ids, 100))


@pytest.mark.parametrize("max_error", [STRICT, 0.3])
@pytest.mark.parametrize("kept", [329, 310, 300, 299, 270, 150, 120, 60, 3])
def test_after_a_crop_it_is_as_if_the_tokens_had_never_been(model, kept, max_error):
    """Recent tokens, indexed ones, and so many that a plan is not worth while."""
    ids, other = prompt(330), prompt(420, seed=5)
    cache = planned(model, ids[:, :300], max_error)
    for end in (303, 330):  # turns, since what a step retrieves shows in what later layers have
        read(model, ids[:, :end], cache)
    crop(cache, kept)
    assert cache.get_seq_length() == kept
    assert cache.retrieving == (kept >= SMALL["sink"] + SMALL["window"] + SMALL["least_indexed"])
    text = torch.cat([ids[:, :kept], other[:, kept:]], dim=1)
    close(read(model, text[:, :400], cache), whole(model, text[:, :400], 400 - kept))
    for end in range(401, 421):
        ours = read(model, text[:, :end], cache)
    assert cache.retrieving
    if max_error == STRICT:
        close(ours, whole(model, text, 1))


def test_a_plan_that_a_crop_took_is_made_anew_of_later_queries(model):
    """One that stands or falls with its tail."""
    ids = prompt(420)
    cache = planned(model, ids[:, :300], retriever="none")
    crop(cache, 250)
    assert not cache.retrieving
    for end in (280, 281, 400):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = read(model, ids[:, :end], cache)
        close(ours, whole(model, ids[:, :end], ours.shape[1]))
        assert "its queries were taken back" in str(cache.report()) or end == 400
    read(model, ids[:, :401], cache)
    assert retrievers(cache) == {"none"}


def test_a_crop_of_nothing_of_all_and_of_more_than_there_is(model):
    ids = prompt(320)
    cache = planned(model, ids[:, :300])
    cache.crop(300 if KEEPS else 0)
    assert cache.get_seq_length() == 300
    assert cache.retrieving
    cache.crop(0 if KEEPS else -300)
    assert cache.get_seq_length() == 0
    close(read(model, ids[:, :310], cache), whole(model, ids[:, :310], 310))
    cache.plan()
    cache.crop(-1000)
    assert cache.get_seq_length() == 0
    assert not cache.retrieving
    close(read(model, ids[:, :30], cache), whole(model, ids[:, :30], 30))


@pytest.mark.parametrize("kept", [250, 40])
def test_a_crop_that_fails_can_be_done_again(model, kept, monkeypatch):
    ids = prompt(320)
    cache = planned(model, ids[:, :300], retriever="none")

    def failing(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr("keyseek.hf.requests.read_tokens", failing)
        crop(cache, kept)
    for layer in cache.layers:  # those that were cropped before it failed have nothing to do
        layer.keep(kept)
    text = torch.cat([ids[:, :kept], prompt(320, seed=3)[:, kept:]], dim=1)
    close(read(model, text, cache), whole(model, text, 320 - kept))


@pytest.mark.parametrize("kept", [305, 270, 40])
def test_a_batch_with_hidden_tokens_is_cropped(model, kept):
    ids, mask = prompt(400, batch=2), torch.ones(2, 400, dtype=torch.long)
    mask[1, :50] = mask[0, 260:265] = mask[0, 300:310] = 0
    cache = cache_of(model, STRICT)
    read(model, ids[:, :300], cache, mask)
    cache.plan()
    read(model, ids[:, :330], cache, mask)
    crop(cache, kept)
    ids[:, kept:], mask[:, kept:] = prompt(400, batch=2, seed=8)[:, kept:], 1
    ours, full = read(model, ids, cache, mask), whole(model, ids, 400 - kept, mask)
    shown = mask[:, kept:].bool()
    close(ours[shown], full[shown])


def test_copies_and_saved_caches_go_on_from_a_crop(model, tmp_path):
    ids = prompt(330)
    cache = planned(model, ids[:, :300])
    copy = cache.copy()
    read(model, ids[:, :310], cache)
    crop(cache, 290)
    cache.save(tmp_path / "cropped")
    again = RetrievalCache.load(model, tmp_path / "cropped", threads=1)
    text = torch.cat([ids[:, :290], prompt(300, seed=2)[:, 290:]], dim=1)
    for each in (cache, again):
        close(read(model, text, each), whole(model, text, 10))
    close(read(model, ids, copy), whole(model, ids, 30))
    assert copy.get_seq_length() == 330


def test_a_layer_that_refuses_a_crop_leaves_the_others_as_they_are():
    model = gemma()  # of sliding windows, which have forgotten what a crop would show again
    cache = planned(model, prompt(300))
    with pytest.raises((ValueError, RuntimeError), match="crop"):
        crop(cache, 290)
    assert {len(head) for head in cache.layers[1].heads} == {300}
    assert cache.get_seq_length() == 300


@pytest.fixture(scope="module")
def assistant():
    torch.manual_seed(1)
    config = llama().config
    config.num_hidden_layers = 1
    config.eos_token_id = 1
    return transformers.LlamaForCausalLM(config).eval()


def speculative(kind, assistant):
    if kind == "assistant":
        return {"assistant_model": assistant}
    return {"prompt_lookup_num_tokens": 4, "max_matching_ngram_size": 2}


@pytest.mark.parametrize("kind", ["assistant", "lookup"])
@pytest.mark.parametrize("start", ["prompt", "second turn"])
@pytest.mark.parametrize("max_error", [STRICT, 0.3])
def test_speculative_decoding_gives_the_same_tokens(model, assistant, kind, start, max_error):
    """A prompt that repeats itself, so that drafts are right now and then."""
    words = prompt(24, seed=4)
    ids = torch.cat([words] * 13 + [prompt(10, seed=6)], dim=1)
    cache = cache_of(model, max_error)
    if start == "second turn":
        if not KEEPS:
            pytest.skip(
                "transformers 5 hands over the whole text again, whatever the cache has read"
            )
        cache = planned(model, ids[:, :300], max_error)
    crops = []
    keep = cache.crop
    cache.crop = lambda tokens: crops.append(tokens) or keep(tokens)
    end = {"eos_token_id": 1}  # without which transformers 4 finds no drafts in a prompt
    ours = generate(model, ids, cache, 60, **end, **speculative(kind, assistant))
    assert crops
    assert cache.get_seq_length() == ours.shape[1] - 1
    if kind == "lookup" or start == "second turn":
        assert cache.retrieving
    if max_error == STRICT:
        assert torch.equal(ours, generate(model, ids, own(model), 60, **end))
