"""copy.copy, copy.deepcopy and pickle of what the library makes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import keyseek

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "pickle protocol 2": lambda x: pickle.loads(pickle.dumps(x, protocol=2)),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=[w.replace(" ", "_") for w in WAYS])

rng = np.random.default_rng(0)


def some(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype="f4")


KEYS, VALUES, QUERIES, TRAINING = some(600, 24), some(600, 20), some(3, 24), some(400, 24)

INDEXES = {
    "flat": lambda: keyseek.Index.build("flat", KEYS, threads=1),
    "sketch": lambda: keyseek.Index.build("sketch", KEYS, TRAINING, threads=1),
    "projection": lambda: keyseek.Index.build("projection", KEYS, TRAINING, threads=1),
}
every_index = pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)


def same_hits(a: keyseek.Hits, b: keyseek.Hits) -> bool:
    return (
        (a.ids == b.ids).all()
        and (a.scores == b.scores).all()
        and (a.count == b.count).all()
        and repr(a.stats) == repr(b.stats)
    )


def fields(value: object) -> dict[str, object]:
    """Public members by name, parameters within parameters likewise."""
    named = {name: getattr(value, name) for name in dir(value) if not name.startswith("_")}
    return {
        name: fields(member) if type(member).__name__.endswith("Params") else member
        for name, member in named.items()
    }


@every_way
@every_index
def test_indexes(index, way):
    first = index()
    second = way(first)
    assert len(second) == len(first) and second.nbytes == first.nbytes
    assert same_hits(first.search(QUERIES, k=20), second.search(QUERIES, k=20))
    second.append(some(5, 24))  # they go separate ways
    assert (len(first), len(second)) == (600, 605)


@every_way
def test_what_building_found_out_stays_with_copies(way):
    """A pickle is the file's bytes, which have no report."""
    index = INDEXES["projection"]()
    assert index.report.training_queries == 320  # every fifth of 400 is held out
    other = way(index)
    assert other.kind == "projection" and other.facts == index.facts
    if way in (copy.copy, copy.deepcopy):
        assert repr(fields(other.report.graph)) == repr(fields(index.report.graph))
        assert other.report.training_queries == 320
    else:
        assert other.report is None


@every_way
def test_heads(way):
    for options in ({"retriever": "flat", "k": 20}, {"retriever": "projection", "k": 20}, {}):
        cache = keyseek.HeadCache.prefill(
            KEYS, VALUES, TRAINING, 1, scale=0.2, shift=False, sink=4, window=8, least_indexed=40,
            threads=1, **options,
        )  # fmt: skip
        cache.step(QUERIES[:1], KEYS[:1], VALUES[:1])
        other = way(cache)
        assert fields(other.plan) == fields(cache.plan)
        assert (len(other), other.indexed) == (len(cache), cache.indexed)
        mine, theirs = (c.step(QUERIES[1:2], KEYS[1:2], VALUES[1:2]) for c in (cache, other))
        assert mine == pytest.approx(theirs, abs=0 if options.get("retriever") == "flat" else 0.1)
        other.append(KEYS[:1], VALUES[:1])
        assert len(other) == len(cache) + 1


def test_a_search_of_ones_own_is_copied_but_not_pickled():
    def index(keys):
        def search(queries, k):
            scores = queries @ keys.T
            ids = np.ascontiguousarray(np.argsort(-scores, axis=1)[:, :k])
            return ids, np.take_along_axis(scores, ids, axis=1)

        return search

    cache = keyseek.HeadCache.prefill(
        KEYS, VALUES, TRAINING, 1, scale=0.2, shift=False, sink=4, window=8, retriever="custom",
        index=index, threads=1,
    )  # fmt: skip
    outs = [c.step(QUERIES[:1], KEYS[:1], VALUES[:1]) for c in (cache, copy.deepcopy(cache))]
    assert len(outs) == 2 and outs[0].shape == outs[1].shape
    with pytest.raises(keyseek.Error, match=r"a search of the caller's own.*prefill again"):
        pickle.dumps(cache)


@every_way
def test_hits(way):
    index = INDEXES["projection"]()
    hits = index.search(QUERIES, k=20)
    other = way(hits)
    assert same_hits(hits, other)
    again = (index.search(QUERIES, k=20, previous=previous) for previous in (hits, other))
    assert same_hits(*again)


def test_hits_that_are_not_whole_are_refused():
    hits = keyseek.Hits.__new__(keyseek.Hits)
    state = INDEXES["flat"]().search(QUERIES, k=20).__getstate__()
    for broken in (
        (9, *state[1:]),
        (state[0], 21, *state[2:]),
        (*state[:2], state[2][:-1], *state[3:]),
        (*state[:4], [21] * 3, state[5]),
        (*state[:4], [], state[5]),
    ):
        with pytest.raises(keyseek.InvalidArgument, match="not whole"):
            hits.__setstate__(broken)


@every_way
@pytest.mark.parametrize(
    "value",
    [
        keyseek.Dials(probes=3, lists=5, expand=7, pool=11, novel=0.5),
        keyseek.GraphParams(link_method="pivot", degree=9, max_degree=13, damping=0.25),
        keyseek.RouterParams(dim=12, clusters=7, seed=5),
        keyseek.SketchParams(dim=12, residual=0.25, ridge=0.5),
        keyseek.ProjectionParams(
            list_length=30,
            list_method="f32",
            graph=keyseek.GraphParams(degree=9),
            router=keyseek.RouterParams(dim=12),
            target_recalls=[0.8, 0.9],
            tuning_k=20,
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_params(value, way):
    other = way(value)
    assert type(other) is type(value) and other is not value
    assert fields(other) == fields(value)


@every_way
def test_reports_and_stats(way):
    training = keyseek.sample_training_queries(
        some(2000, 24), np.arange(1000), 2, now=1000, horizon=100, share=0.5, shift=False
    )
    index = keyseek.Index.build("projection", KEYS, training, threads=1)
    for point in index.operating_points:
        other = way(point)
        assert (other.target_recall, other.recall, other.dials) == (
            point.target_recall,
            point.recall,
            point.dials,
        )
        assert other.flat_is_better == point.flat_is_better
    stats = index.search(QUERIES, k=10).stats
    assert fields(way(stats)) == fields(stats)
    assert fields(way(index.report.graph)) == fields(index.report.graph)


@every_way
def test_a_pool_is_another_of_as_many_threads(way):
    pool = keyseek.DecodePool(3)
    other = way(pool)
    assert other is not pool and other.threads == 3


def test_bytes_that_are_no_pickle_are_refused():
    index = keyseek.Index.__new__(keyseek.Index)
    with pytest.raises(keyseek.Error, match="bytes in memory: not a keyseek file"):
        index.__setstate__(b"nothing of ours")
    whole = bytearray(INDEXES["flat"]().__getstate__())
    whole[-1] ^= 1
    with pytest.raises(keyseek.Error, match="bytes in memory: checksum"):
        index.__setstate__(bytes(whole))
    head = keyseek.HeadCache.prefill(KEYS, VALUES, TRAINING, 1, scale=0.2, shift=False)
    with pytest.raises(keyseek.Error, match='"head", which is no index'):
        index.__setstate__(head.__getstate__())
