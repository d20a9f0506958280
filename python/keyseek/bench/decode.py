"""Retrievers in the place of one another in the same decode path, on the heads of a capture.

python -m keyseek.bench.decode --data gemma.attn.h5 --layers 5,11,17 --cold

The paper's comparison (RetrievalAttention, arXiv 2409.10516): a step attends to sink and window, to
the k keys that a retriever finds for each query, and to the tail; its time is that of the search,
of attention over all parts and their merge, and of the rest. Retrievers are faiss Flat (f32, a
query head at a time, as in the paper), faiss IVF and HNSW at the first setting whose output error
is no larger than our index's (or at their best, marked "!"), our 8-bit Flat for the group, and our
projection index. Rounds take turns; times are medians on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import keyseek
from keyseek.peers import is_installed, load_peer

PEERS = ("faiss-flat", "faiss-ivf", "faiss-hnsw")
SLACK = 1.02  # on our index's error, within which a peer's is as good


class Searched:
    """A peer's index as `index` of HeadCache.prefill; `point` may be changed between steps."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.point: dict[str, Any] = {}
        self.points: list[dict[str, Any]] = []

    def __call__(self, keys: NDArray[np.float32]) -> Callable[..., tuple[Any, Any]]:
        kind = load_peer(self.name)
        variant = kind.variants(len(keys))[0]
        peer = kind(keys, variant, 1)
        if self.name == "faiss-flat":
            self.points = [{"queries_per_call": 1}]
        else:
            self.points = kind.points(len(keys), 100, variant)
        self.point = self.points[-1]

        def search(queries: NDArray[np.float32], k: int) -> tuple[Any, Any]:
            ids, scores = peer.search(queries, k, self.point)
            return np.ascontiguousarray(ids, np.int64), np.ascontiguousarray(scores, np.float32)

        return search


@dataclass
class Contender:
    name: str
    setting: str
    cache: keyseek.HeadCache
    searched: Searched | None = None
    error: float = 0.0  # mean, over all steps
    runs: dict[bool, list[keyseek.DecodeMeasurement]] = field(
        default_factory=lambda: {False: [], True: []}
    )

    def median(self, cold: bool, what: str) -> float:
        return float(statistics.median(getattr(run, what) for run in self.runs[cold]))


class Head:
    """A captured head, prefilled with one retriever after the other."""

    def __init__(self, options: argparse.Namespace, entry: keyseek.CaptureEntry) -> None:
        self.options = options
        self.name = f"L{entry.layer}/K{entry.kv_head}"
        self.head = keyseek.read_capture(options.data, entry.layer, entry.kv_head)
        self.last = min(self.head.prefill + options.steps, len(self.head.keys))
        if self.last == self.head.prefill:
            raise keyseek.InvalidArgument(f"{options.data}: no token comes after the prompt")

    def prefill(self, retriever: str, **options: Any) -> keyseek.HeadCache:
        head, n = self.head, self.head.prefill
        return keyseek.HeadCache.prefill(
            head.keys[:n],
            head.values[:n],
            head.queries(n - min(n, keyseek.DecodeParams().plan_positions(n)), n),
            head.group,
            scale=head.scale,
            retriever=retriever,
            k=self.options.k,
            tail_vectors=self.options.tail_vectors,
            threads=1,
            **head.rotary,
            **options,
        )

    def measure(
        self, contender: Contender, cold: bool, steps: int | None = None
    ) -> keyseek.DecodeMeasurement:
        first = self.head.prefill
        last = self.last if steps is None else min(self.last, first + steps)
        return keyseek.measure_decode(
            contender.cache.copy(),
            self.head.queries(first, last),
            self.head.keys[:last],
            self.head.values[:last],
            cold_cache=cold,
        )

    def contenders(self) -> list[Contender]:
        ours = Contender(
            "projection",
            f"recall {self.options.recall}",
            self.prefill("projection", target_recall=self.options.recall),
        )
        flat = Contender("flat", "8 bits, group", self.prefill("flat"))
        sketch = Contender("sketch", "4 bits, group", self.prefill("sketch"))
        chosen = [flat, sketch, ours]
        for contender in chosen:
            contender.error = self.measure(contender, cold=False).error
        for name in self.options.peers:
            if not is_installed(name):
                log(f"warning: {name} is left out: pip install 'keyseek[peers]'")
                continue
            searched = Searched(name)
            peer = Contender(name, "", self.prefill("custom", index=searched), searched)
            chosen.append(self.as_good_as(peer, SLACK * ours.error))
        return chosen

    def as_good_as(self, peer: Contender, error: float) -> Contender:
        """The peer at its first point with no larger error, or at its last."""
        searched = peer.searched
        assert searched is not None
        for point in searched.points:
            searched.point = point
            peer.error = self.measure(peer, cold=False).error
            if peer.error <= error:
                break
        peer.setting = ", ".join(f"{k} {v}" for k, v in searched.point.items())
        peer.setting += "" if peer.error <= error else " !"
        return peer


def compare(head: Head, options: argparse.Namespace) -> list[dict[str, Any]]:
    contenders = head.contenders()
    for round_ in range(options.rounds):
        for contender in contenders:
            for cold in (False, True) if options.cold else (False,):
                log(f"{head.name}: round {round_ + 1} of {options.rounds}, {contender.name}")
                # A peer of milliseconds needs no thousand steps.
                steps = 64 if contender.searched else None
                contender.runs[cold].append(head.measure(contender, cold, steps))
    rows = []
    for cold in (False, True) if options.cold else (False,):
        ours = next(c for c in contenders if c.name == "projection").median(cold, "total_us")
        for c in contenders:
            search, attend, other, total = (
                c.median(cold, f"{part}_us") for part in ("search", "attend", "other", "total")
            )
            rows.append(
                {
                    "head": head.name,
                    "caches": "cold" if cold else "hot",
                    "retriever": c.name,
                    "setting": c.setting,
                    "error": c.error,
                    "search_us": search,
                    "attend_us": attend,
                    "other_us": other,
                    "total_us": total,
                    "times_ours": total / ours,
                    "attend_share": attend / total,
                }
            )
    return rows


def log(line: str) -> None:
    print(f"keyseek.bench.decode: {line}", file=sys.stderr, flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| head | caches | retriever | setting | error | search us | attend us | other us "
        "| total us | times ours | attention's share |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['head']} | {row['caches']} | {row['retriever']} | {row['setting']} "
            f"| {row['error']:.4f} | {row['search_us']:,.0f} | {row['attend_us']:,.0f} "
            f"| {row['other_us']:,.0f} | {row['total_us']:,.0f} | {row['times_ours']:.2f} "
            f"| {row['attend_share']:.0%} |"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    summary, example, details = __doc__.split("\n\n", 2)
    p = argparse.ArgumentParser(
        prog="python -m keyseek.bench.decode",
        description=f"{summary} {details}",
        epilog=f"Example: {example}",
    )
    p.add_argument("--data", required=True, metavar="FILE", help="a capture, *.attn.h5")
    p.add_argument("--layers", metavar="N,..", help="only these layers")
    p.add_argument("--peers", default=",".join(PEERS), metavar="NAME,..", help="or none")
    p.add_argument("--k", type=int, default=100, help="keys per query (default: 100)")
    p.add_argument("--tail-vectors", type=int, default=64, help="0: no tail (default: 64)")
    p.add_argument("--recall", type=float, default=0.95, help="of our index (default: .95)")
    p.add_argument("--steps", type=int, default=256, help="tokens to decode (default: 256)")
    p.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    p.add_argument("--cold", action="store_true", help="also with caches emptied between steps")
    p.add_argument("--json", action="store_true", help="a JSON object per line, not a table")
    return p


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    options.peers = [] if options.peers == "none" else options.peers.split(",")
    for name in options.peers:
        if name not in PEERS:
            raise keyseek.InvalidArgument(f"--peers has '{name}', must be of {', '.join(PEERS)}")
    for name, least in (("k", 1), ("steps", 1), ("rounds", 1), ("tail_vectors", 0)):
        if getattr(options, name) < least:
            raise keyseek.InvalidArgument(
                f"--{name.replace('_', '-')} is {getattr(options, name)}, must be at least {least}"
            )
    wanted = None if options.layers is None else {int(n) for n in options.layers.split(",")}
    entries = [
        entry
        for entry in keyseek.capture_info(options.data).heads
        if wanted is None or entry.layer in wanted
    ]
    if not entries:
        raise keyseek.InvalidArgument(f"--layers is {options.layers}: {options.data} has none")
    return [row for entry in entries for row in compare(Head(options, entry), options)]


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    # faiss counts its threads per calling thread; it is not imported yet.
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        rows = run(options)
    except keyseek.Error as error:
        log(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    print("\n".join(json.dumps(row) for row in rows) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
