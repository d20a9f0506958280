"""Figures of a grid: KL against vectors read, needles by depth and length, error by head."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..report.figures import RULE, draw_svg
from .policies import Full
from .rows import Row, distinct, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure as Canvas

OURS = "#e8590c"
ORACLE = "#868e96"
OTHERS = ("#1c7ed6", "#2f9e44", "#ae3ec9", "#0c8599", "#f08c00", "#c2255c", "#5c7cfa", "#74b816")
MARKERS = "osD^v<>PX*hd"
COLUMNS = 5  # panels in a row


def kl_figure(rows: list[Row], title: str) -> str:
    """Mean KL of each policy against the vectors it attends, one line per policy."""

    def fill(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        others = 0
        for i, policy in enumerate(p for p in distinct(rows, "policy") if p != Full.family):
            points = _points(where(rows, policy=policy))
            if policy.startswith("keyseek"):
                color = OURS
            elif policy.startswith("oracle"):
                color = ORACLE
            else:
                color, others = OTHERS[others % len(OTHERS)], others + 1
            axes.plot(
                *zip(*points, strict=True),
                marker=MARKERS[i % len(MARKERS)],
                color=color,
                linewidth=2 if color == OURS else 1.2,
                markersize=5,
                label=policy,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:,g}")
        axes.tick_params(axis="x", which="minor", labelsize=7)
        axes.set_yscale("log")
        axes.set_xlabel("vectors attended per query beyond sink and window")
        axes.set_ylabel("KL to full attention, nats")
        axes.grid(color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))

    return draw_svg(f"KL against vectors read: {title}", f"kl {title}", (9.0, 4.8), fill)


def _points(rows: list[Row]) -> list[tuple[float, float]]:
    """(vectors, KL) at each budget, few vectors first. Log scales have no 0."""
    means = []
    for budget in distinct(rows, "budget"):
        own = where(rows, budget=budget)
        means.append(
            (
                max(1.0, statistics.fmean(row["vectors"] for row in own)),
                max(1e-7, statistics.fmean(row["kl"] for row in own)),
            )
        )
    return sorted(means)


def needle_figure(rows: list[Row], title: str) -> str:
    """A panel per policy and budget: share of needles found, by depth and length."""
    lengths = sorted(distinct(rows, "tokens"))
    depths = sorted(distinct(rows, "variant"))
    panels = _panels(rows)

    def fill(canvas: Canvas) -> None:
        for axes, own in _drawn_panels(canvas, rows, panels):
            found = [
                [_share(where(own, tokens=tokens, variant=depth)) for tokens in lengths]
                for depth in depths
            ]
            _heat(axes, found, "RdYlGn", 1.0)
            axes.set_xticks(range(len(lengths)), [f"{tokens:,}" for tokens in lengths], fontsize=7)
            axes.set_yticks(range(len(depths)), depths, fontsize=7)

    size = (1.9 * COLUMNS, 0.6 + _lines(panels) * (0.5 + 0.22 * len(depths)))
    return draw_svg(f"Needles found: {title}", f"needles {title}", size, fill)


def head_figure(rows: list[Row], title: str) -> str:
    """A panel per policy and budget: mean relative output error by layer and query head."""
    rows = [row for row in rows if row["policy"] != Full.family]
    panels = _panels(rows)

    def fill(canvas: Canvas) -> None:
        drawn = None
        for axes, own in _drawn_panels(canvas, rows, panels):
            layers = sorted(map(int, own[0]["head_errors"]))
            errors = [_mean_heads([row["head_errors"][str(i)] for row in own]) for i in layers]
            drawn = _heat(axes, errors, "magma_r", 0.5)
            step = max(1, len(layers) // 6)
            axes.set_yticks(range(0, len(layers), step), list(map(str, layers[::step])), fontsize=7)
            axes.tick_params(axis="x", labelsize=7)
        if drawn is not None:
            canvas.colorbar(drawn, ax=canvas.axes, shrink=0.6, label="error (0.5 and above)")

    size = (1.9 * COLUMNS, 0.6 + 1.9 * _lines(panels))
    return draw_svg(f"Error by layer and head: {title}", f"heads {title}", size, fill)


def _panels(rows: list[Row]) -> list[tuple[str, int]]:
    """Policies and budgets, one panel each."""
    return sorted({(row["policy"], row["budget"]) for row in rows}, key=_ours_last)


def _lines(panels: list[tuple[str, int]]) -> int:
    return -(-len(panels) // COLUMNS)


def _drawn_panels(
    canvas: Canvas, rows: list[Row], panels: list[tuple[str, int]]
) -> Iterator[tuple[Axes, list[Row]]]:
    """Axes with a title for each panel, and its rows."""
    grid = canvas.subplots(_lines(panels), COLUMNS, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (policy, budget) in zip(grid.flat, panels, strict=False):
        axes.set_title(policy + (f" {budget}" if budget else ""), fontsize=7)
        yield axes, where(rows, policy=policy, budget=budget)


def _heat(axes: Axes, values: list[list[float]], colors: str, most: float) -> QuadMesh:
    """Cells centred on whole numbers, the first line on top."""
    columns, lines = range(len(values[0]) + 1), range(len(values) + 1)
    edges = [i - 0.5 for i in columns], [i - 0.5 for i in lines]
    drawn = axes.pcolormesh(*edges, values, cmap=colors, vmin=0, vmax=most)
    axes.set_ylim(len(values) - 0.5, -0.5)
    return drawn


def _share(rows: list[Row]) -> float:
    """NaN, which is not drawn, where nothing was measured."""
    return statistics.fmean(row["exact"] for row in rows) if rows else float("nan")


def _mean_heads(lists: list[list[float]]) -> list[float]:
    return [statistics.fmean(column) for column in zip(*lists, strict=True)]


def _ours_last(panel: tuple[str, int]) -> tuple[bool, bool, str, int]:
    policy, budget = panel
    return policy != Full.family, policy.startswith("keyseek"), policy, budget
