"""Wrong input: refused before work starts, with a sentence that names argument and value."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import keyseek

KEYS = np.random.default_rng(1).standard_normal((40, 8), dtype=np.float32)
QUERIES = KEYS[:4].copy()
LISTS = np.tile(np.arange(5), (4, 1))
WITH_NAN = np.where(np.arange(320).reshape(40, 8) == 131, np.nan, KEYS).astype(np.float32)


def flat(keys=KEYS, **given) -> keyseek.Index:
    return keyseek.Index.build("flat", keys, **given)


def projection(keys=KEYS, training=QUERIES, **given) -> keyseek.Index:
    params = keyseek.ProjectionParams(list_length=5, **given)
    return keyseek.Index.build("projection", keys, training, params=params, threads=1)


def from_lists(lists) -> keyseek.Index:
    return projection(training=keyseek.TrainingQueries(QUERIES, lists=lists))


INVALID = {
    "NaN key": (lambda: flat(WITH_NAN), "keys row 16 .*NaN"),
    "infinite key": (lambda: flat(np.full((2, 8), np.inf, "f4")), "keys row 0"),
    "NaN query": (lambda: flat().search(WITH_NAN[16:17], 1), "queries row 0"),
    "NaN training": (lambda: projection(training=WITH_NAN), "row 16 .*NaN"),
    "k = 0": (lambda: flat().search(QUERIES, 0), "k is 0"),
    "k < 0": (lambda: flat().search(QUERIES, -3), "k is -3"),
    "k > n": (lambda: flat().search(QUERIES, 41), "k is 41.* 40 keys"),
    "k > n, exact": (lambda: keyseek.exact_knn(KEYS, QUERIES, 41), "k is 41"),
    "no keys": (lambda: flat(KEYS[:0]), "keys is empty"),
    "no keys, projection": (lambda: projection(keys=KEYS[:0]), "keys is empty"),
    "no training, None": (lambda: projection(training=None), "training.train is empty"),
    "no training": (lambda: projection(training=QUERIES[:0]), "train.* is empty"),
    "dimension of queries": (lambda: flat().search(np.ones((1, 7), "f4"), 1), "queries .*7.*8"),
    "dimension of training": (lambda: projection(training=np.ones((4, 7), "f4")), "7.*8"),
    "dimension of appended": (lambda: flat().append(np.ones((1, 7), "f4")), "7.*8"),
    "no queries": (lambda: flat().search(QUERIES[:0], 1), "queries has 0 rows"),
    "too many queries": (lambda: flat().search(np.ones((65, 8), "f4"), 1), "queries has 65 rows"),
    "rank of keys": (lambda: flat(KEYS[0]), r"keys has shape \(8,\).* 2 "),
    "rank of queries": (lambda: flat().search(QUERIES[None], 1), r"queries has shape \(1, 4, 8\)"),
    "transposed": (lambda: flat(KEYS.T), "keys of shape .*ascontiguousarray"),
    "strided": (lambda: flat().search(QUERIES[:, ::2], 1), "queries of shape .*ascontiguousarray"),
    "every second": (lambda: flat().search(QUERIES[::2], 1), "queries of shape"),
    "list out of range": (lambda: from_lists(LISTS + 36), "lists .*40"),
    "list id below -1": (lambda: from_lists(LISTS - 2), "lists holds -2 in row 0"),
    "list id too large": (lambda: from_lists(LISTS + 2**32), "lists holds 4294967296"),
    "rows of lists": (lambda: from_lists(LISTS[:3]), "lists has 3 rows"),
    "threads": (lambda: flat(threads=-1), "threads is -1"),
    "method": (lambda: keyseek.exact_knn(KEYS, QUERIES, 1, method="f64"), "method is 'f64'.*int8"),
    "beta": (lambda: flat().search(QUERIES, 1, beta=-1.0), "beta is -1"),
    "target": (lambda: projection().search(QUERIES, 1, target_recall=2.0), "target_recall is 2"),
    "targets": (lambda: projection(target_recalls=[1.5]), "target_recalls hold 1.5"),
    "dials": (
        lambda: projection().search(QUERIES, 1, dials=keyseek.Dials(lists=0, expand=0)),
        "dials",
    ),
    "degree": (lambda: keyseek.GraphParams(degree=-1), "degree is -1"),
    "layout": (
        lambda: keyseek.rope_shift(QUERIES, np.zeros(4), layout="spiral"),
        "layout is 'spiral'.*'half-split'",
    ),
    "shifts": (lambda: keyseek.rope_shift(QUERIES, np.zeros(3)), "shifts"),
    "share": (
        lambda: keyseek.sample_training_queries(QUERIES, np.arange(4), now=9, share=0.0),
        "share is 0",
    ),
    "positions": (
        lambda: keyseek.sample_training_queries(QUERIES, np.arange(4) - 1, now=9),
        "positions holds -1 at 0",
    ),
    "group": (
        lambda: keyseek.measure_steps(flat(), QUERIES, group=3, k=1),
        "queries has 4 rows.*3",
    ),
    "recall": (lambda: keyseek.recall(LISTS, LISTS[:3]), "rows"),
    "head": (lambda: keyseek.read_data("x.attn.h5:L1"), "x.attn.h5"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_argument(name):
    call, words = INVALID[name]
    with pytest.raises(keyseek.InvalidArgument, match=words) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert caught.value.code == (
        "not_finite" if "NaN" in name or "inf" in name else "invalid_argument"
    )


WRONG_TYPE = {
    "f64 keys": (lambda: flat(KEYS.astype("f8")), "keys holds float64.*float16"),
    "f64 queries": (lambda: flat().search(QUERIES.astype("f8"), 1), "queries holds float64"),
    "uint16 keys": (lambda: flat(KEYS.astype("u2")), "keys holds uint16"),
    "list of lists": (lambda: flat().search([[1.0] * 8], 1), "queries is a list"),
    "text": (lambda: flat(np.array([["a"]])), "keys is a ndarray of <U1"),
    "big-endian": (lambda: flat().search(QUERIES.astype(">f4"), 1), "queries is a ndarray of >f4"),
    "objects": (
        lambda: flat(KEYS.astype(object)),
        "keys is a ndarray of object",
    ),
    "lists of floats": (lambda: from_lists(LISTS.astype("f4")), "lists holds float32.*int64"),
    "integer shifts": (
        lambda: keyseek.rope_shift(QUERIES, np.zeros(4, "i8")),
        "shifts holds int64, must hold float64",
    ),
    "None": (lambda: flat(None), r"build\(\): keys is NoneType, must be an array$"),
    "training": (lambda: projection(training="prompt"), "training is a str"),
}


@pytest.mark.parametrize("name", WRONG_TYPE)
def test_wrong_type(name):
    call, words = WRONG_TYPE[name]
    with pytest.raises(TypeError, match=words):
        call()


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "index.ks"
    projection().save(path)
    return path


@pytest.mark.parametrize("keep", [0, 7, 0.5, 0.99])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_truncated_file_is_refused(saved, keep, mapped):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(keyseek.Error, match=r"index\.ks") as caught:
        keyseek.Index.open(saved, mapped=mapped)
    assert caught.value.code == "corrupt"


def test_a_changed_byte_is_refused(saved):
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    with pytest.raises(keyseek.Error) as caught:
        keyseek.Index.open(saved)
    assert caught.value.code == "corrupt"


def test_a_head_is_no_index(tmp_path):
    path = tmp_path / "head.ks"
    keyseek.HeadCache.prefill(KEYS, KEYS, KEYS, 1, scale=1.0, shift=False).save(path)
    for open_ in (keyseek.index_kind, keyseek.Index.open):
        with pytest.raises(keyseek.Error, match=r'head\.ks holds "head", which is no index'):
            open_(path)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "photo.ks"
    path.write_bytes(b"\x89PNG" * 1000)
    for open_ in (keyseek.index_kind, keyseek.Index.open):
        with pytest.raises(keyseek.Error, match=r"photo\.ks"):
            open_(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    for open_ in (keyseek.Index.open, keyseek.capture_info):
        with pytest.raises(keyseek.IoError, match="No such file") as caught:
            open_(tmp_path / "missing")
        assert isinstance(caught.value, OSError)
        assert caught.value.code == "io"


def test_a_save_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(keyseek.IoError):
        flat().save(tmp_path / "no" / "index.ks")
    assert list(tmp_path.iterdir()) == []


def test_errors_can_be_pickled():
    error = pickle.loads(pickle.dumps(keyseek.IoError("cannot open x", "io")))
    assert (str(error), error.code) == ("cannot open x", "io")


MISFITS = {
    "unknown": (lambda: flat().search(QUERIES, 5, kk=3), "there is no argument kk, but queries, k"),
    "missing": (lambda: flat().search(), "queries is missing"),
    "path": (lambda: keyseek.Index.open(5), r"path is 5 \(int\), must be a path"),
    "params": (
        lambda: flat(params=keyseek.Dials()),
        r"params is Dials\(.*\(Dials\), must be SketchParams or ProjectionParams or None",
    ),
    "number": (
        lambda: keyseek.exact_knn(KEYS, QUERIES, True, method=3),
        r"exact_knn\(\): k is True \(bool\), must be a whole number",
    ),
    "position": (
        lambda: keyseek.Index.build("flat", KEYS, None, 1),
        "params, metric, threads, progress are given by name",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_call_that_fits_no_signature_names_the_argument(name):
    call, words = MISFITS[name]
    with pytest.raises(TypeError, match=words):
        call()


def test_a_missing_file_is_what_python_calls_it(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        keyseek.Index.open(tmp_path / "none")
    assert caught.value.errno == 2
    assert caught.value.filename == str(tmp_path / "none")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.errno) == (str(caught.value), 2)


def test_hdf5_that_crashes_its_library_is_an_error():
    folder = Path(__file__).parent.parent / "data" / "hdf5"
    with pytest.raises(keyseek.Error, match="hdf5_benchmark_crash"):
        keyseek.read_data(folder / "hdf5_benchmark_crash.hdf5")


@pytest.mark.parametrize("kind", ["flat", "sketch", "projection"])
def test_keys_and_training_that_do_not_fit_are_refused(kind):
    nothing = np.zeros((5, 0), np.float32)
    with pytest.raises(keyseek.InvalidArgument, match="keys have dimension 0"):
        keyseek.Index.build(kind, nothing, nothing)
    with pytest.raises(keyseek.InvalidArgument, match=r"train has dimension 7, keys have 8"):
        keyseek.Index.build(kind, KEYS, QUERIES[:, :7].copy())


def test_a_path_that_is_no_utf8_is_named(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.ks")
    with pytest.raises(keyseek.IoError, match=r"\\xff\.ks") as raised:
        keyseek.Index.open(path)
    assert raised.value.filename == path
