"""All policies of one model and length in one table, the nearest to full attention first."""

from __future__ import annotations

import math
import statistics

from ..bench.results import Row
from ..report.tables import Table
from .means import kept_text
from .policies import Full
from .rows import distinct, where

LEAST = 1e-6  # nats: below it two policies are as near as rounding lets them be


def ranking(rows: list[Row]) -> Table:
    """Policies at a budget by the geometric mean of their KL over tasks, of rows of one model and
    length; only those that ran on every example are ranked.

    A task's KL is the mean over its examples. The budgets of different policies are in the table as
    vectors and KB per step, since some set their own.
    """
    tasks = distinct(rows, "task")
    examples = {_example(row) for row in rows}
    table = Table(["", "policy", "vectors", "KB per step", *tasks, "all", "found"])
    lines = []
    for policy, budget in dict.fromkeys((row["policy"], row["budget"]) for row in rows):
        own = where(rows, policy=policy, budget=budget)
        if policy == Full.family or {_example(row) for row in own} != examples:
            continue
        kls = [statistics.fmean(row["kl"] for row in where(own, task=task)) for task in tasks]
        mean = math.exp(statistics.fmean(math.log(max(kl, LEAST)) for kl in kls))
        cells = [
            f"{policy} {budget}" if budget else policy,
            f"{statistics.fmean(row['vectors'] for row in own):,.0f}",
            f"{statistics.fmean(row['bytes'] for row in own) / 1000:,.0f}",
            *map(_digits, [*kls, mean]),
            kept_text(own),
        ]
        lines.append((mean, cells))
    lines.sort(key=lambda line: line[0])
    table.rows += [[str(place), *cells] for place, (_, cells) in enumerate(lines, 1)]
    return table


def _example(row: Row) -> tuple[str, str, int]:
    return row["task"], row["variant"], row["seed"]


def _digits(value: float) -> str:
    """1.2, .12, .012, .0012, .0001"""
    if value >= 1:
        return f"{value:.1f}"
    return f"{value:.{min(4, 2 + max(0, -math.floor(math.log10(max(value, LEAST))) - 1))}f}"[1:]
