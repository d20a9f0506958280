"""The indexes side by side."""

from __future__ import annotations

from .comparison import RECALLS
from .datasets import Dataset, Row, fastest
from .tables import Table, at, number, percent, recall_text


def overview_table(dataset: Dataset) -> Table:
    """Per index, at its fastest point for each recall: keys scanned and queries per second."""
    recalls = [at(recall) for recall in RECALLS]
    head = ["index", *(f"scanned at {r}" for r in recalls), *(f"queries/s at {r}" for r in recalls)]
    head += ["best recall", "build s", "index MB"]
    return Table(head, [line(dataset, index) for index in dataset.indexes() if dataset.of(index)])


def line(dataset: Dataset, index: str) -> list[str]:
    rows = dataset.of(index)
    points = [fastest(rows, recall) for recall in RECALLS]
    typical = points[0] or max(rows, key=lambda row: row["recall_at_k"])
    return [
        index,
        *map(scanned, points),
        *map(throughput, points),
        recall_text(max(row["recall_at_k"] for row in rows)),
        number(typical.get("build_s")),
        number(typical["index_bytes"] / 1e6 if typical.get("index_bytes") else None),
    ]


def scanned(row: Row | None) -> str:
    return "never" if row is None else percent(row.get("scanned_fraction"))


def throughput(row: Row | None) -> str:
    return "never" if row is None else number(1e6 / row["us_per_query"])
