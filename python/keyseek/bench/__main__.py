"""Measures our indexes and other libraries' on one data set, in turns, into a file of rows.

python -m keyseek.bench --data gemma.attn.h5:L11/K0 --peers faiss-ivf,scann --out R.jsonl

Searching is one thread everywhere. Peers get all test queries in one call, which is their best
case; ours step after step, as decoding asks. A row is a point; a time is the median over the
rounds. Points that take more than two seconds, or that another point of the same index beats
clearly, are measured in one round only (field `rounds`). Rows that are there are skipped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import keyseek
from keyseek._core import Sweep
from keyseek.peers import PEERS, is_installed, load_peer

from .peer_process import Handover, Params, PeerProcess
from .problem import Files, Problem, read_problem

OURS = ("flat", "sketch", "projection")


def names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Comma-separated names out of `known`; "none" for none of them."""

    def parse(text: str) -> list[str]:
        chosen = [] if text in ("", "none") else text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(known)}")
        return chosen

    return parse


def parser() -> argparse.ArgumentParser:
    summary, example, details = __doc__.split("\n\n", 2)
    p = argparse.ArgumentParser(
        prog="python -m keyseek.bench",
        description=f"{summary} {details}",
        epilog=f"Example: {example}",
    )
    p.add_argument("--data", help="benchmark HDF5, or x.attn.h5:L11/K0")
    add_files(p)
    p.add_argument("--out", required=True, metavar="FILE", help="rows are appended (JSON lines)")
    p.add_argument(
        "--peers",
        type=names(tuple(PEERS)),
        default=list(PEERS),
        metavar="NAME,..",
        help=f"of {','.join(PEERS)}; none for none (default: all)",
    )
    p.add_argument(
        "--ours",
        type=names(OURS),
        default=list(OURS),
        metavar="NAME,..",
        help=f"of {','.join(OURS)}; none for none (default: all)",
    )
    p.add_argument("--k", type=int, default=100, help="keys per query (default: 100)")
    add_steps(p)
    add_effort(p)
    view = p.add_argument_group("of captures")
    view.add_argument("--share", type=float, help="of the prefill queries, to train on")
    view.add_argument(
        "--no-shift", action="store_true", help="leave training queries at their own positions"
    )
    for name, what in (
        ("sink", "first tokens, not indexed"),
        ("window", "last tokens before decoding, not indexed"),
        ("horizon", "tokens to be decoded before a rebuild"),
        ("seed", "of the RoPE shifts"),
    ):
        view.add_argument(f"--{name}", type=int, metavar="N", help=what)
    return p


def add_files(p: argparse.ArgumentParser) -> None:
    """What --data has, in files of their own."""
    files = p.add_argument_group("own files, instead of --data (any that keyseek.datasets reads)")
    files.add_argument("--keys", metavar="FILE", help="keys: vectors")
    files.add_argument("--queries", metavar="FILE", help="queries: vectors")
    files.add_argument(
        "--train", metavar="FILE", help="training queries: vectors, like the queries to come"
    )
    files.add_argument(
        "--truth", metavar="FILE", help="ids of each query's best keys; computed where missing"
    )
    files.add_argument(
        "--group", type=int, metavar="N", help="consecutive queries that form a step (default: 1)"
    )


def add_steps(p: argparse.ArgumentParser) -> None:
    """What a step is."""
    p.add_argument(
        "--cold", action="store_true", help="measure ours also with caches cold between steps"
    )
    p.add_argument(
        "--single", action="store_true", help="every query is a step of its own, without warm start"
    )
    p.add_argument(
        "--no-warm", action="store_true", help="do not start from the hits of the step before"
    )


def add_effort(p: argparse.ArgumentParser) -> None:
    """How much is measured, and by what."""
    p.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    p.add_argument(
        "--spread",
        type=int,
        default=1,
        metavar="N",
        help="dials so far off the balance of lists and expansions (default: 1)",
    )
    p.add_argument(
        "--threads",
        type=int,
        default=1,
        help="to build ours with (default: 1); searching is one thread",
    )
    p.add_argument(
        "--peer-threads",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="to build peers with (default: all)",
    )
    p.add_argument("--pin", type=int, metavar="CPU", help="CPU to search on")
    p.add_argument(
        "--brief",
        action="store_true",
        help="one variant of each peer and every second setting: for a quick look",
    )
    p.add_argument(
        "--patience",
        type=float,
        default=20.0,
        metavar="S",
        help="a setting slower than this ends its index's sweep (default: 20)",
    )


def log(line: str) -> None:
    print(f"keyseek.bench: {line}", file=sys.stderr, flush=True)


def check(options: argparse.Namespace) -> None:
    for name, least in (("k", 1), ("rounds", 1), ("spread", 0), ("threads", 0)):
        value = getattr(options, name)
        if value < least:
            raise keyseek.InvalidArgument(f"--{name} is {value}, must be at least {least}")


def view_of(options: argparse.Namespace) -> dict[str, object]:
    """The options of captures that were given."""
    given = ("share", "sink", "window", "horizon", "seed")
    view = {name: getattr(options, name) for name in given if getattr(options, name) is not None}
    return {**view, "shift": False} if options.no_shift else view


def source_of(options: argparse.Namespace) -> str | Files:
    given = [name for name in ("queries", "train", "truth", "group") if getattr(options, name)]
    if (options.data is None) == (options.keys is None):
        raise keyseek.InvalidArgument("give either --data or --keys")
    if options.data is not None:
        if given:
            raise keyseek.InvalidArgument(f"--{given[0]} is for --keys, but --data is given")
        return str(options.data)
    if options.queries is None:
        raise keyseek.InvalidArgument("--keys is given without --queries: there is nothing to ask")
    return Files(
        options.keys, options.queries, options.train, options.truth, group=options.group or 1
    )


def ours(options: argparse.Namespace, problem: Problem) -> list[str]:
    """Kinds to measure, in the order of OURS: without training queries only the flat one."""
    wanted = [kind for kind in OURS if kind in options.ours]
    if len(problem.data.learn) or wanted in ([], ["flat"]):
        return wanted
    log("note: no training queries (--train): of ours only the flat index is measured")
    return [kind for kind in wanted if kind == "flat"]


def installed_peers(options: argparse.Namespace) -> list[str]:
    peers = [name for name in options.peers if is_installed(name)]
    for name in options.peers:
        if name not in peers:
            log(f"warning: {name} is left out: it is not installed (pip install 'keyseek[peers]')")
    return peers


def peer_processes(
    options: argparse.Namespace, problem: Problem, handover: Handover, name: str
) -> Iterator[PeerProcess]:
    """A process for each variant of the peer."""
    peer, keys = load_peer(name), len(problem.data.keys)
    variants = peer.variants(keys)
    for variant in variants[:1] if options.brief else variants:
        points = peer.points(keys, options.k, variant)
        yield PeerProcess(handover, name, variant, thin(points) if options.brief else points)


def thin(points: list[Params]) -> list[Params]:
    """Every second one of many, the most thorough one among them."""
    return points if len(points) < 4 else points[::-2][::-1]


def run(options: argparse.Namespace) -> None:
    check(options)
    with ExitStack() as stack:
        problem = read_problem(
            source_of(options),
            options.k,
            single=options.single,
            warm=not options.no_warm,
            view=view_of(options),
            threads=options.threads,
        )
        log(f"{problem.name}: {problem.data}")
        sweep = Sweep(
            problem,
            out=options.out,
            rounds=options.rounds,
            cold=options.cold,
            patience=options.patience,
            pin=options.pin,
            log=log,
        )
        for kind in ours(options, problem):
            sweep.add_index(kind, spread=options.spread, threads=options.threads)
        if peers := installed_peers(options):
            handover = Handover(problem, options.pin)
            stack.callback(handover.close)
            for name in peers:
                for process in peer_processes(options, problem, handover, name):
                    stack.callback(process.close)
                    sweep.add_peer(process, threads=options.peer_threads)
        log(f"{sweep.measure()} rows added to {options.out}")


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        run(options)
    except keyseek.Error as error:
        log(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        log("interrupted; run it again to go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
