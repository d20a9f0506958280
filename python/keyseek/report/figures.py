"""Recall against keys scanned and against queries per second, as SVG that follows the page's
colours."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keyseek.errors import Error

from .datasets import OURS, Dataset, Row, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# The colours can be read on light and on dark. Graphs of keys behave alike here and share one.
STYLES = {
    "projection": ("#e8590c", "o"),
    "sketch": ("#f59f00", "h"),
    "flat": ("#1c7ed6", "s"),
    "scann": ("#ae3ec9", "D"),
    "faiss-ivf": ("#2f9e44", "^"),
    "faiss-flat": ("#868e96", "P"),
    "faiss-hnsw": ("#868e96", "v"),
    "hnswlib": ("#868e96", "<"),
    "usearch": ("#868e96", ">"),
}
OTHER = ("#0c8599", "X")

# These stand for the page's own colours, which take their place in the SVG.
INK, RULE = "#010203", "#040506"

RECALL_TICKS = (0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
MOST_RECALL = 0.9999  # a recall of 1 is drawn here


@dataclass(frozen=True)
class Figure:
    name: str
    title: str
    x_label: str
    cost: Callable[[Row], float | None]  # less is better
    shown: Callable[[float], float]  # cost as it is drawn


SCANNED = Figure(
    "scanned",
    "Recall against keys scanned",
    "keys scanned, % (ours: per step; others: per query)",
    lambda row: row.get("scanned_fraction"),
    lambda share: 100 * share,
)
THROUGHPUT = Figure(
    "throughput",
    "Recall against queries per second",
    "queries per second, one thread",
    lambda row: row["us_per_query"],
    lambda us: 1e6 / us,
)
FIGURES = (SCANNED, THROUGHPUT)


def draw(dataset: Dataset, figure: Figure) -> str:
    """The figure as an <svg> element."""

    def fill(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for index in reversed(dataset.indexes()):  # ours on top
            add_series(axes, index, dataset.of(index), figure)
        dress(axes, figure)

    salt = f"{dataset.name} {dataset.k} {figure.title}"
    return draw_svg(f"{figure.title}: {dataset.name}", salt, (6.4, 4.6), fill)


def draw_svg(
    label: str, salt: str, size: tuple[float, float], fill: Callable[[Canvas], None]
) -> str:
    """What `fill` draws, as an <svg> element in the page's colours; size in inches."""
    try:
        import matplotlib
    except ImportError:
        raise Error(
            "matplotlib is not installed, which draws the figures (pip install 'keyseek[report]')",
            "unsupported",
        ) from None
    # The figure is made without pyplot, so that nothing global changes.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 10,
        **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
        **{f"axes.{part}": INK for part in ("labelcolor", "edgecolor")},
    }
    with matplotlib.rc_context(settings):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasSVG(canvas)
        fill(canvas)
        out = io.StringIO()
        canvas.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return as_element(out.getvalue(), label)


def add_series(axes: Axes, index: str, rows: list[Row], figure: Figure) -> None:
    points = [{**row, "cost": figure.cost(row)} for row in rows]
    points = [point for point in points if point["cost"]]
    if not points:
        return
    color, marker = STYLES.get(index, OTHER)
    ours = index in OURS
    best = front(points, "cost")

    def xy(some: list[Row]) -> tuple[list[float], list[float]]:
        return (
            [figure.shown(point["cost"]) for point in some],
            [min(point["recall_at_k"], MOST_RECALL) for point in some],
        )

    axes.plot(*xy(points), marker, color=color, markersize=2.5, alpha=0.35, markeredgewidth=0)
    axes.plot(
        *xy(best),
        marker=marker,
        color=color,
        linewidth=2.4 if ours else 1.2,
        markersize=5 if ours else 3.5,
        label=index,
        zorder=3 if ours else 2,
    )


def dress(axes: Axes, figure: Figure) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_yscale("function", functions=(spread_recall, gather_recall))
    low, _ = axes.get_ylim()
    low = max(0.0, min(low, 0.9))
    axes.set_ylim(low, 0.99995)
    ticks = [tick for tick in RECALL_TICKS if tick >= low]
    labels = [f"{tick:g}".lstrip("0") if tick < MOST_RECALL else "1" for tick in ticks]
    axes.set_yticks(ticks, labels)
    axes.minorticks_off()
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel("recall@k")
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=9, labelcolor=INK)


def spread_recall(recall: ArrayLike) -> NDArray[np.float64]:
    """Gives each further nine as much room as the one before."""
    missed: NDArray[np.float64] = 1 - np.clip(np.asarray(recall, float), 0, 0.99999)
    return -np.log10(missed)


def gather_recall(spread: ArrayLike) -> NDArray[np.float64]:
    return 1 - 10.0 ** -np.asarray(spread, float)


def as_element(svg: str, label: str) -> str:
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1 LABEL>", svg)
    svg = svg.replace("LABEL", f'role="img" aria-label="{html.escape(label)}"', 1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    return svg.replace(INK, "currentColor").replace(RULE, "var(--rule)")


def standalone(element: str) -> str:
    """A figure as a file of its own, which follows the reader's light or dark theme."""
    style = (
        "<style>svg { color: #212529; --rule: #e3e6ea; } @media (prefers-color-scheme: dark) "
        "{ svg { color: #dee2e6; --rule: #33383e; } }</style>"
    )
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return element.replace("<svg ", f"<svg {names} ", 1).replace(">", f">{style}", 1) + "\n"
