"""What the layers of a RetrievalCache do, and why those that do not retrieve do not."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._core import HeadPlan


class RetrievalWarning(UserWarning):
    """Layers attend to everything that were expected to retrieve."""


@dataclass(frozen=True)
class HeadReport:
    """A KV head of a request, once it is planned."""

    request: int
    head: int
    plan: HeadPlan
    indexed: int  # tokens
    full_bytes: int  # of their keys and values as they are stored


@dataclass(frozen=True)
class LayerReport:
    """A layer: `heads` once it retrieves, `reason` while, or because, it does not."""

    layer: int
    reason: str = ""
    note: str = ""  # what a user of a layer that retrieves may want to know
    heads: tuple[HeadReport, ...] = ()

    @property
    def retrieves(self) -> bool:
        return bool(self.heads)


@dataclass(frozen=True)
class CacheReport:
    """All layers; as text, sentences and then the plan of every head."""

    layers: tuple[LayerReport, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join([*sentences(self.layers), *plan_lines(self.layers)])


def sentences(layers: tuple[LayerReport, ...]) -> list[str]:
    """One for the layers that retrieve, and one for each reason why others do not."""
    retrieving = [report.layer for report in layers if report.retrieves]
    lines = [f"{named(retrieving)} retrieve{'s' * (len(retrieving) == 1)}."] if retrieving else []
    for text in dict.fromkeys(report.note for report in layers if report.note):
        lines.append(f"{named([r.layer for r in layers if r.note == text])}: {text}.")
    for reason in dict.fromkeys(report.reason for report in layers if report.reason):
        those = [report.layer for report in layers if report.reason == reason]
        verb = "attends" if len(those) == 1 else "attend"
        lines.append(f"{named(those)} {verb} in full: {reason}.")
    return lines


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


def named(layers: list[int]) -> str:
    """ "Layer 3", "Layers 0-4, 6"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"Layer{'s' * (len(layers) != 1)} {', '.join(texts)}"
