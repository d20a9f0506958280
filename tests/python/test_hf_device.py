"""The transformers cache beside a device: the layers' own code with a session made of PyTorch.

Where a GPU is, scripts/gpu-check.sh runs the last tests on it.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import keyseek
from keyseek.hf import RetrievalCache
from keyseek.hf import device as devices
from test_hf import SMALL, cache_of, full_logits, llama, logits, prompt

SINK, WINDOW = SMALL["sink"], SMALL["window"]
SCALE = 8**-0.5  # of the small models' heads


class HostSession:
    """A DecodeSession in PyTorch: sink and window here, the heads' part from the heads."""

    opened = loaded = 0

    def __init__(self, heads):
        HostSession.opened += 1
        rows, d = len(heads) * heads[0].group, heads[0].dim
        self.queries, self.output = torch.empty(rows, d), torch.empty(rows, d)
        self.key, self.value = torch.empty(len(heads), d), torch.empty(len(heads), d)
        self._hold(heads)

    def load(self, heads):
        HostSession.loaded += 1
        self._hold(heads)

    def step(self, heads, pool):
        out, lse = keyseek.step_heads_beside_static(
            heads, self.queries.numpy(), self.key.numpy(), self.value.numpy(), pool
        )
        self._keys = self._moved_on(self._keys, self.key)
        self._values = self._moved_on(self._values, self.value)
        queries = self.queries.view(len(heads), -1, self.queries.shape[-1])
        scores = SCALE * queries @ self._keys.transpose(1, 2)
        here, there = scores.logsumexp(-1).view(-1, 1), torch.from_numpy(lse).view(-1, 1)
        both = torch.logaddexp(here, there)
        static = (scores.softmax(-1) @ self._values).view(self.output.shape)
        self.output.copy_(
            (here - both).exp() * static + (there - both).exp() * torch.from_numpy(out)
        )

    def _hold(self, heads):
        parts = [head.static_part() for head in heads]
        self._keys, self._values = (
            torch.stack([torch.from_numpy(part[i]) for part in parts]) for i in range(2)
        )
        assert SINK <= self._keys.shape[1] <= SINK + WINDOW

    @staticmethod
    def _moved_on(held, new):
        """Without the oldest token of the window, if that is full, with the new one."""
        first = SINK + (held.shape[1] == SINK + WINDOW)
        return torch.cat([held[:, :SINK], held[:, first:], new[:, None]], dim=1)


@pytest.fixture
def on_device(monkeypatch):
    """Layers take their tensors for a device's."""
    HostSession.opened = HostSession.loaded = 0
    monkeypatch.setattr(devices, "retrieves_beside", lambda device: True)
    monkeypatch.setattr(devices, "require_session", lambda *arguments: None)
    monkeypatch.setattr(devices, "open_session", lambda heads, *arguments: HostSession(heads))


@pytest.fixture(scope="module")
def model():
    return llama()


def on_cpu(model, ids, pieces, mask=None, **options):
    """What the CPU alone gives; called where a test has the fixture `on_device`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "retrieves_beside", lambda device: False)
        return logits(model, ids, cache_of(model, **options), pieces, mask)


def close(ours, expected):
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("max_error", [1e-6, 0.1])
def test_a_device_gives_what_the_cpu_gives_through_refreshes(model, on_device, max_error):
    ids, pieces = prompt(500), [300] + [1] * 200  # two refreshes and the beginning of a third
    cache = cache_of(model, max_error)
    close(logits(model, ids, cache, pieces), on_cpu(model, ids, pieces, max_error=max_error))
    assert HostSession.opened == 2  # one for each layer
    assert len(cache.layers[0].heads[0]) == 500
    assert cache.layers[0].heads[0].indexed > 380
    assert cache.layers[0].heads[0].refreshing


def test_tokens_in_pieces_and_answers_of_full_attention(model, on_device):
    ids, pieces = prompt(340), [300] + [1] * 10 + [30]
    close(logits(model, ids, cache_of(model, 1e-6), pieces), full_logits(model, ids, pieces))


def test_turns_and_crops_are_what_they_are_on_the_cpu(model, on_device):
    ids, cache = prompt(420), cache_of(model, 1e-6)
    logits(model, ids[:, :301], cache, [300, 1])
    for read, kept in ((340, 335), (341, 280), (282, 278), (400, 70), (200, 190)):
        seen = cache.get_seq_length()
        close(
            logits(model, ids[:, seen:read], cache, [read - seen - 1, 1]),
            full_logits(model, ids, [read]),
        )
        for layer in cache.layers:
            layer.keep(kept)
        assert cache.retrieving == (kept >= SINK + WINDOW + SMALL["least_indexed"])
    close(logits(model, ids[:, 190:], cache, [200, 30]), full_logits(model, ids, [420]))
    assert HostSession.opened == 2 * 2  # another one after there were too few tokens for a plan


def test_a_padded_batch(model, on_device):
    ids, mask = prompt(320, batch=2), torch.ones(2, 320, dtype=torch.long)
    mask[1, :60] = 0
    pieces = [300] + [1] * 20
    close(
        logits(model, ids, cache_of(model, 0.1), pieces, mask),
        on_cpu(model, ids, pieces, mask, max_error=0.1),
    )


def test_a_request_that_is_too_short_yet_waits_on_the_device(model, on_device):
    ids, mask = prompt(360, batch=2), torch.ones(2, 360, dtype=torch.long)
    mask[1, :245] = 0
    pieces, cache = [300] + [1] * 60, cache_of(model, 0.1)
    ours = logits(model, ids[:, :330], cache, pieces[:31], mask)
    close(ours, on_cpu(model, ids[:, :330], pieces[:31], mask, max_error=0.1))
    assert [request for request, _ in cache.layers[0].planned()] == [0]
    assert HostSession.opened == 2
    cache = cache_of(model, 0.1)
    close(logits(model, ids, cache, pieces, mask), on_cpu(model, ids, pieces, mask, max_error=0.1))
    assert [request for request, _ in cache.layers[0].planned()] == [0, 1]
    assert HostSession.opened == 2 + 2 * 2  # another one for both requests


def test_requests_are_chosen_and_repeated(model, on_device):
    ids, cache = prompt(220, batch=2), cache_of(model, 1e-6)
    logits(model, ids[:, :210], cache, [200] + [1] * 10)
    for chosen in ([1, 0], [1, 1, 0]):  # the same session is loaded, then one of another size made
        before = HostSession.opened, HostSession.loaded
        for layer in cache.layers:
            layer.batch_select_indices(torch.tensor(chosen))
        ids = ids[chosen]
        seen = cache.get_seq_length()
        with torch.inference_mode():
            ours = model(ids[:, seen : seen + 1], past_key_values=cache).logits[:, -1]
        close(ours, full_logits(model, ids[:, : seen + 1], [seen, 1]))
        grown = len(chosen) == 3
        assert HostSession.opened - before[0] == (2 if grown else 0)
        assert HostSession.loaded - before[1] == (0 if grown else 2)


def test_copies_and_saved_prompts_have_sessions_of_their_own(model, on_device, tmp_path):
    ids, cache = prompt(300), cache_of(model, 0.1)
    logits(model, ids[:, :282], cache, [280, 1, 1])
    copy = cache.copy()
    cache.save(tmp_path / "prefix")
    expected = on_cpu(model, ids, [280] + [1] * 20, max_error=0.1)
    for again in (copy, cache, RetrievalCache.load(model.config, tmp_path / "prefix", threads=1)):
        close(logits(model, ids[:, 282:], again, [1] * 18), expected)
    assert HostSession.opened == 2 * 3


def test_steps_may_leave_inference_mode(model, on_device):
    ids, cache = prompt(300), cache_of(model, 1e-6)
    logits(model, ids[:, :290], cache, [280] + [1] * 10)
    with torch.no_grad():
        for token in range(290, 300):
            ours = model(ids[:, token : token + 1], past_key_values=cache).logits[:, -1]
    close(ours, full_logits(model, ids, [280] + [1] * 20))


def test_another_stream_gets_another_session(model, on_device, monkeypatch):
    ids, cache = prompt(300), cache_of(model, 1e-6)
    logits(model, ids[:, :290], cache, [280] + [1] * 10)
    monkeypatch.setattr(devices, "current_stream", lambda device: 7)
    ours = logits(model, ids[:, 290:], cache, [1] * 10)
    close(ours, full_logits(model, ids, [280] + [1] * 20))
    assert HostSession.opened == 4


def test_a_reset_cache_forgets_its_session(model, on_device):
    ids, cache = prompt(300), cache_of(model, 1e-6)
    first = logits(model, ids, cache, [280] + [1] * 20)
    cache.reset()
    close(logits(model, ids, cache, [280] + [1] * 20), first)
    assert HostSession.opened == 4


def require(dim=64, dtype=torch.float16, values=None):
    keys = torch.empty(1, 2, 3, dim)
    devices.require_session(
        torch.device("cuda", 0),
        keys,
        keys if values is None else torch.empty(1, 2, 3, values),
        dtype,
    )


def test_what_no_session_can_be_made_for_is_said():
    with pytest.raises(
        keyseek.InvalidArgument, match="keys are on cuda:0, where dim is 80, must be"
    ):
        require(dim=80)
    with pytest.raises(
        keyseek.InvalidArgument, match="dtype is f32, must be f16 or bf16: use a Dyn"
    ):
        require(dtype=torch.float32)
    with pytest.raises(keyseek.InvalidArgument, match="dimension 64 and values 96"):
        require(values=96)
    with pytest.raises(keyseek.InvalidArgument, match="keys are on meta"):
        devices.retrieves_beside(torch.device("meta"))
    assert not devices.retrieves_beside(torch.device("cpu"))
    assert devices.retrieves_beside(torch.device("cuda"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_it_says_what_to_do():
    with pytest.raises(
        keyseek.Error, match=r"no CUDA device.*KEYSEEK_CUDA=ON.*to the CPU"
    ) as raised:
        require()
    assert raised.value.code == "unsupported"


def test_a_layer_asks_before_a_prompt_is_read(model, monkeypatch):
    monkeypatch.setattr(devices, "retrieves_beside", lambda device: True)
    with pytest.raises(keyseek.InvalidArgument, match="dim is 8, must be 64, 96, 128 or 256"):
        logits(model, prompt(10), cache_of(model), [10])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_on_a_device(dtype):
    net = llama(head_dim=64).to(dtype)
    ids, pieces = prompt(340), [300] + [1] * 30 + [10]
    expected = logits(net, ids, cache_of(net, 1e-6), pieces)
    net = net.to("cuda")
    ours = logits(net, ids.to("cuda"), cache_of(net, 1e-6), pieces)
    torch.testing.assert_close(ours.cpu(), expected, atol=0.05, rtol=0.05)
