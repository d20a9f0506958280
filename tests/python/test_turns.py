"""Tokens that come at once and tokens that are taken back, on NumPy arrays."""

from __future__ import annotations

import pickle
import threading

import ml_dtypes
import numpy as np
import pytest

import keyseek

N, GROUP, D, DV = 600, 2, 16, 12
RETRIEVERS = ["everything", "none", "flat", "sketch", "projection"]
SMALL = {
    "sink": 4,
    "window": 16,
    "horizon": 64,
    "least_indexed": 64,
    "tail_vectors": 8,
    "scale": 0.25,
    "shift": False,
    "threads": 1,
}


# What those that search for no keys do not read is not given.
UNREAD = {"everything": {"tail_vectors": None}, "none": {}}


def normal(rows, cols, seed):
    return np.random.default_rng(seed).standard_normal((rows, cols), dtype="f4")


KEYS, VALUES, QUERIES = normal(N, D, 1), normal(N, DV, 2), normal(N * GROUP, D, 3)


def head(n=300, dtype="f4", **options):
    return keyseek.HeadCache.prefill(
        KEYS[:n].astype(dtype),
        VALUES[:n].astype(dtype),
        QUERIES[: n * GROUP],
        GROUP,
        **{name: x for name, x in {**SMALL, **options}.items() if x is not None},
    )


def asked(first, last):
    return QUERIES[first * GROUP : last * GROUP]


def full(first, last):
    """Attention of the tokens [first, last) over all tokens up to each."""
    logits = 0.25 * asked(first, last).astype("f8") @ KEYS[:last].T.astype("f8")
    at = np.arange(first, last).repeat(GROUP)
    logits[np.arange(last) > at[:, None]] = -np.inf
    weights = np.exp(logits)
    return weights @ VALUES[:last] / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_a_turn_is_exact_then_indexed_then_taken_back(retriever):
    cache = head(retriever=retriever, **UNREAD.get(retriever, {"k": 20}))
    for first, last in ((300, 303), (303, 450)):
        out = cache.extend(asked(first, last), KEYS[first:last], VALUES[first:last])
        assert out == pytest.approx(full(first, last), abs=1e-5)
    cache.step(asked(450, 451), KEYS[450:451], VALUES[450:451])
    assert cache.indexed == 450 - 4 - 16
    assert cache.plan.retriever == retriever
    for kept in (445, 200, 60, 2):
        cache.truncate(kept)
        assert len(cache) == kept
        out = cache.extend(asked(kept, 455), KEYS[kept:455], VALUES[kept:455])
        assert out == pytest.approx(full(kept, 455), abs=1e-5)


def test_bad_turns_and_truncations_are_named_and_change_nothing():
    cache = head(retriever="flat", k=20)
    for call, fault in (
        (lambda: cache.truncate(0), "tokens is 0"),
        (lambda: cache.truncate(-1), "tokens is -1"),
        (lambda: cache.truncate(301), "tokens is 301, the head has 300"),
        (lambda: cache.extend(asked(0, 1), KEYS[:2], VALUES[:2]), "queries are 2 x 16, must be 4"),
        (lambda: cache.append(KEYS[:2], VALUES[:2], asked(0, 3)), "queries are 6 x 16, must be 4"),
        (lambda: keyseek.truncate_heads([cache], [1, 2]), "tokens are of 2 heads, there are 1"),
        (lambda: keyseek.truncate_heads([cache], [-2]), "tokens is -2"),
        (lambda: keyseek.truncate_heads([], []), "heads is empty"),
    ):
        with pytest.raises(keyseek.InvalidArgument, match=fault):
            call()
    assert len(cache) == 300


def test_many_heads_take_turns_together():
    heads, pool = [head(retriever="flat", k=20) for _ in range(3)], keyseek.DecodePool(2)
    alone = heads[0].copy()
    alone.append(KEYS[300:400], VALUES[300:400], asked(300, 400))
    thrice = (np.concatenate([rows] * 3) for rows in (KEYS[300:400], VALUES[300:400]))
    attended = [each.copy() for each in heads]
    turn = np.concatenate([asked(300, 400)] * 3), *thrice
    keyseek.append_heads(heads, *turn[1:], pool, turn[0])
    out = keyseek.extend_heads(attended, *turn, pool)
    assert out == pytest.approx(np.concatenate([full(300, 400)] * 3), abs=1e-5)
    token = asked(400, 401), KEYS[400:401], VALUES[400:401]
    expected = alone.step(*token)
    assert alone.indexed == 400 - 4 - 16
    for each in heads + attended:
        assert (each.step(*token) == expected).all()
    with pytest.raises(keyseek.InvalidArgument, match="tokens is 500, the head has 401"):
        keyseek.truncate_heads(heads, [400, 500, 5], pool)
    assert [len(each) for each in heads] == [401] * 3
    keyseek.truncate_heads(heads, [400, 250, 5], pool)
    assert [len(each) for each in heads] == [400, 250, 5]


@pytest.mark.parametrize("dtype", ["f4", "f2", ml_dtypes.bfloat16])
def test_all_tokens_are_read_in_order_of_position(dtype):
    heads = [head(dtype=dtype, pinned=6, retriever="flat"), head(280, dtype=dtype, pinned=6)]
    name = {"f4": "f32", "f2": "f16"}.get(dtype, "bf16")
    assert (heads[0].key_dtype, heads[0].value_dtype) == (name, name)
    keys, values = np.zeros((2, 310, D), dtype), np.zeros((2, 310, DV), dtype)
    keyseek.copy_tokens(heads, keys, values)
    for i, n in enumerate((300, 280)):
        assert (keys[i, :n] == KEYS[:n].astype(dtype)).all()
        assert (values[i, :n] == VALUES[:n].astype(dtype)).all()
        assert not keys[i, n:].any()


def test_room_for_tokens_has_to_fit():
    heads = [head(dtype="f2")]
    keys, values = np.zeros((1, 300, D), "f2"), np.zeros((1, 300, DV), "f2")
    locked = keys.copy()
    locked.flags.writeable = False
    for wrong, fault in (
        ((keys[:, :299].copy(), values), "keys has room for 299 x 16, a head has 300 x 16"),
        ((keys, keys), "values has room for 300 x 16, a head has 300 x 12"),
        ((keys.astype("f4"), values), "keys is f32, a head has f16"),
        ((np.zeros((2, 300, D), "f2"), values), "keys is for 2 heads and values for 1"),
        ((locked, values), "keys is read-only"),
        ((keys[0], values), "must have 3 dimensions"),
        ((keys[:, ::2], values), "not C-contiguous"),
    ):
        with pytest.raises(keyseek.InvalidArgument, match=fault):
            keyseek.copy_tokens(heads, *wrong)


def test_a_refresh_is_run_on_a_thread_of_the_callers_and_adopted_at_its_token():
    cache = head(refresh_delay=8)
    for position in range(300, 365):
        cache.step(asked(position, position + 1), KEYS[position, None], VALUES[position, None])
    assert cache.refreshing
    assert not pickle.loads(pickle.dumps(cache)).refreshing
    alone, refresh, stages = cache.copy(), cache.begin_refresh(), []
    refresh.run(threads=1, progress=lambda *report: stages.append(report) or False)
    assert not refresh.done or not stages  # stopped, where it has stages
    thread = threading.Thread(target=refresh.run, kwargs={"threads": 2})
    thread.start()
    thread.join()
    assert refresh.done
    for position in range(365, 373):
        assert cache.indexed == alone.indexed == 280
        token = asked(position, position + 1), KEYS[position, None], VALUES[position, None]
        np.testing.assert_array_equal(cache.step(*token), alone.step(*token))
    assert cache.indexed == alone.indexed == 364 - 20
    assert not cache.refreshing
    cache.adopt_refresh()  # none is under way
    by_hand = head()
    by_hand.append(KEYS[300:370], VALUES[300:370], asked(300, 370))
    assert not by_hand.refreshing
    by_hand.begin_refresh()
    by_hand.adopt_refresh()
    assert by_hand.indexed == 370 - 20
