"""How keyseek's indexes compare with a scan and with other libraries at equal recall."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .datasets import OURS, Dataset, Row, fastest, step_time
from .tables import Table, at, number, percent, ratio, recall_text

RECALLS = (0.95, 0.99)
MEANING = (
    "Tables that compare say how many times as many queries per second keyseek's indexes answer as "
    "the index in the first column, each at its fastest setting that reaches the recall (never: "
    "ours does not reach it; only ours: the other does not)."
)


def comparison_table(dataset: Dataset) -> Table:
    """A line for each other index and recall, a column for each of ours that was measured."""
    others = others_of(dataset)
    ours = [name for name in OURS if dataset.of(name)]
    table = Table(["compared with", "recall", *ours])
    for other, (rows, cache) in others.items():
        for recall in RECALLS:
            ratios = [times(dataset.of(name, cache), rows, recall) for name in ours]
            table.rows.append([other, at(recall), *ratios])
    return table


def others_of(dataset: Dataset) -> dict[str, tuple[list[Row], str]]:
    """Rows of what ours are compared with, and whether caches were hot or cold, by name.

    faiss's scan counts twice: decoding can only ask it for a few queries at a time.
    """
    found = {
        f"flat, {cache} caches": (dataset.of("flat", cache), cache) for cache in ("hot", "cold")
    }
    for name in dataset.indexes():
        rows = dataset.of(name)
        if name == "faiss-flat":
            for calls, words in ((1, "one query per call"), ("all", "all in one call")):
                own = [row for row in rows if row["params"].get("queries_per_call") == calls]
                found[f"{name}, {words}"] = (own, "hot")
        elif name not in OURS:
            found[name] = (rows, "hot")
    return {name: (rows, cache) for name, (rows, cache) in found.items() if rows}


def times(ours: list[Row], theirs: list[Row], recall: float) -> str:
    if not ours:
        return "-"
    own, other = fastest(ours, recall), fastest(theirs, recall)
    if own is None:
        return "never"
    return "only ours" if other is None else ratio(other["us_per_query"] / own["us_per_query"])


def details_table(dataset: Dataset) -> Table:
    """What the other tables leave out of the projection index."""
    return Table(["projection", "recall", "measured"], list(details(dataset)))


def details(dataset: Dataset) -> Iterator[list[str]]:
    rows = [row for row in dataset.rows if row["index"] == "projection"]
    if not rows:
        return
    cold, single = dataset.of("projection", "cold"), dataset.single()
    for recall in RECALLS:
        if cold:
            time = value_at(cold, recall, step_time, number)
            yield ["us per step, cold caches", at(recall), time]
        if single:
            share = value_at(single, recall, lambda row: row["scanned_fraction"], percent)
            yield ["keys scanned per single query", at(recall), share]
    best = max(row["recall_at_k"] for row in rows)
    yield ["best recall, of any share of the queries", "", recall_text(best)]
    yield ["keys unreachable", "", number(max(row.get("unreachable") or 0 for row in rows))]
    seconds = min(row["build_s"] * row.get("build_threads", 1) for row in rows)
    yield ["build, CPU seconds", "", number(seconds)]
    extra = next((row["extra_bytes"] for row in rows if row.get("extra_bytes")), None)
    if extra is not None and dataset.keys:
        yield ["bytes per key beyond the keys", "", number(extra / dataset.keys)]


def value_at(
    rows: list[Row], recall: float, value: Callable[[Row], float], show: Callable[[float], str]
) -> str:
    """Shows a value of the fastest row that reaches the recall."""
    row = fastest(rows, recall)
    return "never" if row is None else show(value(row))
