"""Saved caches: shared, refused for another text or model, and checked field by field."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import keyseek
from keyseek.hf import RetrievalCache
from test_hf import cache_of, gemma, llama, logits, prompt


@pytest.fixture(scope="module")
def model():
    return llama()


@pytest.mark.parametrize("make", [llama, gemma])
def test_a_prompt_is_saved_and_shared(make, tmp_path):
    net = make()
    ids = prompt(300)
    cache = cache_of(net)
    logits(net, ids, cache, [280])
    cache.save(tmp_path / "prefix")
    assert cache.retrieving
    expected = logits(net, ids[:, 280:], cache.copy(), [1] * 20)
    for again in (cache.copy(), RetrievalCache.load(net.config, tmp_path / "prefix", threads=1)):
        assert again.retrieving and again.get_seq_length() == 280
        torch.testing.assert_close(logits(net, ids[:, 280:], again, [1] * 20), expected)
    assert cache.get_seq_length() == 280  # what its copies decoded is theirs
    with pytest.raises(keyseek.Error, match="exists already"):
        cache.save(tmp_path / "prefix")


def test_a_prompt_is_not_loaded_for_another_text(model, tmp_path):
    ids = prompt(300)
    cache = cache_of(model)
    logits(model, ids, cache, [280])
    with pytest.raises(keyseek.InvalidArgument, match="tokens are 300, the cache has read 280"):
        cache.save(tmp_path / "prefix", tokens=ids)
    cache.save(tmp_path / "prefix", tokens=ids[:, :280])
    for same in (ids, ids[:, :280], ids[0].tolist()):
        RetrievalCache.load(model.config, tmp_path / "prefix", threads=1, tokens=same)
    for other in (ids[:, :279], ids.flip(1), torch.cat([ids, ids])):
        with pytest.raises(keyseek.InvalidArgument, match=r"prefix is of another text|read 280"):
            RetrievalCache.load(model.config, tmp_path / "prefix", threads=1, tokens=other)
    cache.save(tmp_path / "unnamed")
    with pytest.raises(keyseek.InvalidArgument, match="was saved without tokens"):
        RetrievalCache.load(model.config, tmp_path / "unnamed", threads=1, tokens=ids)


def test_a_short_prompt_is_saved_as_it_is(model, tmp_path):
    ids = prompt(300)
    cache = cache_of(model)
    logits(model, ids, cache, [40])
    cache.save(tmp_path / "short")
    again = RetrievalCache.load(model.config, tmp_path / "short", threads=1)
    assert not again.retrieving
    seen = logits(model, ids[:, 40:], again, [240, *[1] * 10])
    assert again.retrieving
    torch.testing.assert_close(seen, logits(model, ids[:, 40:], cache, [240, *[1] * 10]))


def test_the_fields_of_a_saved_cache_are_checked(tmp_path):
    net = gemma()
    cache = cache_of(net)
    logits(net, prompt(300), cache, [280])
    cache.save(tmp_path / "prefix")
    file = tmp_path / "prefix" / "state.pt"
    state = torch.load(file, weights_only=True)

    def refused_as(pattern: str, change) -> None:
        spoiled = copy.deepcopy(state)
        change(spoiled)
        torch.save(spoiled, file)
        with pytest.raises(keyseek.Error, match=pattern) as raised:
            RetrievalCache.load(net.config, tmp_path / "prefix")
        assert raised.value.code == "corrupt"

    refused_as("state.pt: field params is missing", lambda s: s.pop("params"))
    refused_as("state.pt: there is no field more", lambda s: s.update(more=1))
    refused_as("state.pt: layers is a dict, must be list", lambda s: s.update(layers={}))
    refused_as("fingerprint: field weights is missing", lambda s: s["fingerprint"].pop("weights"))
    # One that retrieves and one of a sliding window.
    refused_as("layer 1: field tokens is missing", lambda s: s["layers"][1].pop("tokens"))
    refused_as("layer 1: heads is a bool, must be int", lambda s: s["layers"][1].update(heads=True))
    refused_as("layer 1: there is no field _call", lambda s: s["layers"][1].update(_call=None))
    refused_as("layer 0: field keys is missing", lambda s: s["layers"][0].pop("keys"))
    refused_as(
        "layer 0: keys is a str, must be Tensor or None", lambda s: s["layers"][0].update(keys="x")
    )
    refused_as("layer 0: there is no field device", lambda s: s["layers"][0].update(device="cpu"))
    refused_as(
        "there is no option sank",
        lambda s: s.update(params=s["params"].replace("\nsink", "\nsank")),
    )


def test_what_cannot_be_loaded_is_named(model, tmp_path):
    cache = cache_of(model)
    logits(model, prompt(300), cache, [280])
    cache.save(tmp_path / "prefix")
    with pytest.raises(
        keyseek.Error, match="of another model: model_type is llama there and gemma3_text here"
    ):
        RetrievalCache.load(gemma().config, tmp_path / "prefix")
    with pytest.raises(keyseek.Error, match=r"cannot read .*nothing"):
        RetrievalCache.load(model.config, tmp_path / "nothing")
    with pytest.raises(keyseek.Error, match=r"cannot write .*missing"):
        cache.save(tmp_path / "missing" / "prefix")
    head = next((tmp_path / "prefix").glob("*.ks"))
    head.write_bytes(head.read_bytes()[:-1])
    with pytest.raises(keyseek.Error, match=head.name):
        RetrievalCache.load(model.config, tmp_path / "prefix")
    (tmp_path / "prefix" / "state.pt").write_bytes(b"no archive")
    with pytest.raises(keyseek.Error, match=r"state.pt is damaged"):
        RetrievalCache.load(model.config, tmp_path / "prefix")
    own = RetrievalCache(model.config, retriever="custom", index=lambda keys: None)
    with pytest.raises(keyseek.InvalidArgument, match="cannot be saved"):
        own.save(tmp_path / "own")
