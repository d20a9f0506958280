"""Predicts seconds per token of Llama-3-8B with retrieval on the CPU, from what must be moved.

    python3 bench/gpu_model.py

prints the tables of docs/gpu-model.md, which says where the numbers below come from. Nothing here
was measured on a GPU.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Gpu:
    name: str
    bytes_per_s: float
    memory: float
    launch_s: float = 5e-6  # between the starts of two kernels
    copy_s: float = 10e-6  # until a small copy over PCIe has arrived
    pcie_bytes_per_s: float = 25e9


@dataclasses.dataclass(frozen=True)
class Cpu:
    name: str
    bytes_per_s: float  # all cores together
    cores: int


@dataclasses.dataclass(frozen=True)
class Machine:
    gpu: Gpu
    cpu: Cpu


@dataclasses.dataclass(frozen=True)
class Parts:
    """Seconds of a token."""

    search: float
    attention: float
    other: float

    @property
    def total(self):
        return self.search + self.attention + self.other


# Data sheets: memory bandwidth, cores.
RTX_4090 = Machine(Gpu("RTX 4090", 1008e9, 24e9), Cpu("10 cores, 4 x DDR4-2933", 93.9e9, 10))
A100 = Machine(Gpu("A100 80 GB", 2039e9, 80e9), Cpu("48 cores, 8 x DDR4-3200", 204.8e9, 48))

# Llama-3-8B.
LAYERS, HEADS, KV_HEADS, DIM = 32, 32, 8, 128
WEIGHTS = 2 * 7.5e9  # 16 bits; all but the table of input embeddings is read for each token
STATIC, RETRIEVED = 640, 100
KERNELS = 12  # of a layer beside attention: norms, projections, rotary, activation

# Published, arXiv 2409.10516: RTX 4090, 128K tokens.
PAPER_TOKENS = 131072
PAPER = {
    "Flat": Parts(0.798, 0.083, 0.041),
    "IVF": Parts(0.250, 0.084, 0.039),
    "RetrievalAttention": Parts(0.064, 0.081, 0.043),
}
IVF_FRACTION = 0.30  # keys scanned for recall .95: 30 to 50 %
GRAPH_FRACTION = 0.02  # 1 to 3 %
# RoarGraph on attention keys at recall@100 .95, one core: 2791 queries a second (VIBE's
# llama-128-ip, 257K keys).
GRAPH_QUERY_S = 1 / 2791

# Ours, a step of one KV head on one core: a line through the table of docs/method.md, time by
# bytes.
OUR_STEP_S, OUR_BYTES_PER_S = 18e-6, 14.9e9
OUR_FRACTION, OUR_LEAST_SCANNED = 0.02, 1000


def rounds(tasks, cores):
    return math.ceil(tasks / cores)


def streamed(fraction, indexed, machine):
    """Every query head reads its share of the f32 keys by itself."""
    return LAYERS * HEADS * fraction * indexed * DIM * 4 / machine.cpu.bytes_per_s


def paper_search(method, indexed, machine):
    if method == "Flat":
        return streamed(1.0, indexed, machine)
    if method == "IVF":
        return streamed(IVF_FRACTION, indexed, machine)
    on_cores = LAYERS * rounds(HEADS, machine.cpu.cores) * GRAPH_QUERY_S
    return max(streamed(GRAPH_FRACTION, indexed, machine), on_cores)


def static_attention(gpu):
    """A layer: its static part read once, three kernels, a copy down and one up."""
    read = STATIC * 2 * KV_HEADS * DIM * 2 / gpu.bytes_per_s
    copied = (2 * HEADS * DIM + 4 * HEADS * (DIM + 1)) / gpu.pcie_bytes_per_s
    return read + copied + 3 * gpu.launch_s + 2 * gpu.copy_s


def gathered_attention(machine):
    """A layer: keys and values of what was retrieved, f32, for each query head."""
    return HEADS * RETRIEVED * 2 * DIM * 4 / machine.cpu.bytes_per_s


def moved_attention(machine):
    return LAYERS * (static_attention(machine.gpu) + gathered_attention(machine))


def moved_other(machine):
    return WEIGHTS / machine.gpu.bytes_per_s + LAYERS * KERNELS * machine.gpu.launch_s


# What the Flat row takes beyond what must be moved is taken for the cost of the paper's software,
# the same in each layer. The two other rows test that.
SOFTWARE_ATTENTION = PAPER["Flat"].attention - moved_attention(RTX_4090)
SOFTWARE_OTHER = PAPER["Flat"].other - moved_other(RTX_4090)


def indexed_tokens(tokens):
    if tokens <= STATIC:
        raise ValueError(f"tokens is {tokens}, must be above {STATIC}, the static pattern")
    return tokens - STATIC


def predict_paper(method, tokens, machine):
    """Parts of a token by a method of the paper."""
    if method not in PAPER:
        raise ValueError(f"method is {method!r}, must be one of {', '.join(PAPER)}")
    return Parts(
        paper_search(method, indexed_tokens(tokens), machine),
        moved_attention(machine) + SOFTWARE_ATTENTION,
        moved_other(machine) + SOFTWARE_OTHER,
    )


def our_step_bytes(indexed):
    """8-bit codes scanned once for the group, then its retrieved keys and values in 16 bits."""
    scanned = min(indexed, max(OUR_FRACTION * indexed, OUR_LEAST_SCANNED))
    return scanned * DIM + HEADS // KV_HEADS * RETRIEVED * 2 * DIM * 2


def predict_ours(tokens, machine):
    """Parts of a token by keyseek: search and attention of the CPU beside the device's."""
    step_bytes = our_step_bytes(indexed_tokens(tokens))
    step = rounds(KV_HEADS, machine.cpu.cores) * (OUR_STEP_S + step_bytes / OUR_BYTES_PER_S)
    all_heads = KV_HEADS * step_bytes / machine.cpu.bytes_per_s
    # The copies are waited for, the kernels run while the CPU searches.
    return Parts(
        LAYERS * max(step, all_heads), LAYERS * static_attention(machine.gpu), moved_other(machine)
    )


def predict_full(tokens, machine):
    """Attention over everything on the GPU, or None when it does not fit beside the weights."""
    cache = LAYERS * 2 * KV_HEADS * DIM * 2 * tokens
    if cache + WEIGHTS > machine.gpu.memory:
        return None
    return Parts(
        0.0,
        cache / machine.gpu.bytes_per_s + LAYERS * 2 * machine.gpu.launch_s,
        moved_other(machine),
    )


def check_table():
    """Predictions beside what was published."""
    lines = [
        "| method | search | attention | other | s/token | published | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, published in PAPER.items():
        p = predict_paper(method, PAPER_TOKENS, RTX_4090)
        error = p.total / published.total - 1
        lines.append(
            f"| {method} | {p.search:.3f} | {p.attention:.3f} | {p.other:.3f} | "
            f"{p.total:.3f} | {published.total:.3f} | {100 * error:+.0f} % |"
        )
    return "\n".join(lines)


def prediction_table(machine):
    """Seconds per token from 4K to 1M tokens."""
    lines = [
        f"| tokens, {machine.gpu.name} | " + " | ".join(PAPER) + " | keyseek | full, on the GPU |",
        "|---|" + "---|" * (len(PAPER) + 2),
    ]
    for exponent in range(12, 21):
        tokens = 2**exponent
        full = predict_full(tokens, machine)
        cells = [f"{predict_paper(m, tokens, machine).total:.3f}" for m in PAPER]
        cells += [
            f"{predict_ours(tokens, machine).total:.3f}",
            f"{full.total:.3f}" if full else "does not fit",
        ]
        lines.append(f"| {tokens // 1024}K | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(check_table(), prediction_table(RTX_4090), prediction_table(A100), sep="\n\n")
