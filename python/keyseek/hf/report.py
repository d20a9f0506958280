"""What the layers of a RetrievalCache do, and why those that do not retrieve do not."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

from .._core import HeadPlan, StepStats
from ..report.page import whole_page
from ..report.tables import Table

_INTRODUCTION = """
A row for every KV head: what its plan says, and what its last step did. Bytes are those of the
indexed tokens; full attention would read full_bytes in a step. Errors are means of |out - full| /
|full| on queries of the prompt that the plan was not made with. Retrieved keys are per query head.
"""


class RetrievalWarning(UserWarning):
    """Layers attend to everything that were expected to retrieve."""


@dataclass(frozen=True)
class HeadReport:
    """A KV head of a request, once it is planned."""

    request: int
    head: int
    plan: HeadPlan
    tokens: int
    indexed: int  # of the tokens
    full_bytes: int  # of the indexed ones' keys and values as they are stored
    nbytes: int  # of memory, for all tokens and the index
    last: StepStats  # of the last step; of zeros before the first
    group: int  # query heads
    refreshing: bool  # whether another plan is being made beside the steps

    def row(self, layer: int) -> dict[str, Any]:
        """All of it by name, plain values; what is found of a key is per query head."""
        plan, last = self.plan, self.last
        return {
            "layer": layer,
            "request": self.request,
            "head": self.head,
            "tokens": self.tokens,
            "refreshing": self.refreshing,
            "indexed": self.indexed,
            "retriever": plan.retriever,
            "rule": plan.rule,
            "k": plan.k,
            "target_recall": plan.target_recall,
            "tail_vectors": plan.tail_vectors,
            "expected_error": plan.expected_error,
            "planted_error": plan.planted_error,
            "expected_bytes": plan.bytes_per_step,
            "full_bytes": self.full_bytes,
            "memory_bytes": self.nbytes,
            "last_exact": last.exact,
            "last_scanned": last.scanned,
            "last_retrieved": last.retrieved / self.group,
            "last_bytes": last.bytes_read,
            "last_us": last.total_us,
        }


@dataclass(frozen=True)
class LayerReport:
    """A layer: `heads` once it retrieves, `reason` while, or because, it does not."""

    layer: int
    reason: str = ""
    note: str = ""  # what a user of a layer that retrieves may want to know
    waiting: str = ""  # which requests of a layer that retrieves attend in full, and why
    heads: tuple[HeadReport, ...] = ()

    @property
    def retrieves(self) -> bool:
        return bool(self.heads)


@dataclass(frozen=True)
class CacheReport:
    """All layers; as text, sentences, then the plan of every head, then the sum of them."""

    layers: tuple[LayerReport, ...] = field(default=())

    def __str__(self) -> str:
        plans = plan_lines(self.layers)
        return "\n".join([*sentences(self.layers), *plans, *summary(self.rows())])

    def rows(self) -> list[dict[str, Any]]:
        """A dict for every head that is planned, as pandas.DataFrame and csv.DictWriter take."""
        return [head.row(report.layer) for report in self.layers for head in report.heads]

    def html(self) -> str:
        """All of it as a page that loads nothing from elsewhere."""
        rows = self.rows()
        words = [*sentences(self.layers), *summary(rows)]
        body = "\n".join(f"<p>{html.escape(line)}</p>" for line in words)
        if rows:
            table = Table(list(rows[0]), [[_cell(v) for v in row.values()] for row in rows])
            body += f"\n{table.html()}"
        return whole_page("what each layer of a model does", _INTRODUCTION, body)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        frame = html.escape(self.html(), quote=True)
        return f'<iframe srcdoc="{frame}" width="100%" height="480" frameborder="0"></iframe>'


def sentences(layers: tuple[LayerReport, ...]) -> list[str]:
    """One for the layers that retrieve, and one for each reason why others do not."""
    retrieving = [report.layer for report in layers if report.retrieves]
    lines = [f"{named(retrieving)} retrieve{'s' * (len(retrieving) == 1)}."] if retrieving else []
    for text in dict.fromkeys(report.note for report in layers if report.note):
        lines.append(f"{named([r.layer for r in layers if r.note == text])}: {text}.")
    for text in dict.fromkeys(report.waiting for report in layers if report.waiting):
        waiting = [report.layer for report in layers if report.waiting == text]
        lines.append(f"{named(waiting)}: {text}.")
    for reason in dict.fromkeys(report.reason for report in layers if report.reason):
        those = [report.layer for report in layers if report.reason == reason]
        verb = "attends" if len(those) == 1 else "attend"
        lines.append(f"{named(those)} {verb} in full: {reason}.")
    return lines


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """A sentence on all heads that are planned, if there are any."""
    if not rows:
        return []

    def total(name: str) -> float:
        return float(sum(row[name] for row in rows))

    heads, full = len(rows), total("full_bytes")
    text = (
        f"{heads} head{'s' * (heads != 1)} in {total('memory_bytes') / 1e6:.1f} MB, expected mean "
        f"error {total('expected_error') / heads:.2g}; a step is expected to read "
        f"{total('expected_bytes') / 1e3:.1f} KB of what is indexed"
    )
    if full > 0:
        text += f", {100 * total('expected_bytes') / full:.0f} % of full attention's"
    if total("last_exact") > 0:
        text += (
            f"; the last one looked at {total('last_scanned') / heads:.0f} keys a head and "
            f"attended {total('last_retrieved') / heads:.0f} of them a query"
        )
    return [f"{text}."]


def _cell(value: Any) -> str:
    if isinstance(value, (bool, str)):
        return str(value)
    return f"{value:.3g}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"


def plan_lines(layers: tuple[LayerReport, ...]) -> list[str]:
    """A table with a row for every head; empty until there is one."""
    lines = [
        f"{report.layer:5} {head.request:7} {head.head:4}  {head.plan.retriever:10} "
        f"{head.plan.k:4} {head.plan.target_recall:7.3f} {head.plan.tail_vectors:5} "
        f"{head.plan.expected_error:9.2g} {head.plan.bytes_per_step / 1000:9.1f} "
        f"{head.full_bytes / 1000:9.1f}"
        for report in layers
        for head in report.heads
    ]
    if lines:
        title = "layer request head  retriever     k  recall  tail  expected  KB/step   full KB"
        lines.insert(0, title)
    return lines


def named(numbers: list[int], what: str = "Layer") -> str:
    """ "Layer 3", "Layers 0-4, 6"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"{what}{'s' * (len(numbers) != 1)} {', '.join(texts)}"
