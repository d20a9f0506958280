"""A grid of examples and policies, as rows of a file that a stopped run goes on with.

For every task, length and seed the prompt is read once; every policy at every budget then decodes
the gold answers. Rows that are there are skipped.

python -m keyseek.eval run --model smollm2-135m --lengths 2048 --tasks needle,copy --out E.jsonl
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch

from .. import __version__
from ..bench.results import ResultFile
from ..errors import InvalidArgument
from ..models import MODELS, load_model, load_tokenizer, source_of
from ..texts import NAMED, load_text
from .block import Static
from .policies import BUDGETED, OWN_BUDGET, PLANNED, Full, Policy, policies_of
from .prompt import Prompt, read_prompt
from .rows import Cell, Setting, identity, scores
from .score import Decoded, PreparedPolicy
from .tasks import TASKS, Example, Writer

DEFAULT_FILLER = "pydoc-topics"
FIRST_SEED = 11


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


def numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not numbers with commas") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = ["full", *BUDGETED, *OWN_BUDGET, *PLANNED]
    parser.add_argument("--model", required=True, help=MODELS)
    parser.add_argument("--out", required=True, metavar="FILE", help="rows are appended")
    parser.add_argument("--lengths", type=numbers, default=[2048], help="tokens (default 2048)")
    parser.add_argument(
        "--budgets",
        type=numbers,
        default=[32, 100, 512],
        help="vectors per query beyond the static tokens (default 32,100,512)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="examples of a cell (default 3)")
    parser.add_argument(
        "--first-seed",
        type=int,
        default=FIRST_SEED,
        help=f"of the examples (default {FIRST_SEED}; those before it are for development)",
    )
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
    if given.first_seed < 0:
        raise InvalidArgument(f"--first-seed is {given.first_seed}, must be at least 0")
    return [
        Cell(form, tokens, seed)
        for tokens in sorted(given.lengths)
        for seed in range(given.first_seed, given.first_seed + given.seeds)
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
