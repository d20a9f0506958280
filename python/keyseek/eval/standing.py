"""How keyseek stands beside the oracle and the other policies."""

from __future__ import annotations

import statistics

from ..bench.results import Row
from ..report.tables import Table
from .means import kept, kept_text
from .policies import BUDGETED, Flat, Keyseek, OracleTopK
from .rows import distinct, where

# These do not know the true logits and are not ours.
OTHERS = [
    kind
    for kind in BUDGETED
    if not kind.startswith((OracleTopK.family, Keyseek.family)) and kind != Flat.family
]


def standing(rows: list[Row]) -> Table:
    """A line per model, length and budget at which keyseek ran.

    It has, task by task, its mean KL as a share of the oracle's; as a share of the best other
    policy's, in the task where that is nearest; the answers it found (means.kept), and in brackets
    those that the best other policy did.
    """
    tasks = distinct(rows, "task")
    table = Table(["model, tokens", "budget", *tasks, "nearest other", "found (others)"])
    for model in distinct(rows, "model"):
        of_model = where(rows, model=model)
        for tokens in sorted(distinct(of_model, "tokens")):
            for budget in sorted(distinct(of_model, "budget")):
                own = where(of_model, tokens=tokens, budget=budget)
                if where(own, policy=Keyseek.family):
                    line = _line(own, tasks)
                    table.rows.append([f"{model}, {tokens:,}", str(budget), *line])
    return table


def _line(rows: list[Row], tasks: list[str]) -> list[str]:
    shares, nearest = [], []
    for task in tasks:
        kl = _mean_kl(where(rows, task=task))
        ours, oracle = kl.get(Keyseek.family), kl.get(OracleTopK.family)
        shares.append("-" if not ours or not oracle else _share(ours / oracle))
        theirs = {name: kl[name] for name in OTHERS if kl.get(name)}
        if ours and theirs:
            best = min(theirs, key=theirs.__getitem__)
            nearest.append((ours / theirs[best], best, task))
    share, name, task = max(nearest, default=(0, "", ""))
    near = f"{_share(share)} ({name}, {task})" if name else "-"
    return [*shares, near, _found(rows)]


def _mean_kl(rows: list[Row]) -> dict[str, float]:
    """The mean KL of each policy."""
    return {
        policy: statistics.fmean(row["kl"] for row in where(rows, policy=policy))
        for policy in distinct(rows, "policy")
    }


def _found(rows: list[Row]) -> str:
    ours = kept_text(where(rows, policy=Keyseek.family))
    others = [kept(own)[0] for own in (where(rows, policy=name) for name in OTHERS) if own]
    return f"{ours} ({max(others)})" if others and ours != "-" else ours


def _share(value: float) -> str:
    """1.2, .34, .012"""
    return f"{value:.{1 if value >= 1 else 2 if value >= 0.0995 else 3}f}".removeprefix("0")
