"""What Python costs in a decode step of keyseek.hf, per layer.

python -m keyseek.bench.overhead

The layer of a model as SmolLM2's (9 query heads, 3 KV heads, d = 64): time from the cache's update
to the attention's output, less what the library itself takes for its heads.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

import keyseek
from keyseek.hf.arguments import AttentionCall
from keyseek.hf.layer import RetrievalLayer
from keyseek.hf.planning import LayerOptions

GROUP, KV_HEADS, DIM, PROMPT, WARM_UP = 3, 3, 64, 300, 50
CALL = AttentionCall(scale=DIM**-0.5)


def layer_in_decoding() -> RetrievalLayer:
    """Of a prompt so short that the library's own work is little."""
    options = LayerOptions(
        params=keyseek.DecodeParams(sink=0, window=1, least_indexed=0),
        dtype=torch.float16,
        pool=keyseek.DecodePool(1),
        progress=lambda heads: None,
    )
    layer = RetrievalLayer(options, 0, {"shift": False})
    keys, values = (torch.randn(1, KV_HEADS, PROMPT, DIM) for _ in range(2))
    layer.update(keys, values)
    layer.observe(torch.randn(1, KV_HEADS * GROUP, PROMPT, DIM), None, CALL)
    return layer


def new_token() -> tuple[torch.Tensor, ...]:
    """Query, key and value as a model's projections give them."""
    return tuple(
        torch.randn(1, 1, heads, DIM).transpose(1, 2)
        for heads in (KV_HEADS * GROUP, KV_HEADS, KV_HEADS)
    )


def overhead(steps: int) -> list[float]:
    """Microseconds of each step."""
    layer = layer_in_decoding()
    times = []
    for _ in range(steps + WARM_UP):
        query, key, value = new_token()
        begin = time.perf_counter()
        keys, values = layer.update(key, value)
        layer.attend(query, keys, values, None, CALL)
        us = 1e6 * (time.perf_counter() - begin)
        times.append(us - sum(head.stats.total_us for head in layer.heads))
    return times[WARM_UP:]


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m keyseek.bench.overhead", description=__doc__.split("\n\n")[0]
    )
    p.add_argument("--steps", type=int, default=1000, help="(default: 1000)")
    options = p.parse_args(arguments)
    if options.steps < 1:
        p.error(f"--steps is {options.steps}, must be at least 1")
    torch.set_num_threads(1)
    with torch.inference_mode():
        times = overhead(options.steps)
    print(f"Python per layer and step: {statistics.median(times):.1f} us (median of {len(times)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
