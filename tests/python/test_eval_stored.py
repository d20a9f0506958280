"""Caches in few bits, and queries a layer ahead, by the properties that define them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from keyseek.eval.ahead import Ahead
from keyseek.eval.block import Block, Static
from keyseek.eval.policies import FlexGen, Full, InfiniGen, Kivi, OracleTopK, TurboQuant
from keyseek.eval.policies.groups import bytes_per_number, in_groups
from keyseek.eval.policies.stored import normal_levels, rotated, unbiased
from keyseek.eval.prompt import LayerPrompt, read_prompt
from keyseek.eval.score import PreparedPolicy, divergence
from test_hf import gemma, llama, prompt

TOKENS = 300
STATIC = Static(sink=4, window=24)
INDEXED = STATIC.indexed(TOKENS)
COUNT = INDEXED.stop - INDEXED.start
IDS = prompt(TOKENS + 40)[0].tolist()
QUESTION, ANSWER = IDS[TOKENS : TOKENS + 10], IDS[TOKENS + 10 :]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(dim=64):
    """A prompt of one layer and a block of steps after it."""
    keys, values = drawn(2, TOKENS + 4, dim), drawn(2, TOKENS + 4, dim, seed=1)
    queries = drawn(2, 3, TOKENS, dim, seed=2)
    own = LayerPrompt(0, queries, keys[:, :TOKENS], values[:, :TOKENS], dim**-0.5, {})
    return own, Block(drawn(2, 3, 4, dim, seed=3), keys, values, TOKENS, dim**-0.5)


def test_groups_keep_their_ends_and_round_to_the_nearest_level():
    rows = drawn(5, 50)
    back = in_groups(rows, 3, 16)  # three groups and a part of one
    for begin in range(0, 50, 16):
        own, kept = rows[:, begin : begin + 16], back[:, begin : begin + 16]
        step = (own.amax(-1) - own.amin(-1)) / 7
        assert ((own - kept).abs() <= step[:, None] / 2 + 1e-6).all()
        torch.testing.assert_close(kept.amin(-1), own.amin(-1))
        torch.testing.assert_close(kept.amax(-1), own.amax(-1))
        assert all(len(row.unique()) <= 8 for row in kept)
    assert torch.equal(in_groups(torch.full((2, 20), 3.5), 2, 8), torch.full((2, 20), 3.5))
    assert bytes_per_number(4, 64) == 0.5625


@pytest.mark.parametrize(
    ("policy", "row"),
    [
        (FlexGen(), 2 * 64 * (0.5 + 4 / 64)),
        (Kivi(bits=2), 2 * 64 * (0.25 + 4 / 32)),
        (Kivi(bits=4), 2 * 64 * (0.5 + 4 / 32)),
        (TurboQuant(bits=3), 2 * 64 * 3 / 8 + 6),
    ],
)
def test_a_stored_cache_is_near_full_attention_and_reads_what_its_bits_take(policy, row):
    own, block = made()
    attended = policy.prepare(own, STATIC).attend(block)
    assert attended.bytes == pytest.approx(COUNT * row)
    assert attended.vectors == COUNT
    error = (attended.out - block.full).norm() / block.full.norm()
    assert 0.01 < error < 0.8
    assert torch.equal(block.keys[:, :TOKENS], own.keys)  # nobody else's keys have changed


@pytest.mark.parametrize("kind", [Kivi, TurboQuant])
def test_more_bits_are_nearer(kind):
    own, block = made()
    outs = [kind(bits=bits).prepare(own, STATIC).attend(block).out for bits in (2, 3, 4, 6)]
    errors = [(out - block.full).norm().item() for out in outs]
    assert errors == sorted(errors, reverse=True)


def test_kivi_bears_a_channel_that_is_larger_than_the_others():
    """Groups of one channel keep what groups of one token lose: KIVI's reason to be."""
    own, block = made()
    own.keys[..., 5] += 30
    block.keys[..., 5] += 30
    by_channel = Kivi(bits=4).prepare(own, STATIC).attend(block).out
    by_token = FlexGen(bits=4).prepare(own, STATIC).attend(block).out
    errors = [(out - block.full).norm() for out in (by_channel, by_token)]
    assert errors[0] < 0.3 * errors[1]


def test_turboquants_levels_are_the_best_for_a_normal_number():
    # Max, 1960: the mean squared errors of the best quantisers of a standard normal number.
    for bits, wanted in ((1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009497)):
        levels = normal_levels(bits)
        grid = torch.linspace(-6, 6, 200_001)
        nearest = (grid[:, None] - levels).abs().amin(-1)
        density = (-(grid**2) / 2).exp()
        assert (nearest**2 * density).sum() / density.sum() == pytest.approx(wanted, rel=0.01)


def test_a_rotation_makes_every_row_as_good_as_the_next():
    rows = torch.zeros(64, 128)
    rows[:32, 7] = 5  # all in one component
    rows[32:] = drawn(32, 128)
    draw = torch.Generator().manual_seed(1)
    back = torch.stack([rotated(rows, 3, draw) for _ in range(10)])
    error = ((back - rows) ** 2).sum(-1).mean(0) / (rows**2).sum(-1)
    assert error[:32].mean() == pytest.approx(0.0345, rel=0.2)
    assert error[32:].mean() == pytest.approx(0.0345, rel=0.2)


def test_turboquants_keys_give_logits_that_are_right_on_average():
    key, query = drawn(1, 64), drawn(64, seed=1) + drawn(1, 64)[0]
    draw = torch.Generator().manual_seed(1)
    true = (key @ query).item()
    means = {}
    for name, make in (("plain", rotated), ("unbiased", unbiased)):
        found = torch.stack([make(key, 2, draw) @ query for _ in range(600)])
        means[name] = found.mean().item() / true
    assert means["unbiased"] == pytest.approx(1, abs=0.04)
    assert means["plain"] < 0.93  # rounded numbers are shorter


@pytest.fixture(scope="module", params=[llama, gemma])
def model(request):
    return request.param()


def test_ahead_are_the_queries_of_the_layer_before_s_input(model):
    """By the layer's own projections, norms and rotation."""
    inputs, positions = {}, {}

    def see(number):
        def look(module, args, given):
            inputs[number] = given["hidden_states"]
            positions[number] = given["position_embeddings"]

        return look

    for number, layer in enumerate(model.model.layers):
        layer.self_attn.register_forward_pre_hook(see(number), with_kwargs=True)
    with torch.inference_mode(), Ahead(model) as ahead:
        before = model(torch.tensor([IDS[:50]])).logits
        assert sorted(ahead.queries) == list(range(1, len(model.model.layers)))
        for number, queries in ahead.queries.items():
            own = model.model.layers[number].self_attn
            raw = own.q_proj(inputs[number - 1]).view(1, 50, 4, -1)
            normed = own.q_norm(raw) if hasattr(own, "q_norm") else raw
            cos, sin = positions[number]
            first, second = normed.transpose(1, 2).chunk(2, -1)
            turned = torch.cat([-second, first], -1)
            wanted = normed.transpose(1, 2) * cos[:, None] + turned * sin[:, None]
            torch.testing.assert_close(queries, wanted[0], atol=1e-5, rtol=1e-4)
    with torch.inference_mode():
        assert torch.equal(before, model(torch.tensor([IDS[:50]])).logits)
        ahead.queries.clear()
        model(torch.tensor([IDS[:50]]))
    assert not ahead.queries  # nobody looks any more


def test_infinigen_chooses_by_what_it_foresaw():
    own, block = made()
    expected = drawn(2, 3, 4, 64, seed=8)
    ours = InfiniGen(20).prepare(own, STATIC)
    ours.foresee(expected)
    foreseen = ours.attend(block).mass
    other = Block(expected, block.keys, block.values, TOKENS, block.scale)
    scores = InfiniGen(20).prepare(own, STATIC).scores(other)
    chosen = scores.topk(20, dim=-1).indices
    static = 1 - block.weights[..., INDEXED].sum(-1)
    wanted = static + block.weights[..., INDEXED].gather(-1, chosen).sum(-1)
    torch.testing.assert_close(foreseen, wanted, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(ours.attend(block).mass, foreseen)  # told once, used once


def test_infinigen_is_exact_in_few_directions():
    """Queries that vary in 30 % of the directions lose nothing by looking at these alone."""
    own, block = made()
    rank = int(0.3 * 64)
    turn = drawn(2, 1, rank, 64, seed=4)
    low = LayerPrompt(0, own.queries[..., :rank] @ turn, own.keys * 1e-3, own.values, own.scale, {})
    asked = Block(
        block.queries[..., :rank] @ turn, block.keys * 1e-3, block.values, TOKENS, 1e3 * own.scale
    )
    masses = [kind(20).prepare(low, STATIC).attend(asked).mass for kind in (InfiniGen, OracleTopK)]
    torch.testing.assert_close(*masses, atol=1e-5, rtol=1e-4)


def test_infinigen_is_told_when_a_model_decodes(model):
    read = read_prompt(model, IDS[:TOKENS])
    decoded = [
        PreparedPolicy(policy, read, STATIC).decode(model, QUESTION, ANSWER)
        for policy in (Full(), InfiniGen(COUNT), InfiniGen(24))
    ]
    assert divergence(decoded[0], decoded[1]).max() < 1e-4
    assert divergence(decoded[0], decoded[2]).mean() > 1e-4
    assert decoded[2].meter.vectors / decoded[2].meter.steps == 24
