"""Index: building, searching, saving and opening of every kind, and what each of them refuses."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import keyseek
from conftest import best

KINDS = ("flat", "sketch", "projection")


def test_flat_index_finds_everything(head, flat):
    assert (len(flat), flat.dim) == head.keys.shape
    assert flat.nbytes > head.keys.nbytes
    assert (flat.kind, flat.facts, flat.operating_points, flat.report) == ("flat", {}, [], None)
    assert repr(flat) == "Index(flat, 6528 x 64)"
    hits = flat.search(head.queries[:3], k=100)
    assert keyseek.recall(head.truth_ids[:3], hits.ids) >= 0.99
    assert hits.stats.scanned == len(flat)
    assert hits.ids.dtype == np.int64
    assert hits.ids.shape == hits.scores.shape == (3, 100)
    np.testing.assert_array_equal(hits.count, [100] * 3)


def test_scores_are_exact_inner_products(head, projection):
    queries = head.queries[30:33]
    hits = projection.search(queries, k=10)
    expected = np.take_along_axis(queries @ head.keys.astype("f4").T, hits.ids, axis=1)
    np.testing.assert_allclose(hits.scores, expected, rtol=1e-4)
    assert (np.diff(hits.scores, axis=1) <= 0).all()


def test_projection_index_scans_few_keys(head, projection):
    steps = keyseek.measure_steps(projection, head.queries, group=3, target_recall=0.95)
    assert keyseek.recall(head.truth_ids, steps.ids) >= 0.93
    assert steps.scanned_fraction < 0.2
    assert projection.facts == {"unreachable": 0}
    assert projection.extra_bytes == projection.nbytes - head.keys.nbytes
    targets = [point.target_recall for point in projection.operating_points]
    assert targets == sorted(targets)
    assert len(targets) == 5
    assert projection.report.training_queries == len(head.learn)
    assert projection.report.total_s > 0


def test_dials_and_previous_hits(head, projection):
    little, much = keyseek.Dials(probes=4, lists=2, expand=0), keyseek.Dials(lists=64, expand=64)
    assert little == keyseek.Dials(probes=4, lists=2, expand=0) != much
    queries = head.queries[:3]
    few, many = projection.search(queries, dials=little), projection.search(queries, dials=much)
    assert few.stats.scanned < many.stats.scanned
    warm = projection.search(queries, dials=little, previous=many)
    truth = head.truth_ids[:3]
    assert keyseek.recall(truth, warm.ids) > keyseek.recall(truth, few.ids)


def test_beta_pads_and_max_scanned_bounds(head, projection):
    queries = head.queries[:3]
    hits = projection.search(queries, k=100, beta=1.0)
    assert (hits.count < 100).any()
    for row in range(3):
        valid = int(hits.count[row])
        assert hits.scores[row, valid - 1] >= hits.scores[row, 0] - 1
        assert (hits.ids[row, valid:] == -1).all()
        assert np.isneginf(hits.scores[row, valid:]).all()
    assert projection.search(queries, k=100, max_scanned=200).stats.scanned <= 200


def test_a_novel_query_is_scanned_for(head, projection):
    queries = np.random.default_rng(1).standard_normal((3, 64), dtype=np.float32)
    truth, _ = keyseek.exact_knn(head.keys, queries, 100)
    lost = projection.search(queries, 100)
    found = projection.search(queries, 100, scan_novel=True)
    assert found.stats.scanned == len(projection) > lost.stats.scanned
    assert keyseek.recall(truth, found.ids) >= 0.98 > keyseek.recall(truth, lost.ids)
    assert all(0 < point.dials.novel < 1 for point in projection.operating_points)
    none = keyseek.Dials(novel=-1)
    assert projection.search(queries, 100, dials=none, scan_novel=True).stats.scanned < len(
        projection
    )


def test_results_look_at_their_own_memory(head, flat):
    scores = flat.search(head.queries[:1], k=5).scores
    assert not scores.flags.owndata
    assert not scores.flags.writeable
    again = flat.search(head.queries[:1], k=5).scores  # the first ones live on
    np.testing.assert_array_equal(scores, again)
    assert np.shares_memory(head.keys, head.keys)


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_open(kind, request, head, tmp_path):
    index = request.getfixturevalue(kind)
    path = tmp_path / "index.ks"
    index.save(path)
    assert keyseek.index_kind(path) == index.kind == kind
    queries = head.queries[:3]
    for opened in (keyseek.Index.open(path), keyseek.Index.open(str(path), mapped=True)):
        assert (opened.kind, len(opened), opened.dim) == (kind, len(index), index.dim)
        assert (opened.nbytes, opened.extra_bytes) == (index.nbytes, index.extra_bytes)
        assert opened.facts == index.facts
        assert opened.report is None
        assert repr(opened.operating_points) == repr(index.operating_points)
        found, expected = opened.search(queries), index.search(queries)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
        opened.append(head.keys[:2])
        assert (len(opened), len(index)) == (len(head.keys) + 2, len(head.keys))
    assert len(index.operating_points) == (5 if kind == "projection" else 0)


def test_a_sketch_index_finds_nearly_all_and_reads_less(head, flat, sketch):
    assert 0 < sketch.facts["sketch_dim"] <= sketch.dim == 64
    assert sketch.extra_bytes < 0.7 * flat.extra_bytes
    hits = None
    for step in range(0, 30, head.group):
        queries = head.queries[step : step + head.group]
        hits = sketch.search(queries, k=100, previous=hits)
        assert keyseek.recall(head.truth_ids[step : step + head.group], hits.ids) >= 0.98
    scanned = flat.search(queries, k=100, previous=hits).stats
    assert hits.stats.sketched == len(sketch) == scanned.scanned > 3 * hits.stats.reranked
    assert hits.stats.bytes_read < 0.8 * scanned.bytes_read
    close = sketch.search(queries, k=100, beta=1.0)
    assert (close.count < 100).any()
    measured = keyseek.measure_steps(sketch, head.queries[:30], group=head.group, k=100)
    assert keyseek.recall(head.truth_ids[:30], measured.ids) >= 0.98


def test_a_sketch_can_be_given_its_size(head, training):
    def build(keys=head.keys, queries=training, **given):
        params = keyseek.SketchParams(**given)
        return keyseek.Index.build("sketch", keys, queries, params=params, threads=2)

    assert build(dim=20).facts == {"sketch_dim": 20}
    assert build(residual=0.5).facts == {"sketch_dim": 16}
    grown = build(head.keys[:3000])
    grown.append(head.keys[3000:])
    hits = grown.search(head.queries[:3], k=100)
    assert keyseek.recall(head.truth_ids[:3], hits.ids) >= 0.95
    with pytest.raises(keyseek.InvalidArgument, match="residual is 1"):
        build(residual=1.0)
    for nothing in (training.train[:0], None):
        with pytest.raises(keyseek.InvalidArgument, match=r"training\.train is empty"):
            build(queries=nothing)


def test_an_array_trains_a_sketch_as_well(head, training, sketch):
    index = keyseek.Index.build("sketch", head.keys, training.train, threads=2)
    found, expected = (i.search(head.queries[:3]) for i in (index, sketch))
    np.testing.assert_array_equal(found.ids, expected.ids)


def test_a_flat_index_has_no_use_for_training_queries(head, training, flat):
    index = keyseek.Index.build("flat", head.keys, training, threads=2)
    assert index.nbytes == flat.nbytes
    found, expected = (i.search(head.queries[:3]) for i in (index, flat))
    np.testing.assert_array_equal(found.ids, expected.ids)


def test_exact_lists_that_are_known_give_the_same_index(head, training, projection):
    lists, _ = keyseek.exact_knn(head.keys, training.train, k=100, method="int8", threads=2)
    known = keyseek.TrainingQueries(
        training.train,
        training.tuning,
        group=training.group,
        tuning_steps=training.tuning_steps,
        lists=lists,
    )
    np.testing.assert_array_equal(known.lists, lists)
    assert len(training.lists) == 0
    index = keyseek.Index.build("projection", head.keys, known, threads=2)
    assert repr(index.operating_points) == repr(projection.operating_points)
    queries = head.queries[:3]
    np.testing.assert_array_equal(index.search(queries).ids, projection.search(queries).ids)


def test_parameters_reach_the_builder(head):
    params = keyseek.ProjectionParams(
        list_length=50,
        list_method="f32",
        graph=keyseek.GraphParams(link_method="pivot", degree=8, max_degree=12),
        router=keyseek.RouterParams(clusters=16),
        target_recalls=[0.9],
        tuning_k=10,
    )
    assert (params.list_length, params.list_method, params.tuning_k) == (50, "f32", 10)
    assert (params.graph.degree, params.router.clusters) == (8, 16)
    index = keyseek.Index.build("projection", head.keys, head.learn, params=params, threads=2)
    # Some of a plain array is held out to tune on.
    assert [point.target_recall for point in index.operating_points] == [0.9]
    assert index.report.graph.links < 14 * len(index)
    assert index.search(head.queries[:3], k=10).ids.shape == (3, 10)
    tuned = keyseek.Index.build("projection", head.keys, head.training, params=params, threads=2)
    assert [point.target_recall for point in tuned.operating_points] == [0.9]


def test_append_beside_searches(head, training):
    half = len(head.keys) // 2
    index = keyseek.Index.build("projection", head.keys[:half], training, threads=1)
    stop, failures, searches = threading.Event(), [], [0]

    def search():
        hits = None
        try:
            while not stop.is_set():
                hits = index.search(head.queries[:3], k=50, previous=hits)
                assert hits.ids.max() < len(index)
                searches[0] += 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for part in np.array_split(np.arange(half, len(head.keys)), 4):
        index.append(head.keys[part], head.learn)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert searches[0] > 0
    assert len(index) == len(head.keys)
    assert index.facts == {"unreachable": 0}
    hits = index.search(head.queries[:3], k=100, target_recall=0.99)
    assert keyseek.recall(head.truth_ids[:3], hits.ids) > 0.8


def test_flat_append(vectors):
    keys = vectors(60, 8)
    index = keyseek.Index.build("flat", keys[:40])
    index.append(keys[40:])
    np.testing.assert_array_equal(index.search(keys[50:51], k=3).ids, best(keys, keys[50:51], 3))


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_takes_keys_back(kind, vectors):
    keys, queries = vectors(600, 16), vectors(1200, 16)
    index = keyseek.Index.build(kind, keys, queries)
    index.truncate(450, threads=1)
    assert len(index) == 450
    hits = index.search(queries[:2], k=20)
    assert hits.ids.max() < 450
    assert keyseek.recall(np.array(best(keys[:450], queries[:2], 20), order="C"), hits.ids) > 0.7
    for left, fault in ((0, "keys is 0"), (451, "keys is 451, the index holds 450"), (-1, "is -1")):
        with pytest.raises(keyseek.InvalidArgument, match=fault):
            index.truncate(left)


# --- many queries ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", [1, 3])
def test_a_batch_finds_what_steps_find_without_a_warm_start(kind, group, request, head):
    index, queries = request.getfixturevalue(kind), head.queries[:60]
    steps = [index.search(queries[i : i + group], k=20) for i in range(0, 60, group)]
    for threads in (1, 2, 5):
        found = index.search_batch(queries, k=20, group=group, threads=threads)
        assert (found.ids.dtype, found.scores.dtype) == (np.int64, np.float32)
        np.testing.assert_array_equal(found.ids, np.vstack([step.ids for step in steps]))
        np.testing.assert_array_equal(found.scores, np.vstack([step.scores for step in steps]))
        for name in ("scanned", "sketched", "expanded", "reranked", "bytes_read"):
            assert getattr(found.stats, name) == sum(getattr(s.stats, name) for s in steps), name


def test_options_reach_every_step_of_a_batch(head, flat, projection):
    queries = head.queries[:30]
    close = flat.search_batch(queries, k=50, group=3, beta=1.0, threads=2)
    for row, scores in enumerate(close.scores):
        valid = close.ids[row] >= 0
        assert (scores[valid] >= scores[0] - 1).all()
        assert np.isneginf(scores[~valid]).all()
    assert (close.ids == -1).any()
    little, much = keyseek.Dials(probes=4, lists=2, expand=0), keyseek.Dials(lists=64, expand=64)
    few, many = (projection.search_batch(queries, dials=d, threads=2) for d in (little, much))
    assert few.stats.scanned < many.stats.scanned
    truth = head.truth_ids[:30]
    assert keyseek.recall(truth, few.ids) < keyseek.recall(truth, many.ids)
    bounded = projection.search_batch(queries, group=3, max_scanned=200, threads=2)
    assert bounded.stats.scanned <= 10 * 200
    careful = projection.search_batch(queries, group=3, target_recall=0.99, threads=2)
    assert careful.stats.scanned > projection.search_batch(queries, group=3).stats.scanned
    strange = np.random.default_rng(1).standard_normal((6, 64), dtype=np.float32)
    scanned = projection.search_batch(strange, group=3, scan_novel=True, threads=2)
    assert scanned.stats.scanned == 2 * len(projection)


def test_a_batch_reports_progress_and_can_be_cancelled(head, flat):
    calls = []
    flat.search_batch(head.queries[:30], k=5, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("searching", 30, 30)
    with pytest.raises(keyseek.Error, match="cancelled during searching") as caught:
        flat.search_batch(head.queries[:30], k=5, progress=lambda *call: False)
    assert caught.value.code == "cancelled"


BATCHES = {
    "group of 0": ({"group": 0}, "group is 0"),
    "group below 0": ({"group": -2}, "group is -2"),
    "group of 65": ({"group": 65}, "group is 65.* 64"),
    "rows": ({"group": 7}, r"queries has 30 rows, no multiple of group = 7"),
    "k = 0": ({"k": 0}, "k is 0"),
    "k > n": ({"k": 6529}, "k is 6529.* 6528"),
    "threads": ({"threads": -1}, "threads is -1"),
    "beta": ({"beta": -1.0}, "beta is -1"),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_that_makes_no_sense_is_refused(name, head, flat):
    given, words = BATCHES[name]
    with pytest.raises(keyseek.InvalidArgument, match=words):
        flat.search_batch(head.queries[:30], **given)


def test_a_batch_refuses_what_a_step_refuses(head, flat):
    with pytest.raises(keyseek.InvalidArgument, match="queries is empty"):
        flat.search_batch(head.queries[:0])
    with pytest.raises(keyseek.InvalidArgument, match=r"queries have dimension 32.* 64"):
        flat.search_batch(np.ascontiguousarray(head.queries[:3, :32]))
    with pytest.raises(TypeError, match="there is no argument previous"):
        flat.search_batch(head.queries[:3], previous=None)
    broken = head.queries[:30].copy()
    broken[17, 5] = np.nan
    with pytest.raises(keyseek.InvalidArgument, match="NaN"):
        flat.search_batch(broken, threads=2)


# --- options of one kind -----------------------------------------------------------------

OF_PROJECTION = {
    "target_recall": 0.9,
    "dials": keyseek.Dials(),
    "max_scanned": 100,
    "scan_novel": False,
}


@pytest.mark.parametrize("kind", ["flat", "sketch"])
@pytest.mark.parametrize("option", OF_PROJECTION)
def test_an_option_of_another_kind_is_refused_by_name(kind, option, request, head):
    index, queries = request.getfixturevalue(kind), head.queries[:3]
    given = {option: OF_PROJECTION[option]}
    searches = [index.search, index.search_batch]
    if option != "scan_novel":
        searches.append(lambda *queries, **given: keyseek.measure_steps(index, *queries, **given))
    for search in searches:
        with pytest.raises(keyseek.InvalidArgument, match=f"kind {kind}.*{option}") as caught:
            search(queries, k=5, **given)
        assert caught.value.code == "invalid_argument"


def test_params_of_another_kind_are_refused(head, training):
    params = {"sketch": keyseek.SketchParams(), "projection": keyseek.ProjectionParams()}
    for kind in KINDS:
        for other in params.keys() - {kind}:
            with pytest.raises(keyseek.InvalidArgument, match=f"params are of another.*{kind}"):
                keyseek.Index.build(kind, head.keys, training, params=params[other])
    with pytest.raises(keyseek.InvalidArgument, match=r"kind is 'hnsw'.*flat, sketch, projection"):
        keyseek.Index.build("hnsw", head.keys, training)
