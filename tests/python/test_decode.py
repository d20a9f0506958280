"""HeadCache, step_heads, a search of one's own, and the comparison of retrievers."""

from __future__ import annotations

import json

import keyseek
import numpy as np
import pytest
from conftest import SAMPLE
from keyseek.bench import decode as bench

PROMPT, LAYER = 2500, 2


@pytest.fixture(scope="module")
def captured() -> keyseek.CapturedHead:
    return keyseek.read_capture(SAMPLE, LAYER)


@pytest.fixture
def prefill(captured):
    """A cache of the prompt; options as of HeadCache.prefill."""

    def make(n: int = PROMPT, **options) -> keyseek.HeadCache:
        return keyseek.HeadCache.prefill(
            captured.keys[:n],
            captured.values[:n],
            captured.queries(n // 2, n),
            captured.group,
            scale=captured.scale,
            threads=1,
            **captured.rotary,
            **options,
        )

    return make


def measure(captured, cache, steps: int = 20, **options) -> keyseek.DecodeMeasurement:
    first, last = len(cache), len(cache) + steps
    return keyseek.measure_decode(
        cache, captured.queries(first, last), captured.keys[:last], captured.values[:last], **options
    )


def exact_search(keys):
    def search(queries, k):
        scores = queries @ keys.T
        ids = np.ascontiguousarray(np.argsort(-scores, axis=1, kind="stable")[:, :k])
        return ids, np.take_along_axis(scores, ids, axis=1)

    return search


def test_a_capture_is_read(captured):
    n, d = captured.keys.shape
    assert (n, d, captured.group) == (8192, 64, 3)
    assert captured.keys.dtype == captured.values.dtype == np.float16
    assert captured.queries(5, 7).shape == (6, d)
    assert captured.rotary["theta"] == 100000.0
    with pytest.raises(keyseek.Error, match="positions \\[5, 9000\\)"):
        captured.queries(5, 9000)


@pytest.mark.parametrize("retriever", ["everything", "none", "flat", "sketch", "projection"])
def test_a_plan_can_be_given(captured, prefill, retriever):
    cache = prefill(retriever=retriever, k=40, target_recall=0.9, tail_vectors=32)
    plan = cache.plan
    assert plan.retriever == retriever
    assert plan.k == (40 if retriever in ("flat", "sketch", "projection") else 0)
    assert plan.tail_vectors == (0 if retriever == "everything" else 32)
    seen = measure(captured, cache, cold_cache=True)
    assert seen.steps == 20
    assert seen.retrieved == plan.k
    assert seen.error <= (1e-5 if retriever == "everything" else 0.2)
    assert 0 <= seen.search_us <= seen.total_us


def test_rules_and_storage(captured, prefill):
    cache = prefill(retriever="flat", k=200, rule="mass", limit=0.9, int8_values=True, pinned=30)
    assert (cache.plan.rule, cache.plan.limit) == ("mass", 0.9)
    assert len(cache.pinned) == 30
    assert cache.indexed == PROMPT - 640 - 30
    assert 16 <= measure(captured, cache).retrieved < 200
    assert cache.nbytes < prefill(retriever="flat", k=200).nbytes
    assert prefill(rule="dipr").plan.rule == "dipr"


def test_a_search_in_python_takes_the_indexs_place(captured, prefill):
    custom = prefill(retriever="custom", k=40, index=exact_search)
    flat = prefill(retriever="flat", k=40)
    assert custom.plan.retriever == "custom"
    a, b = measure(captured, custom), measure(captured, flat)
    assert a.error == pytest.approx(b.error, rel=0.05)
    assert a.retrieved == 40


def test_faults_of_a_search_in_python_are_raised(prefill):
    def index_with(found):
        return lambda keys: lambda queries, k: found(queries, k)

    def raising(queries, k):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        prefill(retriever="custom", index=index_with(raising))
    with pytest.raises(keyseek.InvalidArgument, match="returned 1 things"):
        prefill(retriever="custom", index=index_with(lambda q, k: (np.zeros((3, k), int),)))
    with pytest.raises(keyseek.InvalidArgument, match="3 x 2 and scores 3 x 1"):
        ids, scores = np.zeros((3, 2), int), np.zeros((3, 1), np.float32)
        prefill(retriever="custom", index=index_with(lambda q, k: (ids, scores)))
    with pytest.raises(keyseek.InvalidArgument, match="returned 5"):
        prefill(retriever="custom", index=index_with(lambda q, k: 5))


def test_heads_are_saved_and_mapped(captured, prefill, tmp_path):
    path = tmp_path / "head.ks"
    cache = prefill(retriever="flat", k=40)
    cache.save(path)
    for again in (keyseek.HeadCache.load(path), keyseek.HeadCache.map(path)):
        assert again.plan.k == 40
        assert len(again) == PROMPT
        assert measure(captured, again).error == measure(captured, cache.copy()).error
    with pytest.raises(keyseek.Error, match="nothing.ks"):
        keyseek.HeadCache.load(tmp_path / "nothing.ks")
    with pytest.raises(keyseek.Error, match="no file"):
        prefill(index=exact_search).save(path)


def test_a_pool_steps_heads_together(captured, prefill):
    heads = [prefill(600 + 10 * i) for i in range(4)]
    alone = [head.copy() for head in heads]
    queries = np.concatenate([captured.queries(700 + i, 701 + i) for i in range(4)])
    keys = captured.keys[700:704].astype(np.float32)
    values = captured.values[700:704].astype(np.float32)
    pool = keyseek.DecodePool(2)
    assert pool.threads == 2
    together = keyseek.step_heads(heads, queries, keys, values, pool)
    np.testing.assert_array_equal(together, keyseek.step_heads(alone, queries, keys, values))
    assert [len(head) for head in heads] == [601, 611, 621, 631]


def test_a_step_is_that_of_the_static_part_and_of_the_rest(captured, prefill):
    caches = [prefill(retriever="flat", k=40), prefill(2400, retriever="everything")]
    alone = [cache.copy() for cache in caches]
    pool = keyseek.DecodePool(2)
    token, d = slice(PROMPT, PROMPT + 2), captured.keys.shape[1]
    queries = captured.queries(PROMPT, PROMPT + 2)
    keys, values = captured.keys[token].astype("f4"), captured.values[token].astype("f4")
    expected = keyseek.step_heads(alone, queries, keys, values)
    out, lse = keyseek.step_heads_beside_static(caches, queries, keys, values, pool)
    assert (out.shape, lse.shape) == ((6, d), (6,))
    for i, cache in enumerate(caches):
        # The step's token is among the newest ones now.
        static_keys, static_values = cache.static_part()
        assert static_keys.shape == (128 + 512, d)
        assert (static_keys[-1] == keys[i]).all() and (static_values[0] == captured.values[0]).all()
        for g in range(3 * i, 3 * i + 3):
            logits = captured.scale * static_keys @ queries[g]
            weights = np.exp(logits - logits.max())
            static_lse = logits.max() + np.log(weights.sum())
            share = 1 / (1 + np.exp(lse[g] - static_lse))
            both = share * (weights @ static_values) / weights.sum() + (1 - share) * out[g]
            assert both == pytest.approx(expected[g], abs=1e-4)
    with pytest.raises(keyseek.InvalidArgument, match="heads is empty"):
        keyseek.step_heads_beside_static([], queries, keys, values, pool)


def test_a_session_names_what_it_cannot_serve(captured, prefill):
    f32 = keyseek.HeadCache.prefill(
        captured.keys[:700].astype("f4"),
        captured.values[:700].astype("f4"),
        captured.queries(600, 700),
        3,
        scale=0.125,
    )
    for heads, fault in (([], "heads is empty"), ([f32], "dtype is f32, must be f16 or bf16")):
        with pytest.raises(keyseek.InvalidArgument, match=fault):
            keyseek.DecodeSession(heads)
    with pytest.raises(keyseek.InvalidArgument, match="device is -1"):
        keyseek.DecodeSession([prefill(retriever="flat")], device=-1)
    with pytest.raises(keyseek.Error, match="no CUDA device|there are .* CUDA devices") as raised:
        keyseek.DecodeSession([prefill(retriever="flat")], device=1000)
    assert raised.value.code == "unsupported"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"retriever": "hnsw"}, "retriever is 'hnsw'"),
        ({"rule": "best"}, "rule is 'best'"),
        ({"limit": 3.0}, "limit is 3"),
        ({"retriever": "flat", "rule": "dipr"}, "needs a limit"),
        ({"retriever": "flat", "rule": "mass", "limit": 2.0}, "limit is 2"),
        ({"retriever": "custom"}, "no index"),
        ({"retriever": "flat", "k": -1}, "k is -1"),
        ({"pinned": -1}, "pinned is -1"),
    ],
)
def test_bad_input_is_named(prefill, options, fault):
    with pytest.raises(keyseek.Error, match=fault):
        prefill(**options)


def test_retrievers_are_compared_in_one_path(capsys):
    pytest.importorskip("faiss")
    options = ["--data", str(SAMPLE), "--layers", "15", "--steps", "8", "--rounds", "1", "--k", "50"]
    assert bench.main([*options, "--json", "--cold"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["caches"] for row in rows} == {"hot", "cold"}
    of = {row["retriever"]: row for row in rows if row["caches"] == "hot"}
    assert of.keys() == {"flat", "sketch", "projection", *bench.PEERS}
    assert of["faiss-flat"]["error"] == pytest.approx(of["flat"]["error"], rel=0.05)
    assert of["faiss-ivf"]["error"] <= bench.SLACK * of["projection"]["error"]
    for row in rows:
        parts = row["search_us"] + row["attend_us"] + row["other_us"]
        assert parts == pytest.approx(row["total_us"], rel=0.3)
    assert bench.main([*options, "--peers", "none"]) == 0
    assert "| hot | projection |" in capsys.readouterr().out


def test_bad_options_of_the_comparison_are_named(capsys):
    for options, fault in (
        (["--peers", "scann"], "--peers has 'scann'"),
        (["--k", "0"], "--k is 0"),
        (["--layers", "99"], "--layers is 99"),
    ):
        assert bench.main(["--data", str(SAMPLE), *options]) == 2
        assert fault in capsys.readouterr().err


def test_the_overhead_of_python_is_measured(capsys):
    pytest.importorskip("transformers")
    from keyseek.bench import overhead

    assert overhead.main(["--steps", "5"]) == 0
    assert "us (median of 5)" in capsys.readouterr().out
