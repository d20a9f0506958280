"""One line that has a model retrieve: attention and cache are set, and always set back."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from keyseek.hf import RetrievalCache, retrieval
from test_hf import CACHE, SHAPE, SMALL, cache_of, gemma, generate, llama, own, prompt, refused

ROOT = Path(__file__).resolve().parents[2]


def chosen(model):
    """The names of all attentions in a model, and whether its generate is its class's."""
    inside = [m for m in model.modules() if isinstance(m, transformers.PreTrainedModel)]
    return [m.config._attn_implementation for m in inside], "generate" in vars(model)


@pytest.fixture
def model():
    made = llama()
    made.set_attn_implementation("sdpa")
    return made


def tokens(model, ids, count=20, **options):
    with torch.inference_mode():
        return model.generate(ids, max_new_tokens=count, do_sample=False, **options)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_within_the_block_a_model_retrieves_and_afterwards_it_is_as_before(model, attention):
    model.set_attn_implementation(attention)
    before, ids = chosen(model), prompt(300)
    expected = tokens(model, ids)
    with retrieval(model, max_error=1e-6, **SMALL) as cache:
        assert torch.equal(tokens(model, ids), expected)
        assert cache.retrieving
        assert cache.get_seq_length() == 319
    assert chosen(model) == before
    assert torch.equal(tokens(model, ids), expected)
    assert "Layers 0-1 retrieve." in str(cache.report())


@pytest.mark.parametrize("make", [llama, gemma])
def test_every_call_of_generate_begins_a_text_of_its_own(make):
    model = make()
    other, ids = prompt(200, batch=2, seed=4), prompt(300)
    with retrieval(model, max_error=1e-6, **SMALL) as cache:
        ours = [tokens(model, each) for each in (ids, other, ids)]
        assert cache.retrieving
    for each, found in zip((ids, other, ids), ours, strict=True):
        assert torch.equal(found, tokens(model, each))


@pytest.mark.parametrize(
    "options", [{"num_beams": 3}, {"prompt_lookup_num_tokens": 4, "eos_token_id": 1}]
)
def test_beams_and_drafts_are_served_in_the_block(model, options):
    ids = torch.cat([prompt(24, seed=4)] * 8, dim=1)  # with drafts that are right now and then
    with retrieval(model, max_error=1e-6, dtype=None, **SMALL) as cache:
        ours = tokens(model, ids, 12, **options)
        assert cache.retrieving
    assert torch.equal(ours, tokens(model, ids, 12, **options))


def test_an_exception_sets_all_back(model):
    before = chosen(model)
    with pytest.raises(KeyboardInterrupt), retrieval(model, 0.1, **SMALL):
        raise KeyboardInterrupt
    assert chosen(model) == before
    for options, pattern in (({"max_error": 3.0}, "max_error is 3"), ({"k": 3}, "k is 3")):
        with refused(pattern), retrieval(model, **options):
            pass
        with refused(pattern):
            RetrievalCache.from_model(model, **options)
        assert chosen(model) == before
    with retrieval(model, 1e-6, **SMALL):  # and it can be done again
        tokens(model, prompt(120))


def test_a_generate_of_the_callers_own_is_set_back(model):
    called = []
    original = model.generate
    model.generate = lambda *args, **kwargs: called.append(1) or original(*args, **kwargs)
    wrapped = model.generate
    with retrieval(model, 1e-6, **SMALL) as cache:
        tokens(model, prompt(200), 3)
        assert cache.retrieving
    assert called == [1]
    assert model.generate is wrapped


def test_two_models_retrieve_at_once_and_one_within_itself_is_refused(model):
    other, ids = gemma(), prompt(200)
    with retrieval(model, 1e-6, **SMALL) as cache, retrieval(other, 1e-6, **SMALL) as second:
        tokens(model, ids, 3)
        tokens(other, ids, 3)
        assert cache.retrieving
        assert second.retrieving
        assert (len(cache.layers), len(second.layers)) == (2, 3)
        with refused("LlamaForCausalLM that retrieves already"), retrieval(model):
            pass
        tokens(model, ids, 3)  # the inner one has changed nothing
    assert chosen(model)[1] is chosen(other)[1] is False
    with retrieval(model, 1e-6, **SMALL) as cache, refused("3 layers|2 layers"):
        tokens(other, ids, 3, **{CACHE: cache})


def test_what_generate_cannot_have_within_the_block_is_said(model):
    ids, before = prompt(120), chosen(model)
    static = transformers.StaticCache(config=model.config, max_cache_len=140)
    config = transformers.GenerationConfig(cache_implementation="static")
    with retrieval(model, 1e-6, **SMALL) as cache:
        for given, pattern in (
            ({CACHE: own(model)}, f"{CACHE} is a DynamicCache, but within the block"),
            ({"past_key_values": static}, "past_key_values is a StaticCache"),
            ({CACHE: cache}, f"{CACHE} is a RetrievalCache"),
            ({"cache_implementation": "static"}, "cache_implementation is 'static'"),
            ({"generation_config": config}, "cache_implementation is 'static'"),
            ({"use_cache": False}, "use_cache is False"),
        ):
            with refused(pattern):
                tokens(model, ids, 3, **given)
        assert cache.get_seq_length() == 0
        tokens(model, ids, 3, **{CACHE: None})
        model.set_attn_implementation("eager")
        with refused("the model's attention is 'eager'"):
            tokens(model, ids, 3)
    assert chosen(model) == before


def test_models_that_cannot_retrieve_are_named_and_left_as_they_are():
    with refused("model is a LlamaConfig, must be a PreTrainedModel"), retrieval(llama().config):
        pass
    with refused("model is a Linear, must be a PreTrainedModel"):
        RetrievalCache.from_model(torch.nn.Linear(2, 2))
    with refused("LlamaModel, which has no generate"), retrieval(llama().model):
        pass
    config = transformers.MistralConfig(
        num_hidden_layers=2, num_key_value_heads=2, sliding_window=16, **SHAPE
    )
    sliding = transformers.MistralForCausalLM(config)
    sized = {"vocab_size": 97, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    both = transformers.BartForConditionalGeneration(
        transformers.BartConfig(**sized, encoder_ffn_dim=16, decoder_ffn_dim=16)
    )
    mamba = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=1)
    )
    for net, pattern in (
        (sliding, "nothing to retrieve for"),
        (both, "BartForConditionalGeneration, an encoder and a decoder"),
        (mamba, "MambaForCausalLM .*cannot retrieve|no layer of plain full attention"),
    ):
        before = chosen(net)
        with refused(pattern), retrieval(net):
            pass
        assert chosen(net) == before


def test_a_cache_is_made_for_a_model_that_stays_switched(model):
    cache = RetrievalCache.from_model(model, 1e-6, **SMALL)
    assert model.config._attn_implementation == "keyseek"
    ids = prompt(200)
    assert torch.equal(generate(model, ids, cache), generate(model, ids, own(model)))
    assert cache.retrieving


def test_a_report_is_words_a_table_and_a_page():
    model = gemma()
    cache = cache_of(model, retriever="flat", k=20)
    assert cache.report().rows() == []
    assert "no prompt has been read" in cache.report().html()
    generate(model, prompt(300, batch=2), cache, 4)
    report = cache.report()
    rows = report.rows()
    assert [(r["layer"], r["request"], r["head"]) for r in rows] == [(1, 0, 0), (1, 1, 0)]
    for row, head in zip(rows, cache.layers[1].heads, strict=True):
        assert row["tokens"] == len(head) == 303
        assert (row["k"], row["retriever"]) == (head.plan.k, head.plan.retriever)
        assert row["expected_error"] == head.plan.expected_error
        assert row["memory_bytes"] == head.nbytes
        assert (row["last_scanned"], row["last_bytes"]) == (
            head.stats.scanned,
            head.stats.bytes_read,
        )
        assert row["last_retrieved"] == head.stats.retrieved / 4
    assert all(row["last_scanned"] > 0 for row in rows)
    written = io.StringIO()
    table = csv.DictWriter(written, list(rows[0]))
    table.writerows(rows)
    assert len(written.getvalue().splitlines()) == 2
    page = report.html()
    assert page.startswith("<!doctype html>")
    assert "http" not in page
    assert page.count("<tr>") == 3
    assert "Layers 0, 2 attend in full: it attends to a sliding window of 16 tokens." in page
    assert str(report).splitlines()[-1].startswith("2 heads in ")
    assert "full attention's; the last one looked at " in str(report)
    assert "srcdoc" in report._repr_html_()


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_pages_first_example_runs(page):
    text = (ROOT / page).read_text()
    block = next(b for b in re.findall(r"^```py\n(.*?)^```$", text, re.M | re.S) if "with " in b)
    net = llama()
    net.set_attn_implementation("sdpa")
    said = []
    names = {
        "model": net,
        "inputs": {"input_ids": prompt(60), "max_new_tokens": 2},
        "print": lambda *words: said.append(str(*words)),
    }
    block = re.sub(r"^model = .*$", "", block, flags=re.M)
    exec(compile(block, page, "exec"), names)
    assert chosen(net)[1] is False
    assert "from 1664 on it is worth it" in said[0]


def test_reset_forgets_the_text_in_every_layer():
    model, ids = gemma(), prompt(120)
    cache = cache_of(model, 1e-6)
    first = generate(model, ids, cache)
    cache.reset()
    assert cache.get_seq_length() == 0
    assert torch.equal(generate(model, ids, cache), first)
