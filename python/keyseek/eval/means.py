"""Means over rows, how sure these are, and how many answers are kept."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from .policies import Full
from .rows import Row, where

# A task counts as solved by full attention when it is exact in at least this share.
SOLVED = 0.5
# Student's t, two-sided 95 %, by degrees of freedom; beyond these the last is near enough.
_T = (
    "12.71 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262 2.228 2.201 2.179 2.160 2.145 2.131 "
    "2.120 2.110 2.101 2.093 2.086"
).split()


@dataclass(frozen=True)
class Mean:
    """A mean and half the width of its 95 % confidence interval (None: of a single value)."""

    value: float
    half: float | None

    def text(self, show: Callable[[float], str]) -> str:
        return show(self.value) + ("" if self.half is None else f" ± {show(self.half)}")


def mean_of(values: list[float]) -> Mean | None:
    """The mean of independent examples, its interval by Student's t; None of nothing."""
    if not values:
        return None
    if len(values) == 1:
        return Mean(values[0], None)
    t = float(_T[min(len(values) - 1, len(_T)) - 1])
    return Mean(statistics.fmean(values), t * statistics.stdev(values) / len(values) ** 0.5)


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
