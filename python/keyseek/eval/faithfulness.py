"""How near a policy's predictions are to full attention's on the tail of a long document."""

from __future__ import annotations

import argparse
import sys
import time

import torch

from ..errors import InvalidArgument
from ..models import MODELS, encode_first, load_model
from ..report.tables import Table
from ..texts import NAMED, load_text
from .block import Static
from .policies import PLANNED, Full, Keyseek, OracleTopK, Policy, policies_of
from .prompt import Prompt, read_prompt
from .run import numbers
from .score import Decoded, PreparedPolicy, agreement, divergence

BASELINE = "oracle-100"

POLICIES: tuple[Policy, ...] = (
    OracleTopK(100),
    OracleTopK(500),
    Keyseek(100),
    Keyseek(164),
    Keyseek(100, "projection"),
    Keyseek(164, "projection"),
    *PLANNED.values(),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smollm2-135m", help=MODELS)
    parser.add_argument("--text", default="python3-doc", help=f"{', '.join(NAMED)}, or a file")
    parser.add_argument("--tokens", type=int, default=8192, help="prompt and tail (8192)")
    parser.add_argument("--steps", type=int, default=256, help="of them, decoded tail (256)")
    parser.add_argument(
        "--policies",
        help="kinds, as in keyseek.eval run (default: oracle at 100 "
        "and 500, keyseek at 100 and 164 and planned)",
    )
    parser.add_argument("--budgets", type=numbers, help="of --policies (100)")
    parser.add_argument("--sink", type=int, default=Static.sink, help="tokens (32)")
    parser.add_argument("--window", type=int, default=Static.window, help="tokens (128)")
    parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")


def _policies(given: argparse.Namespace) -> tuple[Policy, ...]:
    if given.policies:
        kinds = given.policies.split(",")
        return (OracleTopK(100), *policies_of(kinds, given.budgets or [100]))
    if given.budgets is not None:
        raise InvalidArgument(
            f"--budgets is {given.budgets}, but no --policies are given, which alone have budgets"
        )
    return POLICIES


def run(given: argparse.Namespace) -> None:
    if not 1 <= given.steps <= given.tokens // 2:
        raise InvalidArgument(f"--steps is {given.steps}, must be in [1, {given.tokens // 2}]")
    if given.threads > 0:
        torch.set_num_threads(given.threads)
    static = Static(given.sink, given.window)
    policies = _policies(given)
    ids = encode_first(given.model, load_text(given.text).content, given.tokens)
    model = load_model(given.model)
    cut = given.tokens - given.steps
    prompt = read_prompt(model.network, ids[: cut - 1], _say_read)
    tail = (ids[cut - 1 : cut], ids[cut:])
    full = _decode(Full(), prompt, static, model.network, tail)
    loss = -full.seen.gather(1, torch.tensor(tail[1])[:, None]).mean().item()
    print(
        f"{model.title}, {given.text}, {given.tokens:,} tokens, the last {given.steps} decoded; "
        f"static {given.sink} + {given.window}; full attention's next-token loss {loss:.3f}"
    )
    scores = []
    for policy in policies:
        begin = time.monotonic()
        decoded = _decode(policy, prompt, static, model.network, tail)
        scores.append((policy.name, full, decoded))
        print(f"{policy.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    print(table(scores).text())


def _decode(
    policy: Policy,
    prompt: Prompt,
    static: Static,
    network: object,
    tail: tuple[list[int], list[int]],
) -> Decoded:
    return PreparedPolicy(policy, prompt, static).decode(network, *tail)


def table(scores: list[tuple[str, Decoded, Decoded]]) -> Table:
    """A line per policy: name, full attention's predictions, its own."""
    kl = {name: divergence(full, own).mean().item() for name, full, own in scores}
    head = [
        "policy",
        "vectors/query",
        "KB/step",
        "KL to full",
        f"of {BASELINE}'s",
        "top-1 agreement",
        "output error",
        "mass",
    ]
    lines = []
    for name, full, own in scores:
        meter = own.meter
        errors = [torch.tensor(e).mean().item() for e in meter.means(meter.errors).values()]
        masses = [torch.tensor(m).mean().item() for m in meter.means(meter.masses).values()]
        lines.append(
            [
                name,
                f"{meter.vectors / meter.steps:.1f}",
                f"{meter.bytes / meter.steps / 1000:.1f}",
                f"{kl[name]:.5f}",
                f"{kl[name] / kl[BASELINE]:.3f}" if BASELINE in kl else "-",
                f"{agreement(full, own).float().mean().item():.3f}",
                f"{sum(errors) / len(errors):.4f}",
                f"{sum(masses) / len(masses):.3f}" if masses else "-",
            ]
        )
    return Table(head, lines)


def _say_read(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rread {done:,} of {total:,} tokens", end=end, file=sys.stderr, flush=True)
