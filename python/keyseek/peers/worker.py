"""The process a peer lives in: builds one index, then searches it when told to.

    python -m keyseek.peers.worker NAME KEYS.npy QUERIES.npy '{"variant": {}, "threads": 2}'

Speaks JSON lines. First comes one about the build: {"build_s", "index_bytes"}. Then each line
on stdin, {"k", "point", "ids": FILE}, is answered by {"seconds", "scanned"} once the ids of all
queries are in FILE (npy), or by {"error"}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from . import load_peer
from .base import Peer

WARM_UP_QUERIES = 32


def take_stdout() -> TextIO:
    """stdout for us alone: what libraries print goes to stderr."""
    mine = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return mine


def say(out: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=out, flush=True)


def run_task(peer: Peer, queries: NDArray[np.float32], task: dict[str, Any]) -> dict[str, Any]:
    peer.search(queries[:WARM_UP_QUERIES], task["k"], task["point"])
    begin = time.perf_counter()
    ids, _ = peer.search(queries, task["k"], task["point"])
    seconds = time.perf_counter() - begin
    np.save(task["ids"], np.ascontiguousarray(ids).astype(np.int64))
    return {"seconds": seconds, "scanned": peer.scanned()}


def main() -> None:
    out = take_stdout()
    name, keys_path, queries_path, spec = sys.argv[1:]
    options = json.loads(spec)
    keys, queries = np.load(keys_path), np.load(queries_path)

    begin = time.perf_counter()
    peer = load_peer(name)(keys, options["variant"], options["threads"])
    say(out, {"build_s": time.perf_counter() - begin, "index_bytes": peer.nbytes()})

    if options.get("pin") is not None:
        os.sched_setaffinity(0, {options["pin"]})
    for line in sys.stdin:
        try:
            say(out, run_task(peer, queries, json.loads(line)))
        except Exception as error:  # libraries raise what they like
            say(out, {"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
