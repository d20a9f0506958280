"""Rows, sorted by the data they were measured on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyseek.bench.results import parse_rows
from keyseek.errors import Error, IoError

Row = dict[str, Any]

NEEDED = ("dataset", "index", "params", "k", "group", "recall_at_k", "us_per_query", "cache")
OURS = ("projection", "sketch", "flat")


@dataclass
class Dataset:
    """All rows of one data set at one k."""

    name: str
    k: int
    rows: list[Row]

    @property
    def group(self) -> int:
        """Queries of a step; rows of single queries have a group of 1 instead."""
        return max(int(row["group"]) for row in self.rows)

    @property
    def keys(self) -> int | None:
        return self._fact("keys")

    @property
    def dim(self) -> int | None:
        return self._fact("dim")

    @property
    def is_capture(self) -> bool:
        return any("shift" in row for row in self.rows)

    def _fact(self, name: str) -> int | None:
        return next((row[name] for row in self.rows if row.get(name) is not None), None)

    def indexes(self) -> list[str]:
        """Ours first, the others in order of appearance."""
        names = dict.fromkeys(row["index"] for row in self.rows)
        return [name for name in OURS if name in names] + [n for n in names if n not in OURS]

    def of(self, index: str, cache: str = "hot") -> list[Row]:
        """Rows of steps as decoding takes them, of an index trained as it is recommended: with
        the RoPE shift, and with the least share of the prefill queries that was measured."""
        rows = [
            row
            for row in self.rows
            if row["index"] == index
            and row["cache"] == cache
            and row["group"] == self.group
            and (index not in OURS or row.get("warm", True))
            and row.get("shift", True)
            and not (row.get("build") or {}).get("train")
        ]
        least = min((row["share"] for row in rows if "share" in row), default=None)
        return [row for row in rows if index != "projection" or row.get("share") == least]

    def single(self) -> list[Row]:
        """Rows of the projection index where every query is a step of its own, started cold."""
        return [
            row
            for row in self.rows
            if row["index"] == "projection"
            and row["group"] == 1
            and row["cache"] == "hot"
            and not row.get("warm", True)
            and row.get("shift", True)
        ]

    def title(self) -> str:
        facts = [f"{self.keys:,} keys" if self.keys else "", f"d = {self.dim}" if self.dim else ""]
        facts += [f"steps of {self.group} queries" if self.group > 1 else "single queries"]
        facts += [f"k = {self.k}"]
        return f"{self.name}: {', '.join(filter(None, facts))}"


def fastest(rows: list[Row], recall: float) -> Row | None:
    """The fastest row that reaches the recall."""
    reached = [row for row in rows if row["recall_at_k"] >= recall]
    return min(reached, key=step_time, default=None)


def step_time(row: Row) -> float:
    return float(row["us_per_step_p50"])


def front(rows: list[Row], cost: str) -> list[Row]:
    """Rows that no other beats in both recall and `cost` (less is better), by rising recall."""
    best: list[Row] = []
    least = float("inf")
    for row in sorted(rows, key=lambda row: (-row["recall_at_k"], row[cost])):
        if row[cost] < least:
            least = row[cost]
            best.append(row)
    return best[::-1]


def read_rows(paths: Iterable[str]) -> list[Row]:
    rows: list[Row] = []
    for path in paths:
        try:
            text = Path(path).read_text()
        except OSError as error:
            raise IoError(f"cannot read {path}: {error.strerror}", "io") from None
        whole = text[: text.rfind("\n") + 1]  # a run that was killed leaves a torn line
        for number, row in enumerate(parse_rows(whole, path), 1):
            missing = [name for name in NEEDED if name not in row]
            if missing:
                raise Error(f"{path}: line {number} has no {', '.join(missing)}", "corrupt")
            rows.append(row)
    if not rows:
        raise Error("there are no rows to report", "invalid_argument")
    return rows


def group_rows(rows: list[Row]) -> list[Dataset]:
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["k"]), []).append(row)
    return [Dataset(name, k, members) for (name, k), members in groups.items()]
