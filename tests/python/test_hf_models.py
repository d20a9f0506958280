"""Every causal language model class of the installed transformers gives the logits of its own
eager attention, or is refused in a sentence: there is no third outcome. docs/models.md lists what
comes of each; `pytest tests/python/test_hf_models.py --write-models` writes it anew."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from zoo import page, runs
from zoo.exceptions import NOT_BUILDABLE
from zoo.outcome import TOLERANCE, outcome_of
from zoo.shrink import WINDOW, class_names

VERSION = transformers.__version__
NAMES = class_names()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity(50)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recorded():
    return page.recorded(VERSION)


@pytest.mark.parametrize("name", NAMES)
def test_its_own_logits_or_a_refusal(name, recorded, request):
    outcome = outcome_of(name)
    if request.config.getoption("--write-models"):
        page.record(VERSION, name, outcome)
    elif recorded is not None:
        assert recorded.get(name) == page.shown(name, outcome), "docs/models.md: --write-models"


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def rotary(**parameters):
    """By the name that the version has for it."""
    if VERSION.startswith("4."):
        return {"rope_scaling": parameters}
    return {"rope_parameters": {"rope_theta": 10000.0, **parameters}}


@pytest.mark.parametrize(
    ("name", "changes", "kind"),
    [
        ("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}, "retrieves"),
        ("GPT2LMHeadModel", {"scale_attn_weights": False}, "retrieves"),
        ("GPTBigCodeForCausalLM", {"multi_query": False}, "retrieves"),
        ("LlamaForCausalLM", {"num_key_value_heads": 4, "attention_bias": True}, "retrieves"),
        ("LlamaForCausalLM", {"num_key_value_heads": 1, "head_dim": 32}, "retrieves"),
        ("LlamaForCausalLM", rotary(**YARN), "retrieves"),
        ("LlamaForCausalLM", rotary(**LLAMA3), "retrieves"),
        ("LlamaForCausalLM", rotary(rope_type="dynamic", factor=2.0), "refused"),
        ("MistralForCausalLM", {"sliding_window": WINDOW}, "refused"),
        ("Gemma2ForCausalLM", {"attn_logit_softcapping": 2.0}, "retrieves"),
        ("Gemma2ForCausalLM", {"attn_logit_softcapping": None}, "retrieves"),
        ("GptOssForCausalLM", {"layer_types": ["full_attention"] * 2}, "retrieves"),
        ("CohereForCausalLM", {"use_qk_norm": True}, "retrieves"),
        ("OPTForCausalLM", {"do_layer_norm_before": False}, "retrieves"),
        ("GraniteForCausalLM", {"attention_multiplier": 0.1}, "retrieves"),
    ],
)
def test_flags_of_configurations(name, changes, kind):
    assert outcome_of(name, **changes).kind == kind


@pytest.mark.parametrize(
    "name",
    [
        "CohereForCausalLM",
        "GPT2LMHeadModel",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "GptOssForCausalLM",
        "LlamaForCausalLM",
        "Qwen3MoeForCausalLM",
    ],
)
def test_padding_between_turns(name):
    with torch.inference_mode():
        eager = runs.make(name)
        text = runs.text([*[1] * 4, 20, *[1] * 8], padded=True)
        turn = runs.PROMPT + 4
        text.mask[1, turn + 8 : turn + 20] = 0  # the second request's is shorter
        theirs = runs.feed(eager, text, None)
        model = runs.switched(eager)
        cache = runs.ours(model)
        ours = runs.feed(model, text, cache)
    assert cache.retrieving
    there = text.mask[:, runs.PROMPT - 1 :].bool()
    assert runs.distance(ours[there], theirs[there]) < TOLERANCE


@pytest.mark.parametrize("name", ["Gemma3ForCausalLM", "GPT2LMHeadModel", "LlamaForCausalLM"])
def test_the_same_text_is_generated(name):
    with torch.inference_mode():
        eager = runs.make(name)
        model = runs.switched(eager)
        ids = runs.text([]).ids
        options = {"max_new_tokens": 24, "do_sample": False}
        cache = runs.ours(model)
        ours = model.generate(ids, **{runs.CACHE: cache}, **options)
        assert cache.retrieving
        assert torch.equal(ours, eager.generate(ids, **options))


def test_the_page_has_these_classes(recorded, request):
    if request.config.getoption("--write-models"):
        for name in set(page.recorded(VERSION)) - set(NAMES):
            page.record(VERSION, name, None)
    elif recorded is not None:
        assert sorted(recorded) == NAMES


def test_most_classes_are_served():
    assert len(NAMES) > 100
    assert len(NOT_BUILDABLE) < 10
