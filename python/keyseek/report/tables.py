"""Tables as text, as Markdown and as HTML."""

from __future__ import annotations

import html
from dataclasses import dataclass, field


@dataclass
class Table:
    """Cells are text; the first column is aligned left, the others right."""

    head: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def text(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        rule = ["-" * width for width in widths]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in (self.head, rule, *self.rows)
        )

    def markdown(self) -> str:
        rule = ["---"] * len(self.head)
        return "\n".join(f"| {' | '.join(line)} |" for line in (self.head, rule, *self.rows))

    def html(self) -> str:
        head = "".join(f"<th scope=col>{html.escape(cell)}</th>" for cell in self.head)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
            for row in self.rows
        )
        return (
            f"<div class=scroll><table><thead><tr>{head}</tr></thead>\n"
            f"<tbody>{body}</tbody></table></div>"
        )


def number(value: float | None) -> str:
    """About three digits."""
    if value is None:
        return "-"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}x"


def recall_text(value: float) -> str:
    """.9512, never rounded up to 1."""
    return "1" if value == 1 else f"{min(value, 0.9999):.4f}".lstrip("0")


def at(recall: float) -> str:
    """A recall that is wanted: .95."""
    return f"{recall:g}".lstrip("0")
