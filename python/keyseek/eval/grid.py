"""A grid of examples and policies, as rows of a file that a stopped run goes on with.

For every task, length and seed the prompt is read once; every policy at every budget then decodes
the gold answers. Rows that are there are skipped.

python -m keyseek.eval run --model smollm2-135m --lengths 2048 --tasks needle,copy --out E.jsonl
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch

from .. import __version__
from ..bench.results import ResultFile, Row
from ..errors import InvalidArgument
from ..models import SOURCES, load_model, load_tokenizer, source_of
from ..texts import NAMED, load_text
from .block import Static
from .policies import BUDGETED, PLANNED, Full, Policy, policies_of
from .prompt import Prompt, read_prompt
from .score import Decoded, PreparedPolicy, agreement, divergence
from .tasks import TASKS, Example, Task, Writer

DEFAULT_FILLER = "pydoc-topics"
FIRST_SEED = 11  # those before it are for development


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


def missing(
    setting: Setting, cells: list[Cell], policies: list[Policy], results: ResultFile
) -> list[tuple[Cell, list[Policy]]]:
    """The cells that still have policies to run, with these."""
    left = [
        (cell, [p for p in policies if not results.has(identity(setting, cell, p))])
        for cell in cells
    ]
    return [(cell, those) for cell, those in left if those]


class Runner:
    """Fills in the rows of cells."""

    def __init__(self, network: Any, writer: Writer, setting: Setting, results: ResultFile) -> None:
        self._network = network
        self._writer = writer
        self._setting = setting
        self._results = results

    def run(self, cell: Cell, policies: list[Policy]) -> None:
        example = cell.task.make(self._writer, cell.tokens, cell.seed)
        prompt = read_prompt(self._network, example.prompt)
        full = self._decode(Full(), prompt, example)
        for policy in policies:
            begin = time.monotonic()
            own = full if isinstance(policy, Full) else self._decode(policy, prompt, example)
            row = {
                **identity(self._setting, cell, policy),
                **scores(example, full, own),
                "prompt_tokens": prompt.tokens,
                "seconds": round(time.monotonic() - begin, 2),
                "version": __version__,
            }
            self._results.append(row)

    def _decode(self, policy: Policy, prompt: Prompt, example: Example) -> list[Decoded]:
        setting = self._setting
        prepared = PreparedPolicy(policy, prompt, setting.static, setting.layers)
        return [prepared.decode(self._network, *pair) for pair in example.questions]


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
    """By layer, a value per query head: the mean over questions."""
    return {
        str(layer): [
            round(value, 5)
            for value in torch.tensor([q[layer] for q in questions]).mean(0).flatten().tolist()
        ]
        for layer in questions[0]
    }


def numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not numbers with commas") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = ["full", *BUDGETED, *PLANNED]
    parser.add_argument("--model", required=True, help=" or ".join(SOURCES))
    parser.add_argument("--out", required=True, metavar="FILE", help="rows are appended")
    parser.add_argument("--lengths", type=numbers, default=[2048], help="tokens (default 2048)")
    parser.add_argument(
        "--budgets",
        type=numbers,
        default=[32, 100, 512],
        help="vectors per query beyond the static tokens (default 32,100,512)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="examples of a cell (default 3)")
    parser.add_argument("--tasks", default=",".join(TASKS), help="default: all")
    parser.add_argument("--policies", default=",".join(kinds), help="default: all")
    parser.add_argument("--layers", type=numbers, help="where policies decide (default: all)")
    parser.add_argument(
        "--filler",
        default=DEFAULT_FILLER,
        help=f"{', '.join(NAMED)}, or a file (default {DEFAULT_FILLER})",
    )
    parser.add_argument("--sink", type=int, default=Static.sink, help="tokens (default 32)")
    parser.add_argument("--window", type=int, default=Static.window, help="tokens (default 128)")
    parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")


def cells_of(given: argparse.Namespace) -> list[Cell]:
    """Shortest prompts first, and one seed of everything before the next."""
    for task in given.tasks.split(","):
        if task not in TASKS:
            raise InvalidArgument(f"--tasks has '{task}', which is not one of {', '.join(TASKS)}")
    context = source_of(given.model).context
    for tokens in given.lengths:
        if tokens > context:
            raise InvalidArgument(
                f"--lengths has {tokens}, more than the context of {given.model}, {context}"
            )
    if given.seeds < 1:
        raise InvalidArgument(f"--seeds is {given.seeds}, must be at least 1")
    return [
        Cell(form, tokens, seed)
        for tokens in sorted(given.lengths)
        for seed in range(FIRST_SEED, FIRST_SEED + given.seeds)
        for task in given.tasks.split(",")
        for form in TASKS[task]
    ]


def chosen_policies(given: argparse.Namespace) -> list[Policy]:
    kinds = [kind for kind in given.policies.split(",") if kind != Full.family]
    for budget in given.budgets:
        if budget < 2:
            raise InvalidArgument(f"--budgets has {budget}, must be at least 2")
    return [Full(), *policies_of(kinds, given.budgets)]


def run(given: argparse.Namespace) -> None:
    cells, policies = cells_of(given), chosen_policies(given)
    setting = Setting(given.model, given.filler, Static(given.sink, given.window), given.layers)
    filler = load_text(given.filler).content
    writer = Writer(load_tokenizer(given.model), filler)
    if given.threads > 0:
        torch.set_num_threads(given.threads)
    with ResultFile(given.out) as results:
        left = missing(setting, cells, policies, results)
        _say(f"{len(cells)} prompts x {len(policies)} policies, {len(left)} prompts to run")
        if not left:
            return
        runner = Runner(load_model(given.model).network, writer, setting, results)
        _run_all(runner, left)


def _run_all(runner: Runner, left: list[tuple[Cell, list[Policy]]]) -> None:
    begin = time.monotonic()
    weights = [cell.tokens * (1 + len(policies)) for cell, policies in left]
    for i, (cell, policies) in enumerate(left, 1):
        runner.run(cell, policies)
        seconds = time.monotonic() - begin
        rest = seconds / sum(weights[:i]) * sum(weights[i:])
        variant = f" {cell.task.variant}" if cell.task.variant else ""
        _say(
            f"{i}/{len(left)}: {cell.task.name}{variant}, {cell.tokens:,} tokens, seed "
            f"{cell.seed}; {seconds / 60:.1f} min gone, about {rest / 60:.1f} left"
        )


def _say(line: str) -> None:
    print(f"keyseek.eval: {line}", file=sys.stderr, flush=True)
