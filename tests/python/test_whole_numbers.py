"""Whole numbers as arguments, of every function: True, 1.5 and 2^64 are refused by name."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import pytest

import keyseek
from conftest import SAMPLE
from keyseek import _core

KEYS = np.random.default_rng(1).standard_normal((60, 8), dtype=np.float32)
QUERIES = KEYS[:4].copy()
POSITIONS = np.arange(4)


@functools.cache
def index() -> keyseek.Index:
    params = keyseek.ProjectionParams(list_length=5)
    return keyseek.Index.build("projection", KEYS, KEYS, params=params, threads=1)


@functools.cache
def head() -> keyseek.HeadCache:
    keys = np.concatenate([KEYS] * 10)
    return keyseek.HeadCache.prefill(
        keys, keys, keys[-200:].copy(), scale=1.0, shift=False, threads=1,
        sink=4, window=16, least_indexed=1, retriever="flat",
    )  # fmt: skip


@functools.cache
def borrowed() -> keyseek.HeadCache:
    return keyseek.HeadCache.borrow(KEYS, KEYS, [0], 50, QUERIES, scale=1.0, shift=False, threads=1)


# By its name: a call that is given one argument, and what it needs beside it.
CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Benchmark": (keyseek.Benchmark, {"keys": KEYS, "queries": QUERIES}),
    "CapturedHead.queries": (
        lambda **given: keyseek.read_capture(SAMPLE, 2).queries(**{"first": 0, "last": 1, **given}),
        {},
    ),
    "DecodePool": (keyseek.DecodePool, {}),
    "DecodeParams": (keyseek.DecodeParams, {"retriever": "flat"}),
    "DecodeParams.replace": (keyseek.DecodeParams(retriever="flat").replace, {}),
    "DecodeParams.plan_positions": (keyseek.DecodeParams().plan_positions, {}),
    "DecodeSession": (keyseek.DecodeSession, {"heads": []}),
    "DecodeSession.check": (keyseek.DecodeSession.check, {"dim": 64, "dtype": "f16"}),
    "Dials": (keyseek.Dials, {}),
    "GraphParams": (keyseek.GraphParams, {}),
    "HeadCache.announce": (lambda tokens: borrowed().copy().announce(tokens), {}),
    "HeadCache.borrow": (
        lambda **given: keyseek.HeadCache.borrow(
            KEYS, KEYS, [0], **{"tokens": 60, "queries": QUERIES, **given}
        ),
        {"retriever": "flat", "scale": 1.0},
    ),
    "HeadCache.prefill": (
        keyseek.HeadCache.prefill,
        {"keys": KEYS, "values": KEYS, "queries": QUERIES, "retriever": "flat", "scale": 1.0},
    ),
    "HeadCache.retrieve": (lambda k: head().retrieve(QUERIES[:1], k), {}),
    "HeadCache.truncate": (lambda tokens: head().copy().truncate(tokens), {}),
    "HeadCache.refresh": (lambda threads: head().copy().refresh(threads=threads), {}),
    "Refresh.run": (lambda threads: head().copy().begin_refresh().run(threads=threads), {}),
    "Index.build": (keyseek.Index.build, {"kind": "flat", "keys": KEYS}),
    "Index.append": (lambda **given: index().append(KEYS, **given), {}),
    "Index.truncate": (lambda **given: index().truncate(**{"keys": 4, **given}), {}),
    "Index.search": (lambda **given: index().search(**{"queries": QUERIES, "k": 5, **given}), {}),
    "Index.search_batch": (
        lambda **given: index().search_batch(**{"queries": QUERIES, "k": 5, **given}),
        {},
    ),
    "ProjectionParams": (keyseek.ProjectionParams, {}),
    "RouterParams": (keyseek.RouterParams, {}),
    "SketchParams": (keyseek.SketchParams, {}),
    "TrainingQueries": (keyseek.TrainingQueries, {"train": QUERIES}),
    "announce_heads": (lambda tokens: keyseek.announce_heads([borrowed().copy()], tokens), {}),
    "exact_knn": (keyseek.exact_knn, {"keys": KEYS, "queries": QUERIES, "k": 5}),
    "measure_steps": (
        lambda **given: keyseek.measure_steps(index(), QUERIES, **{"k": 5, **given}),
        {},
    ),
    "read_capture": (keyseek.read_capture, {"path": SAMPLE, "layer": 2}),
    "read_data": (keyseek.read_data, {"name": f"{SAMPLE}:L2/K0"}),
    "recall": (keyseek.recall, {"truth": POSITIONS[:, None], "found": POSITIONS[:, None]}),
    "rope_shift": (keyseek.rope_shift, {"queries": QUERIES, "shifts": np.zeros(4)}),
    "sample_training_queries": (
        keyseek.sample_training_queries,
        {"queries": QUERIES, "positions": POSITIONS, "now": 100, "tuning_runs": 0},
    ),
}
# Of keyseek.bench alone, which makes it of a problem.
NOT_CALLED = {"Sweep", "Sweep.add_index", "Sweep.add_peer"}


def signatures() -> dict[str, str]:
    """Of all functions and methods of the native module that are not private."""
    found = {}
    for name, thing in vars(_core).items():
        members = vars(thing) if isinstance(thing, type) else {"": thing}
        for member, bound in members.items():
            function = getattr(bound, "__func__", bound)
            for text, *_ in getattr(function, "__nb_signature__", ()):
                own = member if member != "__init__" else ""
                if not own.startswith("_"):
                    found[f"{name}.{own}".strip(".")] = text
    return found


def whole_numbers(text: str) -> list[str]:
    """Names of the arguments that are one."""
    return re.findall(r"(\w+): int\b", text)


ARGUMENTS = [
    (function, name)
    for function, text in signatures().items()
    if function not in NOT_CALLED
    for name in whole_numbers(text)
]


def test_all_functions_are_tried():
    with_numbers = {function for function, text in signatures().items() if whole_numbers(text)}
    setters = {f"Dials.{name}" for name in ("probes", "lists", "expand", "pool")}
    assert with_numbers - NOT_CALLED - setters <= set(CALLS)
    assert len(ARGUMENTS) > 70


@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_what_is_no_whole_number_is_refused_by_name(function, name):
    call, given = CALLS[function]
    for value in (True, np.True_, 1.5, "5", [1]):
        with pytest.raises(TypeError) as raised:
            call(**{**given, name: value})
        assert str(raised.value).startswith(f"{name} is {value!r} ("), value
        assert ", must be a whole number" in str(raised.value)


@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_numbers_out_of_range_are_refused_by_name(function, name):
    call, given = CALLS[function]
    for value in (-1, -(2**63) - 1, 2**64, 2**70):
        with pytest.raises(keyseek.InvalidArgument, match=f"^{name} is {value}, must "):
            call(**{**given, name: value})
    # What is in range there is used, or refused by the library; NumPy's numbers are numbers.
    if name not in ("repeats", "layer", "kv_head", "dim", "device", "stream", "threads"):
        for number in (2**63, np.int64(2**63 - 1)):
            try:
                call(**{**given, name: number})
            except keyseek.Error as error:
                assert str(int(number)) in str(error), function


def test_dials_are_checked_when_they_are_set():
    dials = keyseek.Dials()
    for name in ("probes", "lists", "expand", "pool"):
        setattr(dials, name, np.int32(7))
        assert getattr(dials, name) == 7
        with pytest.raises(TypeError, match=rf"^{name} is True \(bool\), must be a whole number"):
            setattr(dials, name, True)
        with pytest.raises(keyseek.InvalidArgument, match=f"^{name} is {2**32}, must be"):
            setattr(dials, name, 2**32)
        assert getattr(dials, name) == 7
