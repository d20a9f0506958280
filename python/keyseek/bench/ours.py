"""keyseek's own indexes."""

from __future__ import annotations

import time
from typing import Any

import keyseek

from .contender import Built, Contender, Params, Sample
from .problem import Problem

COLD_STEPS = 64  # steps that are evicted and timed for a cold row

# Lists and expansions that are in balance have the same place in these two.
LISTS = (2, 4, 8, 16, 32, 64, 128, 256)
EXPAND = (0, 8, 16, 32, 64, 128, 256, 512)


class Ours(Contender):
    """What the indexes share."""

    _index: keyseek.FlatIndex | keyseek.SketchIndex | keyseek.ProjectionIndex

    def __init__(self, problem: Problem, threads: int) -> None:
        self.problem = problem
        self.threads = threads

    def identity(self) -> dict[str, Any]:
        return {
            "warm": self.problem.warm,
            "isa": keyseek.active_isa(),
            "threads": 1,
            "version": keyseek.__version__,
        }

    def caches(self, cold: bool) -> list[bool]:
        return [False, True] if cold else [False]

    def measure(self, params: Params, cold: bool) -> Sample:
        begin = time.perf_counter()
        m = keyseek.measure_steps(
            self._index,
            self.problem.queries,
            group=self.problem.group,
            k=self.problem.k,
            dials=keyseek.Dials(**params) if params else None,
            warm_start=self.problem.warm,
            cold_cache=cold,
            timed_steps=COLD_STEPS if cold else 0,
        )
        return Sample(
            ids=m.ids,
            seconds=time.perf_counter() - begin,
            us_per_query=m.us_mean / self.problem.group,
            us_per_step_p50=m.us_p50,
            us_per_step_p95=m.us_p95,
            scanned_fraction=m.scanned_fraction,
            bytes_read=m.bytes_read,
            expanded=m.expanded,
        )


class Flat(Ours):
    index = "flat"

    def points(self) -> list[Params]:
        return [{}]

    def build(self) -> Built:
        begin = time.perf_counter()
        index = keyseek.FlatIndex.build(self.problem.data.keys, threads=self.threads)
        seconds = time.perf_counter() - begin
        self._index = index
        return Built(seconds, index.nbytes, self.threads, unreachable=0)


class Sketch(Ours):
    index = "sketch"

    def points(self) -> list[Params]:
        return [{}]

    def build(self) -> Built:
        training = self.problem.training()
        begin = time.perf_counter()
        index = keyseek.SketchIndex.build(
            self.problem.data.keys, training.train, threads=self.threads
        )
        seconds = time.perf_counter() - begin
        self._index = index
        return Built(seconds, index.nbytes, self.threads, unreachable=0)


class Projection(Ours):
    index = "projection"

    def __init__(self, problem: Problem, threads: int, spread: int) -> None:
        super().__init__(problem, threads)
        self._points = grid(spread)
        self._tuned_for: list[tuple[Params, float]] = []

    def points(self) -> list[Params]:
        """The grid, behind tuned dials that are not on it."""
        tuned = [dials for dials, _ in self._tuned_for]
        off_grid = [d for i, d in enumerate(tuned) if d not in self._points + tuned[:i]]
        return off_grid + self._points

    def notes(self, params: Params) -> dict[str, Any]:
        return {"tuned_for": [recall for dials, recall in self._tuned_for if dials == params]}

    def build(self) -> Built:
        training = self.problem.training()
        begin = time.perf_counter()
        index = keyseek.ProjectionIndex.build(
            self.problem.data.keys, training, threads=self.threads
        )
        seconds = time.perf_counter() - begin
        self._index = index
        self._tuned_for = [(as_params(p.dials), p.target_recall) for p in index.operating_points]
        extra = {"extra_bytes": index.extra_bytes}
        return Built(seconds, index.nbytes, self.threads, index.unreachable, extra)


def as_params(dials: keyseek.Dials) -> Params:
    return {name: getattr(dials, name) for name in ("probes", "lists", "expand", "pool")}


def probes_for(lists: int) -> int:
    """Clusters that hold so many near queries: as the tuner pairs them."""
    return 4 if lists <= 8 else 8 if lists <= 32 else 16


def grid(spread: int) -> list[Params]:
    """Dials at most `spread` places off the balance of lists and expansions, cheap ones first."""
    cells = [
        (i + j, {"probes": probes_for(lists), "lists": lists, "expand": expand, "pool": 0})
        for i, lists in enumerate(LISTS)
        for j, expand in enumerate(EXPAND)
        if abs(i - j) <= spread
    ]
    return [params for _, params in sorted(cells, key=lambda cell: cell[0])]
