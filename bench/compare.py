"""Compares the step times of two builds of the tool `keyseek`; for scripts/compare.sh.

Of each head it measures `keyseek sweep` with tuned dials, caches hot and cold, and of each capture
`keyseek decode` under a promise and by given plans with k = 100. Every round runs each tool once,
in changing order, one pinned thread; a time is the median of the rounds' medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

Times = dict[tuple[str, ...], float]
DECODE = {
    "plan .05": ["--max-error", "0.05"],
    "flat, k 100": ["--retriever", "flat", "--k", "100"],
    "projection, k 100": ["--retriever", "projection", "--k", "100"],
}


def run(tool: str, *arguments: str) -> str:
    return subprocess.run(
        ["taskset", "-c", "0", tool, *arguments], check=True, text=True, stdout=subprocess.PIPE
    ).stdout


def sweep(tool: str, head: str, k: int) -> Times:
    """us per step by (head, kind, caches)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.jsonl"
        run(tool, "sweep", "--data", head, "--out", str(out), "--points", "1", "--repeats", "1",
            "--k", str(k), "--cold", "--quiet")  # fmt: skip
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    times: Times = {}
    for row in rows:
        tuned = "".join(f" {recall:g}" for recall in row["tuned_for"])
        if row["index"] != "projection" or tuned:
            times[row["dataset"], row["index"] + tuned, row["cache"]] = row["us_per_step_p50"]
    return times


def decode(tool: str, capture: str) -> Times:
    """us per step by (capture and head, setting, part)."""
    times: Times = {}
    for name, options in DECODE.items():
        report = json.loads(
            run(tool, "decode", "--data", capture, "--json", "--steps", "256", *options)
        )
        for head in report["heads"]:
            where = f"{Path(capture).name}:L{head['layer']}/K{head['kv_head']}"
            times[where, f"decode, {name}", "hot"] = head["us_per_step"]
    return times


def measured(tools: list[str], data: list[str], rounds: int, k: int) -> Iterator[tuple[int, Times]]:
    """The number of a tool, and its times of one round."""
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            for one in data:
                yield which, sweep(tools[which], one, k)
            for capture in dict.fromkeys(one.rpartition(":")[0] for one in data if ":" in one):
                yield which, decode(tools[which], capture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", help="the tool that is compared with")
    parser.add_argument("after", help="the tool of this tree")
    parser.add_argument("data", nargs="+", help="heads of captures, FILE.attn.h5:L11/K0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--k", type=int, default=100)
    options = parser.parse_args()
    samples: tuple[dict, dict] = (defaultdict(list), defaultdict(list))
    for which, times in measured(
        [options.before, options.after], options.data, options.rounds, options.k
    ):
        for key, time in times.items():
            samples[which][key].append(time)
    print("| head | what | caches | before, us | after, us | before / after |")
    print("|---|---|---|---|---|---|")
    for key, before in samples[0].items():
        if key not in samples[1]:
            continue
        old, new = statistics.median(before), statistics.median(samples[1][key])
        print(f"| {' | '.join(key)} | {old:.1f} | {new:.1f} | {old / new:.2f} |")


if __name__ == "__main__":
    main()
