"""The comparison of retrievers in one path, and the overhead of Python."""

from __future__ import annotations

import json

import pytest

from conftest import SAMPLE
from keyseek.bench import decode as bench


def test_retrievers_are_compared_in_one_path(capsys):
    pytest.importorskip("faiss")
    options = "--layers 15 --steps 8 --rounds 1 --k 50".split()
    options += ["--data", str(SAMPLE)]
    assert bench.main([*options, "--json", "--cold"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["caches"] for row in rows} == {"hot", "cold"}
    of = {row["retriever"]: row for row in rows if row["caches"] == "hot"}
    assert of.keys() == {"flat", "sketch", "projection", *bench.PEERS}
    assert of["faiss-flat"]["error"] == pytest.approx(of["flat"]["error"], rel=0.05)
    assert of["faiss-ivf"]["error"] <= bench.SLACK * of["projection"]["error"]
    for row in rows:
        parts = row["search_us"] + row["attend_us"] + row["other_us"]
        assert parts == pytest.approx(row["total_us"], rel=0.3)
    assert bench.main([*options, "--peers", "none"]) == 0
    assert "| hot | projection |" in capsys.readouterr().out


def test_bad_options_of_the_comparison_are_named(capsys):
    for options, fault in (
        (["--peers", "scann"], "--peers has 'scann'"),
        (["--k", "0"], "--k is 0"),
        (["--layers", "99"], "--layers is 99"),
    ):
        assert bench.main(["--data", str(SAMPLE), *options]) == 2
        assert fault in capsys.readouterr().err


def test_the_overhead_of_python_is_measured(capsys):
    pytest.importorskip("transformers")
    from keyseek.bench import overhead

    assert overhead.main(["--steps", "5"]) == 0
    assert "us (median of 5)" in capsys.readouterr().out
