"""Compiles the kernels for every architecture and checks what they ask of a processor.

    python3 cuda/kernel_report.py [--nvcc PATH] [--out build/kernels]

Warnings are errors. Writes and prints registers, shared memory and spilled bytes of each kernel on
each architecture, and fails when a kernel exceeds what is allowed below, uses atomics, or reads
keys and values in pieces smaller than 16 bytes.
"""

import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ARCHITECTURES = (80, 86, 89, 90)
FLAGS = [
    "-std=c++20",
    "-O3",
    "-Werror",
    "all-warnings",
    "-Xcompiler",
    "-Wall,-Wextra,-Wconversion,-Wshadow",
    f"-I{ROOT}",
    f"-I{ROOT}/include",
]

# Registers of a thread. attend has 128 threads in a block and an SM 65,536 registers, so these
# let 8, 6, 4 and 2 blocks run on one: for the groups 1, 2, 4 and 8.
MOST_REGISTERS = {"attend": {1: 64, 2: 80, 4: 128, 8: 224}, "merge": 48, "append": 32}
MOST_SHARED = 48 * 1024  # what a block has without asking for more

KERNEL = re.compile(r"keyseek4cuda\d+(attend|merge|append)")
ATTEND = re.compile(r"(Half|BFloat16)ELj(\d+)ELj(\d+)E")


def compile_kernels(nvcc, arguments, out):
    """What nvcc said; raises when it failed or warned."""
    command = [nvcc, *FLAGS, *arguments, str(ROOT / "cuda/launch.cu"), "-o", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stderr + done.stdout


def name_of(symbol):
    """("attend Half d=128 G=4", kind, G) of a mangled name."""
    kind = KERNEL.search(symbol).group(1)
    shape = ATTEND.search(symbol)
    if kind == "attend":
        dtype, dim, group = shape.groups()
        return f"attend {dtype} d={dim} G={group}", kind, int(group)
    dtype = re.search(r"(Half|BFloat16|If)E", symbol)
    return f"{kind} {dtype.group(1).replace('If', 'float')}" if dtype else kind, kind, None


def usage(log):
    """Rows (name, kind, G, registers, shared bytes, spilled bytes) of ptxas's own words."""
    entries = re.split(r"Compiling entry function '", log)[1:]
    for entry in entries:
        name, kind, group = name_of(entry.split("'")[0])
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", entry)
        shared = re.search(r"(\d+) bytes smem", entry)
        yield (
            name,
            kind,
            group,
            int(re.search(r"Used (\d+) registers", entry).group(1)),
            int(shared.group(1)) if shared else 0,
            sum(map(int, spills.groups())),
        )


def excesses(architecture, rows):
    """Sentences on what is not allowed."""
    for name, kind, group, registers, shared, spilled in rows:
        most = MOST_REGISTERS[kind]
        most = most[group] if kind == "attend" else most
        where = f"sm_{architecture}, {name}:"
        if registers > most:
            yield f"{where} {registers} registers, allowed are {most}"
        if shared > MOST_SHARED:
            yield f"{where} {shared} bytes of shared memory, allowed are {MOST_SHARED}"
        if spilled:
            yield f"{where} {spilled} bytes spilled, allowed are none"


def bad_instructions(ptx):
    """Sentences on atomics and on narrow loads of keys, values and queries."""
    for body in re.split(r"\.entry ", ptx)[1:]:
        name, kind, _ = name_of(body.split("(")[0])
        if re.search(r"\b(atom|red)\.", body):
            yield f"{name}: uses atomics"
        if kind != "attend":
            continue
        loads = re.findall(r"ld\.global\.nc\S*", body)
        narrow = [load for load in loads if ".v4." not in load]
        if narrow or not loads:
            yield f"{name}: reads with {sorted(set(narrow)) or 'no vector loads'}"


def table(by_architecture):
    """Shared memory does not depend on the architecture; spills are added up."""
    lines = [
        "| kernel | shared bytes | spilled bytes | registers: "
        + " | ".join(f"sm_{a}" for a in by_architecture)
        + " |",
        "|---|" + "---|" * (2 + len(by_architecture)),
    ]
    for rows in zip(*by_architecture.values(), strict=True):
        registers = " | ".join(str(row[3]) for row in rows)
        lines.append(
            f"| {rows[0][0]} | {rows[0][4]} | {sum(row[5] for row in rows)} | {registers} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/kernels")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    by_architecture, problems = {}, []
    for architecture in ARCHITECTURES:
        log = compile_kernels(
            options.nvcc,
            ["-Xptxas", "-v", "-cubin", f"-arch=sm_{architecture}"],
            options.out / f"sm_{architecture}.cubin",
        )
        by_architecture[architecture] = sorted(usage(log), key=str)
        if not by_architecture[architecture]:
            problems.append(f"sm_{architecture}: ptxas named no kernel")
        problems += excesses(architecture, by_architecture[architecture])
    ptx = options.out / "launch.ptx"
    compile_kernels(options.nvcc, ["-ptx", f"-arch=compute_{ARCHITECTURES[-1]}"], ptx)
    problems += bad_instructions(ptx.read_text())

    report = table(by_architecture)
    (options.out / "report.md").write_text(report + "\n")
    print(report)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
