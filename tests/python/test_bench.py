"""python -m keyseek.bench on a small made problem, with each peer that is installed."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import numpy as np
import pytest

import keyseek
from conftest import SAMPLE
from keyseek import peers
from keyseek._core import ResultFile, Sweep, decode_view_defaults
from keyseek.bench import __main__ as bench
from keyseek.bench.peer_process import Handover, PeerFailed, PeerProcess
from keyseek.bench.problem import read_problem

FIELDS = {
    "dataset", "index", "params", "k", "group", "recall_at_k", "scanned_fraction", "bytes_read",
    "us_per_step_p50", "us_per_step_p95", "us_per_query", "build_s", "index_bytes", "unreachable",
    "isa", "threads", "cache", "version",
}  # fmt: skip
KEYS, DIM, STEPS, GROUP = 600, 16, 20, 2


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Keys around 24 centres; queries want those of one centre, but lie elsewhere."""
    h5py = pytest.importorskip("h5py")
    random = np.random.default_rng(1)
    centres = random.standard_normal((24, DIM))
    turn = np.linalg.qr(random.standard_normal((DIM, DIM)))[0]

    def around(rows: int) -> np.ndarray:
        return centres[random.integers(24, size=rows)] + 0.3 * random.standard_normal((rows, DIM))

    path = tmp_path_factory.mktemp("bench") / "made.h5"
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = "ip"
        file.attrs["group"] = GROUP
        file["train"] = around(KEYS).astype("f4")
        file["learn"] = (3 * around(400) @ turn * 0.3 + around(400)).astype("f4")
        file["test"] = (3 * around(STEPS * GROUP) @ turn * 0.3 + around(STEPS * GROUP)).astype("f4")
    return str(path)


def run(data: str, out: Path, *more: str) -> list[dict]:
    assert bench.main(["--data", data, "--out", str(out), "--k", "10", "--rounds", "2", *more]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_ours(data, tmp_path, capsys):
    rows = run(data, tmp_path / "R.jsonl", "--peers", "none", "--spread", "0")
    assert all(row.keys() >= FIELDS for row in rows)
    assert {(row["dataset"], row["group"], row["k"]) for row in rows} == {("made.h5", GROUP, 10)}
    flat = [row for row in rows if row["index"] == "flat"]
    assert [(row["recall_at_k"], row["scanned_fraction"]) for row in flat] == [(1, 1)]
    projection = [row for row in rows if row["index"] == "projection"]
    assert max(row["recall_at_k"] for row in projection) > 0.95
    assert {row["unreachable"] for row in projection} == {0}
    assert any(row["tuned_for"] for row in projection)
    assert "round 2 of 2" in capsys.readouterr().err


def test_cold_rows_come_beside_hot_ones(data, tmp_path):
    rows = run(data, tmp_path / "R.jsonl", "--peers", "none", "--ours", "flat", "--cold")
    assert {row["cache"] for row in rows} == {"hot", "cold"}
    assert len({row["recall_at_k"] for row in rows}) == 1


def test_a_second_run_goes_on_where_the_first_ended(data, tmp_path, capsys):
    out = tmp_path / "R.jsonl"
    given = ("--peers", "none", "--ours", "flat")
    first = run(data, out, *given)
    assert run(data, out, *given) == first
    assert "all rows are there" in capsys.readouterr().err
    with out.open("a") as file:
        file.write('{"dataset": "made.h5", "ind')  # the run was killed while it wrote
    rows = run(data, out, *given, "--cold")
    assert rows[: len(first)] == first
    assert len(rows) == len(first) + 1


def test_single_queries(data, tmp_path):
    rows = run(data, tmp_path / "R.jsonl", "--peers", "none", "--single", "--spread", "0")
    assert {(row["group"], row["warm"]) for row in rows} == {(1, False)}


def test_a_capture_keeps_how_it_became_a_problem(tmp_path):
    out = tmp_path / "R.jsonl"
    arguments = ["--data", f"{SAMPLE}:L15/K0", "--out", str(out), "--peers", "none"]
    arguments += ["--ours", "flat", "--rounds", "1", "--share", "0.05", "--no-shift"]
    assert bench.main(arguments) == 0
    row = json.loads(out.read_text())
    assert row["dataset"] == f"{SAMPLE.name}:L15/K0"
    assert {name: row[name] for name in decode_view_defaults} == {
        **decode_view_defaults,
        "share": 0.05,
        "shift": False,
    }
    assert row["recall_at_k"] >= 0.9995


LEAST_BEST_RECALL = {"faiss-flat": 1, "faiss-ivf": 1, "scann": 0.9}


@pytest.mark.parametrize("name", peers.PEERS)
def test_peer(name, data, tmp_path):
    pytest.importorskip(peers.PEERS[name][2])
    rows = run(data, tmp_path / "R.jsonl", "--peers", name, "--ours", "none", "--patience", "60")
    assert all(row.keys() >= FIELDS for row in rows)
    assert {row["index"] for row in rows} == {name}
    assert max(row["recall_at_k"] for row in rows) >= LEAST_BEST_RECALL.get(name, 0.3)
    assert all(row["us_per_step_p50"] == pytest.approx(GROUP * row["us_per_query"]) for row in rows)
    assert all(row["build_s"] > 0 and row["index_bytes"] > 0 and row["version"] for row in rows)
    variants = peers.load_peer(name).variants(KEYS)
    points = [
        {**variant, **point}
        for variant in variants
        for point in peers.load_peer(name).points(KEYS, 10, variant)
    ]
    assert sorted(map(str, points)) == sorted(str(row["params"]) for row in rows)
    if name in ("faiss-flat", "faiss-ivf"):
        assert max(row["scanned_fraction"] for row in rows) == 1


def test_brief_takes_one_variant_and_half_the_settings(data, tmp_path):
    pytest.importorskip("faiss")
    rows = run(data, tmp_path / "R.jsonl", "--peers", "faiss-ivf", "--ours", "none", "--brief")
    peer = peers.load_peer("faiss-ivf")
    first = peer.variants(KEYS)[0]
    assert {row["params"]["nlist"] for row in rows} == {first["nlist"]}
    assert len(rows) == (len(peer.points(KEYS, 10, first)) + 1) // 2
    assert max(row["recall_at_k"] for row in rows) == 1


def test_a_peer_that_is_not_installed_is_named(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "is_installed", lambda name: False)
    run(data, tmp_path / "R.jsonl", "--peers", "scann", "--ours", "flat")
    assert "scann is left out" in (said := capsys.readouterr().err)
    assert "pip install 'keyseek[peers]'" in said


def test_a_peer_that_fails_says_why(data):
    pytest.importorskip("hnswlib")
    view = {"single": False, "warm": True, "view": {}, "threads": 1}
    problem = read_problem(data, 10, **view)
    handover = Handover(problem, None)
    ours = PeerProcess(handover, "hnswlib", {"M": 4, "efConstruction": 20}, [])
    try:
        ours.build(1)
        with pytest.raises(PeerFailed, match=r"hnswlib: .*'ef'"):
            ours.measure({"no such knob": 1})
        ours._process.kill()
        with pytest.raises(PeerFailed, match="hnswlib ended"):
            ours.measure({"ef": 20})
        broken = PeerProcess(handover, "hnswlib", {"M": 4}, [])
        with pytest.raises(PeerFailed, match="KeyError: 'efConstruction'"):
            broken.build(1)
        broken.close()
    finally:
        ours.close()
        handover.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--k", "0"], "--k is 0"),
        (["--share", "0.5"], "share is for heads of a capture"),
        (["--pin", "4096"], "--pin is 4096"),
        (["--data", "missing.h5"], "cannot open missing.h5"),
    ],
)
def test_wrong_arguments(data, tmp_path, capsys, arguments, words):
    out = tmp_path / "R.jsonl"
    assert bench.main(["--data", data, "--out", str(out), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_unknown_peers_are_refused(data, capsys):
    with pytest.raises(SystemExit):
        bench.main(["--data", data, "--out", "R.jsonl", "--peers", "annoy"])
    assert "'annoy' is none of faiss-flat" in capsys.readouterr().err


def test_a_file_of_other_content_is_left_alone(data, tmp_path, capsys):
    out = tmp_path / "notes.txt"
    for content in ("a note\n", "half a note"):
        out.write_text(content)
        assert bench.main(["--data", data, "--out", str(out)]) == 2
        assert "line 1 is no JSON object" in capsys.readouterr().err
        assert out.read_text() == content


def test_two_runs_do_not_share_a_file(data, tmp_path, capsys):
    out = tmp_path / "R.jsonl"
    with out.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert bench.main(["--data", data, "--out", str(out)]) == 2
    assert "in use by another run" in capsys.readouterr().err


class MadePeer:
    """Finds everything, in less time the smaller `us` is; throws what it is given."""

    index, version = "made", "1"

    def __init__(self, truth: np.ndarray, error: Exception | None = None) -> None:
        self.truth, self.error = truth, error
        self.points = [{"us": 1}, {"us": 2}]

    def build(self, threads: int) -> tuple[float, int]:
        return 0.5, 100 * threads

    def measure(self, params: dict) -> tuple[np.ndarray, float, int | None]:
        if self.error and params["us"] == 2:
            raise self.error
        return self.truth, len(self.truth) * params["us"] / 1e6, len(self.truth) * KEYS // 2


def sweep_of(data: str, out: Path, lines: list[str]) -> tuple[Sweep, np.ndarray]:
    problem = read_problem(data, 10, single=False, warm=True, view={}, threads=1)
    options = {"rounds": 2, "cold": True, "patience": 1.0, "pin": None, "log": lines.append}
    return Sweep(problem, out=str(out), **options), problem.truth


def test_a_peer_is_any_object_with_the_right_functions(data, tmp_path):
    lines: list[str] = []
    sweep, truth = sweep_of(data, tmp_path / "R.jsonl", lines)
    sweep.add_peer(MadePeer(truth), threads=3)
    assert sweep.measure() == 2
    beaten, first = map(json.loads, (tmp_path / "R.jsonl").read_text().splitlines())
    assert (beaten["params"], beaten["rounds"], first["rounds"]) == ({"us": 2}, 1, 2)
    assert {"recall_at_k": 1, "scanned_fraction": 0.5, "isa": None}.items() <= first.items()
    assert (first["us_per_query"], first["us_per_step_p50"]) == pytest.approx((1, GROUP))
    assert (first["build_s"], first["index_bytes"], first["build_threads"]) == (0.5, 300, 3)
    assert lines[0] == "made: built in 0.5 s"


def test_a_peer_that_refuses_is_left_out_and_a_wrong_one_ends_the_sweep(data, tmp_path):
    lines: list[str] = []
    sweep, truth = sweep_of(data, tmp_path / "R.jsonl", lines)
    sweep.add_peer(MadePeer(truth, PeerFailed("no more", "unsupported")), threads=1)
    assert sweep.measure() == 1
    assert "note: no more, at its last point" in lines
    sweep, truth = sweep_of(data, tmp_path / "S.jsonl", lines)
    sweep.add_peer(MadePeer(truth, KeyError("us")), threads=1)
    with pytest.raises(KeyError, match="us"):
        sweep.measure()


def test_a_file_of_rows_is_kept_as_python_sees_it(tmp_path):
    path = tmp_path / "R.jsonl"
    row = {"b": [1, 2.5, None, True], "a": {"c": "\u00e4\udc80"}}
    with ResultFile(str(path)) as results:
        results.append(row)
        assert results.has({"a": row["a"]})
        with pytest.raises(keyseek.IoError, match="in use by another run"):
            ResultFile(str(path))
        with pytest.raises(ValueError, match="JSON"):
            results.append({"x": float("nan")})
    assert path.read_text() == '{"b":[1,2.5,null,true],"a":{"c":"\u00e4?"}}\n'
    with ResultFile(str(path)) as results:
        assert list(results.rows[0]) == ["b", "a"]
