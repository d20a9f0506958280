"""A page of tables and figures from rows of `keyseek.eval run`, one file without links.

python -m keyseek.eval report E.jsonl -o accuracy.html --table
"""

from __future__ import annotations

import argparse
import html
import statistics
from collections.abc import Callable
from functools import partial

from ..bench.results import Row
from ..errors import InvalidArgument
from ..report.files import write_whole
from ..report.page import whole_page
from ..report.tables import Table
from .figures import head_figure, kl_figure, needle_figure
from .means import Mean, kept_text, mean_of, solved
from .policies import Full
from .ranking import ranking
from .rows import distinct, read_rows, where
from .standing import standing
from .summary import summary

INTRODUCTION = """
Every policy decodes the same gold answers from the same prefill. All attend sink, window and what
was decoded; a budget is the vectors they attend beyond these, per query, tail vectors counted.
Means over examples, with 95 % confidence intervals over seeds (and needle depths).
"""

STANDING = """
keyseek's KL to full attention as a share of the oracle's at the same budget, by task, and of the
best other policy's where that is nearest; of the answers that full attention gives, those found.
"""

MEASURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "exact": ("exact match", lambda value: f"{value:.2f}"),
    "gold": ("log probability of a gold token", lambda value: f"{value:.2f}"),
    "kl": ("KL to full attention, nats", lambda value: f"{value:.4f}"),
    "agreement": ("top-1 agreement with full attention", lambda value: f"{value:.3f}"),
    "error": ("relative output error", lambda value: f"{value:.3f}"),
    "bytes": ("KB read per step and KV head", lambda value: f"{value / 1000:.0f}"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rows", nargs="+", metavar="E.jsonl", help="files of rows")
    parser.add_argument("-o", "--out", metavar="FILE", help="the page (HTML) to write")
    parser.add_argument("--table", action="store_true", help="print the tables")
    parser.add_argument(
        "--ranking",
        action="store_true",
        help="print all policies of a model and length, the nearest to full attention first",
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print how keyseek stands, and KL by model and length, as Markdown",
    )


def run(given: argparse.Namespace) -> None:
    if not (given.out or given.table or given.ranking or given.markdown):
        raise InvalidArgument("nothing to do: give -o FILE, --table, --ranking or --markdown")
    rows = read_rows(given.rows)
    if given.out:
        write_whole(given.out, page(rows))
    if given.table:
        for model in distinct(rows, "model"):
            for title, table in tables(where(rows, model=model)):
                print(f"\n{model}: {title}\n\n{table.text()}")
    if given.ranking:
        print(rankings(rows))
    if given.markdown:
        print(summary(rows))


def rankings(rows: list[Row]) -> str:
    """A ranking of every model and length, in Markdown."""
    parts = []
    for model in distinct(rows, "model"):
        of_model = where(rows, model=model)
        for tokens in sorted(distinct(of_model, "tokens")):
            ranked = ranking(where(of_model, tokens=tokens))
            parts.append(f"**{model}, {tokens:,} tokens**\n\n{ranked.markdown()}")
    return "\n\n".join(parts)


def page(rows: list[Row]) -> str:
    sections = [section(model, where(rows, model=model)) for model in distinct(rows, "model")]
    ours = standing(rows)
    if ours.rows:
        head = f"<h2>keyseek beside the others</h2>\n<p>{STANDING}</p>"
        sections.insert(0, f"<section>\n{head}\n{ours.html()}</section>")
    versions = ", ".join(dict.fromkeys(str(row.get("version", "unknown")) for row in rows))
    foot = f"<p class=faint>{len(rows)} rows, keyseek {html.escape(versions)}.</p>"
    return whole_page("accuracy", INTRODUCTION, "\n".join([*sections, foot]))


def section(model: str, rows: list[Row]) -> str:
    parts = [f"<section>\n<h2>{html.escape(model)}</h2>"]
    for tokens in sorted(distinct(rows, "tokens")):
        title = f"{model}, {tokens:,} tokens"
        own = where(rows, tokens=tokens)
        parts.append(_figure("KL against vectors read, all tasks", kl_figure(own, title)))
    needles = where(rows, task="needle")
    if needles:
        parts.append(_figure("Needles found, by depth and length", needle_figure(needles, model)))
    parts.append(
        _figure("Output error by layer (down) and query head, all tasks", head_figure(rows, model))
    )
    for title, table in tables(rows):
        parts.append(f"<h3>{html.escape(title)}</h3>\n{table.html()}")
    return "\n".join([*parts, "</section>"])


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"


Cell = Callable[[list[Row]], str]


def tables(rows: list[Row]) -> list[tuple[str, Table]]:
    """Title and table of every length and measure: policies by tasks."""
    found = []
    for tokens in sorted(distinct(rows, "tokens")):
        own = where(rows, tokens=tokens)
        for name, (words, show) in MEASURES.items():
            table = _table(own, partial(_mean, name, show), partial(_plain_mean, name, show))
            found.append((f"{tokens:,} tokens: {words}", table))
        title = f"{tokens:,} tokens: examples that are exact, of those that are with full attention"
        found.append((title, _table(own, kept_text, kept_text)))
    return found


def _table(rows: list[Row], cell: Cell, total: Cell) -> Table:
    """Lines are policies at a budget. Tasks that full attention fails are marked."""
    tasks = distinct(rows, "task")
    marks = ["" if solved(where(rows, task=task)) else " (full fails)" for task in tasks]
    head = ["policy", "vectors", *(t + mark for t, mark in zip(tasks, marks, strict=True)), "all"]
    table = Table(head)
    for policy, budget in sorted({(row["policy"], row["budget"]) for row in rows}, key=_by_budget):
        own = where(rows, policy=policy, budget=budget)
        vectors = statistics.fmean(row["vectors"] for row in own)
        cells = [cell(where(own, task=task)) for task in tasks]
        table.rows.append([policy, f"{vectors:,.0f}", *cells, total(own)])
    return table


def _mean(name: str, show: Callable[[float], str], rows: list[Row]) -> str:
    found: Mean | None = mean_of([row[name] for row in rows])
    return "-" if found is None else found.text(show)


def _plain_mean(name: str, show: Callable[[float], str], rows: list[Row]) -> str:
    """Over different tasks, whose spread is no uncertainty."""
    return show(statistics.fmean(row[name] for row in rows))


def _by_budget(policy: tuple[str, int]) -> tuple[bool, int, bool, str]:
    """Full attention first, then budget by budget, ours last."""
    kind, budget = policy
    return kind != Full.family, budget, kind.startswith("keyseek"), kind
