"""Capture a real model's post-RoPE keys, values and queries while it reads a text.

The file it writes (*.attn.h5) is described in README.md beside this tool.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import torch
import transformers
from torch import Tensor

from errors import DatasetError, exit_status
from forward import STRETCHED, head_dim, rope_theta, run_pass, stretch_rope
from hdf5 import check_out, new_file
from keyseek.models import (
    MODELS,
    Model,
    Source,
    encode_first,
    linear_type,
    load_model,
    source_of,
    speed_up_linears,
)
from keyseek.texts import NAMED, load_text

FORMAT_VERSION = 1

EXAMPLE = """example:
  python datasets/capture.py --model smollm2-135m --text python3-doc \\
      --tokens 8192 --layers 2,15 --kv-heads 0 --decode 1024 --out smollm2-8k.attn.h5
"""


@dataclass(frozen=True)
class Plan:
    """What to capture; every value has been checked against the model."""

    layers: tuple[int, ...]
    kv_heads: tuple[int, ...]
    tokens: int
    decode: int = 0
    stretch: bool = False


class Recorder:
    """Writes the wanted rows of a layer as the pass comes by, so memory holds one layer only."""

    def __init__(self, file: h5py.File, plan: Plan, config: Any) -> None:
        self._file = file
        self._plan = plan
        self._config = config

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> None:
        """query [Hkv, G, n, d], key [Hkv, n, d], value [Hkv, n, dv], after RoPE."""
        if layer not in self._plan.layers:
            return
        group = self._file.create_group(f"L{layer}")
        theta = rope_theta(self._config, layer)
        if theta != self._config.rope_theta:
            group.attrs["rope_theta"] = theta
        for head in self._plan.kv_heads:
            head_group = group.create_group(f"K{head}")
            for name, rows in (("keys", key), ("values", value), ("queries", query)):
                half = as_half(rows[head], f"L{layer}/K{head}/{name}")
                head_group.create_dataset(name, data=half.numpy())


def as_half(rows: Tensor, where: str) -> Tensor:
    """rows as float16; refused when a value is NaN, infinite, or beyond float16."""
    half = rows.to(torch.float16)
    if not torch.isfinite(half).all():
        raise DatasetError(f"{where}: a value is not finite in float16, nothing was written")
    return half


def parse_choice(argument: str, given: str, count: int) -> tuple[int, ...]:
    """'all', or numbers below `count` separated by commas."""
    if given == "all":
        return tuple(range(count))
    try:
        chosen = tuple(sorted({int(part) for part in given.split(",")}))
    except ValueError:
        raise DatasetError(f"{argument} '{given}' is neither 'all' nor numbers like 0,2") from None
    for number in chosen:
        if not 0 <= number < count:
            raise DatasetError(f"{argument} {number} is not within 0 and {count - 1}")
    return chosen


def check_lengths(plan: Plan, model: str, source: Source) -> None:
    """Refuse lengths that no capture of this model can have."""
    tokens, context = plan.tokens, source.context
    if tokens < 2:
        raise DatasetError(f"--tokens {tokens} is too few, at least 2 are needed")
    if not 0 <= plan.decode < tokens:
        raise DatasetError(
            f"--decode {plan.decode} is not within 0 and {tokens - 1} (--tokens - 1)"
        )
    if plan.stretch and not source.can_stretch:
        raise DatasetError(f"--stretch cannot be used with --model {model}")
    if plan.stretch and tokens <= context:
        raise DatasetError(f"--stretch with --tokens {tokens}: {model} reads {context} without it")
    if not plan.stretch and tokens > context:
        hint = "; --stretch goes beyond it" if source.can_stretch else ""
        raise DatasetError(
            f"--tokens {tokens} is more than the context of {model}, {context}{hint}"
        )


def describe(plan: Plan, precision: str, trained_theta: float, theta: float) -> str:
    """One sentence on how the vectors came to be."""
    how = f"full attention prefill of {plan.tokens} tokens"
    if plan.stretch:
        how = (
            f"prefill of {plan.tokens} tokens, beyond the trained context: NTK-scaled RoPE (theta"
            f" {trained_theta:.0f} -> {theta:.0f}), each token sees the first {STRETCHED.sink} and"
            f" the last {STRETCHED.window} tokens"
        )
    return (
        f"{how}, post-RoPE, linear layers in {precision}, RoPE and attention in float32,"
        f" transformers {transformers.__version__}, torch {torch.__version__}"
    )


def capture(model: Model, ids: Tensor, text_source: str, plan: Plan, out: Path) -> float:
    """Run the model over ids [n], write the file, return the next-token loss.

    With plan.stretch the model's RoPE is changed for good.
    """
    network, config = model.network, model.network.config
    trained_theta = float(config.rope_theta)
    if plan.stretch:
        stretch_rope(network, plan.tokens / model.context)
    pattern = STRETCHED if plan.stretch else None
    with new_file(out) as file:
        done = run_pass(network, ids, Recorder(file, plan, config), pattern)
        file.attrs.update(
            format_version=FORMAT_VERSION,
            model=model.title,
            text=text_source,
            rope_theta=float(config.rope_theta),
            rope_layout="half-split",
            rope_dim=head_dim(config),
            scale=float(network.model.layers[0].self_attn.scaling),
            prefill=plan.tokens - plan.decode,
            capture=describe(plan, linear_type(network), trained_theta, config.rope_theta),
            next_token_loss=done.loss,
        )
        if plan.stretch:
            file.attrs["rope_theta_trained"] = trained_theta
    return done.loss


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help=MODELS)
    parser.add_argument("--text", required=True, help=", ".join(NAMED) + ", or a UTF-8 file")
    parser.add_argument("--tokens", type=int, required=True, help="length of the prompt")
    parser.add_argument("--layers", default="all", help="'all' or numbers such as 5,11,17")
    parser.add_argument("--kv-heads", default="all", help="'all' or numbers such as 0,1")
    parser.add_argument(
        "--decode", type=int, default=1024, help="last tokens that count as decode steps (1024)"
    )
    parser.add_argument(
        "--stretch",
        action="store_true",
        help="SmolLM2 beyond its context: NTK-scaled RoPE, windowed prefill (data for scale only)",
    )
    parser.add_argument("--out", type=Path, required=True, help="the file to write, *.attn.h5")
    return parser.parse_args(arguments)


def make_plan(given: argparse.Namespace) -> Plan:
    """The arguments, checked against what the model has."""
    source = source_of(given.model)
    plan = Plan(
        layers=parse_choice("--layers", given.layers, source.layers),
        kv_heads=parse_choice("--kv-heads", given.kv_heads, source.kv_heads),
        tokens=given.tokens,
        decode=given.decode,
        stretch=given.stretch,
    )
    check_lengths(plan, given.model, source)
    check_out(given.out)
    return plan


def run(given: argparse.Namespace) -> None:
    """Check what can be checked, then load the model and capture."""
    begin = time.monotonic()
    plan = make_plan(given)
    text = load_text(given.text)
    ids = encode_first(given.model, text.content, plan.tokens)
    model = load_model(given.model)
    speed_up_linears(model.network)
    loss = capture(model, torch.tensor(ids), text.source, plan, given.out)
    print(
        f"{given.out}: {plan.tokens} tokens, {len(plan.layers)} layers x {len(plan.kv_heads)}"
        f" KV heads, next-token loss {loss:.3f} nats, {time.monotonic() - begin:.0f} s"
    )


def main(arguments: list[str] | None = None) -> int:
    return exit_status(run, parse_arguments(arguments))


if __name__ == "__main__":
    sys.exit(main())
