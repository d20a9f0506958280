"""The library on NumPy arrays: exact search, training queries, files, measurements."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import keyseek
from conftest import SAMPLE, best

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
