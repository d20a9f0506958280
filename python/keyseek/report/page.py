"""The page: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import html
import json

from .comparison import MEANING, comparison_table, details_table
from .datasets import Dataset
from .figures import FIGURES, draw
from .overview import overview_table
from .tables import Table, number, recall_text

STYLE = """
:root { color-scheme: light dark; --ink: #212529; --paper: #fff; --faint: #667; --rule: #e3e6ea; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dee2e6; --paper: #16181b; --faint: #9aa3ad; --rule: #33383e; }
}
body { margin: 2.5rem auto; padding: 0 1.2rem; max-width: 72rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.2rem; margin: 3rem 0 .5rem; }
p { max-width: 46rem; } .faint, figcaption, summary { color: var(--faint); }
.figures { display: grid; gap: 1.5rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
figure { margin: 0; } svg { width: 100%; height: auto; }
figcaption { font-size: .9rem; margin-bottom: .3rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { font-weight: 600; border-bottom: 2px solid var(--rule); }
td { border-bottom: 1px solid var(--rule); white-space: nowrap; }
th, td { padding: .3rem .8rem; text-align: right; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
"""

INTRODUCTION = """
Every point is one setting of one index, measured over all test queries on one thread; lines join
the settings that no other setting of the same index beats. Up and to the left is better in the
first figure, up and to the right in the second. The recall axis gives each further nine the same
room. Ours answer one step at a time, as decoding asks; other libraries get all queries in one call.
"""


def page(datasets: list[Dataset]) -> str:
    sections = "\n".join(section(dataset) for dataset in datasets)
    foot = f"<p class=faint>{html.escape(versions(datasets))}</p>"
    introduction = f"{INTRODUCTION.strip()} {html.escape(MEANING)}"
    return whole_page("recall, keys scanned, time", introduction, f"{sections}\n{foot}")


def whole_page(title: str, introduction: str, body: str) -> str:
    """A page of ours: its title, a paragraph, and what follows, as HTML."""
    return (
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        "<meta name=viewport content='width=device-width, initial-scale=1'>\n"
        f"<title>keyseek: {title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>keyseek: {title}</h1>\n<p>{introduction.strip()}</p>\n"
        f"{body}\n</body>\n</html>\n"
    )


def section(dataset: Dataset) -> str:
    figures = "\n".join(
        f"<figure><figcaption>{figure.title}</figcaption>{draw(dataset, figure)}</figure>"
        for figure in FIGURES
    )
    return (
        f"<section>\n<h2>{html.escape(dataset.title())}</h2>\n"
        f"<div class=figures>{figures}</div>\n"
        f"{overview_table(dataset).html()}\n"
        f"{comparison_table(dataset).html()}\n{details_table(dataset).html()}\n"
        f"<details><summary>All {len(dataset.rows)} points</summary>"
        f"{all_points(dataset).html()}</details>\n</section>"
    )


def all_points(dataset: Dataset) -> Table:
    table = Table(["index", "setting", "group", "cache", "share", "recall", "scanned %", "us/step"])
    for row in dataset.rows:
        scanned = row.get("scanned_fraction")
        table.rows.append(
            [
                row["index"],
                ", ".join(f"{name} {value}" for name, value in row["params"].items()),
                str(row["group"]),
                row["cache"],
                json.dumps(row["share"]) if "share" in row else "-",
                recall_text(row["recall_at_k"]),
                number(None if scanned is None else 100 * scanned),
                number(row["us_per_step_p50"]),
            ]
        )
    return table


def versions(datasets: list[Dataset]) -> str:
    """What was measured, in which version, and on which instruction set."""
    rows = [row for dataset in datasets for row in dataset.rows]
    named = dict.fromkeys(f"{row['index']} {row.get('version', '')}".strip() for row in rows)
    isas = dict.fromkeys(row["isa"] for row in rows if row.get("isa"))
    return f"Measured: {', '.join(named)}. Instruction set of ours: {', '.join(isas) or 'unknown'}."
