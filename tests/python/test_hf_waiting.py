"""Requests of different lengths in one batch: each plans when it is long enough, as if alone."""

from __future__ import annotations

import pickle
import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import keyseek
from keyseek.hf import RetrievalCache, RetrievalWarning
from test_hf import SMALL, cache_of, gemma, generate, llama, own, prompt
from test_hf_calls import gpt_oss
from test_hf_turns import crop, read

LEAST = SMALL["sink"] + SMALL["window"] + SMALL["least_indexed"]
LENGTHS = (300, 120, 40)  # of the prompts, so that the third one is too short for 60 tokens
PROMPT, END = 300, 380


@pytest.fixture(scope="module")
def model():
    return llama()


def batch(lengths=LENGTHS, end=END):
    """Ids [B, end] and their mask: prompts end at PROMPT, and what follows is of all."""
    ids, mask = prompt(end, batch=len(lengths), seed=7), None
    mask = torch.ones_like(ids)
    for request, length in enumerate(lengths):
        mask[request, : PROMPT - length] = 0
    return ids, mask


def begun(model, max_error=0.1, **options):
    """A cache that has read the prompts and a token more."""
    ids, mask = batch()
    cache = cache_of(model, max_error, **options)
    for end in (PROMPT, PROMPT + 1):
        read(model, ids[:, :end], cache, mask)
    return cache, ids, mask


def those_that_retrieve(cache):
    kinds = {tuple(request for request, _ in layer.planned()) for layer in cache.layers}
    assert len(kinds) == 1
    return kinds.pop()


def close(ours, other, tolerance=1e-3):
    torch.testing.assert_close(ours, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("make", [llama, gpt_oss])
def test_each_request_is_what_it_is_alone(make):
    model = make()
    ids, mask = batch()
    cache, layer = cache_of(model, 0.1), 1
    alone = [cache_of(model, 0.1) for _ in LENGTHS]
    full = own(model)
    shown = [ids[i, PROMPT - length :][None] for i, length in enumerate(LENGTHS)]
    ends = [PROMPT + more for more in (0, 1, 2, 3, 50, *range(57, 66), 80)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RetrievalWarning)
        for end in ends:
            ours = read(model, ids[:, :end], cache, mask)
            exact = read(model, ids[:, :end], full, mask)
            planned = {i for i, _ in cache.layers[layer].planned()}
            for i, length in enumerate(LENGTHS):
                count = end - PROMPT + length
                one = read(model, shown[i][:, :count], alone[i])
                close(ours[i, -1], one[0, -1])
                assert (i in planned) == alone[i].retrieving, (i, end)
                if i not in planned:
                    close(ours[i, -1], exact[i, -1], 2e-4)
    assert planned == {0, 1, 2}
    for i, one in enumerate(alone):
        ours = dict(cache.layers[layer].planned())[i]
        theirs = one.layers[layer].heads
        assert [len(h) for h in ours] == [len(h) for h in theirs]
        assert [(h.indexed, h.plan.retriever, h.plan.k) for h in ours] == [
            (h.indexed, h.plan.retriever, h.plan.k) for h in theirs
        ]


def test_a_padded_batch_generates_what_its_requests_do():
    model = gemma()
    ids, mask = batch(end=PROMPT)
    ours = generate(model, ids, cache_of(model, 1e-6), 66, attention_mask=mask)
    for i, length in enumerate(LENGTHS):
        alone = generate(model, ids[i, PROMPT - length :][None], own(model), 66)
        assert torch.equal(ours[i, PROMPT:], alone[0, length:])


def test_a_report_says_who_waits_and_for_what(model):
    cache, ids, mask = begun(model)
    assert those_that_retrieve(cache) == (0, 1)
    assert cache.retrieving
    text = f"Layers 0-1: request 2 attends in full: there are 41 tokens, from {LEAST} on it is"
    assert text in str(cache.report())
    assert [row["request"] for row in cache.report().rows()] == [0, 0, 1, 1] * 2
    indices, lengths = cache.retrieve_topk(torch.randn(3, 4, 8), 1, 5)
    assert indices.shape == (3, 4, 5)
    assert bool((indices[2] == -1).all())
    assert bool((lengths[2] == 0).all())
    for end in range(PROMPT + 2, PROMPT + LEAST - 40 + 2):
        assert those_that_retrieve(cache) == (0, 1)
        read(model, ids[:, :end], cache, mask)
    assert those_that_retrieve(cache) == (0, 1, 2)
    assert "request" not in str(cache.report()).split("\n")[1].replace("layer request", "")
    short = cache_of(model)
    read(model, ids[:, :PROMPT], short, batch((90, 40))[1].repeat(2, 1)[:3])
    read(model, ids[:, : PROMPT + 1], short, batch((90, 40))[1].repeat(2, 1)[:3])
    assert "the longest request of the batch has 91 tokens: from 100 on" in str(short.report())


def test_progress_counts_the_heads_of_those_that_plan(model):
    told = []
    _, ids, mask = begun(model)
    cache = cache_of(model, progress=lambda planned, count: told.append((planned, count)))
    for end in (PROMPT, PROMPT + 1, PROMPT + 70, PROMPT + 71):
        read(model, ids[:, :end], cache, mask)
    assert told == [(i, 8) for i in range(1, 9)] + [(i, 4) for i in range(1, 5)]


def test_turns_and_crops_of_some_that_wait(model):
    cache, ids, mask = begun(model, 1e-6)
    ours = read(model, ids[:, : PROMPT + 40], cache, mask)
    close(ours, read(model, ids[:, : PROMPT + 40], own(model), mask)[:, -39:], 2e-4)
    assert those_that_retrieve(cache) == (0, 1)
    crop(cache, PROMPT - 30)  # the second one has 90 tokens left
    assert those_that_retrieve(cache) == (0,)
    assert [len(head) for head in cache.layers[0].heads] == [270, 270]
    other = prompt(END, batch=3, seed=11)
    text = torch.cat([ids[:, : PROMPT - 30], other[:, PROMPT - 30 :]], 1)
    for end in (PROMPT, *range(PROMPT + 1, PROMPT + 75)):
        ours = read(model, text[:, :end], cache, mask)
    close(ours[:, -1], read(model, text[:, :end], own(model), mask)[:, -1], 2e-4)
    assert those_that_retrieve(cache) == (0, 1, 2)
    crop(cache, 270)
    crop(cache, 240)
    crop(cache, 60)  # of all: as tensors again
    assert those_that_retrieve(cache) == ()
    assert not any(layer.retrieving for layer in cache.layers)
    ours = read(model, text[:, :100], cache, mask)
    close(ours[0], read(model, text[:, :100], own(model), mask)[0, -40:], 2e-4)


def test_a_plan_that_is_lost_with_its_tail_leaves_the_others(model):
    ids, mask = batch((300, 250), 330)
    mask[1, 240:] = 0  # so that nothing that is indexed is taken from the second one
    cache = cache_of(model, retriever="none")
    for end in (PROMPT, PROMPT + 1):
        read(model, ids[:, :end], cache, mask)
    assert those_that_retrieve(cache) == (0, 1)
    crop(cache, 250)
    assert those_that_retrieve(cache) == (1,)
    assert "request 0 attends in full: queries were taken back" in str(cache.report())
    mask[:, 250:] = 1
    for end in (329, 330):
        ours = read(model, ids[:, :end], cache, mask)
    assert those_that_retrieve(cache) == (0, 1)
    assert bool(ours.isfinite().all())


def test_copies_pickles_and_files_have_those_that_wait(model, tmp_path):
    cache, ids, mask = begun(model, dtype=torch.float32)
    cache.save(tmp_path / "prefix")
    copies = [
        cache.copy(),
        pickle.loads(pickle.dumps(cache)),
        RetrievalCache.load(model, tmp_path / "prefix", threads=1),
    ]
    ends = [PROMPT + 2, PROMPT + 60, PROMPT + 61, PROMPT + 62]
    expected = [read(model, ids[:, :end], cache, mask) for end in ends]
    for again in copies:
        assert those_that_retrieve(again) == (0, 1)
        for end, logits in zip(ends, expected, strict=True):
            close(read(model, ids[:, :end], again, mask), logits, 1e-5)
        assert those_that_retrieve(again) == (0, 1, 2)


def test_requests_that_wait_can_be_chosen_and_repeated(model):
    cache, ids, mask = begun(model, 1e-6)
    for chosen in ([2, 0, 2, 1], [2, 2]):
        some = cache.copy()
        for layer in some.layers:
            layer.batch_select_indices(torch.tensor(chosen))
        text, shown = ids[chosen], mask[chosen]
        for end in (PROMPT + 2, PROMPT + 30, PROMPT + 31):
            ours = read(model, text[:, :end], some, shown)
            close(ours[:, -1], read(model, text[:, :end], own(model), shown)[:, -1], 2e-4)
        assert some.retrieving == (0 in chosen)
        crop(some, PROMPT + 1)
        ours = read(model, text[:, : PROMPT + 60], some, shown)
        close(ours[:, -1], read(model, text[:, : PROMPT + 60], own(model), shown)[:, -1], 2e-4)
        ours = read(model, text[:, : PROMPT + 61], some, shown)


def test_a_plan_or_step_that_fails_leaves_every_request(model, monkeypatch):
    ids, mask = batch()
    cache, calls = cache_of(model, 0.1), []
    read(model, ids[:, :PROMPT], cache, mask)

    def failing(*arguments):
        calls.append(1)
        raise MemoryError

    for name in ("keyseek.hf.waiting.plan_heads", "keyseek.hf.requests.step_heads"):
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(name, failing)
            read(model, ids[:, : PROMPT + 1], cache, mask)
        if not cache.retrieving:
            continue
        waiting = cache.layers[0]._planned.each[2]
        assert (len(waiting), len(waiting.queries.joined()[0])) == (40, PROMPT and 40)
        crop(cache, PROMPT)
    assert len(calls) == 2
    ours = read(model, ids[:, : PROMPT + 1], cache, mask)
    expected, _, _ = begun(model)
    assert those_that_retrieve(cache) == those_that_retrieve(expected) == (0, 1)
    assert bool(ours.isfinite().all())


def test_a_damaged_state_of_those_that_wait_is_refused(model):
    cache, _, _ = begun(model)
    layer = cache.layers[0]
    state = layer.__getstate__()
    waiting = state["waiting"]
    for change, pattern in (
        ({"waiting": {}}, "4 heads and 0 requests that wait are no batch of 3"),
        ({"waiting": {7: waiting[2]}}, "are no batch of 3"),
        ({"waiting": {2: {"keys": waiting[2]["keys"]}}}, "request 2: field values is missing"),
        ({"waiting": [1]}, "waiting is a list, must be dict"),
    ):
        with pytest.raises(keyseek.Error, match=pattern) as raised:
            type(layer).__new__(type(layer)).__setstate__({**state, **change})
        assert raised.value.code == "corrupt"
