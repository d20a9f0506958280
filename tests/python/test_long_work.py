"""Work that takes long: its progress, its interruption, and other threads meanwhile."""

from __future__ import annotations

import os
import signal
import threading

import pytest

import keyseek


def test_progress_is_reported(head, training):
    calls = []
    keyseek.Index.build(
        "projection", head.keys, training, threads=2, progress=lambda *call: calls.append(call)
    )
    last = {stage: (done, total) for stage, done, total in calls}
    assert len(last) > 3
    assert all(done == total for done, total in last.values())


def test_progress_cancels(vectors):
    keys = vectors(5000, 32)
    with pytest.raises(keyseek.Error, match="cancelled") as caught:
        keyseek.exact_knn(keys, keys, threads=2, progress=lambda *_: False)
    assert caught.value.code == "cancelled"


def test_an_exception_in_progress_arrives(vectors):
    keys = vectors(2000, 32)
    with pytest.raises(ZeroDivisionError):
        keyseek.exact_knn(keys, keys, threads=2, progress=lambda *_: 1 / 0)


@pytest.fixture
def sigint():
    """Python's own handler: a process that a script starts in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_long_work(vectors, sigint):
    keys = vectors(20_000, 128)
    finished = []

    def interrupt(stage, done, total):
        finished.append(done)
        if len(finished) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        keyseek.exact_knn(keys, keys, threads=2, progress=interrupt)
    assert finished[-1] < len(keys)


def test_ctrl_c_ends_a_measurement(head, flat, sigint):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        keyseek.measure_steps(flat, head.queries, group=3, repeats=10_000)


def test_the_gil_is_free_while_it_works(vectors):
    keys, ticks, done = vectors(20_000, 128), [0], threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks[0] += 1

    thread = threading.Thread(target=tick)
    thread.start()
    keyseek.exact_knn(keys, keys[:2000], threads=1)
    done.set()
    thread.join()
    assert ticks[0] >= 5
