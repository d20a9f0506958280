"""Keys and values in an engine's pages, on NumPy arrays."""

from __future__ import annotations

import gc
import weakref

import ml_dtypes
import numpy as np
import pytest

import keyseek

N, PROMPT, ROWS, HEADS, HEAD, GROUP, D, DV = 400, 200, 16, 3, 1, 2, 16, 12
OPTIONS = {"sink": 4, "window": 16, "horizon": 64, "least_indexed": 64, "scale": 0.25}
OPTIONS |= {"shift": False, "threads": 1, "retriever": "flat", "k": 20}
TYPES = {"f4": np.float32, "f2": np.float16, "bf16": ml_dtypes.bfloat16}


def normal(rows, cols, seed):
    return np.random.default_rng(seed).standard_normal((rows, cols), dtype="f4")


KEYS, VALUES, QUERIES = normal(N, D, 1), normal(N, DV, 2), normal(N * GROUP, D, 3)
PAGES = N // ROWS + 3
TABLE = [int(page) for page in np.random.default_rng(4).permutation(PAGES)]


def asked(first, last):
    return QUERIES[first * GROUP : last * GROUP]


def pool(rows, dtype):
    """[pages, page_rows, heads, d]; all but the rows of one head is NaN."""
    memory = np.full((PAGES, ROWS, HEADS, rows.shape[1]), np.nan, dtype)
    for token, row in enumerate(rows):
        memory[TABLE[token // ROWS], token % ROWS, HEAD] = row
    return memory


def borrow(keys, values, table=TABLE[: PROMPT // ROWS + 1], tokens=PROMPT, **options):
    return keyseek.HeadCache.borrow(
        keys, values, table, tokens, asked(0, PROMPT), GROUP, **{**OPTIONS, **options}
    )


@pytest.mark.parametrize("name", TYPES)
def test_the_results_are_those_of_copies(name):
    dtype = TYPES[name]
    keys, values = pool(KEYS, dtype), pool(VALUES, dtype)
    owned = keyseek.HeadCache.prefill(
        KEYS[:PROMPT].astype(dtype),
        VALUES[:PROMPT].astype(dtype),
        asked(0, PROMPT),
        GROUP,
        **OPTIONS,
    )
    cache = borrow(keys[:, :, HEAD], values[:, :, HEAD])
    assert cache.nbytes < owned.nbytes - PROMPT * (D + DV) * keys.itemsize / 2
    fresh = iter(TABLE[PROMPT // ROWS + 1 :])
    for token in range(PROMPT, PROMPT + 100):
        pages = [next(fresh)] if token % ROWS == 0 else []
        queries = asked(token, token + 1).astype(dtype)
        out = cache.step_announced(queries, pages)
        wanted = owned.step(
            queries.astype("f4"), KEYS[token : token + 1], VALUES[token : token + 1]
        )
        assert (out == wanted).all()
    at = len(cache)
    out = cache.extend_announced(asked(at, at + 20), [next(fresh), next(fresh)])
    assert (out == owned.extend(asked(at, at + 20), KEYS[at : at + 20], VALUES[at : at + 20])).all()
    cache.truncate(at)
    owned.truncate(at)
    assert (cache.attend(asked(at, at + 1)) == owned.attend(asked(at, at + 1))).all()
    assert len(cache.copy()) == at


def test_every_layout_is_a_slice():
    keys, values = pool(KEYS, "f2"), pool(VALUES, "f2")
    step = asked(PROMPT, PROMPT + 1)
    wanted = borrow(keys[:, :, HEAD], values[:, :, HEAD]).step_announced(step)
    swapped = [np.ascontiguousarray(a.swapaxes(1, 2)) for a in (keys, values)]
    slots = [a.reshape(-1, *a.shape[2:]) for a in (keys, values)]
    both = np.zeros((2, PAGES, ROWS, HEADS, D), "f2")
    both[0], both[1, ..., :DV] = keys, values
    for k, v in (
        (a[:, HEAD] for a in swapped),
        (a[:, HEAD].reshape(-1, ROWS, a.shape[-1]) for a in slots),
        (both[0, :, :, HEAD], both[1, :, :, HEAD, :DV]),
    ):
        assert (borrow(k, v).step_announced(step) == wanted).all()
    rows = np.zeros((N, D + DV), "f2")
    rows[:, :D], rows[:, D:] = KEYS, VALUES
    one_page = borrow(rows[:, :D], rows[:, D:], [0])
    assert (one_page.step_announced(step) == wanted).all()
    one_row = borrow(rows[:, None, :D], rows[:, None, D:], range(PROMPT))
    assert (one_row.step_announced(step, [PROMPT]) == wanted).all()


def test_many_heads_take_what_was_written():
    keys, values = pool(KEYS, "f2"), pool(VALUES, "f2")
    heads = [borrow(keys[:, :, HEAD], values[:, :, HEAD]) for _ in range(2)]
    alone = heads[0].copy()
    pages = TABLE[PROMPT // ROWS + 1 :][:1]
    last = asked(PROMPT + 19, PROMPT + 20).astype("f2")
    keyseek.announce_heads(heads, 20, [pages, pages])
    out = keyseek.attend_heads(heads, np.concatenate([last, last]))
    alone.announce(20, pages)
    assert (out == np.tile(alone.attend(last), (2, 1))).all()
    with pytest.raises(keyseek.Error, match="pages are of 1 heads, there are 2"):
        keyseek.announce_heads(heads, 1, [[]])
    assert len(heads[0]) == PROMPT + 20


def test_arrays_are_kept_alive_as_long_as_they_are_read():
    keys, values = pool(KEYS, "f2"), pool(VALUES, "f2")
    alive = weakref.ref(keys)
    cache = borrow(keys[:, :, HEAD], values[:, :, HEAD]).copy()
    del keys
    gc.collect()
    assert alive() is not None
    cache.attend(asked(PROMPT, PROMPT + 1))
    del cache
    gc.collect()
    assert alive() is None


def test_what_cannot_be_is_refused_by_name():
    keys, values = pool(KEYS, "f2")[:, :, HEAD], pool(VALUES, "f2")[:, :, HEAD]
    for k, table, tokens, what in (
        (keys, TABLE[:4], PROMPT, "4 pages have room for 64"),
        (keys, [*TABLE[:12], PAGES], PROMPT, f"page {PAGES}, there are {PAGES}"),
        (keys, [*TABLE[:12], TABLE[0]], PROMPT, "twice"),
        (keys[:, :8], TABLE[:13], PROMPT, "pages of 8 rows, values"),
        (keys[:5], TABLE[:13], PROMPT, "keys have 5 pages"),
        (keys[:, ::-1], TABLE[:13], PROMPT, "backwards"),
        (keys[:, :, ::2], TABLE[:13], PROMPT, "not contiguous"),
        (keys[0, 0], TABLE[:13], PROMPT, r"must be \[pages, page_rows, d\]"),
        (keys[:0], TABLE[:13], PROMPT, "keys have 0 pages"),
    ):
        with pytest.raises(keyseek.Error, match=what):
            borrow(k, values, table, tokens)
    with pytest.raises(TypeError, match=r"pages is 1\.5"):
        borrow(keys, values, [1.5])
    with pytest.raises(keyseek.Error, match="pages is -1"):
        borrow(keys, values, [-1])
    cache = borrow(keys, values)
    with pytest.raises(keyseek.Error, match="borrows its tokens"):
        cache.append(KEYS[:1], VALUES[:1])
    with pytest.raises(keyseek.Error, match="there are 209 tokens, but 13 pages"):
        cache.announce(9)
    with pytest.raises(keyseek.Error, match="keys written row 8 holds NaN"):
        cache.announce(1 + 8, [TABLE[-1]])  # nothing was written into that page
    assert len(cache) == PROMPT
