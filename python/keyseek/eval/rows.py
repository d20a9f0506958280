"""The rows of `keyseek.eval run`: what is in them, reading and choosing them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..bench.results import parse_rows
from ..errors import Error, IoError
from .block import Static
from .policies import Policy
from .score import Decoded, agreement, divergence
from .tasks import Example, Task

Row = dict[str, Any]

NEEDED = "model task variant tokens seed policy budget kl exact full_exact gold".split()


@dataclass(frozen=True)
class Cell:
    """One example: all policies decode from its prompt."""

    task: Task
    tokens: int
    seed: int


@dataclass(frozen=True)
class Setting:
    """What all rows of a run share."""

    model: str
    filler: str
    static: Static
    layers: list[int] | None  # None: all of full attention

    def row(self) -> Row:
        return {
            "model": self.model,
            "filler": self.filler,
            "sink": self.static.sink,
            "window": self.static.window,
            "layers": self.layers,
        }


def identity(setting: Setting, cell: Cell, policy: Policy) -> Row:
    """What makes a row the same row."""
    return {
        **setting.row(),
        "task": cell.task.name,
        "variant": cell.task.variant,
        "tokens": cell.tokens,
        "seed": cell.seed,
        "policy": policy.kind,
        "budget": policy.budget,
    }


def scores(example: Example, full: list[Decoded], own: list[Decoded]) -> Row:
    """Means over the questions of an example; errors and mass also by layer and head.

    exact: share of questions whose every gold token is the likeliest one where it stands. gold:
    its mean log probability. full_exact: the same of full attention.
    """
    golds = [torch.tensor(answer) for _, answer in example.questions]
    pairs = list(zip(full, own, strict=True))
    errors = [decoded.meter.means(decoded.meter.errors) for decoded in own]
    masses = [decoded.meter.means(decoded.meter.masses) for decoded in own]
    return {
        "exact": _mean([_exact(d, gold) for d, gold in zip(own, golds, strict=True)]),
        "full_exact": _mean([_exact(d, gold) for d, gold in zip(full, golds, strict=True)]),
        "gold": _mean([_log_probability(d, gold) for d, gold in zip(own, golds, strict=True)]),
        "kl": _mean([divergence(f, o).mean().item() for f, o in pairs]),
        "agreement": _mean([agreement(f, o).float().mean().item() for f, o in pairs]),
        "vectors": _mean([d.meter.vectors / d.meter.steps for d in own]),
        "bytes": _mean([d.meter.bytes / d.meter.steps for d in own]),
        "error": _mean([_mean_of_all(e) for e in errors]),
        "mass": _mean([_mean_of_all(m) for m in masses]) if all(masses) else None,
        "head_errors": _by_head(errors),
        "head_masses": _by_head(masses) if all(masses) else None,
        "questions": len(golds),
        "answer_tokens": sum(map(len, golds)),
    }


def _exact(decoded: Decoded, gold: torch.Tensor) -> float:
    return float((decoded.seen.argmax(-1) == gold).all())


def _log_probability(decoded: Decoded, gold: torch.Tensor) -> float:
    return decoded.seen.gather(1, gold[:, None]).mean().item()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _mean_of_all(by_layer: dict[int, Any]) -> float:
    return torch.tensor(list(by_layer.values())).mean().item()


def _by_head(questions: list[dict[int, Any]]) -> dict[str, list[float]]:
    """By layer, the mean over questions for each query head."""
    return {
        str(layer): [
            round(value, 5)
            for value in torch.tensor([q[layer] for q in questions]).mean(0).flatten().tolist()
        ]
        for layer in questions[0]
    }


def read_rows(paths: Iterable[str]) -> list[Row]:
    """The rows of files that keyseek.eval run wrote."""
    rows: list[Row] = []
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise IoError(f"cannot read {path}: {error.strerror}", "io") from None
        found = parse_rows(text, path)
        for number, row in enumerate(found, 1):
            absent = [name for name in NEEDED if name not in row]
            if absent:
                sentence = f"{path}: row {number} has no '{absent[0]}': no row of keyseek.eval run"
                raise Error(sentence, "corrupt")
        rows += found
    if not rows:
        raise Error("there are no rows to report", "invalid_argument")
    return rows


def distinct(rows: list[Row], name: str) -> list[Any]:
    """Values of a field in order of appearance."""
    return list(dict.fromkeys(row[name] for row in rows))


def where(rows: list[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]
