"""What the report on CUDA kernels must not let pass."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cuda"))

import kernel_report as report

ATTEND = "_ZN7keyseek4cuda6attendINS_4HalfELj128ELj4EEEvNS0_10AttendArgsE"
MERGE = "_ZN7keyseek4cuda5mergeIfEEvNS0_9MergeArgsE"
APPEND = "_ZN7keyseek4cuda6appendENS0_10AppendArgsE"


def log(symbol, registers, spilled=0, shared=""):
    """As ptxas -v writes it."""
    return (
        f"ptxas info    : Compiling entry function '{symbol}' for 'sm_80'\n"
        f"ptxas info    : Function properties for {symbol}\n"
        f"    0 bytes stack frame, {spilled} bytes spill stores, {spilled} bytes spill loads\n"
        f"ptxas info    : Used {registers} registers, used 1 barriers{shared}\n"
    )


def test_reads_what_ptxas_says():
    rows = list(
        report.usage(log(ATTEND, 114, 8, ", 8320 bytes smem") + log(MERGE, 32) + log(APPEND, 22))
    )
    assert rows == [
        ("attend Half d=128 G=4", "attend", 4, 114, 8320, 16),
        ("merge float", "merge", None, 32, 0, 0),
        ("append", "append", None, 22, 0, 0),
    ]


def problems(text):
    return list(report.excesses(80, report.usage(text)))


def test_refuses_registers_shared_memory_and_spills_beyond_the_bound():
    assert problems(log(ATTEND, 114, 0, ", 8320 bytes smem")) == []
    assert problems(log(ATTEND, 129)) == [
        "sm_80, attend Half d=128 G=4: 129 registers, allowed are 128"
    ]
    assert problems(log(ATTEND, 114, 0, ", 49153 bytes smem")) == [
        "sm_80, attend Half d=128 G=4: 49153 bytes of shared memory, allowed are 49152"
    ]
    assert problems(log(MERGE, 32, 4)) == ["sm_80, merge float: 8 bytes spilled, allowed are none"]


def ptx(symbol, body):
    return f".visible .entry {symbol}(\n.param .b8 x\n)\n{{\n{body}\n}}\n"


def test_refuses_atomics_and_narrow_loads():
    wide = "ld.global.nc.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];"
    assert list(report.bad_instructions(ptx(ATTEND, wide))) == []
    assert list(report.bad_instructions(ptx(MERGE, "atom.global.add.f32 %f1, [%rd1], %f2;"))) == [
        "merge float: uses atomics"
    ]
    assert list(
        report.bad_instructions(ptx(ATTEND, wide + "\nld.global.nc.u16 %rs1, [%rd2];"))
    ) == ["attend Half d=128 G=4: reads with ['ld.global.nc.u16']"]
    assert list(report.bad_instructions(ptx(ATTEND, ""))) == [
        "attend Half d=128 G=4: reads with no vector loads"
    ]
