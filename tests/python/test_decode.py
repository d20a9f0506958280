"""HeadCache, step_heads, and a search of one's own."""

from __future__ import annotations

import numpy as np
import pytest

import keyseek
from conftest import SAMPLE

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
        cache,
        captured.queries(first, last),
        captured.keys[:last],
        captured.values[:last],
        **options,
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
    read = {"everything": 0, "none": 1, "projection": 4}.get(retriever, 2)
    options = {"tail_vectors": 32, "k": 40, "held_out": 40, "target_recall": 0.9}
    cache = prefill(retriever=retriever, **dict(list(options.items())[:read]))
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
        return lambda keys: found

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
    with pytest.raises(keyseek.Error, match=r"nothing.ks"):
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


def token_of(captured, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries [group, d], key [1, d] and value [1, dv] of a position."""
    key, value = (x[position : position + 1].astype("f4") for x in (captured.keys, captured.values))
    return captured.queries(position, position + 1), key, value


def test_append_and_attend_are_a_step(captured, prefill):
    steps = prefill(retriever="projection", k=50, horizon=20)
    apart = steps.copy()
    for position in range(PROMPT, PROMPT + 30):  # over a refresh
        queries, key, value = token_of(captured, position)
        apart.append(key, value)
        assert (apart.attend(queries) == steps.step(queries, key, value)).all()
    assert len(apart) == len(steps) == PROMPT + 30
    apart.attend(queries)
    assert len(apart) == PROMPT + 30  # attending takes no token
    for call, fault in (
        (
            lambda: apart.append(key[:, :-1].copy(), value),
            "keys have dimension 63, the head has 64",
        ),
        (lambda: apart.append(key, np.vstack([value, value])), "keys has 1 rows, values has 2"),
        (lambda: apart.append(key * np.nan, value), "key holds"),
        (lambda: apart.attend(queries[:1]), "queries are 1 x 64, must be 3 x 64"),
    ):
        with pytest.raises(keyseek.Error, match=fault):
            call()


def test_many_heads_append_and_attend(captured, prefill):
    heads = [prefill(retriever="flat", k=50), prefill(2000, retriever="flat", k=50)]
    twins, pool = [head.copy() for head in heads], keyseek.DecodePool(2)
    tokens = [token_of(captured, len(head)) for head in heads]
    queries, keys, values = (np.concatenate(each) for each in zip(*tokens, strict=True))
    keyseek.append_heads(twins, keys, values, pool)
    expected = keyseek.step_heads(heads, queries, keys, values)
    assert (keyseek.attend_heads(twins, queries, pool) == expected).all()
    # Any of them may be asked alone.
    assert (keyseek.attend_heads(twins[1:], queries[3:]) == expected[3:]).all()
    assert [len(twin) for twin in twins] == [PROMPT + 1, 2001]
    for call, fault in (
        (
            lambda: keyseek.step_heads([heads[0]] * 2, queries, keys, values),
            "are the same HeadCache",
        ),
        (lambda: keyseek.attend_heads([heads[0]] * 2, queries), "are the same HeadCache"),
        (lambda: keyseek.append_heads([], keys, values), "heads is empty"),
        (lambda: keyseek.attend_heads([], queries), "heads is empty"),
        (lambda: keyseek.append_heads(heads, keys[:1], values), "keys has 1 rows"),
        (lambda: keyseek.attend_heads(heads, queries[:3]), "queries has 3 rows, must have 6"),
    ):
        with pytest.raises(keyseek.InvalidArgument, match=fault):
            call()
    assert [len(head) for head in heads] == [PROMPT + 1, 2001]


def test_a_search_that_raises_leaves_all_heads_as_they_were(captured, prefill):
    down = False

    def index(keys):
        search = exact_search(keys)

        def ask(queries, k):
            if down:
                raise RuntimeError("the search is down")
            return search(queries, k)

        return ask

    heads = [prefill(retriever="flat", k=50), prefill(retriever="custom", index=index, k=50)]
    twins, pool = [head.copy() for head in heads], keyseek.DecodePool(2)
    for position in range(PROMPT, PROMPT + 3):
        queries, key, value = token_of(captured, position)
        token = np.vstack([queries] * 2), np.vstack([key] * 2), np.vstack([value] * 2)
        down = True
        with pytest.raises(RuntimeError, match="the search is down"):
            keyseek.step_heads(heads, *token, pool)
        down = False
        assert [len(head) for head in heads] == [position] * 2
        assert (keyseek.step_heads(heads, *token, pool) == keyseek.step_heads(twins, *token)).all()


@pytest.mark.parametrize("softcap", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("level", [None, -5.0, 0.0, 5.0, 20.0])
@pytest.mark.parametrize("plan", [{"retriever": "everything"}, {"max_error": 0.05}])
def test_soft_caps_and_null_logits_are_served(captured, prefill, tmp_path, softcap, level, plan):
    nulls = None if level is None else np.array([level, level + 1, level + 2], dtype="f4")
    cache = prefill(softcap=softcap, null_logits=nulls, **plan)
    cache.save(tmp_path / "head.ks")
    loaded = keyseek.HeadCache.load(tmp_path / "head.ks")
    errors = []
    for at in range(PROMPT, PROMPT + 12):
        queries, token = captured.queries(at, at + 1), slice(at, at + 1)
        key, value = captured.keys[token].astype("f4"), captured.values[token].astype("f4")
        out = cache.step(queries, key, value)
        np.testing.assert_array_equal(out, loaded.step(queries, key, value))
        keys, values = captured.keys[: at + 1].astype("f8"), captured.values[: at + 1].astype("f8")
        logits = captured.scale * queries @ keys.T
        if softcap > 0:
            logits = softcap * np.tanh(logits / softcap)
        weights = np.exp(logits)
        total = weights.sum(1) + (0 if nulls is None else np.exp(nulls.astype("f8")))
        full = weights @ values / total[:, None]
        errors.extend(np.linalg.norm(out - full, axis=1) / np.linalg.norm(full, axis=1))
    assert np.mean(errors) < (0.05 if "max_error" in plan else 1e-5)


def test_a_session_refuses_a_soft_cap(prefill):
    with pytest.raises(keyseek.Error, match="a head has softcap 50") as raised:
        keyseek.DecodeSession([prefill(retriever="flat", softcap=50.0)])
    assert raised.value.code == "unsupported"


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
    with pytest.raises(keyseek.Error, match=r"no CUDA device|there are .* CUDA devices") as raised:
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
        ({"softcap": -1.0}, "softcap is -1"),
        ({"softcap": float("nan")}, "softcap is nan"),
        ({"null_logits": np.zeros(2, "f4")}, "null_logits has 2 numbers.*group is 3"),
        ({"null_logits": np.full(3, np.inf, "f4")}, r"null_logits\[0\] is inf"),
        ({"null_logits": np.zeros((3, 1), "f4")}, "null_logits has shape"),
    ],
)
def test_bad_input_is_named(prefill, options, fault):
    with pytest.raises(keyseek.Error, match=fault):
        prefill(**options)


def test_params_are_saved_by_name():
    text = keyseek.DecodeParams(sink=7).to_text()
    assert "\nsink 7\n" in text
    with pytest.raises(keyseek.InvalidArgument, match="there is no option sinks"):
        keyseek.DecodeParams.from_text(text.replace("\nsink", "\nsinks"))
    with pytest.raises(keyseek.InvalidArgument, match="option sink is missing"):
        keyseek.DecodeParams.from_text(text.replace("\nsink 7", ""))
    with pytest.raises(keyseek.InvalidArgument, match="max_error is 3"):
        keyseek.DecodeParams.from_text(text.replace("max_error 0.05", "max_error 3"))
    with pytest.raises(keyseek.Error, match="a search of the caller's own"):
        keyseek.DecodeParams(index=exact_search).to_text()


def test_what_a_plan_sees_of_a_prompt_does_not_depend_on_what_it_is_given(captured):
    """The newest share of it, however many queries there are."""

    def plan(first: int):
        return keyseek.HeadCache.prefill(
            captured.keys[:PROMPT], captured.values[:PROMPT], captured.queries(first, PROMPT), 3,
            scale=captured.scale, threads=1, **captured.rotary,
        ).plan  # fmt: skip

    seen = keyseek.DecodeParams().plan_positions(PROMPT)
    assert seen == 2048
    assert plan(0).expected_error == plan(PROMPT - seen).expected_error != plan(1500).expected_error


def test_null_logits_are_an_array_of_float32(prefill):
    for wrong, fault in (([1.0, 2.0, 3.0], "null_logits is a list"), (np.zeros(3), "float64")):
        with pytest.raises(TypeError, match=fault):
            prefill(null_logits=wrong)
