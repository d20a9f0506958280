"""A peer's index in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import keyseek
from keyseek.peers import load_peer

from .contender import Built, Contender, Params, Sample
from .problem import Problem

# Read by OpenMP, BLAS and TensorFlow runtimes when they are loaded. One thread everywhere but
# where a wrapper asks for more while it builds.
ONE_THREAD = dict.fromkeys(
    (
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OMP_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ),
    "1",
)


class PeerFailed(keyseek.Error):
    """The peer's process ended or refused; the sentence holds the last it said."""


class Handover:
    """Keys and queries as files, in f32, for the processes of the peers."""

    def __init__(self, problem: Problem) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="keyseek-bench-")
        self.keys = self.path("keys.npy")
        self.queries = self.path("queries.npy")
        np.save(self.keys, problem.data.keys.astype(np.float32))
        np.save(self.queries, problem.queries)

    def path(self, name: str) -> str:
        return str(Path(self._folder.name) / name)

    def close(self) -> None:
        self._folder.cleanup()


class PeerProcess(Contender):
    def __init__(
        self,
        problem: Problem,
        handover: Handover,
        name: str,
        variant: Params,
        threads: int,
        pin: int | None,
    ) -> None:
        self.problem = problem
        self.index = name
        self.variant = variant
        self._peer = load_peer(name)
        self._handover = handover
        self._threads = threads
        self._spec = {"variant": variant, "threads": threads, "pin": pin}
        self._process: subprocess.Popen[str] | None = None
        self._log = tempfile.TemporaryFile("w+")

    def identity(self) -> dict[str, Any]:
        return {"warm": False, "isa": None, "threads": 1, "version": self._peer.version()}

    def points(self) -> list[Params]:
        points = self._peer.points(len(self.problem.data.keys), self.problem.k, self.variant)
        return [{**self.variant, **point} for point in points]

    def build(self) -> Built:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "keyseek.peers.worker",
                self.index,
                self._handover.keys,
                self._handover.queries,
                json.dumps(self._spec),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )
        answer = self._answer()
        return Built(answer["build_s"], answer["index_bytes"], self._threads)

    def measure(self, params: Params, cold: bool) -> Sample:
        point = {name: value for name, value in params.items() if name not in self.variant}
        ids = self._handover.path("ids.npy")
        answer = self._ask({"k": self.problem.k, "point": point, "ids": ids})
        queries, keys = len(self.problem.queries), len(self.problem.data.keys)
        us_per_query = answer["seconds"] / queries * 1e6
        scanned = answer["scanned"]
        return Sample(
            ids=np.load(ids),
            seconds=answer["seconds"],
            us_per_query=us_per_query,
            us_per_step_p50=us_per_query * self.problem.group,
            scanned_fraction=None if scanned is None else scanned / queries / keys,
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._log.close()

    def _ask(self, task: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the missing answer tells
            print(json.dumps(task), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"{self.index} ended: {self._last_words()}", "unsupported")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(f"{self.index}: {answer['error']}", "unsupported")
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return lines[-1] if lines else "without a word"
