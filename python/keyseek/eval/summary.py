"""The tables of docs/accuracy.md, in Markdown: how keyseek stands, and KL to full attention in one
table per model and length."""

from __future__ import annotations

import statistics

from ..report.tables import Table
from .means import kept_text, mean_of
from .policies import Full, Keyseek
from .rows import Row, distinct, where
from .standing import standing


def summary(rows: list[Row]) -> str:
    """All tables of `keyseek.eval run`'s rows. Means over examples with 95 % confidence intervals;
    "found": of the examples that are exact with full attention, those that are with the policy.
    """
    ours = standing(rows)
    parts = [ours.markdown()] if ours.rows else []
    for model in distinct(rows, "model"):
        of_model = where(rows, model=model)
        for tokens in sorted(distinct(of_model, "tokens")):
            own = where(of_model, tokens=tokens)
            title = f"**{model}, {tokens:,} tokens.** {_examples(own)}"
            parts.append(f"{title}\n\n{_table(own).markdown()}")
    return "\n\n".join(parts)


def _examples(rows: list[Row]) -> str:
    """How many examples each task has, and how many of them full attention answers exactly."""
    counts = []
    for task in distinct(rows, "task"):
        exact = {
            (row["variant"], row["seed"]): row["full_exact"] == 1 for row in where(rows, task=task)
        }
        counts.append(f"{task} {len(exact)} ({sum(exact.values())})")
    return f"Examples, and those that full attention answers: {', '.join(counts)}."


def _table(rows: list[Row]) -> Table:
    """Lines are policies at a budget, in the order in which they ran, ours last; plans, which set
    their own budgets, before all."""
    tasks = distinct(rows, "task")
    table = Table(["budget, policy", *tasks, "found", "KB per step"])
    kinds = [kind for kind in distinct(rows, "policy") if kind != Full.family]
    kinds.sort(key=lambda kind: kind.startswith(Keyseek.family))
    for budget in sorted(distinct(rows, "budget")):
        for kind in kinds:
            own = where(rows, policy=kind, budget=budget)
            if own:
                table.rows.append(_line(kind, budget, own, tasks))
    return table


def _line(kind: str, budget: int, rows: list[Row], tasks: list[str]) -> list[str]:
    means = [mean_of([row["kl"] for row in where(rows, task=task)]) for task in tasks]
    return [
        f"{budget} {kind}" if budget else kind,
        *("-" if mean is None else mean.text(_three_digits) for mean in means),
        kept_text(rows),
        f"{statistics.fmean(row['bytes'] for row in rows) / 1000:,.0f}",
    ]


def _three_digits(value: float) -> str:
    """1.23, .123, and never more than four decimals."""
    return f"{value:.2f}" if value >= 1 else f"{value:.{3 if value >= 0.1 else 4}f}".lstrip("0")
