"""The interpreter ends while daemon threads are at work in the library."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PREPARE = """
import threading, time
import numpy as np
import keyseek

rng = np.random.default_rng(0)
def some(*shape): return rng.standard_normal(shape, dtype="f4")
keys, queries, training = some(20000, 32), some(4, 32), some(2000, 32)
def head(**options):
    return keyseek.HeadCache.prefill(
        keys[:3000], keys[:3000], training, 4, scale=0.2, shift=False, threads=1, horizon=10**6,
        **options,
    )
def exact(keys):
    def search(queries, k):
        scores = queries @ keys.T
        ids = np.ascontiguousarray(np.argsort(-scores, axis=1)[:, :k])
        return ids, np.take_along_axis(scores, ids, axis=1)
    return search
"""

# Each daemon thread does the second of these for ever; the first is done once.
WORK = {
    "search": (
        "index = keyseek.Index.build('flat', keys, threads=1)",
        "index.search(queries, k=10)",
    ),
    "append": ("index = keyseek.Index.build('flat', keys, threads=1)", "index.append(keys[:10])"),
    "build": ("", "keyseek.Index.build('projection', keys[:4000], training, threads=2)"),
    "progress": (
        "",
        "keyseek.exact_knn(keys, training, threads=2, progress=lambda *report: True)",
    ),
    "knn": ("", "keyseek.exact_knn(keys, training, threads=1)"),
    "step": ("cache = head()", "cache.copy().step(queries, keys[:1], keys[:1])"),
    "step_heads": (
        "heads, pool = [head(retriever='flat') for _ in range(2)], keyseek.DecodePool(2)",
        "own = [h.copy() for h in heads]\n"
        "        keyseek.step_heads(own, np.vstack([queries] * 2), keys[:2], keys[:2], pool)",
    ),
    "a search of one's own": (
        "heads = [head(retriever='custom', index=exact) for _ in range(2)]; "
        "pool = keyseek.DecodePool(2)",
        "own = [h.copy() for h in heads]\n"
        "        keyseek.step_heads(own, np.vstack([queries] * 2), keys[:2], keys[:2], pool)",
    ),
    "prefill": ("", "head(max_error=0.3)"),
    "rope": ("shifts = np.ones(len(keys))", "keyseek.rope_shift(keys, shifts)"),
}


@pytest.mark.parametrize("work", WORK, ids=lambda name: name.replace(" ", "_"))
def test_daemon_threads_do_not_abort_the_process(work):
    once, forever = WORK[work]
    script = PREPARE + textwrap.dedent(
        f"""
        {once}
        begun = threading.Semaphore(0)
        def go():
            begun.release()
            while True:
                {{work}}
        for _ in range(3):
            threading.Thread(target=go, daemon=True).start()
        for _ in range(3):
            begun.acquire()
        time.sleep(0.2)
        print("ended")
        """
    ).replace("{work}", forever.replace("        ", " " * 8))
    for _ in range(3):  # where the end meets a thread is chance
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
        assert "terminate" not in done.stderr and "leaked" not in done.stderr, done.stderr


@pytest.mark.parametrize("kept", ["all", "heads"])
def test_a_refresh_in_the_background_does_not_hold_up_the_end(kept):
    script = PREPARE + textwrap.dedent(
        f"""
        options = {{"horizon": 70, "refresh_delay": 10**6, "retriever": "projection"}}
        base = keyseek.HeadCache.prefill(
            keys[:15000], keys[:15000], training, 4, scale=0.2, shift=False, threads=2, **options
        )
        heads, pool = [base.copy() for _ in range(2)], keyseek.DecodePool(1)
        while not heads[0].refreshing:
            keyseek.step_heads(heads, np.vstack([queries] * 2), keys[:2], keys[:2], pool)
        time.sleep(0.05)
        if {kept == "heads"}:
            del pool
        assert heads[0].refreshing and not heads[0].begin_refresh().done
        print("ended")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
    assert "terminate" not in done.stderr and "leaked" not in done.stderr, done.stderr
