"""Measures contenders in turns, so that whatever slows the machine down slows all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keyseek

from .contender import Built, Contender, Params, Sample
from .peer_process import PeerFailed
from .results import ResultFile

LONG_RUN_S = 2.0
CLEARLY_SLOWER = 1.25

Log = Callable[[str], None]


@dataclass(eq=False)
class Trial:
    """A row in the making: one point of one contender."""

    contender: Contender
    built: Built
    params: Params
    cold: bool
    identity: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    recall: float = 0.0

    def measure(self) -> None:
        sample = self.contender.measure(self.params, self.cold)
        if not self.samples:
            self.recall = keyseek.recall(
                self.contender.problem.truth,
                sample.ids,
                keys=len(self.contender.problem.data.keys),
            )
        self.samples.append(sample)

    def median(self, name: str) -> float | None:
        values = [getattr(sample, name) for sample in self.samples]
        return None if values[0] is None else statistics.median(values)

    def step_time(self) -> float:
        return statistics.median(sample.us_per_step_p50 for sample in self.samples)

    def row(self) -> dict[str, Any]:
        identity = dict(self.identity)
        head = {name: identity.pop(name) for name in ("dataset", "index", "params", "k", "group")}
        first, built = self.samples[0], self.built
        return {
            **head,
            "recall_at_k": self.recall,
            "scanned_fraction": first.scanned_fraction,
            "bytes_read": first.bytes_read,
            "us_per_step_p50": self.median("us_per_step_p50"),
            "us_per_step_p95": self.median("us_per_step_p95"),
            "us_per_query": self.median("us_per_query"),
            "build_s": built.build_s,
            "index_bytes": built.index_bytes,
            "unreachable": built.unreachable,
            **identity,
            "expanded": first.expanded,
            "build_threads": built.build_threads,
            "rounds": len(self.samples),
            **built.extra,
            **self.contender.notes(self.params),
        }

    def __str__(self) -> str:
        sample = self.samples[-1]
        knobs = " ".join(f"{name}={value}" for name, value in self.params.items())
        return (
            f"{self.contender.index} {knobs}{' cold' if self.cold else ''}: recall "
            f"{self.recall:.4f}, {sample.us_per_step_p50:,.0f} us per step"
        )


def identify(contender: Contender, params: Params, cold: bool) -> dict[str, Any]:
    return {
        **contender.problem.identity(),
        "index": contender.index,
        "params": params,
        "cache": "cold" if cold else "hot",
        **contender.identity(),
    }


def plan(contender: Contender, results: ResultFile, cold: bool, log: Log) -> list[Trial]:
    """The contender's points that have no row, and the index they need."""

    def lacking() -> list[tuple[Params, bool, dict[str, Any]]]:
        return [
            (params, cache, identity)
            for params in contender.points()
            for cache in contender.caches(cold)
            if not results.has(identity := identify(contender, params, cache))
        ]

    if not lacking():
        log(f"{contender.index}: all rows are there")
        return []
    built = contender.build()
    log(f"{contender.index}: built in {built.build_s:.1f} s")
    return [Trial(contender, built, *each) for each in lacking()]


def is_beaten(trial: Trial, others: list[Trial]) -> bool:
    """Whether another point of the same contender finds as much in clearly less time."""
    return any(
        other.contender.index == trial.contender.index
        and other.cold == trial.cold
        and other.recall >= trial.recall
        and other.step_time() * CLEARLY_SLOWER < trial.step_time()
        for other in others
    )


def needs_repeating(trial: Trial, others: list[Trial]) -> bool:
    """A long run has averaged enough, and a point that is beaten decides nothing."""
    long = trial.samples[0].seconds > LONG_RUN_S and not trial.cold
    return not long and not is_beaten(trial, others)


def measure_rounds(
    trials: list[Trial], results: ResultFile, rounds: int, patience: float, log: Log
) -> int:
    """Every trial once per round, in turn. A row is appended as soon as its trial is done;
    returns how many."""
    due, rows = trials, 0

    def finish(done: list[Trial]) -> None:
        nonlocal due, rows
        for trial in done:
            results.append(trial.row())
        rows += len(done)
        due = [trial for trial in due if trial not in done]

    for number in range(1, rounds + 1):
        for trial in take_turns(due, patience, log):
            log(f"round {number} of {rounds}: {trial}")
            if number == rounds:
                finish([trial])
        due = [trial for trial in due if trial.samples]
        if number == 1:
            finish([trial for trial in due if not needs_repeating(trial, due)])
    finish(due)  # what failed in the last round has samples of those before
    return rows


def take_turns(due: list[Trial], patience: float, log: Log) -> Iterator[Trial]:
    """Measures and yields each. Points come in order of effort: a contender that fails or runs
    out of patience gets no further."""
    ended: dict[Contender, str] = {}
    for trial in due:
        contender = trial.contender
        if contender in ended:
            if reason := ended[contender]:
                log(f"warning: {reason}: its more thorough points are left out")
                ended[contender] = ""
            continue
        try:
            trial.measure()
        except PeerFailed as failure:
            ended[contender] = str(failure)
            continue
        yield trial
        if trial.samples[-1].seconds > patience:
            ended[contender] = f"{contender.index} took longer than {patience:g} s"
    for reason in filter(None, ended.values()):
        log(f"note: {reason}, at its last point")
