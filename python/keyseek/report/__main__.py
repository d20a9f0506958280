"""Draws a page of figures and tables from rows of keyseek.bench or `keyseek sweep`.

python -m keyseek.report R.jsonl -o report.html --table
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path

import keyseek

from .comparison import MEANING, comparison_table, details_table
from .datasets import Dataset, group_rows, read_rows
from .figures import FIGURES, draw, standalone
from .files import write_whole
from .overview import overview_table
from .page import page


def parser() -> argparse.ArgumentParser:
    summary, example = __doc__.strip().split("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m keyseek.report", description=summary, epilog=f"Example: {example}"
    )
    p.add_argument("rows", nargs="+", metavar="R.jsonl", help="files of rows")
    p.add_argument("-o", "--out", metavar="FILE", help="the page (HTML) to write")
    p.add_argument("--figures", metavar="FOLDER", help="write each figure as an SVG file")
    p.add_argument("--table", action="store_true", help="print the tables")
    return p


def write_figures(folder: str, datasets: list[Dataset]) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise keyseek.IoError(f"cannot make {folder}: {error.strerror}", "io") from None
    for dataset in datasets:
        name = re.sub(r"[^\w.-]+", "-", dataset.name)
        for figure in FIGURES:
            svg = standalone(draw(dataset, figure))
            write_whole(str(Path(folder) / f"{name}-{figure.name}.svg"), svg)


def tables(datasets: list[Dataset]) -> str:
    parts = [textwrap.fill(MEANING, 100)]
    for dataset in datasets:
        compared, details = comparison_table(dataset), details_table(dataset)
        shown = [overview_table(dataset), *(t for t in (compared, details) if t.rows)]
        parts += [dataset.title(), *(table.text() for table in shown)]
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not (options.out or options.figures or options.table):
        parser().error("nothing to do: give -o FILE, --figures FOLDER or --table")
    try:
        datasets = group_rows(read_rows(options.rows))
        if options.out:
            write_whole(options.out, page(datasets))
        if options.figures:
            write_figures(options.figures, datasets)
        if options.table:
            print(tables(datasets))
    except keyseek.Error as error:
        print(f"keyseek.report: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
