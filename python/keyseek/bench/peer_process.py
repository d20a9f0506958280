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
from numpy.typing import NDArray

import keyseek
from keyseek.peers import load_peer

from .problem import Problem

Params = dict[str, Any]

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
    """What the processes of the peers share: keys and queries as files, in f32, how many keys
    are wanted, and which CPU searches."""

    def __init__(self, problem: Problem, pin: int | None) -> None:
        self.k = problem.k
        self.pin = pin
        self._folder = tempfile.TemporaryDirectory(prefix="keyseek-bench-")
        self.keys = self.path("keys.npy")
        self.queries = self.path("queries.npy")
        np.save(self.keys, problem.data.keys.astype(np.float32))
        np.save(self.queries, problem.queries)

    def path(self, name: str) -> str:
        return str(Path(self._folder.name) / name)

    def close(self) -> None:
        self._folder.cleanup()


class PeerProcess:
    """One variant of a peer's index, and the points to search it with: a peer of
    keyseek._core.Sweep."""

    def __init__(
        self, handover: Handover, name: str, variant: Params, points: list[Params]
    ) -> None:
        self.index = name
        self.version = load_peer(name).version()
        self.variant = variant
        self.points = [{**variant, **point} for point in points]
        self._handover = handover
        self._process: subprocess.Popen[str] | None = None
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with this)

    def build(self, threads: int) -> tuple[float, int]:
        """Seconds and bytes."""
        shared = self._handover
        spec = {"variant": self.variant, "threads": threads, "pin": shared.pin}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "keyseek.peers.worker",
                self.index,
                shared.keys,
                shared.queries,
                json.dumps(spec),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )
        answer = self._answer()
        return answer["build_s"], answer["index_bytes"]

    def measure(self, params: Params) -> tuple[NDArray[np.int64], float, int | None]:
        """Of all queries in one call: ids [queries, k], seconds, and the keys scanned."""
        point = {name: value for name, value in params.items() if name not in self.variant}
        ids = self._handover.path("ids.npy")
        answer = self._ask({"k": self._handover.k, "point": point, "ids": ids})
        return np.load(ids), answer["seconds"], answer["scanned"]

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
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(f"{self.index}: {answer['error']}", "unsupported")
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return lines[-1] if lines else "without a word"
