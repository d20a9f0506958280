"""The library on NumPy arrays: results, memory, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import keyseek
from conftest import SAMPLE


def best(keys: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Ids of the k largest inner products, equal ones by smaller id."""
    return np.argsort(-(queries.astype("f8") @ keys.astype("f8").T), axis=1, kind="stable")[:, :k]


# --- the package -------------------------------------------------------------------------


def test_version_and_instruction_sets():
    assert keyseek.__version__.count(".") == 2
    assert keyseek.active_isa() in keyseek.available_isas()
    assert keyseek.available_isas()[0] == "baseline"


def test_all_public_names_are_documented():
    for name in keyseek.__all__:
        if name != "__version__":
            assert getattr(keyseek, name).__doc__, name


@pytest.mark.parametrize("isa", ["baseline", "pentium"])
def test_an_instruction_set_can_be_forced(isa):
    code = "import keyseek; print(keyseek.active_isa())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KEYSEEK_ISA": isa},
        check=False,
        capture_output=True,
        text=True,
    )
    assert isa in (done.stdout if isa == "baseline" else done.stderr)
    assert (done.returncode == 0) == (isa == "baseline")


# --- exact search ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_exact_knn_is_what_numpy_finds(vectors, dtype):
    keys = (40 * vectors(500, 33)).astype(dtype)
    queries = vectors(17, 33, seed=2)
    ids, scores = keyseek.exact_knn(keys, queries, k=20, threads=2)
    assert (ids.dtype, scores.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(ids, best(keys, queries, 20))
    expected = np.take_along_axis(queries @ keys.astype("f4").T, ids, axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-3)


def test_bfloat16_of_torch(vectors):
    torch = pytest.importorskip("torch")
    check_bfloat16(torch.from_numpy(vectors(300, 16)).bfloat16(), lambda t: t.float().numpy())


def test_bfloat16_of_ml_dtypes(vectors):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    check_bfloat16(vectors(300, 16).astype(ml_dtypes.bfloat16), lambda a: a.astype("f4"))


def check_bfloat16(keys, to_f32):
    queries = np.ones((1, 16), "f4")
    ids, _ = keyseek.exact_knn(keys, queries, k=5)
    np.testing.assert_array_equal(ids, best(to_f32(keys), queries, 5))


def test_int8_lists_are_almost_exact(head):
    ids, _ = keyseek.exact_knn(head.keys, head.learn, k=100, method="int8", threads=2)
    exact, _ = keyseek.exact_knn(head.keys, head.learn, k=100, threads=2)
    assert keyseek.recall(exact, ids) >= 0.9995


def test_keys_are_read_in_place(vectors):
    """Keys that change while they are searched change what is found: there is no copy."""
    keys, queries = vectors(100, 8), vectors(2000, 8)

    def forget(stage, done, total):
        keys[:] = 0

    _, scores = keyseek.exact_knn(keys, queries, k=1, threads=1, progress=forget)
    assert scores[0] > 0
    assert scores[-1] == 0


def test_views_of_read_only_arrays_and_memory_maps(vectors, tmp_path):
    np.save(tmp_path / "keys.npy", vectors(50, 8))
    mapped = np.load(tmp_path / "keys.npy", mmap_mode="r")
    assert not mapped.flags.writeable
    ids, _ = keyseek.exact_knn(mapped, mapped[3:5], k=2)
    np.testing.assert_array_equal(ids, best(mapped, mapped[3:5], 2))


def test_recall_ignores_padding():
    truth = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    found = np.array([[3, 0, -1], [9, 9, 9]], dtype=np.int32)
    assert keyseek.recall(truth, found) == pytest.approx(2 / 8)


# --- indexes -----------------------------------------------------------------------------


def test_flat_index_finds_everything(head, flat):
    assert (len(flat), flat.dim) == head.keys.shape
    assert flat.nbytes > head.keys.nbytes
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
    assert projection.unreachable == 0
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


@pytest.mark.parametrize("kind", ["flat", "sketch", "projection"])
def test_save_load_map(kind, request, head, tmp_path):
    index = request.getfixturevalue(kind)
    path = tmp_path / "index.ks"
    index.save(path)
    assert keyseek.index_kind(path) == kind
    queries = head.queries[:3]
    for opened in (type(index).load(path), type(index).map(str(path))):
        assert len(opened) == len(index)
        np.testing.assert_array_equal(opened.search(queries).ids, index.search(queries).ids)
    if kind == "projection":
        assert opened.report is None
        assert len(opened.operating_points) == 5


def test_a_sketch_index_finds_nearly_all_and_reads_less(head, flat, sketch):
    assert 0 < sketch.sketch_dim < sketch.dim == 64
    assert flat.nbytes < sketch.nbytes < 1.5 * flat.nbytes
    hits = None
    for step in range(0, 30, head.group):
        queries = head.queries[step : step + head.group]
        hits = sketch.search(queries, k=100, previous=hits)
        assert keyseek.recall(head.truth_ids[step : step + head.group], hits.ids) >= 0.98
    scanned = flat.search(queries, k=100, previous=hits).stats
    assert hits.stats.sketched == len(sketch) == scanned.scanned > 3 * hits.stats.scanned
    assert hits.stats.bytes_read < 0.8 * scanned.bytes_read
    close = sketch.search(queries, k=100, beta=1.0)
    assert (close.count < 100).any()
    measured = keyseek.measure_steps(sketch, head.queries[:30], group=head.group, k=100)
    assert keyseek.recall(head.truth_ids[:30], measured.ids) >= 0.98


def test_a_sketch_can_be_given_its_size(head, training):
    build = keyseek.SketchIndex.build
    assert build(head.keys, training.train, dim=20, threads=2).sketch_dim == 20
    assert build(head.keys, training.train, residual=0.5, threads=2).sketch_dim == 16
    grown = build(head.keys[:3000], training.train, threads=2)
    grown.append(head.keys[3000:])
    hits = grown.search(head.queries[:3], k=100)
    assert keyseek.recall(head.truth_ids[:3], hits.ids) >= 0.95
    with pytest.raises(keyseek.InvalidArgument, match="residual is 1"):
        build(head.keys, training.train, residual=1.0)
    with pytest.raises(keyseek.InvalidArgument, match="queries is empty"):
        build(head.keys, training.train[:0])


def test_build_from_lists_gives_the_same_index(head, training, projection):
    lists, _ = keyseek.exact_knn(head.keys, training.train, k=100, method="int8", threads=2)
    index = keyseek.ProjectionIndex.build_from_lists(head.keys, training, lists, threads=2)
    queries = head.queries[:3]
    np.testing.assert_array_equal(index.search(queries).ids, projection.search(queries).ids)


def test_parameters_reach_the_builder(head):
    graph = keyseek.GraphParams(projection="pivot", degree=8, max_degree=12, repair_room=0)
    index = keyseek.ProjectionIndex.build(
        head.keys, head.learn, graph=graph, router=keyseek.RouterParams(clusters=16), threads=2
    )
    assert index.operating_points == []  # a plain array brings nothing to tune on
    assert index.report.graph.links < 14 * len(index)
    assert index.search(head.queries[:3], k=10).ids.shape == (3, 10)


def test_append_beside_searches(head, training):
    half = len(head.keys) // 2
    index = keyseek.ProjectionIndex.build(head.keys[:half], training, threads=1)
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
    assert index.unreachable == 0
    hits = index.search(head.queries[:3], k=100, target_recall=0.99)
    assert keyseek.recall(head.truth_ids[:3], hits.ids) > 0.8


def test_flat_append(vectors):
    keys = vectors(60, 8)
    index = keyseek.FlatIndex.build(keys[:40])
    index.append(keys[40:])
    np.testing.assert_array_equal(index.search(keys[50:51], k=3).ids, best(keys, keys[50:51], 3))


# --- steps, positions, files -------------------------------------------------------------


def test_measure_steps(head, flat):
    steps = keyseek.measure_steps(flat, head.queries[:300], group=3, k=10, repeats=2)
    assert steps.ids.shape == (300, 10)
    assert steps.scanned_fraction == 1
    assert 0 < steps.us_p50 <= steps.us_p95
    cold = keyseek.measure_steps(
        flat, head.queries[:30], group=3, k=10, cold_cache=True, timed_steps=2
    )
    np.testing.assert_array_equal(cold.ids, steps.ids[:30])


def test_sampling_training_queries(vectors):
    queries, positions = vectors(2 * 400, 16), np.arange(100, 500)
    given = {"now": 500, "horizon": 64, "share": 0.5, "tuning_runs": 2, "tuning_steps": 8}
    sample = keyseek.sample_training_queries(queries, positions, 2, **given)
    assert (len(sample.train), len(sample.tuning)) == (2 * 200, 2 * 16)
    assert (sample.group, sample.tuning_steps) == (2, 8)
    again = keyseek.sample_training_queries(queries, positions, 2, **given)
    np.testing.assert_array_equal(sample.train, again.train)
    still = keyseek.sample_training_queries(queries, positions, 2, shift=False, **given)
    rows = {row.tobytes() for row in queries}
    assert all(row.tobytes() in rows for row in still.train)
    assert not all(row.tobytes() in rows for row in sample.train)


def test_capture_info_and_read_data():
    info = keyseek.capture_info(SAMPLE)
    assert "SmolLM2" in info.model
    assert {(h.layer, h.kv_head, h.dim, h.group) for h in info.heads} == {
        (2, 0, 64, 3),
        (15, 0, 64, 3),
    }
    data = keyseek.read_data(f"{SAMPLE}:L2/K0", k=7, share=0.02, sink=64, window=256)
    assert len(data.keys) == info.prefill - 64 - 256
    assert data.keys.dtype == np.float16
    assert data.truth_ids.shape == (len(data.queries), 7)
    np.testing.assert_array_equal(
        data.truth_ids, keyseek.exact_knn(data.keys, data.queries, k=7, threads=2)[0]
    )


def test_training_queries_of_a_problem(head, vectors):
    training = head.training
    np.testing.assert_array_equal(training.train, head.learn)
    np.testing.assert_array_equal(training.tuning, head.tuning)
    assert (training.group, training.tuning_steps) == (3, head.tuning_steps)
    own = keyseek.TrainingQueries(vectors(6, 4), vectors(2, 4), group=2, tuning_steps=1)
    np.testing.assert_array_equal(own.train, vectors(6, 4))
    assert not own.train.flags.writeable


def test_training_queries_are_held_out_where_there_are_none_to_tune_on(vectors, tmp_path):
    h5py = pytest.importorskip("h5py")
    learn = vectors(2 * 23, 4)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.attrs["distance"], file.attrs["group"] = "ip", 2
        file["train"], file["test"], file["learn"] = vectors(9, 4), vectors(2, 4), learn
    training = keyseek.read_data(str(tmp_path / "b.h5")).training
    held = np.arange(46) // 2 % 5 == 4
    np.testing.assert_array_equal(training.train, learn[~held])
    np.testing.assert_array_equal(training.tuning, learn[held])
    assert (training.group, training.tuning_steps) == (2, 1)
