"""Full attention of a decode step on a GPU: torch's SDPA, and FlashInfer and FlashAttention where
they are installed. One JSON object on a line for each, as keyseek_gpu_bench prints them, for the
shape and the context lengths of its rows.

    python3 bench/gpu/peers.py build/gpu-check.jsonl
"""

import json
import statistics
import sys

import torch
import torch.nn.functional as F

WARM_UP, RUNS = 20, 200


def microseconds(work):
    """Median time on the current stream."""
    times = []
    for run in range(WARM_UP + RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        if run >= WARM_UP:
            times.append(1e3 * begin.elapsed_time(end))
    return statistics.median(times)


def made(*shape):
    return torch.randn(*shape, dtype=torch.float16, device="cuda")


def sdpa(heads, group, dim, tokens):
    query, key, value = made(1, heads, group, dim), *(made(1, heads, tokens, dim) for _ in range(2))
    # The group's heads as queries of one head: what they share is read once.
    return lambda: F.scaled_dot_product_attention(query, key, value)


def flashinfer(heads, group, dim, tokens):
    import flashinfer

    query, key, value = made(heads * group, dim), *(made(tokens, heads, dim) for _ in range(2))
    return lambda: flashinfer.single_decode_with_kv_cache(query, key, value)


def flash_attention(heads, group, dim, tokens):
    import flash_attn

    query, key, value = (
        made(1, 1, heads * group, dim),
        *(made(1, tokens, heads, dim) for _ in range(2)),
    )
    return lambda: flash_attn.flash_attn_with_kvcache(query, key, value)


def problems(rows):
    """The steps that were measured: heads, group, dim, tokens."""
    return [
        {name: row[name] for name in ("heads", "group", "dim", "tokens")}
        for row in rows
        if row["part"] == "step"
    ]


def main():
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device that torch can use")
    with open(sys.argv[1], encoding="utf-8") as file:
        steps = problems([json.loads(line) for line in file])
    for step in steps:
        for peer in (sdpa, flashinfer, flash_attention):
            try:
                us = microseconds(peer(**step))
            except ImportError as missing:
                print(f"{peer.__name__} is left out: {missing}", file=sys.stderr)
                continue
            print(
                json.dumps({"part": f"full attention, {peer.__name__}", **step, "us": round(us, 2)})
            )


if __name__ == "__main__":
    main()
