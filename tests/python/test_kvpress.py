"""Policies of keyseek.eval beside the same papers' presses in kvpress, where it is installed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
kvpress = pytest.importorskip("kvpress")

from keyseek.eval.block import Static
from keyseek.eval.policies import Streaming, h2o, snapkv
from keyseek.eval.policies.pyramidkv import pyramid
from keyseek.eval.prompt import read_prompt
from test_hf import gemma, llama, prompt

TOKENS, LAYER = 300, 1
STATIC = Static(sink=4, window=64)
INDEXED = STATIC.indexed(TOKENS)


@pytest.fixture(scope="module", params=[llama, gemma])
def both(request):
    """A layer as read by keyseek, and what a press's score is called with, in eager attention."""
    ids = prompt(TOKENS)
    network = request.param()
    network.set_attn_implementation("eager")
    with torch.inference_mode():
        attentions = network(ids, output_attentions=True).attentions[LAYER]
    layer = read_prompt(network, ids[0].tolist()).layers[LAYER]
    module = network.model.layers[LAYER].self_attn
    hidden = torch.empty(1, TOKENS, 1)  # only its length is asked for
    keys, values = layer.keys[None], layer.values[None]
    return layer, (module, hidden, keys, values, attentions, {})


def test_streaming_keeps_the_same_tokens(both):
    layer, given = both
    budget = 20
    kept = STATIC.sink + budget + STATIC.window
    press = kvpress.StreamingLLMPress((TOKENS - kept) / TOKENS, n_sink=STATIC.sink)
    chosen = Streaming(budget).prepare(layer, STATIC)._chosen
    assert chosen.sum(-1).unique().tolist() == [budget]
    theirs = press.score(*given)[0].bool()
    assert theirs.sum(-1).unique().tolist() == [kept]
    assert torch.equal(chosen[:, 0, 0], theirs[:, INDEXED])


def test_snapkv_ranks_by_the_same_attention(both):
    """Without the pooling: ours takes the largest neighbour, kvpress the mean."""
    layer, given = both
    press = kvpress.SnapKVPress(0.5, window_size=snapkv.OBSERVED, kernel_size=1)
    mean = snapkv._received(layer, INDEXED).mean(1) / layer.queries.shape[1]
    assert torch.allclose(mean, press.score(*given)[0][:, INDEXED], rtol=1e-3, atol=1e-7)


def test_h2o_adds_up_the_same_attention(both):
    """kvpress divides by the number of queries that see a token, the paper does not."""
    layer, given = both
    queries = torch.arange(TOKENS, 0, -1) * layer.queries.shape[1]
    theirs = kvpress.ObservedAttentionPress(0.5).score(*given)[0]
    assert torch.allclose(h2o.received(layer) / queries, theirs, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("budget", "layers"), [(40, 4), (100, 30), (512, 18), (1500, 30)])
def test_pyramidkv_shares_the_budget_out_alike(budget, layers):
    tokens, window = 2000, 1  # a window is the policies' own, and kvpress wants one
    press = kvpress.PyramidKVPress(1 - budget / tokens, window_size=window)
    config = SimpleNamespace(num_hidden_layers=layers)
    theirs = [
        press.get_layer_budget(SimpleNamespace(config=config, layer_idx=layer), tokens)
        for layer in range(layers)
    ]
    assert pyramid(budget, layers, tokens - window) == pytest.approx(theirs, abs=1)
