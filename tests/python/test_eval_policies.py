"""Every policy of keyseek.eval by the property that defines it, on small random models."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import keyseek
from keyseek.eval.block import Block, Static, attend_chosen
from keyseek.eval.policies import (
    FORMS,
    H2O,
    Flat,
    Full,
    Hnsw,
    InfLLM,
    Ivf,
    Keyseek,
    OracleKMeans,
    OracleSample,
    OracleTopK,
    OracleTrained,
    Planned,
    Quest,
    SnapKV,
    Streaming,
    h2o,
)
from keyseek.eval.policies.ours import exact_search
from keyseek.eval.policies.quest import TOKENS as PAGE
from keyseek.eval.policies.tails import k_means
from keyseek.eval.prompt import read_prompt
from keyseek.eval.score import PreparedPolicy, agreement, divergence
from test_hf import gemma, llama, prompt

TOKENS = 300
STATIC = Static(sink=4, window=24)
INDEXED = STATIC.indexed(TOKENS)
COUNT = INDEXED.stop - INDEXED.start
IDS = prompt(TOKENS + 40)[0].tolist()
QUESTION, ANSWER = IDS[TOKENS : TOKENS + 10], IDS[TOKENS + 10 :]


class Small(Planned):
    """Planned for a prompt that is too short for the usual settings."""

    @property
    def options(self):
        small = {"least_indexed": 64, "observed": 64, "held_out": 16, "tail_vectors": 8}
        return {**super().options, **small, "max_k": 64}


@pytest.fixture(scope="module", params=[llama, gemma])
def model(request):
    return request.param()


@pytest.fixture(scope="module")
def read(model):
    return read_prompt(model, IDS[:TOKENS])


@pytest.fixture(scope="module")
def layer(read):
    return read.layers[1]


@pytest.fixture(scope="module")
def block(layer):
    """Ten steps after the prompt, with made-up tokens."""
    torch.manual_seed(5)
    new = torch.randn(2, layer.keys.shape[0], 10, layer.keys.shape[-1])
    return Block(
        torch.randn_like(layer.queries[:, :, :10]),
        torch.cat([layer.keys, new[0]], 1),
        torch.cat([layer.values, new[1]], 1),
        TOKENS,
        layer.scale,
    )


def decode(model, read, policy):
    return PreparedPolicy(policy, read, STATIC).decode(model, QUESTION, ANSWER)


def chosen_by(policy, layer, block):
    """Attended indexed tokens, told by values that are unit vectors: bool [Hkv, G, q, COUNT]."""
    unit = torch.eye(block.keys.shape[1]).expand(block.keys.shape[0], -1, -1).contiguous()
    ours = policy.prepare(layer, STATIC)
    ours.begin_answer()
    out = ours.attend(Block(block.queries, block.keys, unit, TOKENS, block.scale)).out
    return out[..., INDEXED] > 0


def test_full_attention_is_the_models_own(model, read):
    own = model(torch.tensor([IDS[:-1]])).logits[0, TOKENS + 9 :].log_softmax(-1)
    seen = decode(model, read, Full()).seen
    torch.testing.assert_close(seen, own, atol=1e-4, rtol=1e-4)


def test_a_prompt_is_read_once_and_decoded_often(model, read):
    prepared = PreparedPolicy(Full(), read, STATIC)
    first = prepared.decode(model, QUESTION, ANSWER)
    assert torch.equal(first.seen, prepared.decode(model, QUESTION, ANSWER).seen)
    assert prepared.decode(model, QUESTION[:3], ANSWER[:5]).seen.shape[0] == 5


def test_snapkv_reads_the_question_in_full(model, read):
    ours, full = decode(model, read, SnapKV(8)), decode(model, read, Full())
    torch.testing.assert_close(ours.seen[0], full.seen[0])
    assert divergence(full, ours)[1:].min() > 0
    assert ours.meter.vectors / ours.meter.steps == 8


def test_everything_chosen_is_full_attention(block):
    everything = torch.ones(1, 1, 1, COUNT, dtype=torch.bool)
    attended = attend_chosen(block, INDEXED, everything)
    torch.testing.assert_close(attended.out, block.full)
    torch.testing.assert_close(attended.mass, torch.ones_like(attended.mass))
    assert attended.vectors == COUNT


def test_oracle_of_all_keys_is_full_attention(model, read):
    ours, full = decode(model, read, OracleTopK(COUNT)), decode(model, read, Full())
    torch.testing.assert_close(ours.seen, full.seen, atol=1e-4, rtol=1e-4)
    assert divergence(full, ours).max() < 1e-4
    assert agreement(full, ours).all()


def test_oracle_chooses_the_largest_logits(layer, block):
    chosen = chosen_by(OracleTopK(20), layer, block)
    logits = block.logits[..., INDEXED]
    assert (chosen.sum(-1) == 20).all()
    least = logits.masked_fill(~chosen, torch.inf).amin(-1)
    assert (least >= logits.masked_fill(chosen, -torch.inf).amax(-1)).all()


def test_oracle_holds_the_most_mass_of_its_budget(layer, block):
    best = OracleTopK(32).prepare(layer, STATIC).attend(block).mass
    for policy in (Streaming(32), SnapKV(32), H2O(32), Quest(32), InfLLM(32)):
        ours = policy.prepare(layer, STATIC)
        ours.begin_answer()
        assert (ours.attend(block).mass <= best + 1e-5).all(), policy.name


def test_streaming_attends_sink_and_window_alone(layer, block):
    assert not chosen_by(Streaming(0), layer, block).any()
    longer = chosen_by(Streaming(30), layer, block)
    assert not longer[..., :-30].any()
    assert longer[..., -30:].all()


def test_snapkv_keeps_its_budget_and_what_the_question_looks_at(layer, block):
    ours = SnapKV(30).prepare(layer, STATIC)
    wanted = INDEXED.start + 100
    # The question looks at one token only.
    looking = layer.keys[:, None, wanted : wanted + 1].expand(-1, block.queries.shape[1], 40, -1)
    question = Block(50 * looking, block.keys, block.values, TOKENS, layer.scale)
    torch.testing.assert_close(ours.attend(question).out, question.full)  # read in full
    ours.begin_answer()
    unit = torch.eye(block.keys.shape[1]).expand(block.keys.shape[0], -1, -1).contiguous()
    out = ours.attend(Block(block.queries, block.keys, unit, TOKENS, block.scale)).out
    chosen = out[..., INDEXED] > 0
    assert (chosen.sum(-1) == 30).all()
    assert chosen[..., 100].all()
    assert (chosen == chosen[:, :1, :1]).all()  # one choice for the group and for all steps


def test_forks_of_snapkv_see_questions_of_their_own(layer, block):
    first = SnapKV(30).prepare(layer, STATIC)
    second = first.fork()
    first.attend(block)
    first.begin_answer()
    second.begin_answer()
    assert first.attend(block).mass.shape == second.attend(block).mass.shape
    assert not torch.equal(first.attend(block).mass, second.attend(block).mass)


def test_h2o_keeps_the_tokens_that_received_most(layer, block):
    n = layer.tokens
    logits = layer.queries @ layer.keys[:, None].transpose(2, 3) * layer.scale
    logits.masked_fill_(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
    received = logits.softmax(-1).sum((1, 2))
    torch.testing.assert_close(h2o.received(layer), received, atol=1e-3, rtol=1e-4)
    chosen = chosen_by(H2O(25), layer, block)
    assert (chosen.sum(-1) == 25).all()
    wanted = received[:, INDEXED].topk(25).indices
    for head, ids in enumerate(wanted):
        assert chosen[head][..., ids].all()


def test_quests_bound_is_above_every_key_of_its_page(layer, block):
    ours = Quest(64).prepare(layer, STATIC)
    true = block.queries @ layer.keys[:, None, INDEXED].transpose(2, 3)
    bounds = ours.pages.bounds(block.queries)
    assert bounds.shape[-1] == -(-COUNT // PAGE)
    for page, scores in enumerate(true.split(PAGE, dim=-1)):
        assert (bounds[..., page] >= scores.amax(-1) - 1e-4).all()


def test_quest_attends_whole_pages(layer, block):
    chosen = chosen_by(Quest(64), layer, block)
    assert (chosen.sum(-1) <= 64).all()
    for page in chosen.split(PAGE, dim=-1):
        assert (page.all(-1) | ~page.any(-1)).all()


def test_infllm_attends_whole_blocks_with_fitting_representatives(layer, block):
    ours = InfLLM(64).prepare(layer, STATIC)
    chosen = ours.choose(block)
    blocks = chosen.split(16, dim=-1)  # a quarter of the budget
    assert all((one.all(-1) | ~one.any(-1)).all() for one in blocks)
    scores = block.logits_of(ours.representatives).sum(1, keepdim=True)
    best = scores.unflatten(-1, (-1, 4)).sum(-1).argmax(-1)
    for number, one in enumerate(blocks):
        assert one.all(-1)[best == number].all()
    # Representatives are keys of their own block.
    for head, keys in enumerate(layer.keys[:, INDEXED]):
        own = ours.representatives[head].unflatten(0, (-1, 4))
        for number in range(COUNT // 16):
            distance = torch.cdist(own[number], keys[16 * number : 16 * number + 16])
            assert (distance.amin(1) < 1e-3).all()


def test_flat_finds_what_the_oracle_does(layer, block):
    flat, oracle = chosen_by(Flat(20), layer, block), chosen_by(OracleTopK(20), layer, block)
    assert (flat & oracle).sum() >= 0.97 * oracle.sum()  # keys are stored in half precision


@pytest.mark.parametrize("policy", [Ivf(20), Hnsw(20)])
def test_peers_attend_what_they_find(policy, layer, block):
    pytest.importorskip("faiss")
    ours = policy.prepare(layer, STATIC).attend(block)
    assert 0 < ours.vectors <= 20
    assert ours.bytes > 2 * ours.vectors * layer.keys.shape[-1]
    best = OracleTopK(20).prepare(layer, STATIC).attend(block).mass
    assert (ours.mass <= best + 1e-5).all()
    everything = type(policy)(COUNT).prepare(layer, STATIC).attend(block)
    assert everything.mass.mean() > ours.mass.mean()


def test_clusters_are_the_nearest_and_counts_leave_what_is_retrieved(layer, block):
    keys = layer.keys[0, INDEXED]
    cluster = k_means(keys, 8)
    assert cluster.shape == (COUNT,)
    assert cluster.max() < 8
    ours = OracleKMeans(16).prepare(layer, STATIC)  # 8 keys and 8 centroids
    logits = block.logits[..., INDEXED]
    best = logits.topk(8, dim=-1).indices
    summary = ours.summary(best, None)
    left = summary.bias.exp().sum(-1)
    torch.testing.assert_close(left, torch.full_like(left, COUNT - 8))


def test_a_sample_stands_for_all_that_is_not_retrieved(layer, block):
    ours = OracleSample(16).prepare(layer, STATIC)
    chosen = torch.rand(*block.logits.shape[:3], COUNT) < 0.1
    summary = ours.summary(None, chosen)
    left = summary.bias.exp().sum(-1)
    torch.testing.assert_close(left, (~chosen).sum(-1).float())


def test_a_tail_of_all_keys_is_full_attention(layer, block):
    """A sample of everything, none of it retrieved, leaves nothing out."""
    ours = OracleSample(2 * COUNT).prepare(layer, STATIC)
    ours._k, ours._sample = 1, torch.arange(COUNT).expand(layer.keys.shape[0], -1)
    ours._keys, ours._values = layer.keys[:, INDEXED], layer.values[:, INDEXED]
    torch.testing.assert_close(ours.attend(block).out, block.full, atol=1e-4, rtol=1e-4)


def test_a_strict_keyseek_gives_the_answers_of_full_attention(model, read):
    ours, full = decode(model, read, Small(max_error=1e-6)), decode(model, read, Full())
    assert divergence(full, ours).max() < 1e-3  # it stores half precision
    assert ours.meter.vectors / ours.meter.steps == COUNT


def test_a_loose_keyseek_reads_less(model, read):
    ours, full = decode(model, read, Small(max_error=0.3)), decode(model, read, Full())
    assert ours.meter.vectors < 0.2 * full.meter.vectors
    errors = torch.cat([torch.tensor(e) for e in ours.meter.means(ours.meter.errors).values()])
    assert 0 < errors.mean() < 0.3


@pytest.mark.parametrize("form", FORMS)
def test_keyseek_keeps_its_budget(form, model, read):
    ours = decode(model, read, Keyseek(32, form))
    vectors = ours.meter.vectors / ours.meter.steps
    assert 16 <= vectors <= 32
    if FORMS[form].get("rule") is None:
        assert vectors == 32


def test_an_exact_search_and_the_trained_tail(layer, block):
    keys = layer.keys[0, INDEXED].contiguous()
    ids, scores = exact_search(keys.numpy())(block.queries[0, :, 0].numpy(), 20)
    best = (block.logits[0, :, 0, INDEXED] / block.scale).topk(20)
    torch.testing.assert_close(torch.from_numpy(scores), best.values, atol=1e-4, rtol=1e-4)
    assert (torch.from_numpy(ids) == best.indices).all()
    ours = OracleTrained(32).prepare(layer, STATIC)
    attended = ours.attend(block)
    assert attended.vectors == 32
    assert {head.plan.tail_vectors for head in ours.heads} == {16}
    # It reads all keys, and the rows of 16 keys and 16 tail vectors that each query wants.
    assert attended.bytes > 2 * COUNT * layer.keys.shape[-1]


def test_what_cannot_work_is_said(model, read):
    with pytest.raises(keyseek.InvalidArgument, match="prompt has 300 tokens, sink 200"):
        Static(200, 100).indexed(300)
    with pytest.raises(keyseek.InvalidArgument, match="form is 'best'"):
        Keyseek(100, "best")
    with pytest.raises(keyseek.InvalidArgument, match="sink is -1"):
        Static(sink=-1)
    with pytest.raises(keyseek.InvalidArgument, match="question has 0 tokens and answer 30, must"):
        PreparedPolicy(Full(), read, STATIC).decode(model, [], ANSWER)
    with pytest.raises(keyseek.InvalidArgument, match="layer 7 is not one of full attention"):
        PreparedPolicy(Full(), read, STATIC, [7])
    with pytest.raises(keyseek.InvalidArgument, match="ids has 1 tokens"):
        read_prompt(model, [1])
