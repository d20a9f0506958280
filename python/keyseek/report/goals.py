"""What the project wants to reach, and what was measured.

A goal has a value that must be reached and one to aim at. They were set for captures of a real
model at 32,768 tokens; smaller heads and other vectors have fewer. Times are of the fastest
point that reaches the recall, and keys scanned are those of the same point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .datasets import Dataset, Row, fastest, step_time
from .tables import Table, at, number, percent, ratio, recall_text

LARGE_HEAD = 20_000  # keys
RECALLS = (0.95, 0.99)
UNMATCHED = math.inf
NEVER = float("nan")

Goals = dict[str, tuple[float, float]]  # must and aim, by the kind of data


@dataclass
class Line:
    """One value. None: not measured; NEVER: no point of ours reaches the recall; UNMATCHED: only
    the peer's do not, which among the points that were measured is no ratio."""

    what: str
    at: str
    value: float | None
    show: Callable[[float], str]
    goal: tuple[float, float] | None = None  # must, aim
    less_is_better: bool = False

    def reaches(self, wanted: float) -> bool:
        value = self.value
        return value is not None and (value <= wanted if self.less_is_better else value >= wanted)

    def mark(self) -> str:
        if self.goal is None or self.value in (None, UNMATCHED):
            return ""
        must, aim = self.goal
        return "aim" if self.reaches(aim) else "must" if self.reaches(must) else "MISSED"

    def cells(self) -> list[str]:
        if self.value is None:
            value = "not measured"
        elif self.value == UNMATCHED:
            value = "peer never"
        elif self.value != self.value:
            value = "never"
        else:
            value = self.show(self.value)
        sign = "<= " if self.less_is_better else ">= "
        must, aim = ("", "") if self.goal is None else (sign + self.show(g) for g in self.goal)
        return [self.what, self.at, value, must, aim, self.mark()]


def goals_table(dataset: Dataset) -> Table:
    lines = [line for line in measured(dataset) if line.goal or line.value is not None]
    head = ["", "recall", "measured", "must", "aim", "reached"]
    return Table(head, [line.cells() for line in lines])


def measured(dataset: Dataset) -> Iterator[Line]:
    yield from step_times(dataset)
    yield from against_peers(dataset)
    yield from keys_scanned(dataset)
    yield from quality(dataset)
    yield from costs(dataset)


def kind(dataset: Dataset) -> str:
    if not dataset.is_capture:
        return "vectors"
    return "large head" if (dataset.keys or 0) >= LARGE_HEAD else "small head"


def goal_of(dataset: Dataset, goals: Goals) -> tuple[float, float] | None:
    return goals.get(kind(dataset))


def value_at(rows: list[Row], recall: float, value: Callable[[Row], float]) -> float | None:
    """value(fastest row that reaches the recall)."""
    if not rows:
        return None
    row = fastest(rows, recall)
    return NEVER if row is None else value(row)


def step_times(dataset: Dataset) -> Iterator[Line]:
    goals: dict[tuple[str, float], Goals] = {
        ("hot", 0.95): {"large head": (2.6, 5), "small head": (1, 1)},
        ("hot", 0.99): {"large head": (1.8, 4)},
        ("cold", 0.95): {"large head": (4, 7)},
        ("cold", 0.99): {"large head": (2.6, 5)},
    }
    for cache in ("hot", "cold"):
        rows, flat = dataset.of("projection", cache), dataset.of("flat", cache)
        flat_time = min(map(step_time, flat), default=None)
        if flat_time is not None:
            yield Line(f"FlatIndex, us per step, {cache}", "", flat_time, number)
        for recall in RECALLS:
            time = value_at(rows, recall, step_time)
            yield Line(f"ProjectionIndex, us per step, {cache}", at(recall), time, number)
        for recall in RECALLS:
            time = value_at(rows, recall, step_time)
            times = None if time is None or flat_time is None else flat_time / time
            goal = goal_of(dataset, goals[cache, recall])
            yield Line(f"faster than FlatIndex, {cache}", at(recall), times, ratio, goal)


def against_peers(dataset: Dataset) -> Iterator[Line]:
    goals: dict[tuple[str, float], Goals] = {
        ("scann", 0.95): {"large head": (3.5, 6), "vectors": (2, 2)},
        ("scann", 0.99): {"large head": (4, 6), "vectors": (2, 2)},
        ("faiss-ivf", 0.95): {"vectors": (2, 2)},
        ("faiss-ivf", 0.99): {"vectors": (2, 2)},
    }

    def queries_per_second(row: Row) -> float:
        return 1e6 / row["us_per_query"]

    for peer, name in (("scann", "ScaNN"), ("faiss-ivf", "faiss IVF")):
        for recall in RECALLS:
            ours = value_at(dataset.of("projection"), recall, queries_per_second)
            theirs = value_at(dataset.of(peer), recall, queries_per_second)
            times = None if ours is None or theirs is None else ours / theirs
            if times is not None and ours == ours and theirs != theirs:
                times = UNMATCHED
            goal = goal_of(dataset, goals[peer, recall])
            yield Line(f"queries per second against {name}", at(recall), times, ratio, goal)
    yield from scans(dataset)


def scans(dataset: Dataset) -> Iterator[Line]:
    """Our scan against faiss's, which decoding can only ask for a few queries at a time."""
    flat = dataset.of("flat")
    goals: dict[object, Goals] = {1: {"large head": (15, 25)}, "all": {}}
    for per_call, words in ((1, "one query per call"), ("all", "all queries in one call")):
        faiss = [
            row
            for row in dataset.of("faiss-flat")
            if row["params"].get("queries_per_call") == per_call
        ]
        if flat and faiss:
            times = faiss[0]["us_per_query"] / min(row["us_per_query"] for row in flat)
            found = recall_text(min(row["recall_at_k"] for row in flat))
            what = f"FlatIndex against IndexFlatIP, {words}"
            yield Line(what, found, times, ratio, goal_of(dataset, goals[per_call]))


def keys_scanned(dataset: Dataset) -> Iterator[Line]:
    goals: dict[tuple[str, float], Goals] = {
        ("step", 0.95): {"large head": (0.06, 0.03)},
        ("step", 0.99): {"large head": (0.12, 0.06)},
        ("single query", 0.95): {"large head": (0.04, 0.025)},
        ("single query", 0.99): {"large head": (0.075, 0.05)},
    }
    both = (("step", dataset.of("projection")), ("single query", dataset.single()))
    for per, rows in both:
        for recall in RECALLS:
            share = value_at(rows, recall, lambda row: row["scanned_fraction"])
            goal = goal_of(dataset, goals[per, recall])
            yield Line(f"keys scanned per {per}", at(recall), share, percent, goal, True)


def quality(dataset: Dataset) -> Iterator[Line]:
    """Best recall with any share of the prefill queries; keys that cannot be reached."""
    rows = [row for row in dataset.rows if row["index"] == "projection"]
    if not rows:
        return
    best = max(row["recall_at_k"] for row in rows)
    goal = goal_of(dataset, {"large head": (0.9995, 1.0)})
    yield Line("best recall", "", best, recall_text, goal)
    unreachable = max(row.get("unreachable") or 0 for row in rows)
    goal = goal_of(dataset, {"large head": (0, 0), "small head": (0, 0), "vectors": (0, 0)})
    yield Line("keys unreachable", "", float(unreachable), number, goal, True)


def costs(dataset: Dataset) -> Iterator[Line]:
    rows = dataset.of("projection")
    if not rows:
        return
    seconds = min(row["build_s"] * row.get("build_threads", 1) for row in rows)
    goal = goal_of(dataset, {"large head": (3, 1)})
    yield Line("build, CPU seconds", "", seconds, number, goal, True)
    extra = next((row["extra_bytes"] for row in rows if row.get("extra_bytes")), None)
    if extra is not None and dataset.keys and dataset.dim:
        goal = goal_of(dataset, {"large head": (dataset.dim + 260, dataset.dim + 128)})
        per_key = extra / dataset.keys
        yield Line("bytes per key beyond the keys", "", per_key, number, goal, True)
