"""Made-up prompts of one layer, and what a policy attends of them."""

from __future__ import annotations

import torch

from keyseek.eval.block import Block, Static
from keyseek.eval.prompt import LayerPrompt

TOKENS, HEADS, GROUP, DIM, STEPS = 300, 2, 3, 32, 6
STATIC = Static(sink=4, window=24)
INDEXED = STATIC.indexed(TOKENS)
COUNT = INDEXED.stop - INDEXED.start
ROTARY = {"theta": 10_000.0, "rotary_dim": DIM, "layout": "half-split"}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompt_of(keys=None, queries=None, layer=0, values=None):
    return LayerPrompt(
        layer,
        drawn(HEADS, GROUP, TOKENS, DIM, seed=layer + 1) if queries is None else queries,
        drawn(HEADS, TOKENS, DIM, seed=layer + 2) if keys is None else keys,
        drawn(HEADS, TOKENS, DIM, seed=layer + 3) if values is None else values,
        DIM**-0.5,
        ROTARY,
    )


def block_of(prompt, queries=None, values=None):
    """Some steps after the prompt, with made-up tokens."""
    new = drawn(2, HEADS, STEPS, DIM, seed=9)
    asked = drawn(HEADS, GROUP, STEPS, DIM, seed=10) if queries is None else queries
    values = prompt.values if values is None else values
    keys = torch.cat([prompt.keys, new[0]], 1)
    return Block(asked, keys, torch.cat([values, new[1]], 1), TOKENS, prompt.scale)


def chosen_by(ours, block):
    """Attended indexed tokens, told by values that are unit vectors: bool [Hkv, G, q, COUNT]."""
    unit = torch.eye(block.keys.shape[1]).expand(HEADS, -1, -1).contiguous()
    out = ours.attend(Block(block.queries, block.keys, unit, TOKENS, block.scale)).out
    return out[..., INDEXED] > 0
