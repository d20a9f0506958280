"""The dataset tools: chunked attention, capture files, the output layer set."""

from __future__ import annotations

import copy
import hashlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import DATASETS, README, needs_gemma, needs_smollm2

sys.path.insert(0, str(DATASETS))

_REASON = "a package of datasets/requirements.txt is not installed"
h5py = pytest.importorskip("h5py", reason=_REASON)
torch = pytest.importorskip("torch", reason=_REASON)
for _package in ("transformers", "gguf"):
    pytest.importorskip(_package, reason=_REASON)

import capture
import forward
import output_layer
from attention import Pattern, chunked_attention
from errors import DatasetError
from hdf5 import new_file
from keyseek import models

TOKENS = 256


def naive_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, pattern: Pattern
) -> torch.Tensor:
    """The whole score matrix: query [Hkv, G, n, d], key [Hkv, n, d], value [Hkv, n, dv]."""
    n = key.shape[1]
    i, j = torch.arange(n)[:, None], torch.arange(n)
    seen = j <= i
    if pattern.window is not None:
        seen &= (i - j < pattern.window) | (j < pattern.sink)
    scores = torch.einsum("hgid,hjd->hgij", query, key) * scale
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
    return torch.einsum("hgij,hjv->hgiv", weights, value)


@pytest.mark.parametrize("pattern", [Pattern(), Pattern(7), Pattern(5, 3), Pattern(50, 9)])
@pytest.mark.parametrize("chunk", [1, 8, 13, 64])
def test_chunked_attention_equals_the_naive_one(pattern: Pattern, chunk: int) -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(2, 3, 41, 8), torch.randn(2, 41, 8), torch.randn(2, 41, 6)
    got = chunked_attention(query, key, value, 0.4, pattern, chunk)
    torch.testing.assert_close(got, naive_attention(query, key, value, 0.4, pattern))


def test_rope_theta_of_sliding_layers_and_of_stretched_models() -> None:
    kinds = ["sliding_attention", "full_attention"]
    config = SimpleNamespace(rope_theta=1e6, rope_local_base_freq=1e4, layer_types=kinds)
    assert forward.rope_theta(config, 0) == 1e4
    assert forward.rope_theta(config, 1) == 1e6
    # NTK: the slowest frequency, theta^(-(d - 2) / d), becomes `factor` times slower.
    theta = forward.stretched_theta(1e5, 64, 16.0)
    assert (theta / 1e5) ** (62 / 64) == pytest.approx(16.0)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--model": "gpt"}, "model 'gpt' is not one of smollm2-135m, gemma3-270m"),
        ({"--layers": "2,30"}, "--layers 30 is not within 0 and 29"),
        ({"--layers": "two"}, "--layers 'two' is neither 'all' nor numbers"),
        ({"--kv-heads": "3"}, "--kv-heads 3 is not within 0 and 2"),
        ({"--kv-heads": "-1"}, "--kv-heads -1 is not within 0 and 2"),
        ({"--tokens": "1", "--decode": "0"}, "--tokens 1 is too few"),
        ({"--tokens": "9000"}, "--tokens 9000 is more than the context of smollm2-135m, 8192"),
        ({"--tokens": "50000"}, "--text has [0-9]+ tokens of smollm2-135m, fewer than .* 50000"),
        ({"--model": "gemma3-270m", "--tokens": "50000"}, "--stretch cannot be used with --model"),
        ({"--decode": "256"}, "--decode 256 is not within 0 and 255"),
        ({"--text": "nowhere.txt"}, "text 'nowhere.txt': no such file"),
        ({"--out": "no/such/folder.attn.h5"}, "--out no/such/folder.attn.h5: there is no folder"),
    ],
)
@needs_smollm2
@needs_gemma
def test_wrong_arguments_are_refused_before_the_model_is_loaded(
    changed: dict[str, str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(capture, "load_model", lambda name: pytest.fail("the model was loaded"))
    given = {"--model": "smollm2-135m", "--tokens": str(TOKENS), "--layers": "2", "--decode": "64"}
    given |= {"--text": str(README), "--out": str(tmp_path / "out.attn.h5")} | changed
    arguments = [f"{name}={value}" for name, value in given.items()]
    stretch = ["--stretch"] if changed.get("--tokens") == "50000" else []
    assert capture.main(arguments + stretch) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_values_beyond_float16_are_refused_by_place() -> None:
    for value in (1e6, torch.nan):
        with pytest.raises(DatasetError, match="L1/K0/keys"):
            capture.as_half(torch.tensor([[1.0, value]]), "L1/K0/keys")


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_file(tmp_path / "x.h5") as file:
        file["a"] = np.zeros(3)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def smollm2() -> models.Model:
    return models.load_model("smollm2-135m")


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    text = README.read_text(encoding="utf-8")
    return torch.tensor(models.encode_first("smollm2-135m", text, TOKENS))


@pytest.fixture(scope="module")
def captured(smollm2: models.Model, ids: Any, tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("capture") / "small.attn.h5"
    plan = capture.Plan(layers=(2, 29), kv_heads=(0, 2), tokens=TOKENS, decode=64)
    capture.capture(smollm2, ids, "file README.md", plan, out)
    return out


@needs_smollm2
def test_capture_has_the_format_of_the_readme(captured: Path) -> None:
    assert [path.name for path in captured.parent.iterdir()] == ["small.attn.h5"]
    with h5py.File(captured) as file:
        expected = {
            "format_version": 1,
            "rope_layout": "half-split",
            "rope_dim": 64,
            "scale": 0.125,
        }
        expected |= {"model": "SmolLM2-135M-Instruct-Q4_1", "text": "file README.md"}
        expected |= {"rope_theta": 1e5, "prefill": TOKENS - 64}
        assert set(file.attrs) == {*expected, "capture", "next_token_loss"}
        assert {name: file.attrs[name] for name in expected} == expected
        assert f"prefill of {TOKENS} tokens, post-RoPE" in file.attrs["capture"]
        shapes = {"keys": (TOKENS, 64), "values": (TOKENS, 64), "queries": (3, TOKENS, 64)}
        assert set(file) == {"L2", "L29"} and not file["L2"].attrs
        for layer in file.values():
            assert set(layer) == {"K0", "K2"}
            for head in layer.values():
                assert {name: data.shape for name, data in head.items()} == shapes
                for data in head.values():
                    assert data.dtype == np.float16
                    assert data.chunks is None and data.compression is None
                    assert data.id.get_offset() % 4096 == 0


def rows_of(data: h5py.Dataset) -> torch.Tensor:
    return torch.tensor(data[:]).float()


@needs_smollm2
def test_captured_vectors_reproduce_the_models_own_attention(
    captured: Path, smollm2: models.Model, ids: torch.Tensor
) -> None:
    seen: dict[int, torch.Tensor] = {}
    network = smollm2.network
    network.config._attn_implementation = "eager"
    hooks = [
        network.model.layers[i].self_attn.o_proj.register_forward_pre_hook(
            lambda _, inputs, i=i: seen.update({i: inputs[0][0]})
        )
        for i in (2, 29)
    ]
    with torch.inference_mode():
        logits = network(ids[None]).logits[0]
    for hook in hooks:
        hook.remove()
    with h5py.File(captured) as file:
        loss = torch.nn.functional.cross_entropy(logits[:-1], ids[1:])
        assert file.attrs["next_token_loss"] == pytest.approx(float(loss), rel=1e-4)
        for layer, output in seen.items():
            own = output.view(TOKENS, 3, 3, 64).permute(1, 2, 0, 3)  # [Hkv, G, n, dv]
            for head in (0, 2):
                group = file[f"L{layer}/K{head}"]
                q, k, v = (rows_of(group[name])[None] for name in ("queries", "keys", "values"))
                got = naive_attention(q, k, v, file.attrs["scale"], Pattern())[0]
                error = (got - own[head]).norm() / own[head].norm()
                assert error < 2e-3, (layer, head)


@needs_smollm2
def test_captured_keys_are_rotated_half_split_by_position(
    captured: Path, smollm2: models.Model, ids: torch.Tensor
) -> None:
    plain: list[torch.Tensor] = []
    projection = smollm2.network.model.layers[2].self_attn.k_proj
    hook = projection.register_forward_hook(lambda _, inputs, output: plain.append(output[0]))
    forward.run_pass(smollm2.network, ids)
    hook.remove()
    with h5py.File(captured) as file:
        dim, theta = int(file.attrs["rope_dim"]), float(file.attrs["rope_theta"])
        keys = file["L2/K2/keys"][:].astype(np.float64)
    before = plain[0].view(TOKENS, 3, dim)[:, 2].double().numpy()
    angle = np.arange(TOKENS)[:, None] * theta ** (-np.arange(dim // 2) / (dim // 2))
    # A plane of components i and i + d / 2 is a complex number; a rotation multiplies it.
    rotated = (before[:, : dim // 2] + 1j * before[:, dim // 2 :]) * np.exp(1j * angle)
    found = keys[:, : dim // 2] + 1j * keys[:, dim // 2 :]
    assert np.abs(found - rotated).max() < 1e-3 * np.abs(rotated).max()


@needs_smollm2
def test_bf16_linear_layers_stay_close(captured: Path, smollm2: models.Model, ids: Any) -> None:
    network = copy.deepcopy(smollm2.network)
    models.use_bf16_linears(network)
    keys: dict[int, torch.Tensor] = {}
    forward.run_pass(network, ids, lambda layer, query, key, value: keys.update({layer: key}))
    assert len(keys) == 30 and keys[2].dtype == torch.float32
    with h5py.File(captured) as file:
        exact = rows_of(file["L2/K0/keys"])
    assert (keys[2][0] - exact).norm() / exact.norm() < 0.02


def test_the_sample_in_the_repository_is_the_one_described() -> None:
    path = DATASETS / "sample" / "smollm2-8k-pydoc.attn.h5"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest in (DATASETS / "sample" / "README.md").read_text(encoding="utf-8")
    assert path.stat().st_size <= 12_000_000
    with h5py.File(path) as file:
        assert file.attrs["prefill"] == 7168 and set(file) == {"L15", "L2"}
        assert file["L15/K0/queries"].shape == (3, 8192, 64)


def test_the_split_is_temporal_and_has_no_position_twice() -> None:
    split = output_layer.Split.of(1000, 700, 200)
    assert len(split.learn.unique()) == 700 and len(split.test.unique()) == 200
    assert 1 <= split.learn.min() <= split.learn.max() < 750 <= split.test.min()
    with pytest.raises(DatasetError, match="--learn 750 is not within 1 and 749"):
        output_layer.Split.of(1000, 750, 200)
    with pytest.raises(DatasetError, match="--test 251 is not within 1 and 250"):
        output_layer.Split.of(1000, 700, 251)


def test_exact_neighbors_break_ties_towards_the_smaller_id() -> None:
    generator = np.random.default_rng(1)
    # Small integers: inner products are exact in float32, and many of them tie.
    keys = generator.integers(-2, 3, (400, 4)).astype(np.float32)
    queries = generator.integers(-2, 3, (300, 4)).astype(np.float32)
    ids, products = output_layer.exact_neighbors(torch.tensor(queries), torch.tensor(keys), 10)
    scores = queries @ keys.T
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(products, np.take_along_axis(scores, expected, axis=1))


@needs_smollm2
def test_output_layer_set(smollm2: models.Model, ids: torch.Tensor, tmp_path: Path) -> None:
    hidden, loss = output_layer.final_states(smollm2, ids.tolist())
    keys = smollm2.network.lm_head.weight.detach()
    split = output_layer.Split.of(TOKENS, 100, 40)
    out = tmp_path / "output.h5"
    output_layer.write_set(out, keys, hidden, split, {"next_token_loss": loss})
    with h5py.File(out) as file:
        assert set(file) == {"train", "learn", "learn_neighbors", "test", "neighbors", "distances"}
        assert file["train"].shape == (49152, 576) and file["learn"].shape == (100, 576)
        assert file["learn_neighbors"].shape == (100, 100) and file["test"].shape == (40, 576)
        assert file.attrs["distance"] == "ip" and file.attrs["group"] == 1
        logits = smollm2.network.lm_head(torch.tensor(file["test"][:]))
        assert (logits.argmax(dim=1).numpy() == file["neighbors"][:, 0]).all()
        np.testing.assert_allclose(-file["distances"][:, 0], logits.max(dim=1).values, rtol=1e-5)
