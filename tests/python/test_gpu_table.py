"""The table of a decode step on a GPU, from rows as keyseek_gpu_bench and peers.py print them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "gpu"))

import pytest
import table


def row(part, tokens, us):
    return {"part": part, "tokens": tokens, "heads": 8, "group": 4, "dim": 128, "us": us}


def test_one_line_for_each_context():
    rows = [
        row("append", 640, 2.0),
        row("attention", 640, 5.0),
        row("merge", 640, 3.0),
        row("copy down", 640, 9.0),
        row("copy up", 640, 8.0),
        row("step without CPU part", 640, 40.0),
    ]
    for tokens, search in ((4096, 100.0), (8192, 200.0)):
        rows += [
            row("step", tokens, search + 50),
            row("search", tokens, search),
            row("attention on the CPU", tokens, 20.0),
        ]
    rows.append(row("full attention, sdpa", 8192, 77.0))
    assert table.table(rows).splitlines() == [
        "| tokens | search | attention | copies | append, merge | step | full attention, sdpa |",
        "|---|---|---|---|---|---|---|",
        "| 4096 | 100.0 | 25.0 | 17.0 | 5.0 | 150.0 |  |",
        "| 8192 | 200.0 | 25.0 | 17.0 | 5.0 | 250.0 | 77.0 |",
    ]


def test_peers_have_the_shape_and_the_contexts_of_the_steps():
    pytest.importorskip("torch")
    import peers

    rows = [row("append", 640, 2.0), row("step", 4096, 150.0), row("step", 8192, 250.0)]
    assert peers.problems(rows) == [
        {"heads": 8, "group": 4, "dim": 128, "tokens": 4096},
        {"heads": 8, "group": 4, "dim": 128, "tokens": 8192},
    ]
