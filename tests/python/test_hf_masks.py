"""Masks of a cache that retrieves: what a mask hides is not there, or the mask is refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from keyseek.hf.visible import Visibility, as_visible
from test_hf import cache_of, full_logits, llama, logits, own, prompt, refused

STRICT = 1e-6


@pytest.fixture(scope="module")
def model():
    return llama()


def steps(model, ids, cache, pieces, mask):
    """Logits of the newest token of every piece [pieces, B, v]."""
    begin, out = 0, []
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        for count in pieces:
            end = begin + count
            given = {"attention_mask": mask[:, :end], "position_ids": positions[:, begin:end]}
            seen = model(ids[:, begin:end], past_key_values=cache, use_cache=True, **given)
            out.append(seen.logits[:, -1])
            begin = end
    return torch.stack(out)


def hidden(model, batch, places):
    """Ids and a mask of 340 tokens in which `places` [(request, slice)] are padding."""
    ids = prompt(340, batch=batch, seed=3)
    mask = torch.ones_like(ids)
    for request, place in places:
        mask[request, place] = 0
    return ids, mask


@pytest.mark.parametrize(
    "places",
    [
        [(1, slice(300, 310))],  # a shorter second turn, padded in front of what follows
        [(1, slice(310, 320)), (0, slice(300, 304))],  # and behind it
        [(0, slice(0, 40)), (1, slice(315, 320))],  # beside padding of the prompt
        [(0, slice(100, 160))],  # within the prompt
        [(1, slice(250, 320))],  # from the prompt to the second turn
        [(0, slice(325, 330))],  # token by token
    ],
)
def test_a_token_that_is_hidden_from_a_request_is_not_there(model, places):
    ids, mask = hidden(model, 2, places)
    pieces = [299, 1, 20, *[1] * 20]
    cache = cache_of(model, STRICT)
    ours = steps(model, ids, cache, pieces, mask)
    full = steps(model, ids, own(model), pieces, mask)
    assert cache.retrieving
    shown = torch.stack([mask[:, sum(pieces[: i + 1]) - 1] for i in range(len(pieces))]).bool()
    torch.testing.assert_close(ours[shown], full[shown], atol=2e-4, rtol=2e-4)
    for request, heads in enumerate((cache.layers[0].heads[:2], cache.layers[0].heads[2:])):
        assert {len(head) for head in heads} == {int(mask[request].sum())}


def test_a_request_alone_is_what_it_is_in_a_batch(model):
    ids, mask = hidden(model, 2, [(1, slice(300, 310)), (0, slice(0, 30))])
    pieces = [299, 1, 20, *[1] * 20]
    together = steps(model, ids, cache_of(model, 0.1), pieces, mask)[-1]
    for request in range(2):
        text = ids[request][mask[request].bool()][None]
        begun = int(mask[request, :299].sum())
        rest = [1, int(mask[request, 300:320].sum()), *[1] * 20]
        alone = logits(model, text, cache_of(model, 0.1), [begun, *rest])
        torch.testing.assert_close(together[request], alone[0], atol=1e-3, rtol=1e-3)


def four_dimensional(seen):
    """A mask as models take it, added to the logits."""
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


@pytest.mark.parametrize("additive", [False, True])
def test_masks_of_four_dimensions_are_read(model, additive):
    ids, cache = prompt(330), cache_of(model, STRICT)
    logits(model, ids[:, :300], cache, [299, 1])
    causal = torch.ones(1, 30, 330, dtype=torch.bool).tril(300)
    mask = four_dimensional(causal) if additive else causal[:, None]
    with torch.inference_mode():
        ours = model(ids[:, 300:], past_key_values=cache, attention_mask=mask).logits
    full = full_logits(model, ids, [300, 30])
    torch.testing.assert_close(ours[:, -1], full, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("retrieves", [False, True])
def test_the_tree_of_a_speculative_decoder_is_refused_or_right(model, retrieves):
    ids, cache = prompt(304), cache_of(model, STRICT, least_indexed=64 if retrieves else 4096)
    logits(model, ids[:, :300], cache, [299, 1])
    assert cache.retrieving == retrieves
    seen = torch.ones(1, 4, 304, dtype=torch.bool).tril(300)
    seen[0, 2, 301] = seen[0, 3, 302] = False  # two branches
    given = {"attention_mask": seen[:, None], "position_ids": torch.tensor([[300, 301, 301, 302]])}
    with torch.inference_mode():
        if retrieves:
            with refused("request 0 is not causal at new token 2.* tree of a speculative"):
                model(ids[:, 300:], past_key_values=cache, **given)
            return
        ours = model(ids[:, 300:], past_key_values=cache, **given).logits
        plain = own(model)
        model(ids[:, :300], past_key_values=plain)
        full = model(ids[:, 300:], past_key_values=plain, **given).logits
    torch.testing.assert_close(ours, full, atol=2e-4, rtol=2e-4)


def test_what_was_read_cannot_be_hidden_later(model):
    ids, mask = hidden(model, 2, [])
    for change, pattern in (
        (lambda m: m.__setitem__((1, 20), 0), "request 1 hides token 20, which was seen"),
        (lambda m: m.__setitem__((0, 0), 1), "request 0 shows token 0, which was hidden"),
    ):
        mask[0, :3] = 0
        cache = cache_of(model)
        steps(model, ids[:, :300], cache, [299, 1], mask[:, :300])
        other = mask.clone()
        change(other)
        with refused(pattern), torch.inference_mode():
            model(ids[:, 300:301], past_key_values=cache, attention_mask=other[:, :301])
    with refused("attention_mask is missing"), torch.inference_mode():
        cache = cache_of(model)
        steps(model, ids[:, :300], cache, [299, 1], mask[:, :300])
        model(ids[:, 300:301], past_key_values=cache)


def test_a_position_bias_in_the_mask_is_never_dropped(model):
    ids, cache = prompt(330), cache_of(model, STRICT)
    bias = torch.arange(300.0).neg()[None, None, None].abs().neg() / 100
    mask = torch.full((1, 1, 300, 300), torch.finfo(torch.float32).min).triu(1) + bias
    with torch.inference_mode():
        ours = model(ids[:, :300], past_key_values=cache, attention_mask=mask).logits
        full = model(ids[:, :300], past_key_values=own(model), attention_mask=mask).logits
        torch.testing.assert_close(ours, full)
        with pytest.warns(UserWarning, match="position bias"):
            model(ids[:, 300:301], past_key_values=cache)
    assert not cache.retrieving
    assert "position bias" in str(cache.report())
    # This one comes after the plan.
    cache = cache_of(model, STRICT)
    logits(model, ids, cache, [300, 1])
    late = torch.linspace(-1, 0, 302)[None, None, None]
    with refused("position bias"), torch.inference_mode():
        model(ids[:, 301:302], past_key_values=cache, attention_mask=late)


def test_masks_that_differ_between_heads_are_refused():
    mask = torch.ones(1, 2, 1, 8, dtype=torch.bool)
    mask[0, 1, 0, 3] = False
    with refused("differs from head to head"):
        as_visible(mask, 8)


def test_visibility_takes_nothing_when_it_refuses():
    visible = Visibility()
    visible.read_prompt(None, 1, 5)
    mask = torch.ones(1, 1, 1, 6, dtype=torch.bool)
    mask[..., 2] = False
    with refused("hides token 2"):
        visible.extend(mask, 1, 1)
    assert visible.lengths(1) == [5]
    assert visible.extend(None, 1, 1) is None
    assert visible.lengths(1) == [6]
    assert Visibility.restored(visible.state()).lengths(1) == [6]
