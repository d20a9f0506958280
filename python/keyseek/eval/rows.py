"""Rows of a grid, their means, and how sure these are."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bench.results import Row, parse_rows
from ..errors import Error, IoError
from .policies import Full

NEEDED = (
    "model",
    "task",
    "variant",
    "tokens",
    "seed",
    "policy",
    "budget",
    "kl",
    "exact",
    "full_exact",
    "gold",
)
# A task counts as solved by full attention when it is exact in at least this share.
SOLVED = 0.5
# Student's t, two-sided 95 %, by degrees of freedom; beyond these the last is near enough.
_T = (
    12.71,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
)


def read_rows(paths: Iterable[str]) -> list[Row]:
    """The rows of files that keyseek.eval run wrote."""
    rows: list[Row] = []
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise IoError(f"cannot read {path}: {error.strerror}", "io") from None
        found = parse_rows(text, path)
        for number, row in enumerate(found, 1):
            absent = [name for name in NEEDED if name not in row]
            if absent:
                sentence = f"{path}: row {number} has no '{absent[0]}': no row of keyseek.eval run"
                raise Error(sentence, "corrupt")
        rows += found
    if not rows:
        raise Error("there are no rows to report", "invalid_argument")
    return rows


@dataclass(frozen=True)
class Mean:
    """A mean and half the width of its 95 % confidence interval (None: of a single value)."""

    value: float
    half: float | None

    def text(self, show: Callable[[float], str]) -> str:
        return show(self.value) + ("" if self.half is None else f" ± {show(self.half)}")


def mean_of(values: list[float]) -> Mean | None:
    """Of independent examples, by Student's t; None of nothing."""
    if not values:
        return None
    if len(values) == 1:
        return Mean(values[0], None)
    t = _T[min(len(values) - 1, len(_T)) - 1]
    return Mean(statistics.fmean(values), t * statistics.stdev(values) / len(values) ** 0.5)


def distinct(rows: list[Row], name: str) -> list[Any]:
    """Values of a field in order of appearance."""
    return list(dict.fromkeys(row[name] for row in rows))


def where(rows: list[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def solved(rows: list[Row]) -> bool:
    """Whether full attention can do what these rows, of one task and length, are about."""
    full = where(rows, policy=Full.family)
    return bool(full) and statistics.fmean(row["exact"] for row in full) >= SOLVED


def kept(rows: list[Row]) -> tuple[int, int]:
    """Of how many examples every question is exact, and of how many with full attention; the
    first counts among the second."""
    able = [row for row in rows if row["full_exact"] == 1]
    return sum(row["exact"] == 1 for row in able), len(able)


def kept_text(rows: list[Row]) -> str:
    """3 of 4; - where full attention has none."""
    exact, able = kept(rows)
    return f"{exact} of {able}" if able else "-"
