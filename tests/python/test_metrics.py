"""Distance and cosine, searches among allowed keys, and queries in half precision."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import keyseek

KINDS = ("flat", "sketch", "projection")
RNG = np.random.default_rng(5)
KEYS = RNG.standard_normal((700, 20), dtype=np.float32) * RNG.uniform(0.5, 3, (700, 1)).astype("f4")
QUERIES = RNG.standard_normal((30, 20), dtype=np.float32)
TRAIN = RNG.standard_normal((800, 20), dtype=np.float32)


def values(metric: str, queries: np.ndarray = QUERIES) -> np.ndarray:
    """[queries, keys] in double precision."""
    q, x = queries.astype("f8"), KEYS.astype("f8")
    if metric == "l2":
        return ((q[:, None] - x[None]) ** 2).sum(-1)
    lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)[None]
    return q @ x.T / (lengths if metric == "cosine" else 1.0)


def order(metric: str, k: int) -> np.ndarray:
    best_first = values(metric) * (1 if metric == "l2" else -1)
    return np.argsort(best_first, axis=1, kind="stable")[:, :k].copy()


@pytest.mark.parametrize("metric", ["ip", "l2", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_by_every_metric(kind, metric, tmp_path):
    index = keyseek.Index.build(kind, KEYS, TRAIN, metric=metric)
    index.save(tmp_path / "x.ks")
    for one in (index, keyseek.Index.open(tmp_path / "x.ks"), pickle.loads(pickle.dumps(index))):
        assert (one.metric, one.dim, len(one)) == (metric, 20, 700)
        recall = {"target_recall": 0.995} if kind == "projection" else {}
        found = one.search_batch(QUERIES, k=10, **recall)
        assert keyseek.recall(order(metric, 10), found.ids) >= 0.97
        exact = np.take_along_axis(values(metric), found.ids, axis=1)
        np.testing.assert_allclose(found.scores, exact, rtol=1e-5, atol=1e-6)
        steps = np.diff(found.scores, axis=1)
        assert (steps >= 0 if metric == "l2" else steps <= 0).all()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_exact_lists_by_a_metric(metric):
    ids, scores = keyseek.exact_knn(KEYS, QUERIES, k=7, metric=metric)
    np.testing.assert_array_equal(ids, order(metric, 7))
    exact = np.take_along_axis(values(metric), ids, axis=1)
    np.testing.assert_allclose(scores, exact, rtol=1e-5, atol=1e-6)


def test_metrics_that_make_no_sense():
    with pytest.raises(keyseek.InvalidArgument, match="metric is 'l1', must be one of ip, l2, cos"):
        keyseek.Index.build("flat", KEYS, metric="l1")
    zero = KEYS.copy()
    zero[4] = 0
    with pytest.raises(keyseek.InvalidArgument, match="keys: row 4 is zero"):
        keyseek.Index.build("flat", zero, metric="cosine")
    index = keyseek.Index.build("flat", KEYS, metric="l2")
    with pytest.raises(keyseek.InvalidArgument, match="beta is 1"):
        index.search(QUERIES[:1], beta=1.0)
    with pytest.raises(keyseek.InvalidArgument, match="dimension 21, the index has 20"):
        index.search(np.zeros((1, 21), np.float32), k=1)
    with pytest.raises(keyseek.InvalidArgument, match="dimension 21, keys have 20"):
        keyseek.exact_knn(KEYS, np.zeros((1, 21), np.float32), k=1, metric="l2")


@pytest.mark.parametrize("kind", KINDS)
def test_only_allowed_keys_are_found(kind):
    index = keyseek.Index.build(kind, KEYS, TRAIN)
    for step in (2, 50):
        mask = np.arange(700) % step == 0
        hits = index.search(QUERIES[:4], k=5, allowed=mask)
        assert mask[hits.ids].all()
        found = index.search_batch(QUERIES, k=5, allowed=np.flatnonzero(mask))
        best = np.argsort(np.where(mask, -values("ip"), np.inf), axis=1, kind="stable")[
            :, :5
        ].copy()
        assert keyseek.recall(best, found.ids) >= 0.9
    few = index.search(QUERIES[:1], k=5, allowed=np.array([3, 8]))
    assert (few.count[0], sorted(few.ids[0][:2]), few.ids[0][2]) == (2, [3, 8], -1)


def test_allowed_that_does_not_fit():
    index = keyseek.Index.build("flat", KEYS)
    for allowed, said in (
        (np.ones(699, bool), "allowed has 699 entries, but there are 700 keys"),
        (np.array([0, 700]), "allowed holds 700 at 1, but there are 700 keys"),
        (np.array([-1]), "allowed holds -1 at 0"),
        (np.ones((700, 1), bool), "allowed has shape"),
    ):
        with pytest.raises(keyseek.InvalidArgument, match=said):
            index.search(QUERIES[:1], k=1, allowed=allowed)
    with pytest.raises(TypeError, match="allowed holds float64, must hold bool or int64"):
        index.search(QUERIES[:1], k=1, allowed=np.ones(700))


def test_queries_in_half_precision():
    index = keyseek.Index.build("flat", KEYS)
    half = QUERIES.astype(np.float16)
    same = index.search_batch(half.astype(np.float32), k=5)
    found = index.search_batch(half, k=5)
    np.testing.assert_array_equal(found.ids, same.ids)
    np.testing.assert_array_equal(found.scores, same.scores)
    np.testing.assert_array_equal(index.search(half[:1], k=5).ids, same.ids[:1])
    np.testing.assert_array_equal(keyseek.exact_knn(KEYS, half, k=5)[1], same.scores)
    with pytest.raises(TypeError, match="queries holds int8, must hold float32, float16"):
        index.search(np.ones((1, 20), np.int8), k=1)
