"""keyseek.datasets: files of other programs in and out; problems made of own arrays and files."""

from __future__ import annotations

import json

import numpy as np
import pytest

import keyseek
from conftest import best
from keyseek import bench
from keyseek.bench import __main__ as bench_main
from keyseek.datasets import read, write

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)
IDS = np.array([[1, -1], [0, 2]])


@pytest.mark.parametrize(
    "name", ["a.fbin", "a.fvecs", "a.bvecs", "a.u8bin", "a.npy", "a.hdf5:train", "A.FBIN"]
)
def test_vectors_round_trip(tmp_path, name):
    write(tmp_path / name, VECTORS)
    back = read(tmp_path / name)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, VECTORS)


@pytest.mark.parametrize(
    ("name", "dtype"), [("a.f16bin", "f2"), ("a.i8bin", "i1"), ("a.npy", "f2")]
)
def test_element_types_are_kept(tmp_path, name, dtype):
    write(tmp_path / name, VECTORS.astype(dtype))
    back = read(tmp_path / name)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, VECTORS)


@pytest.mark.parametrize("name", ["a.ibin", "a.ivecs", "a.npy"])
def test_ids_round_trip(tmp_path, name):
    write(tmp_path / name, IDS)
    back = read(tmp_path / name)
    assert back.dtype == np.int64
    np.testing.assert_array_equal(back, IDS)


def test_ids_of_hdf5_are_asked_for(tmp_path):
    write(tmp_path / "a.h5:neighbors", IDS)
    np.testing.assert_array_equal(read(tmp_path / "a.h5", ids=True), IDS)
    assert read(tmp_path / "a.h5:neighbors").dtype == np.float32


@pytest.mark.parametrize("dtype", ["u1", "f8", ">f4", "i4"])
def test_what_numpy_saves(tmp_path, dtype):
    np.save(tmp_path / "a.npy", VECTORS.astype(dtype))
    if dtype == ">f4":
        with pytest.raises(keyseek.Error, match=r"a\.npy.*'>f4' is big-endian"):
            read(tmp_path / "a.npy")
        return
    np.testing.assert_array_equal(read(tmp_path / "a.npy"), VECTORS)


def test_bad_files_are_named(tmp_path):
    np.save(tmp_path / "f.npy", np.asfortranarray(VECTORS))
    with pytest.raises(keyseek.Error, match=r"f\.npy.*Fortran order"):
        read(tmp_path / "f.npy")
    np.save(tmp_path / "short.npy", VECTORS)
    whole = (tmp_path / "short.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-1])
    with pytest.raises(keyseek.Error, match=r"short\.npy.*do not match the 47 behind"):
        read(tmp_path / "short.npy")
    (tmp_path / "r.fvecs").write_bytes(b"\x01\0\0\0" + b"\0" * 4 + b"\x02\0\0\0" + b"\0" * 4)
    with pytest.raises(keyseek.Error, match=r"r\.fvecs: row 1 has dimension 2, but row 0 has 1"):
        read(tmp_path / "r.fvecs")
    with pytest.raises(keyseek.InvalidArgument, match=r"a\.txt: extension '\.txt'"):
        read(tmp_path / "a.txt")
    with pytest.raises(keyseek.InvalidArgument, match="row 0 holds -1, must be a whole number"):
        write(tmp_path / "a.bvecs", -np.ones((1, 1), np.float32))
    assert not (tmp_path / "a.bvecs").exists()


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "a.parquet", VECTORS)
    np.testing.assert_array_equal(read(tmp_path / "a.parquet"), VECTORS)
    path = str(tmp_path / "b.parquet")
    table = {
        "v": [[1.0, 2.0], [3.0, 4.0]],
        "r": [[1.0], [1.0, 2.0]],
        "n": [[1.0], None],
        "i": [1, 2],
    }
    parquet.write_table(pa.table(table), path)
    np.testing.assert_array_equal(read(path + ":v"), np.float32([[1, 2], [3, 4]]))
    for column, said in (
        ("", "say which is meant of v, r, n, i"),
        (":x", "has no column 'x', it holds v, r, n, i"),
        (":r", "row 1 has dimension 2, but row 0 has 1"),
        (":n", "row 1 is null"),
        (":i", "holds int64, vectors must be lists"),
    ):
        with pytest.raises(keyseek.Error, match=rf"b\.parquet.*{said}"):
            read(path + column)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(keyseek.Error, match=r"a\.parquet.*pyarrow.*keyseek\[parquet\]"):
        read(tmp_path / "a.parquet")


@pytest.fixture(scope="module")
def own():
    rng = np.random.default_rng(3)
    keys = rng.standard_normal((600, 16), dtype=np.float32)
    return keys, *(rng.standard_normal((m, 16), dtype=np.float32) for m in (40, 500))


def test_a_problem_of_own_arrays(own):
    keys, queries, train = own
    truth = best(keys, queries, 10).copy()
    data = keyseek.Benchmark(keys, queries.astype("f2"), learn=train, truth_ids=truth, group=2)
    np.testing.assert_array_equal(data.queries, queries.astype("f2").astype("f4"))
    np.testing.assert_array_equal(data.truth_ids, truth)
    assert (len(data.training.train), len(data.training.tuning)) == (400, 100)
    for change, said in (
        ({"learn": train[:, :8].copy()}, "learn has dimension 8, but keys has 16"),
        ({"truth_ids": truth[:5]}, "truth_ids has 5 rows, but queries has 40"),
        ({"truth_ids": truth + 600}, "truth_ids"),
        ({"group": 3}, "queries has 40 rows, no multiple of group = 3"),
        ({"learn": np.full_like(train, np.nan)}, "learn.*row 0"),
    ):
        with pytest.raises(keyseek.InvalidArgument, match=said):
            keyseek.Benchmark(keys, queries, **change)


def test_a_plain_array_of_training_queries_is_tuned_on(own):
    keys, queries, train = own
    index = keyseek.Index.build("projection", keys, train)
    assert (index.report.training_queries, index.report.tuning_queries) == (400, 100)
    little, much = (index.search_batch(queries, 10, target_recall=r) for r in (0.9, 0.995))
    assert little.stats.scanned < much.stats.scanned
    assert keyseek.Index.build("sketch", keys, train).kind == "sketch"


def test_bench_of_own_files(own, tmp_path, capsys):
    for name, rows in zip(("k.fvecs", "q.npy", "t.fbin"), own, strict=True):
        write(tmp_path / name, rows)
    out = tmp_path / "R.jsonl"
    given = ["--out", str(out), "--k", "10", "--rounds", "1", "--peers", "none"]
    files = ["--keys", str(tmp_path / "k.fvecs"), "--queries", str(tmp_path / "q.npy")]
    train = ["--train", str(tmp_path / "t.fbin")]
    assert bench_main.main([*given, *files, *train, "--ours", "flat,projection"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["dataset"] for row in rows} == {"k.fvecs, q.npy"}
    assert {row["index"] for row in rows} == {"flat", "projection"}
    assert rows[0]["recall_at_k"] > 0.99
    assert any(row.get("tuned_for") for row in rows)
    capsys.readouterr()
    out.unlink()
    assert bench_main.main([*given, *files]) == 0
    assert "no training queries" in capsys.readouterr().err
    for bad, said in (
        (["--data", "x.h5", *files], "either --data or --keys"),
        (files[:2], "--keys is given without --queries"),
        (["--data", "x.h5", *train], "--train is for --keys"),
        ([*files, "--sink", "4"], "sink is for heads of a capture only"),
    ):
        assert bench_main.main([*given, *bad]) == 2
        assert said in capsys.readouterr().err
    assert bench.__doc__
