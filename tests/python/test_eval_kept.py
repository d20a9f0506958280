"""Policies that decide once, at the end of the prompt: what stays, what is merged, which heads."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import keyseek
from eval_made import (
    COUNT,
    DIM,
    GROUP,
    HEADS,
    ROTARY,
    STATIC,
    TOKENS,
    block_of,
    chosen_by,
    drawn,
    prompt_of,
)
from keyseek.eval.policies import (
    DuoAttention,
    DuoShare,
    Full,
    KVMerger,
    PyramidKV,
    SnapKV,
    TriAttention,
    triattention,
)
from keyseek.eval.policies.kvmerger import merge, pivoted, runs
from keyseek.eval.policies.pyramidkv import pyramid
from keyseek.eval.prompt import LayerPrompt


@pytest.fixture(scope="module")
def prompt():
    return prompt_of()


def test_pyramidkv_keeps_more_below_and_the_budget_on_average(prompt):
    budgets = pyramid(100, 30, 2000)
    assert budgets[0] == 195
    assert budgets[-1] == 5
    assert sum(budgets) / 30 == pytest.approx(100, abs=0.5)
    assert len({round(a - b) for a, b in pairwise(budgets)}) <= 2
    assert pyramid(100, 30, 150)[0] == 150  # there are no more
    layers = PyramidKV(40).by_layer({3: prompt, 1: prompt, 2: prompt}, STATIC)
    assert {layer: policy.budget for layer, policy in layers.items()} == {1: 78, 2: 40, 3: 2}
    assert all(isinstance(policy, SnapKV) for policy in layers.values())


def test_duoattention_finds_the_heads_that_need_what_is_far():
    """The queries of one head of one layer look at a token that is no static one."""
    prompts = {layer: prompt_of(layer=layer) for layer in range(3)}
    looking = near(prompts[1]).clone()
    looking[1] = 30 * prompts[1].keys[1, 150]
    prompts[1] = prompt_of(queries=looking, layer=1)
    for layer in (0, 2):
        prompts[layer] = prompt_of(queries=near(prompts[layer]), layer=layer)
    one = DuoAttention(math.ceil(COUNT / 6)).by_layer(prompts, STATIC)
    assert {layer: policy.retrieve for layer, policy in one.items()} == {
        0: (False, False),
        1: (False, True),
        2: (False, False),
    }
    ours = one[1].prepare(prompts[1], STATIC)
    chosen = chosen_by(ours, block_of(prompts[1]))
    assert chosen[1].all()
    assert not chosen[0].any()
    half = DuoShare(share=0.5).by_layer(prompts, STATIC)
    assert sum(sum(policy.retrieve) for policy in half.values()) == 3


def near(prompt):
    """Queries that look at the first token, which is static."""
    return (30 * prompt.keys[:, None, :1]).expand(-1, GROUP, TOKENS, -1)


def test_kvmerger_merges_runs_of_similar_neighbours(prompt):
    keys = drawn(HEADS, 6, DIM).repeat_interleave(10, 1) + 0.01 * drawn(HEADS, 60, DIM, seed=1)
    run = runs(keys, 6)
    assert torch.equal(run, torch.arange(6).repeat_interleave(10).expand(HEADS, -1))
    hit = torch.rand(HEADS, 60, generator=torch.Generator().manual_seed(3))
    weight = pivoted(keys, run, hit)
    sums = torch.zeros(HEADS, 6).scatter_add_(1, run, weight)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    for head in range(HEADS):
        for number in range(6):
            own = slice(10 * number, 10 * number + 10)
            pivot = 10 * number + int(hit[head, own].argmax())
            assert weight[head, pivot] == weight[head, own].max()
    far = keys.clone()
    far[:, 5] *= 40  # same direction, another length: it hardly counts
    hit[:, 5] = 0
    assert (pivoted(far, runs(far, 6), hit)[:, 5] < 1e-6).all()
    torch.testing.assert_close(
        merge(keys, run, weight)[0, 2], (weight[0, 20:30, None] * keys[0, 20:30]).sum(0)
    )
    attended = KVMerger(40).prepare(prompt, STATIC).attend(block_of(prompt))
    assert attended.vectors == 40
    assert attended.bytes == 40 * 4 * DIM


def test_triattention_scores_by_the_mean_query_at_every_distance(prompt):
    """The same by cosines of the angle between the mean query and a key, pair by pair."""
    small = LayerPrompt(
        0, prompt.queries[:1, :1], prompt.keys[:1], prompt.values[:1], prompt.scale, ROTARY
    )
    ours = triattention.score(small)[0, 0].double()
    frequency = 10_000.0 ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)
    place = torch.arange(TOKENS)[:, None] * frequency

    def plain(rows):  # complex pairs before rotation
        pairs = torch.complex(rows[:, : DIM // 2].double(), rows[:, DIM // 2 :].double())
        return pairs * torch.polar(torch.ones_like(place), -place)

    queries, keys = plain(small.queries[0, 0]), plain(small.keys[0])
    mean = queries.mean(0)
    ahead = torch.tensor([2.0**i for i in range(17)], dtype=torch.float64)
    distance = TOKENS - torch.arange(TOKENS) + ahead[:, None]
    angle = distance[..., None] * frequency + (mean * keys.conj()).angle()
    toward = (mean.abs() * keys.abs() * angle.cos()).sum(-1).mean(0)
    scatter = ((queries.abs().mean(0) - mean.abs()) * keys.abs()).sum(-1)
    torch.testing.assert_close(ours, toward + scatter, atol=2e-3, rtol=1e-3)
    chosen = chosen_by(TriAttention(20).prepare(prompt, STATIC), block_of(prompt))
    assert (chosen.sum(-1) == 20).all()
    assert (chosen == chosen[:, :1, :1]).all()
    unknown = LayerPrompt(5, *(getattr(prompt, n) for n in ("queries", "keys", "values")), 1.0, {})
    with pytest.raises(keyseek.InvalidArgument, match="layer 5 has no rotary embedding"):
        TriAttention(20).prepare(unknown, STATIC)


def test_policies_that_decide_by_layer_say_so_for_all_of_them(prompt):
    assert Full().by_layer({4: prompt}, STATIC) == {4: Full()}
