"""python -m keyseek.bench on a small made problem, with each peer that is installed."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import numpy as np
import pytest
from keyseek._core import decode_view_defaults

import keyseek
from conftest import SAMPLE
from keyseek import peers
from keyseek.bench import __main__ as bench
from keyseek.bench.ours import as_params, grid
from keyseek.bench.peer_process import Handover, PeerFailed, PeerProcess
from keyseek.bench.problem import read_problem
from keyseek.bench.rounds import is_beaten, needs_repeating

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
    handover = Handover(problem, 1, None)
    ours = PeerProcess(handover, "hnswlib", {"M": 4, "efConstruction": 20}, [])
    try:
        ours.build()
        with pytest.raises(PeerFailed, match=r"hnswlib: .*'ef'"):
            ours.measure({"no such knob": 1}, cold=False)
        ours._process.kill()
        with pytest.raises(PeerFailed, match="hnswlib ended"):
            ours.measure({"ef": 20}, cold=False)
        broken = PeerProcess(handover, "hnswlib", {"M": 4}, [])
        with pytest.raises(PeerFailed, match="KeyError: 'efConstruction'"):
            broken.build()
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


def test_the_grid_follows_the_balance_of_lists_and_expansions():
    assert len(grid(0)) == 8
    assert len(grid(1)) == 22
    assert grid(0)[3] == as_params(keyseek.Dials(probes=8, lists=16, expand=32))


class FakeTrial:
    def __init__(self, recall, us, seconds=0.1, index="x", cold=False):
        self.contender = type("Contender", (), {"index": index})
        self.recall, self.cold = recall, cold
        self.samples = [type("Sample", (), {"seconds": seconds})]
        self.step_time = lambda: us


def test_points_that_decide_nothing_are_not_repeated():
    good, worse, near = FakeTrial(0.9, 10), FakeTrial(0.8, 20), FakeTrial(0.89, 11)
    other, long = FakeTrial(0.5, 90, index="y"), FakeTrial(0.95, 500, seconds=3)
    trials = [good, worse, near, other, long]
    assert [is_beaten(trial, trials) for trial in trials] == [False, True, False, False, False]
    assert [needs_repeating(t, trials) for t in trials] == [True, False, True, True, False]
