"""Refreshes of the transformers cache are planned beside the steps: answers go by the schedule."""

from __future__ import annotations

import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from keyseek.hf import RetrievalCache
from test_hf import SMALL, cache_of, full_logits, llama, own, prompt
from test_hf_turns import crop, read

PROMPT, HORIZON = 300, SMALL["horizon"]
DELAY = HORIZON // 4  # as nobody says otherwise
STATIC = SMALL["sink"] + SMALL["window"]
BEGINS = PROMPT + HORIZON  # tokens that there are when the first one begins


@pytest.fixture(scope="module")
def model():
    return llama()


def decoded(model, cache, end, pause=0.0):
    """The logits of every step up to `end` tokens."""
    ids, out = prompt(end), []
    if cache.get_seq_length() == 0:
        read(model, ids[:, :PROMPT], cache)
    for tokens in range(cache.get_seq_length() + 1, end + 1):
        out.append(read(model, ids[:, :tokens], cache)[:, -1])
        time.sleep(pause)
    return torch.cat(out)


def indexed(cache):
    return {head.indexed for layer in cache.layers for head in layer.heads}


def refreshing(cache):
    return {head.refreshing for layer in cache.layers for head in layer.heads}


def test_a_refresh_is_adopted_at_its_token(model):
    cache = cache_of(model, 0.1)
    decoded(model, cache, BEGINS)
    assert refreshing(cache) == {False}
    decoded(model, cache, BEGINS + 1)
    assert refreshing(cache) == {True}
    assert all(row["refreshing"] for row in cache.report().rows())
    decoded(model, cache, BEGINS + DELAY)
    assert indexed(cache) == {PROMPT - STATIC}
    decoded(model, cache, BEGINS + DELAY + 1)
    assert indexed(cache) == {BEGINS - STATIC}
    assert refreshing(cache) == {False}


def test_neither_threads_nor_their_pace_show_in_the_answers(model):
    end = BEGINS + 2 * (HORIZON + DELAY)
    expected = decoded(model, cache_of(model, 0.1), end)
    for options, pause in (({"threads": 2}, 0.0), ({}, 0.004)):
        again = cache_of(model, 0.1, **options)
        assert torch.equal(decoded(model, again, end, pause), expected)
        assert indexed(again) == {BEGINS + 2 * HORIZON - STATIC}
    at_once = cache_of(model, 0.1, refresh_delay=0)
    assert torch.equal(decoded(model, at_once, BEGINS), expected[:HORIZON])


def test_a_promise_holds_over_refreshes_aside(model):
    end = BEGINS + 2 * (HORIZON + DELAY)
    ours = decoded(model, cache_of(model, 1e-6), end)
    full = full_logits(model, prompt(end), [PROMPT] + [1] * (end - PROMPT))
    torch.testing.assert_close(ours[-1:], full, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kept", [BEGINS + 3, BEGINS - 10, PROMPT - 40])
def test_copies_files_and_crops_while_one_is_under_way(model, kept, tmp_path):
    cache = cache_of(model, 1e-6, dtype=torch.float32)
    decoded(model, cache, BEGINS + 8)
    copy = cache.copy()
    cache.save(tmp_path / "prefix")
    loaded = RetrievalCache.load(model, tmp_path / "prefix", threads=1)
    assert refreshing(copy) == {True}
    assert refreshing(loaded) == {False}
    end = BEGINS + HORIZON
    full = full_logits(model, prompt(end), [PROMPT] + [1] * (end - PROMPT))
    crop(copy, kept)
    assert refreshing(copy) == {kept >= BEGINS}
    for each in (cache, loaded, copy):
        ours = decoded(model, each, end)
        torch.testing.assert_close(ours[-1:], full, atol=2e-4, rtol=2e-4)
    assert indexed(cache) == {BEGINS - STATIC}
    assert indexed(loaded) == {BEGINS + 8 - STATIC}


def test_a_turn_while_one_is_under_way(model):
    cache, ids = cache_of(model, 1e-6), prompt(BEGINS + 60)
    decoded(model, cache, BEGINS + 4)
    ours = read(model, ids, cache)
    full = read(model, ids, own(model))
    torch.testing.assert_close(ours, full[:, BEGINS + 4 :], atol=2e-4, rtol=2e-4)
    assert indexed(cache) == {PROMPT - STATIC}
    decoded(model, cache, BEGINS + 61)
    assert indexed(cache) == {BEGINS - STATIC}


def test_an_error_of_planning_is_raised_where_it_is_adopted(model):
    failing = False

    def index(keys):
        if failing:
            raise ArithmeticError("no index today")

        def search(queries, k):
            scores = queries @ keys.astype("f4").T
            ids = np.ascontiguousarray(np.argsort(-scores, axis=1)[:, :k])
            return ids, np.take_along_axis(scores, ids, axis=1)

        return search

    options = {"retriever": "custom", "index": index, "k": 20}
    plain, cache = cache_of(model, **options), cache_of(model, **options)
    end = BEGINS + DELAY + 4
    expected = decoded(model, plain, end)
    decoded(model, cache, BEGINS + DELAY)
    failing = True
    with pytest.raises(ArithmeticError, match="no index today"):
        decoded(model, cache, BEGINS + DELAY + 1)
    assert {len(head) for layer in cache.layers for head in layer.heads} == {BEGINS + DELAY}
    failing = False
    crop(cache, BEGINS + DELAY)
    assert torch.equal(decoded(model, cache, end), expected[-4:])
    assert indexed(cache) == {BEGINS - STATIC}
