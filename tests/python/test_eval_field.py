"""The policies of the field that choose, drop or merge, each by the property that defines it."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from eval_made import (
    COUNT,
    DIM,
    GROUP,
    HEADS,
    INDEXED,
    STATIC,
    STEPS,
    TOKENS,
    block_of,
    chosen_by,
    drawn,
    prompt_of,
)
from keyseek.eval.block import Block
from keyseek.eval.policies import (
    BUDGETED,
    DoubleSparsity,
    DuoAttention,
    FreeKV,
    KVMerger,
    Loki,
    MagicPIG,
    OracleTopK,
    PyramidKV,
    RetroInfer,
    RocketKV,
    SparQ,
    TriAttention,
    VAttention,
    magicpig,
    vattention,
)
from keyseek.eval.policies.quest import Pages
from keyseek.eval.policies.retroinfer import wave_index
from keyseek.eval.policies.rocketkv import HybridLayer, Split


@pytest.fixture(scope="module")
def prompt():
    return prompt_of()


@pytest.fixture(scope="module")
def block(prompt):
    return block_of(prompt)


CHOOSING = (SparQ, Loki, DoubleSparsity, FreeKV, RocketKV, RetroInfer, MagicPIG)
ALL = (*CHOOSING, TriAttention, KVMerger, DuoAttention, PyramidKV)


@pytest.mark.parametrize("kind", ALL)
def test_nobody_attends_more_than_the_budget(kind, prompt, block):
    assert BUDGETED[kind.family] is kind
    ours = kind(64).prepare(prompt, STATIC)
    ours.begin_answer()
    attended = ours.attend(block)
    # A sample is within it on average.
    assert 0 <= attended.vectors <= (80 if kind is MagicPIG else 64)
    row = 4 * DIM
    assert attended.bytes >= row * attended.vectors - 1e-3
    if kind in CHOOSING:
        assert attended.bytes > row * attended.vectors


@pytest.mark.parametrize("kind", [SparQ, Loki, FreeKV, DuoAttention, KVMerger, RetroInfer])
def test_with_a_budget_for_all_tokens_it_is_full_attention(kind, prompt, block):
    room = {SparQ: COUNT + 1, FreeKV: 9 * 32, RetroInfer: 2 * COUNT}.get(kind, COUNT)
    attended = kind(room).prepare(prompt, STATIC).attend(block)
    torch.testing.assert_close(attended.out, block.full, atol=1e-5, rtol=1e-4)


def test_sparq_is_exact_for_queries_of_few_components(prompt):
    queries = torch.zeros(HEADS, GROUP, STEPS, DIM)
    queries[..., 3 : 3 + DIM // 4] = drawn(HEADS, GROUP, STEPS, DIM // 4)
    block = block_of(prompt, queries)
    best = block.logits[..., INDEXED].sum(1, keepdim=True).topk(20, dim=-1).indices
    rest = 1 - SparQ(21).prepare(prompt, STATIC).attend(block).mass
    unit = torch.eye(block.keys.shape[1]).expand(HEADS, -1, -1)
    told = Block(queries, block.keys, unit, TOKENS, block.scale)
    out = SparQ(21).prepare(prompt, STATIC).attend(told).out
    # All tokens get their part of the mean; those that are chosen get more.
    mean = rest[..., None] / torch.arange(TOKENS + 1, TOKENS + STEPS + 1)[:, None]
    more = (out - mean)[..., INDEXED] > 1e-6
    assert (more.sum(-1) == 20).all()
    assert more.gather(-1, best.expand(-1, GROUP, -1, -1)).all()


def test_sparq_gives_the_rest_to_the_mean_value(prompt):
    """Of values that are 1 everywhere, everybody's output is 1; of a 1 that is not chosen, what
    the approximate scores leave."""
    queries = torch.zeros(HEADS, GROUP, STEPS, DIM)
    queries[..., : DIM // 4] = drawn(HEADS, GROUP, STEPS, DIM // 4)
    block = block_of(prompt, queries)
    ours = SparQ(11).prepare(prompt, STATIC)
    out, mass = ours.attend(block).out, ours.attend(block).mass
    kept = block.logits[..., INDEXED].sum(1, keepdim=True).topk(10, dim=-1).indices
    weights = block.weights.clone()
    indexed = torch.zeros(HEADS, 1, STEPS, COUNT).scatter_(-1, kept, 1.0)
    weights[..., INDEXED] *= indexed
    exact = torch.einsum("hgqn,hnd->hgqd", weights, block.values) / mass[..., None]
    count = torch.arange(TOKENS + 1, TOKENS + STEPS + 1)
    seen = block.values.cumsum(1)[:, TOKENS:] / count[:, None]
    wanted = mass[..., None] * exact + (1 - mass[..., None]) * seen[:, None]
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-4)


def test_sparq_is_as_sure_as_the_components_that_it_reads(prompt, block):
    """The softmax's temperature grows with the root of what is read of the query."""
    scores = SparQ(20).prepare(prompt, STATIC).scores(block)
    size = block.queries.abs()
    read = size.sum(1, keepdim=True).topk(DIM // 4, dim=-1).indices.expand(-1, GROUP, -1, -1)
    kept = torch.zeros_like(size).scatter_(-1, read, block.queries.gather(-1, read))
    share = kept.abs().sum(-1) / size.sum(-1)
    wanted = torch.einsum("hgqd,hnd->hgqn", kept, block.keys) / (DIM * share).sqrt()[..., None]
    torch.testing.assert_close(scores[..., :TOKENS], wanted[..., :TOKENS], atol=1e-4, rtol=1e-4)


def low_rank(rank, seed=4):
    """Keys that vary in `rank` directions only."""
    return drawn(HEADS, TOKENS, rank, seed=seed) @ drawn(HEADS, rank, DIM, seed=seed + 1)


def oracle(prompt, block, k):
    return chosen_by(OracleTopK(k).prepare(prompt, STATIC), block)


def test_loki_is_exact_for_keys_of_few_directions():
    prompt = prompt_of(low_rank(DIM // 4))
    block = block_of(prompt)
    assert torch.equal(
        chosen_by(Loki(20).prepare(prompt, STATIC), block), oracle(prompt, block, 20)
    )
    # Twice as many directions are too many.
    prompt = prompt_of(low_rank(DIM // 2))
    block = block_of(prompt)
    missed = ~chosen_by(Loki(20).prepare(prompt, STATIC), block) & oracle(prompt, block, 20)
    assert missed.any()


def test_double_sparsity_looks_at_the_heavy_channels_of_each_head():
    keys, queries = drawn(HEADS, TOKENS, DIM), drawn(HEADS, GROUP, TOKENS, DIM, seed=5)
    for head, heavy in enumerate(([7, 20], [1, 30])):
        keys[head][:, heavy] *= 50
        queries[head][..., heavy] *= 2
        # Large queries where keys are nothing, and the other way round, weigh nothing.
        queries[head][..., 11] *= 1000
        keys[head][:, 11] *= 1e-6
        queries[head][..., 12] *= 1e-6
        keys[head][:, 12] *= 1000
    prompt = prompt_of(keys, queries)
    ours = DoubleSparsity(20).prepare(prompt, STATIC)
    assert [sorted(own.tolist()) for own in ours._channels] == [[7, 20], [1, 30]]
    asking = drawn(HEADS, GROUP, STEPS, DIM, seed=10)
    asking[..., 12] *= 1e-6
    block = block_of(prompt, asking)
    # Four bits of a token's two channels are its two numbers.
    both = (chosen_by(ours, block) & oracle(prompt, block, 20)).sum()
    assert both > 0.8 * 20 * HEADS * GROUP * STEPS


def test_freekv_reads_what_the_query_before_wanted(prompt):
    steady = drawn(HEADS, GROUP, 1, DIM, seed=12)
    last = prompt.queries[:, :, -1:]
    # The first step looks elsewhere, the second is a little off, the third is the first again.
    queries = torch.cat([-last, -last + 0.05 * steady, steady, steady], 2)
    ours = FreeKV(64).prepare(prompt, STATIC)
    asking = ours.asking(queries)
    wanted = torch.cat([-last, -last, steady, steady], 2)
    assert torch.equal(asking, wanted)
    ours.attend(block_of(prompt, queries))
    assert torch.equal(ours.asking(1.01 * steady), steady)  # a block later
    pages = chosen_by(FreeKV(64).prepare(prompt, STATIC), block_of(prompt, queries)).split(32, -1)
    assert all((page.all(-1) | ~page.any(-1)).all() for page in pages)
    assert all((page == page[:, :1]).all() for page in pages)  # one choice for a group


def test_pages_bound_their_keys(prompt, block):
    keys = prompt.keys[:, INDEXED]
    bounds = Pages.of(keys, 32).bounds(block.queries)
    for page, own in enumerate(keys.split(32, 1)):
        true = block.logits_of(own) / block.scale
        assert (bounds[..., page] >= true.amax(-1) - 1e-4).all()


def test_rocketkv_splits_as_the_paper_does():
    # 64 times less: 2^(6 * .56) in the first stage, the rest in the second.
    split = Split.of(131_072, 1024, 128)
    ratio = 64 ** (0.2 + 0.06 * 6)
    assert split.kept == int(131_072 / ratio)
    second = split.kept / 2048
    assert split.page == math.ceil(math.sqrt(second))
    assert split.rank == round(128 * split.page / second)
    assert Split.of(200, 100, 64) == Split(200, 1, 64)  # nothing to leave out


def test_rocketkv_looks_at_what_stayed_only(prompt, block):
    kept = torch.arange(0, COUNT, 5).expand(HEADS, -1)
    ours = HybridLayer(INDEXED, prompt.keys[:, INDEXED], kept, Split(len(kept[0]), 1, DIM), 20)
    chosen = chosen_by(ours, block)
    assert not chosen[..., torch.arange(COUNT) % 5 > 0].any()
    # Pages of one token and all components leave nothing to a guess.
    exact = block.logits_of(prompt.keys[:, INDEXED][:, ::5]).softmax(-1).mean(1)
    best = exact.topk(20, dim=-1).indices * 5
    for group in range(GROUP):
        assert chosen[:, group].gather(-1, best).all()
    larger = HybridLayer(INDEXED, prompt.keys[:, INDEXED], kept, Split(len(kept[0]), 3, 8), 20)
    assert (chosen_by(larger, block).sum(-1) == 20).all()


def test_rocketkvs_pages_promise_what_quests_bound_does(prompt, block):
    """All components, and heads that want the same."""
    kept = torch.arange(COUNT).expand(HEADS, -1)
    keys = prompt.keys[:, INDEXED]
    ours = HybridLayer(INDEXED, keys, kept, Split(COUNT, 4, DIM), 20)
    same = block_of(prompt, block.queries[:, :1].expand(-1, GROUP, -1, -1).contiguous())
    pages = Pages.of(keys, 4)
    wanted = pages.tokens_of(pages.bounds(same.queries[:, :1]) * prompt.scale).softmax(-1)
    torch.testing.assert_close(ours.scores(same), wanted, atol=1e-6, rtol=1e-3)


def test_rocketkv_keeps_what_the_question_looks_at(prompt, block):
    ours = RocketKV(20).prepare(prompt, STATIC)
    wanted = INDEXED.start + 100
    looking = prompt.keys[:, None, wanted : wanted + 1].expand(-1, GROUP, 40, -1)
    question = Block(50 * looking, block.keys, block.values, TOKENS, prompt.scale)
    torch.testing.assert_close(ours.attend(question).out, question.full)  # read in full
    ours.begin_answer()
    assert (ours._kept._kept == 100).any(-1).all()
    assert len(ours._kept._kept[0]) == Split.of(COUNT, 20, DIM).kept


def test_retroinfer_accounts_for_every_cluster_that_it_looks_at(prompt, block):
    ours = RetroInfer(64).prepare(prompt, STATIC)
    assert ours.sizes.sum(-1).tolist() == [COUNT, COUNT]
    reads, estimates = ours.zones(block)
    assert not (reads & estimates).any()
    tokens = (reads * ours.sizes[:, None, None]).sum(-1)
    assert (tokens <= 35).all()  # .018 * 16 to .232
    assert ((tokens + estimates.sum(-1)) <= 64).all()
    # What is read is wanted more than what is estimated, and that more than the rest.
    wanted = (block.logits_of(ours.centroids)).softmax(-1).sum(1, keepdim=True)
    left_out = ~reads & ~estimates
    assert (least(wanted, reads) >= most(wanted, estimates) - 1e-6).all()
    assert (least(wanted, estimates) >= most(wanted, left_out) - 1e-6).all()


def least(values, where):
    return values.masked_fill(~where, torch.inf).amin(-1)


def most(values, where):
    return values.masked_fill(~where, -torch.inf).amax(-1)


def test_retroinfers_estimate_is_exact_where_a_clusters_keys_are_equal(block):
    """16 directions, each of 17 equal keys: a centroid with its size is as good as they are."""
    directions = 3 * torch.nn.functional.normalize(drawn(HEADS, 17, DIM, seed=6), dim=-1)
    keys = drawn(HEADS, TOKENS, DIM)
    keys[:, INDEXED] = directions.repeat_interleave(16, 1)[:, :COUNT]
    prompt = prompt_of(keys)
    block = block_of(prompt)
    assert len(wave_index(keys[:, INDEXED]).unique()) == 17
    attended = RetroInfer(40).prepare(prompt, STATIC).attend(block)
    assert attended.vectors < 40
    torch.testing.assert_close(attended.out, block.full, atol=1e-4, rtol=1e-3)


def test_magicpigs_chances_are_those_of_its_tables(prompt, block):
    """Over many draws of the tables, how often each key is sampled, and what it stands for."""
    centred = prompt.keys[:, INDEXED] - prompt.keys[:, INDEXED].mean(1, keepdim=True)
    towards = 2 * centred[:, None, :STEPS] + drawn(HEADS, GROUP, STEPS, DIM)
    block = block_of(prompt, towards)
    share = magicpig.chance(magicpig.match(block.queries, centred), 60)
    hits, estimate = torch.zeros_like(share), torch.zeros(HEADS, GROUP, STEPS)
    # With a value of 1 for indexed tokens and 0 for others, the output tells what these are worth.
    ones = torch.zeros(HEADS, block.keys.shape[1], 1)
    ones[:, INDEXED] = 1
    # Queries that want nothing in particular sample little, and each sample stands for much.
    told = Block(prompt.queries[:, :, :STEPS], block.keys, ones, TOKENS, block.scale)
    indexed = told.weights[..., INDEXED].sum(-1)
    draws = 60
    for seed in range(draws):
        ours = magicpig.MagicPIGLayer(INDEXED, centred, 60, seed)
        sampled = ours.collisions(block.queries) >= 2
        hits += sampled
        out = ours.attend(told).out[..., 0]
        estimate += (1 - indexed) * out / (1 - out) / indexed
    likely = share > 0.3
    assert likely.any()
    assert (hits / draws - share)[likely].abs().mean() < 0.08
    assert hits.sum() / draws == pytest.approx(share.sum().item(), rel=0.1)
    assert estimate.mean() / draws == pytest.approx(1, rel=0.2)


def test_magicpig_takes_the_tables_that_its_budget_has_room_for(prompt):
    bit = magicpig.match(prompt.queries[:, :, -32:], prompt.keys[:, INDEXED])
    few, many = magicpig.tables_for(5, bit), magicpig.tables_for(40, bit)
    assert 2 <= few < many <= magicpig.MOST_TABLES
    assert magicpig.chance(bit, few).sum(-1).mean() <= 5
    assert magicpig.chance(bit, few + 1).sum(-1).mean() > 5


def test_vattention_keeps_its_bound_with_its_confidence(prompt, monkeypatch):
    """How often the softmax's denominator is further off than it may be."""
    monkeypatch.setattr(vattention, "BASE", 0.25)  # of 272 tokens, enough to know a deviation by
    block = block_of(prompt, 2 * drawn(HEADS, GROUP, STEPS, DIM, seed=10))
    ones = torch.ones(HEADS, block.keys.shape[1], 1)
    # With a value of 1 for indexed tokens and 0 for others, the output tells their share.
    ones[:, : INDEXED.start], ones[:, INDEXED.stop :] = 0, 0
    told = Block(block.queries, block.keys, ones, TOKENS, block.scale)
    static = 1 - block.weights[..., INDEXED].sum(-1)
    for error in (0.1, 0.3):
        ours = VAttention(error=error).prepare(prompt, STATIC)
        off, vectors = [], []
        for _ in range(40):
            attended = ours.attend(told)
            total = static / (1 - attended.out[..., 0])
            off.append((total - 1).abs() > error)
            vectors.append(attended.vectors)
        assert torch.stack(off).float().mean() < 1.2 * error
        assert sum(vectors) / 40 < COUNT
    assert VAttention(error=0.3).kind == "vattention-0.3"
